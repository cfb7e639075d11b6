//! Bytes to the header that counts, and to the regions. Pure.

use std::mem::offset_of;

use anydisk_core::{Error, HostOffset, Invalid, Result, Uuid, Value};
use zerocopy::FromBytes;

use crate::layout::{
    FILE_SIGNATURE, HEADER_SIGNATURE, HEADERS, LOG_SECTOR, MIB, MOST_ENTRIES, REGION_SIGNATURE,
    REGION_TABLES, RawHeader, RawRegion, RawRegionTable, TABLE_LEN, guid,
};
use crate::{NAME, crc};

/// Bytes of a header.
const HEADER_LEN: usize = 4096;

/// Bytes from the start of a file that hold headers and region tables.
pub(crate) const HEAD_LEN: usize = 320 << 10;

/// Some bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: HostOffset,
    pub(crate) len: u64,
}

/// The header that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Names the content: another one after each session that changed it.
    pub(crate) data_write: Uuid,
    /// Of the entries to be replayed; `None`: the log is empty.
    pub(crate) log_guid: Option<[u8; 16]>,
    /// The log, in the file. Empty where there is none.
    pub(crate) log: Place,
    /// As it stands in the file.
    pub(crate) raw: RawHeader,
    /// Which of the two it is.
    pub(crate) which: usize,
}

/// The regions of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Regions {
    pub(crate) table: Place,
    pub(crate) metadata: Place,
    /// All of them, those we do not know too.
    pub(crate) all: Vec<Place>,
}

/// Whether a file begins as a VHDX does.
pub(crate) fn has_signature(bytes: &[u8]) -> bool {
    bytes.starts_with(&FILE_SIGNATURE)
}

impl Header {
    /// The current one of the two headers in the beginning of a file of `len` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] for other versions.
    pub(crate) fn parse(head: &[u8], len: u64) -> Result<Self> {
        if !has_signature(head) {
            let found = Value::from(head.get(..8).unwrap_or_default());
            return Err(invalid("signature", HostOffset::ZERO, found, "\"vhdxfile\""));
        }
        let (raw, at) = match headers(head) {
            [Some((first, bytes, at)), Some((second, others, behind))] => {
                let (one, other) = (first.SequenceNumber.get(), second.SequenceNumber.get());
                if one == other && bytes != others {
                    let found = Value::Number(other);
                    return Err(invalid(
                        "SequenceNumber",
                        HostOffset(behind + offset_of!(RawHeader, SequenceNumber) as u64),
                        found,
                        "another one than in the other header, which is not the same",
                    ));
                }
                if one >= other { (first, at) } else { (second, behind) }
            }
            [Some((raw, _, at)), None] | [None, Some((raw, _, at))] => (raw, at),
            [None, None] => {
                let at = HostOffset(HEADERS[0]);
                let found = Value::from(head_part(head, HEADERS[0], 4));
                return Err(invalid("header", at, found, "one of two with a valid checksum"));
            }
        };
        Self::of(&raw, HostOffset(at), len)
    }

    fn of(raw: &RawHeader, base: HostOffset, len: u64) -> Result<Self> {
        if raw.Version.get() != 1 {
            return Err(unsupported(format!("version {}", raw.Version.get())));
        }
        let log_guid = Some(raw.LogGuid).filter(|guid| *guid != [0; 16]);
        if log_guid.is_some() && raw.LogVersion.get() != 0 {
            return Err(unsupported(format!("log version {}", raw.LogVersion.get())));
        }
        let log = Place { at: HostOffset(raw.LogOffset.get()), len: raw.LogLength.get().into() };
        let fits = log.at.checked_add(log.len).is_some_and(|end| end.get() <= len);
        let is_aligned = log.at.get().is_multiple_of(MIB) && log.len.is_multiple_of(MIB);
        if log.len > 0 && !(fits && is_aligned && log.at.get() >= MIB) {
            let at = base.saturating_add(offset_of!(RawHeader, LogOffset) as u64);
            let expected = "whole MiB in the file";
            return Err(invalid("LogOffset", at, log.at.into(), expected));
        }
        if log_guid.is_some() && log.len < LOG_SECTOR {
            let at = base.saturating_add(offset_of!(RawHeader, LogLength) as u64);
            return Err(invalid(
                "LogLength",
                at,
                log.len.into(),
                "a log, since there is a LogGuid",
            ));
        }
        let data_write = Uuid::from_mixed_endian(raw.DataWriteGuid);
        let which = usize::from(base != HostOffset(HEADERS[0]));
        Ok(Self { data_write, log_guid, log, raw: *raw, which })
    }
}

