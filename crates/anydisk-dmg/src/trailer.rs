//! The trailer: bytes to checked values. Pure, but for finding it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Error, HostOffset, Invalid, Result, Storage, StorageExt, Value, invalid_field};
use zerocopy::FromBytes;

use crate::NAME;
use crate::checksum::Checksum;
use crate::layout::{ENCRYPTED_V1, KOLY, RawTrailer, SECTOR};

/// Bytes of a trailer.
pub(crate) const LEN: usize = size_of::<RawTrailer>();

/// Where some trailer begins in a file that was filled up to whole sectors, at the earliest: so many
/// bytes before its end.
const FARTHEST: usize = 2 * LEN - 1;

/// A trailer that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Where it is in the file.
    pub at: HostOffset,
    /// Where the chunks' own offsets are counted from, and bytes of the chunks.
    pub data_fork: (HostOffset, u64),
    /// Where the resource fork is, and its length in bytes; 0 for none.
    pub resource_fork: (HostOffset, u64),
    /// Where the property list is, and its length in bytes; 0 for none.
    pub property_list: (HostOffset, u64),
    /// Of the data fork.
    pub data_checksum: Checksum,
    /// Of the checksums of the tables.
    pub master_checksum: Checksum,
    /// Sectors of the disk; `None`: as many as the tables have.
    pub sectors: Option<u64>,
}

impl Trailer {
    /// Reads the trailer that lies at `at` of a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field; [`Error::Unsupported`] for one of several segments.
    pub fn parse(bytes: &[u8], at: HostOffset, file_len: u64) -> Result<Self> {
        let (raw, _) = RawTrailer::ref_from_prefix(bytes).map_err(|_| Invalid {
            format: NAME,
            field: "trailer".into(),
            at,
            found: Value::Missing,
            expected: "512 bytes".into(),
        })?;
        check_head(raw, at)?;
        check_segments(raw)?;
        check_places(raw, at, file_len)?;
        let place = |offset: u64, len| (HostOffset(offset), len);
        Ok(Self {
            at,
            data_fork: place(raw.data_fork_offset.get(), raw.data_fork_length.get()),
            resource_fork: place(raw.rsrc_fork_offset.get(), raw.rsrc_fork_length.get()),
            property_list: place(raw.xml_offset.get(), raw.xml_length.get()),
            data_checksum: Checksum::of(&raw.data_checksum),
            master_checksum: Checksum::of(&raw.master_checksum),
            sectors: Some(raw.sector_count.get()).filter(|count| *count > 0),
        })
    }

    /// Finds and reads the trailer of the image in `store`: in its last 512 bytes, up to 511 bytes
    /// before, or at its start.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); [`Error::Invalid`] if there is none; [`Error::Unsupported`] for an
    /// encrypted image; those of the store.
    pub fn read(store: &dyn Storage) -> Result<Self> {
        let start = store.len()?.saturating_sub(LEN as u64);
        Self::find(store)?.ok_or_else(|| missing(store, HostOffset(start)))
    }

    /// As [`read`](Self::read); `None` if there is none.
    ///
    /// # Errors
    /// As there.
    pub fn find(store: &dyn Storage) -> Result<Option<Self>> {
        let len = store.len()?;
        let mut head = [0; LEN];
        let count = store.read_at(HostOffset::ZERO, &mut head)?;
        let head = head.get(..count).unwrap_or_default();
        let start = len.saturating_sub(FARTHEST as u64);
        let mut tail = vec![0; usize::try_from(len.saturating_sub(start)).unwrap_or(0)];
        store.read_exact_at(HostOffset(start), &mut tail)?;
        if tail.ends_with(&ENCRYPTED_V1) {
            let feature = "encryption of version 1".into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
        match places(&tail).find(|at| tail.get(*at..).is_some_and(|rest| rest.starts_with(&KOLY))) {
            Some(at) => {
                let place = HostOffset(start.saturating_add(at as u64));
                Self::parse(tail.get(at..).unwrap_or_default(), place, len).map(Some)
            }
            None if head.starts_with(&KOLY) => Self::parse(head, HostOffset::ZERO, len).map(Some),
            None => Ok(None),
        }
    }
}

/// Where in the last bytes of a file a trailer may begin, the likeliest first.
pub(crate) fn places(tail: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let last = tail.len().saturating_sub(LEN);
    (tail.len().saturating_sub(FARTHEST)..=last).rev()
}

/// Whether the bytes are those of a trailer, by what never changes.
pub(crate) fn is_trailer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"koly\0\0\0\x04\0\0\x02\0")
}

#[cold]
fn missing(store: &dyn Storage, at: HostOffset) -> Error {
    let mut found = [0; KOLY.len()];
    let read = store.read_padded_at(at, &mut found);
    Invalid {
        format: NAME,
        field: "signature".into(),
        at,
        found: if read.is_ok() { Value::from(&found[..]) } else { Value::Missing },
        expected: "\"koly\"".into(),
    }
    .into()
}

