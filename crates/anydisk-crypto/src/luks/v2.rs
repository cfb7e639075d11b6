//! The binary header of LUKS2 and its two copies. Pure but for [`read`].

use std::mem::offset_of;

use anydisk_storage::{HostOffset, Storage, StorageExt};
use zerocopy::{FromBytes, IntoBytes};

use super::json::Metadata;
use super::layout::{BINARY_LEN, Luks2, MAGIC, MAGIC_SECOND};
use super::{Payload, text_of};
use crate::{Error, Found, Hash, Result};

/// Sizes of a header with its JSON, and so the places of second copies.
const SIZES: [u64; 9] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];

/// Longest JSON text that is parsed, in bytes. What cryptsetup writes has a few KiB.
const JSON_LIMIT: usize = 512 << 10;

/// A copy of the header that keeps the rules.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) raw: Luks2,
    pub(crate) uuid: String,
    pub(crate) metadata: Metadata,
}

/// The header, and what is wrong with its other copy.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) header: Header,
    pub(crate) damaged: Option<String>,
}

/// Reads both copies and takes the newer one that is whole. Writes nothing.
pub(crate) fn read(store: &dyn Storage, payload: Payload) -> Result<Chosen> {
    match read_copy(store, 0, MAGIC, payload) {
        Ok(first) => {
            let at = first.raw.hdr_size.get();
            Ok(match read_copy(store, at, MAGIC_SECOND, payload) {
                Ok(second) if second.raw.seqid.get() > first.raw.seqid.get() => {
                    let damaged = Some("the first copy of the header is older".into());
                    Chosen { header: second, damaged }
                }
                Ok(_) => Chosen { header: first, damaged: None },
                Err(Error::Storage(error)) => return Err(error.into()),
                Err(error) => Chosen { header: first, damaged: Some(told("second", &error)) },
            })
        }
        Err(Error::Storage(error)) => Err(error.into()),
        Err(error) => {
            let second =
                SIZES.iter().find_map(|&at| read_copy(store, at, MAGIC_SECOND, payload).ok());
            let damaged = Some(told("first", &error));
            second.map(|header| Chosen { header, damaged }).ok_or(error)
        }
    }
}

fn told(which: &str, error: &Error) -> String {
    format!("the {which} copy of the header is damaged: {error}")
}

fn read_copy(store: &dyn Storage, at: u64, magic: [u8; 6], payload: Payload) -> Result<Header> {
    let mut bytes = vec![0; BINARY_LEN];
    store.read_padded_at(HostOffset(at), &mut bytes)?;
    let size = checked_size(&bytes, at, magic)?;
    bytes.resize(size, 0);
    store.read_padded_at(HostOffset(at), &mut bytes)?;
    parse(&bytes, at, magic, payload)
}

fn place(at: u64, offset: usize) -> HostOffset {
    HostOffset(at.saturating_add(offset as u64))
}

macro_rules! field {
    ($at:expr, $field:ident) => {
        (stringify!($field), place($at, offset_of!(Luks2, $field)))
    };
}

/// The size that the header at the start of `bytes`, which lie at `at`, says it has.
pub(crate) fn checked_size(bytes: &[u8], at: u64, magic: [u8; 6]) -> Result<usize> {
    let (raw, _) = Luks2::ref_from_prefix(bytes).map_err(|_| {
        Error::invalid("header", place(at, bytes.len()), Found::Missing, "4096 bytes")
    })?;
    if raw.magic != magic {
        let expected = magic.escape_ascii().to_string();
        return Err(Error::invalid("magic", place(at, 0), &raw.magic[..], expected));
    }
    if raw.version.get() != 2 {
        let (field, place) = field!(at, version);
        return Err(Error::invalid(field, place, u32::from(raw.version.get()), "2"));
    }
    let size = raw.hdr_size.get();
    let (field, place) = field!(at, hdr_size);
    // The second copy lies behind the first, so its place is the size.
    if !SIZES.contains(&size) || (at != 0 && size != at) {
        let expected = "16384 to 4194304, doubling, the same in both copies";
        return Err(Error::invalid(field, place, size, expected));
    }
    usize::try_from(size).map_err(|_| Error::invalid(field, place, size, "less than all memory"))
}