impl Regions {
    /// The regions in the table that is good, the first one before the second.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] for a region that must be known.
    pub(crate) fn parse(head: &[u8], header: &Header, len: u64) -> Result<Self> {
        let Some((at, raws)) = REGION_TABLES.iter().find_map(|at| region_table(head, *at)) else {
            let at = HostOffset(REGION_TABLES[0]);
            let found = Value::from(head_part(head, REGION_TABLES[0], 4));
            return Err(invalid("region table", at, found, "one of two with a valid checksum"));
        };
        let (mut table, mut metadata, mut all) = (None, None, Vec::new());
        for (raw, number) in raws.iter().zip(0_u64..) {
            let entry = HostOffset(at + 16 + number * size_of::<RawRegion>() as u64);
            let place = region(raw, entry, len)?;
            all.push(place);
            let known = match raw.Guid {
                guid::BAT => &mut table,
                guid::METADATA => &mut metadata,
                _ if raw.Required.get() & 1 == 1 => {
                    let id = Uuid::from_mixed_endian(raw.Guid);
                    return Err(unsupported(format!("the required region {id}")));
                }
                _ => continue,
            };
            if known.replace(place).is_some() {
                let found = Value::from(&raw.Guid[..]);
                return Err(invalid("Guid", entry, found, "each region once"));
            }
        }
        check_apart(&all, header, HostOffset(at))?;
        let missing = |what: &'static str| {
            invalid(what, HostOffset(at), Value::Missing, "an entry in the region table")
        };
        let table = table.ok_or_else(|| missing("BAT region"))?;
        let metadata = metadata.ok_or_else(|| missing("metadata region"))?;
        Ok(Self { table, metadata, all })
    }
}

/// The two headers whose signature and checksum are right, all their bytes, and their places.
pub(crate) fn headers(head: &[u8]) -> [Option<(RawHeader, &[u8], u64)>; 2] {
    HEADERS.map(|at| valid_header(head, at).map(|(raw, bytes)| (raw, bytes, at)))
}

fn valid_header(head: &[u8], at: u64) -> Option<(RawHeader, &[u8])> {
    let bytes = head_part(head, at, HEADER_LEN);
    let (raw, _) = RawHeader::read_from_prefix(bytes).ok()?;
    let sum = crc::of_structure(bytes, offset_of!(RawHeader, Checksum));
    let is_whole = bytes.len() == HEADER_LEN && raw.Signature == HEADER_SIGNATURE;
    (is_whole && raw.Checksum.get() == sum).then_some((raw, bytes))
}

/// The bytes of the two region tables, those that are good.
pub(crate) fn region_tables(head: &[u8]) -> [Option<&[u8]>; 2] {
    REGION_TABLES.map(|at| region_table(head, at).map(|_| head_part(head, at, TABLE_LEN)))
}

/// The entries of a region table whose signature and checksum are right, and where it is.
fn region_table(head: &[u8], at: u64) -> Option<(u64, Vec<RawRegion>)> {
    let bytes = head_part(head, at, TABLE_LEN);
    let (raw, rest) = RawRegionTable::read_from_prefix(bytes).ok()?;
    let sum = crc::of_structure(bytes, offset_of!(RawRegionTable, Checksum));
    let count = usize::try_from(raw.EntryCount.get()).ok()?;
    let is_whole = bytes.len() == TABLE_LEN && raw.Signature == REGION_SIGNATURE;
    if !is_whole || raw.Checksum.get() != sum || count > MOST_ENTRIES {
        return None;
    }
    let entries = rest.chunks_exact(size_of::<RawRegion>()).take(count);
    entries
        .map(|entry| RawRegion::read_from_bytes(entry).ok())
        .collect::<Option<_>>()
        .map(|it| (at, it))
}

fn region(raw: &RawRegion, entry: HostOffset, len: u64) -> Result<Place> {
    let place = Place { at: HostOffset(raw.FileOffset.get()), len: raw.Length.get().into() };
    // What we do not know may lie anywhere, also behind the end: nothing is read there.
    let is_known = matches!(raw.Guid, guid::BAT | guid::METADATA);
    let end = place.at.checked_add(place.len);
    let fits = end.is_some_and(|end| end.get() <= len || !is_known);
    let is_aligned = place.at.get().is_multiple_of(MIB) && place.len.is_multiple_of(MIB);
    if !fits || !is_aligned || place.at.get() < MIB || (place.len == 0 && is_known) {
        let at = entry.saturating_add(offset_of!(RawRegion, FileOffset) as u64);
        return Err(invalid("FileOffset", at, place.at.into(), "whole MiB in the file"));
    }
    Ok(place)
}

/// Regions lie neither on each other nor on the log.
fn check_apart(regions: &[Place], header: &Header, at: HostOffset) -> Result<()> {
    let mut places: Vec<Place> = regions.to_vec();
    places.extend(Some(header.log).filter(|log| log.len > 0));
    places.sort_unstable_by_key(|place| place.at);
    for pair in places.windows(2) {
        if let [first, second] = pair
            && second.at < first.at.saturating_add(first.len)
        {
            let expected = "a place behind the region or log before it";
            return Err(invalid("region table", at, second.at.into(), expected));
        }
    }
    Ok(())
}

fn head_part(head: &[u8], at: u64, len: usize) -> &[u8] {
    let rest = usize::try_from(at).ok().and_then(|at| head.get(at..)).unwrap_or_default();
    rest.get(..len).unwrap_or(rest)
}

/// The error for a field at this place of the file.
pub(crate) fn invalid(
    field: &'static str,
    at: HostOffset,
    found: Value,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Error {
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }.into()
}

/// Refuses what is legal and too large.
pub(crate) fn limit(what: &'static str, found: u64, limit: u64) -> Result<()> {
    anydisk_core::check_limit(NAME, what, found, limit)
}

pub(crate) fn unsupported(feature: impl Into<anydisk_core::Feature>) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}
