//! The header: bytes to checked values. Pure, but for finding it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{
    Error, HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value, check_limit,
    invalid_field,
};
use zerocopy::FromBytes;

use crate::NAME;
use crate::layout::{RawHeader, SCRIPT, VERSION_AT};

/// Bytes of a header.
pub(crate) const LEN: usize = size_of::<RawHeader>();

/// Which kind of entries the table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 2.0: offsets; every block is a zlib stream.
    V2,
    /// 4.0: offsets, and how each block is packed.
    V4,
}

/// A header that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version.
    pub version: Version,
    /// Bytes of a block, a multiple of 512.
    pub block_size: u32,
    /// Blocks of the disk.
    pub blocks: u32,
    /// Where the table of offsets is: one for each block, and one for the end of the last.
    pub table: HostOffset,
}

impl Header {
    /// Reads the header that lies at `at` of a file of `file_len` bytes: its first bytes, or its
    /// last 136.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field; [`Error::Unsupported`] for other versions;
    /// [`Error::Limit`] for large blocks.
    pub fn parse(bytes: &[u8], at: HostOffset, file_len: u64, limits: &Limits) -> Result<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| Invalid {
            format: NAME,
            field: "header".into(),
            at,
            found: Value::Missing,
            expected: "136 bytes".into(),
        })?;
        let version = version(&raw.preamble, at)?;
        let (block_size, blocks) = (raw.block_size.get(), raw.num_blocks.get());
        if block_size == 0 || !block_size.is_multiple_of(512) {
            let expected = "a multiple of 512";
            let field = invalid_field!(NAME, at => RawHeader, block_size, block_size, "{expected}");
            return Err(field.into());
        }
        check_limit(NAME, "bytes of a block", block_size.into(), limits.unit)?;
        let table = table(blocks, at, file_len).ok_or_else(|| {
            let expected = "so many offsets in the file";
            invalid_field!(NAME, at => RawHeader, num_blocks, blocks, "{expected}")
        })?;
        Ok(Self { version, block_size, blocks, table })
    }

    /// Finds and reads the header of the image in `store`: at its start, else in its last 136 bytes.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of the store.
    pub fn read(store: &dyn Storage, limits: &Limits) -> Result<Self> {
        let len = store.len()?;
        let mut bytes = [0; LEN];
        let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
        let head = bytes.get(..count).unwrap_or_default().to_vec();
        let end = HostOffset(len.saturating_sub(LEN as u64));
        store.read_padded_at(end, &mut bytes)?;
        match named_version(&head).is_none() && named_version(&bytes).is_some() {
            true => Self::parse(&bytes, end, len, limits),
            false => Self::parse(&head, HostOffset::ZERO, len, limits),
        }
    }

    /// Virtual size in bytes, below 2^63.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.block_size).saturating_mul(self.blocks.into())
    }
}

/// What a script says of the version, if it is such a script: `V2.0`.
pub(crate) fn named_version(preamble: &[u8]) -> Option<&[u8]> {
    let text = preamble.get(VERSION_AT..)?;
    let len = text.iter().take(12).position(|byte| byte.is_ascii_whitespace())?;
    let version = text.get(..len)?;
    let [b'V', digits @ ..] = version else { return None };
    let is_version = digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    (!digits.is_empty() && is_version && preamble.starts_with(&SCRIPT)).then_some(version)
}

fn version(preamble: &[u8], at: HostOffset) -> Result<Version> {
    match named_version(preamble) {
        Some(b"V2.0") => Ok(Version::V2),
        Some(b"V4.0") => Ok(Version::V4),
        Some(version) => {
            let feature = format!("version {}", version.escape_ascii()).into();
            Err(Error::Unsupported { format: NAME, feature })
        }
        None => {
            let found = preamble.get(..SCRIPT.len()).unwrap_or_default();
            let expected = "a script \"#!/bin/sh\" with a version";
            Err(invalid_field!(NAME, at => RawHeader, preamble, found, "{expected}").into())
        }
    }
}

/// Where the table is, of a header at `at`: behind it, or before one at the end.
fn table(blocks: u32, at: HostOffset, file_len: u64) -> Option<HostOffset> {
    let len = u64::from(blocks).checked_add(1)?.checked_mul(8)?;
    if at == HostOffset::ZERO {
        let table = at.checked_add(LEN as u64)?;
        return table.checked_add(len).is_some_and(|end| end.get() <= file_len).then_some(table);
    }
    at.get().checked_sub(len).map(HostOffset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn header(change: impl FnOnce(&mut RawHeader)) -> RawHeader {
        let mut raw = RawHeader::new_zeroed();
        raw.preamble[..23].copy_from_slice(b"#!/bin/sh\n#V2.0 Format\n");
        (raw.block_size, raw.num_blocks) = (65536.into(), 6.into());
        change(&mut raw);
        raw
    }

    fn parse(change: impl FnOnce(&mut RawHeader)) -> Result<Header> {
        Header::parse(header(change).as_bytes(), HostOffset::ZERO, 192, &Limits::default())
    }

    #[test]
    fn a_header_is_read_at_both_ends() {
        let first = parse(|_| ()).expect("it is good");
        assert_eq!((first.version, first.size()), (Version::V2, 6 << 16));
        assert_eq!(first.table, HostOffset(136));
        let raw = header(|raw| raw.preamble[12] = b'4');
        let last = Header::parse(raw.as_bytes(), HostOffset(1000), 1136, &Limits::default());
        let last = last.expect("it is good");
        assert_eq!((last.version, last.table), (Version::V4, HostOffset(1000 - 7 * 8)));
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        let refusal = |change: fn(&mut RawHeader)| parse(change).unwrap_err().to_string();
        for (error, expected) in [
            (
                refusal(|raw| raw.preamble[1] = b'?'),
                "cloop: preamble at 0x0 is \"#?/bin/sh\\n#\", expected a script \"#!/bin/sh\" with a version",
            ),
            (
                refusal(|raw| raw.preamble[10..18].copy_from_slice(b"#V0.68 F")),
                "cloop: version V0.68 is not supported",
            ),
            (
                refusal(|raw| raw.block_size = 0.into()),
                "cloop: block_size at 0x80 is 0, expected a multiple of 512",
            ),
            (
                refusal(|raw| raw.block_size = 1000.into()),
                "cloop: block_size at 0x80 is 1000, expected a multiple of 512",
            ),
            (
                refusal(|raw| raw.block_size = (65 << 20).into()),
                "cloop: bytes of a block is 68157440, more than the limit of 67108864",
            ),
            (
                refusal(|raw| raw.num_blocks = 7.into()),
                "cloop: num_blocks at 0x84 is 7, expected so many offsets in the file",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }
}