/// Checks a whole copy of the header, which lies at `at`.
pub(crate) fn parse(bytes: &[u8], at: u64, magic: [u8; 6], payload: Payload) -> Result<Header> {
    let size = checked_size(bytes, at, magic)?;
    let missing = || {
        Error::invalid("header", place(at, bytes.len()), Found::Missing, format!("{size} bytes"))
    };
    let bytes = bytes.get(..size).ok_or_else(missing)?;
    let (raw, _) = Luks2::read_from_prefix(bytes).map_err(|_| missing())?;
    if raw.hdr_offset.get() != at {
        let (field, place) = field!(at, hdr_offset);
        return Err(Error::invalid(
            field,
            place,
            Found::Hex(raw.hdr_offset.get()),
            format!("{at:#x}"),
        ));
    }
    check_sum(bytes, &raw, at)?;
    let (field, where_) = field!(at, uuid);
    let uuid = text_of(field, where_, &raw.uuid)?.to_owned();
    let json = json_text(&bytes[BINARY_LEN..], at)?;
    let metadata = Metadata::parse(json, place(at, BINARY_LEN), size as u64, payload)?;
    Ok(Header { raw, uuid, metadata })
}

fn check_sum(bytes: &[u8], raw: &Luks2, at: u64) -> Result<()> {
    let (field, where_) = field!(at, csum_alg);
    let hash = Hash::by_name(text_of(field, where_, &raw.csum_alg)?)?;
    let expected = sum(hash, bytes);
    let (field, where_) = field!(at, csum);
    if raw.csum[..expected.len()] != expected[..] {
        let found = Found::Text(raw.csum[..expected.len()].to_vec());
        return Err(Error::invalid(field, where_, found, "the checksum of the header"));
    }
    Ok(())
}

/// The checksum of a copy of the header: its bytes, with the checksum itself as zeroes.
fn sum(hash: Hash, bytes: &[u8]) -> crate::Key {
    let start = offset_of!(Luks2, csum);
    let end = start + 64;
    hash.digest(&[&bytes[..start], &[0; 64], &bytes[end..]])
}

/// The text before the first NUL, behind which there must be only more of them.
fn json_text(area: &[u8], at: u64) -> Result<&str> {
    let at = place(at, BINARY_LEN);
    let len = area.iter().position(|byte| *byte == 0).unwrap_or(area.len());
    let refuse =
        |expected: &'static str| Error::invalid("JSON", at, &area[..len.min(64)], expected);
    if len > JSON_LIMIT {
        let (found, limit) = (len as u64, JSON_LIMIT as u64);
        return Err(Error::Limit { what: "bytes of JSON", found, limit });
    }
    let (text, rest) = area.split_at(len);
    if text.first() != Some(&b'{') || rest.is_empty() || rest.iter().any(|byte| *byte != 0) {
        return Err(refuse("an object with zero bytes up to the end behind it"));
    }
    std::str::from_utf8(text).map_err(|_| refuse("UTF-8"))
}

impl Header {
    /// Both copies, as bytes and their places, with new checksums.
    pub(crate) fn copies(&self) -> Result<[(HostOffset, Vec<u8>); 2]> {
        let size = self.raw.hdr_size.get();
        Ok([self.copy(0, MAGIC)?, self.copy(size, MAGIC_SECOND)?])
    }

    fn copy(&self, at: u64, magic: [u8; 6]) -> Result<(HostOffset, Vec<u8>)> {
        let size = usize::try_from(self.raw.hdr_size.get()).unwrap_or(usize::MAX);
        let json = self.metadata.to_text();
        if json.len() >= (size - BINARY_LEN).min(JSON_LIMIT) {
            return Err(Error::refused("the header has no room for more"));
        }
        let mut raw = self.raw.clone();
        (raw.magic, raw.hdr_offset, raw.csum) = (magic, at.into(), [0; 64]);
        raw.csum_alg = super::padded("sha256");
        getrandom::fill(&mut raw.salt)?;
        let mut bytes = raw.as_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(size, 0);
        let sum = sum(Hash::Sha256, &bytes);
        bytes[offset_of!(Luks2, csum)..][..sum.len()].copy_from_slice(&sum);
        Ok((HostOffset(at), bytes))
    }
}