fn check_head(raw: &RawTrailer, at: HostOffset) -> Result<()> {
    let (version, size) = (raw.version.get(), raw.header_size.get());
    if raw.signature != KOLY {
        let found = &raw.signature[..];
        return Err(invalid_field!(NAME, at => RawTrailer, signature, found, "\"koly\"").into());
    }
    if version != 4 {
        return Err(invalid_field!(NAME, at => RawTrailer, version, version, "4").into());
    }
    if size != 512 {
        return Err(invalid_field!(NAME, at => RawTrailer, header_size, size, "512").into());
    }
    let (sectors, most) = (raw.sector_count.get(), i64::MAX.unsigned_abs() / SECTOR);
    if sectors > most {
        let field = invalid_field!(NAME, at => RawTrailer, sector_count, sectors, "up to {most}");
        return Err(field.into());
    }
    Ok(())
}

fn check_segments(raw: &RawTrailer) -> Result<()> {
    match (raw.segment_number.get(), raw.segment_count.get()) {
        (0 | 1, 0 | 1) => Ok(()),
        (number, count) => {
            let feature = format!("segment {number} of {count} (.dmgpart)").into();
            Err(Error::Unsupported { format: NAME, feature })
        }
    }
}

/// Data fork, resource fork and property list lie in the file.
fn check_places(raw: &RawTrailer, at: HostOffset, file_len: u64) -> Result<()> {
    let inside = |offset: u64, len: u64| {
        len == 0 || offset.checked_add(len).is_some_and(|end| end <= file_len)
    };
    let (offset, len) = (raw.data_fork_offset.get(), raw.data_fork_length.get());
    let expected = format!("an end in the file of {file_len} bytes");
    if !inside(offset, len) {
        let field = invalid_field!(NAME, at => RawTrailer, data_fork_length, len, "{expected}");
        return Err(field.into());
    }
    let (offset, len) = (raw.rsrc_fork_offset.get(), raw.rsrc_fork_length.get());
    if !inside(offset, len) {
        let field = invalid_field!(NAME, at => RawTrailer, rsrc_fork_length, len, "{expected}");
        return Err(field.into());
    }
    let (offset, len) = (raw.xml_offset.get(), raw.xml_length.get());
    if !inside(offset, len) {
        let field = invalid_field!(NAME, at => RawTrailer, xml_length, len, "{expected}");
        return Err(field.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn trailer(change: impl FnOnce(&mut RawTrailer)) -> Result<Trailer> {
        let mut raw = RawTrailer::new_zeroed();
        raw.signature = KOLY;
        (raw.version, raw.header_size) = (4.into(), 512.into());
        (raw.data_fork_length, raw.xml_offset, raw.xml_length) =
            (100.into(), 100.into(), 900.into());
        raw.sector_count = 8.into();
        (raw.data_checksum.kind, raw.data_checksum.bits) = (2.into(), 32.into());
        raw.data_checksum.value[..4].copy_from_slice(&[1, 2, 3, 4]);
        change(&mut raw);
        Trailer::parse(raw.as_bytes(), HostOffset(0x1000), 0x1200)
    }

    #[test]
    fn a_good_trailer_is_read() {
        let good = trailer(|raw| raw.master_checksum.kind = 4.into()).expect("it is good");
        assert_eq!(good.data_fork, (HostOffset(0), 100));
        assert_eq!(good.property_list, (HostOffset(100), 900));
        assert_eq!(good.data_checksum, Checksum::Crc32(0x0102_0304));
        assert_eq!(good.master_checksum, Checksum::Other(4));
        assert_eq!(good.sectors, Some(8));
        let unknown = trailer(|raw| raw.sector_count = 0.into()).expect("the tables tell");
        assert_eq!(unknown.sectors, None);
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        let refusal = |change: fn(&mut RawTrailer)| trailer(change).unwrap_err().to_string();
        for (error, expected) in [
            (
                refusal(|raw| raw.signature = *b"kolx"),
                "dmg: signature at 0x1000 is \"kolx\", expected \"koly\"",
            ),
            (refusal(|raw| raw.version = 5.into()), "dmg: version at 0x1004 is 5, expected 4"),
            (
                refusal(|raw| raw.header_size = 256.into()),
                "dmg: header_size at 0x1008 is 256, expected 512",
            ),
            (
                refusal(|raw| raw.sector_count = (1 << 54).into()),
                "dmg: sector_count at 0x11ec is 18014398509481984, expected up to 18014398509481983",
            ),
            (
                refusal(|raw| raw.data_fork_offset = u64::MAX.into()),
                "dmg: data_fork_length at 0x1020 is 100, expected an end in the file of 4608 bytes",
            ),
            (
                refusal(|raw| raw.xml_length = 4509.into()),
                "dmg: xml_length at 0x10e0 is 4509, expected an end in the file of 4608 bytes",
            ),
            (
                refusal(|raw| raw.rsrc_fork_length = 5000.into()),
                "dmg: rsrc_fork_length at 0x1030 is 5000, expected an end in the file of 4608 bytes",
            ),
            (
                refusal(|raw| (raw.segment_number, raw.segment_count) = (1.into(), 3.into())),
                "dmg: segment 1 of 3 (.dmgpart) is not supported",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }
}
