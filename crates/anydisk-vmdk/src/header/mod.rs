//! Bytes to a checked header, and back. Pure.

mod cowd;
mod sesparse;

pub(crate) use cowd::Cowd;
pub(crate) use sesparse::{SeSparse, check_volatile};

use anydisk_core::{Error, HostOffset, Limits, Result, Value};
use zerocopy::FromBytes;

use crate::NAME;
use crate::layout::{GD_AT_END, LINE_CHARS, MAGIC, SECTOR, SparseHeader, flags};
use crate::limits;

/// An [`Invalid`](anydisk_core::Invalid) for a field of a layout struct that lies at `$base`.
macro_rules! invalid {
    ($layout:ty, $field:ident, $base:expr, $found:expr, $expected:expr) => {
        anydisk_core::invalid_field!(
            $crate::NAME, $base => $layout, $field, $found, "{}", $expected
        )
    };
}
pub(crate) use invalid;

/// A hosted sparse header whose numbers can be trusted. Everything is in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The bits of [`flags`].
    pub(crate) flags: u32,
    pub(crate) version: u32,
    /// Bytes of guest data; 0 in a file that only holds a descriptor.
    pub(crate) capacity: u64,
    /// Bytes of a grain, a power of two.
    pub(crate) grain: u64,
    /// Entries in a grain table, a power of two.
    pub(crate) entries: u32,
    /// The embedded descriptor: where, and how many bytes it may have.
    pub(crate) descriptor: Option<(HostOffset, u64)>,
    /// The grain directory; `None`: the footer knows.
    pub(crate) directory: Option<HostOffset>,
    /// The second directory, if it is in use.
    pub(crate) redundant: Option<HostOffset>,
    /// No grain lies before this place.
    pub(crate) overhead: HostOffset,
    /// The file was not closed by its last writer.
    pub(crate) unclean: bool,
}

impl Header {
    /// Checks a header that lies at `at`: 0, or the place of a footer.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] for versions and flags from the future, and
    /// [`Error::Limit`].
    pub(crate) fn parse(bytes: &[u8], at: HostOffset, limits: &Limits) -> Result<Self> {
        let Ok((raw, _)) = SparseHeader::read_from_prefix(bytes) else {
            return Err(
                invalid!(SparseHeader, magic, at, Value::Missing, "a header of 512 bytes").into()
            );
        };
        check_kind(&raw, at)?;
        check_compression(&raw, at)?;
        let header = Self {
            flags: raw.flags.get(),
            version: raw.version.get(),
            capacity: capacity(&raw)?,
            grain: grain(&raw, at)?,
            entries: entries(&raw, at)?,
            descriptor: descriptor(&raw, at, limits)?,
            directory: directory(&raw, at)?,
            redundant: redundant(&raw, at)?,
            overhead: overhead(&raw, at)?,
            unclean: raw.uncleanShutdown != 0,
        };
        header.check_sizes(limits)?;
        Ok(header)
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Number of grain tables.
    pub(crate) fn tables(&self) -> u64 {
        // Grain and entries are limited, so their product is far below 2^64.
        self.capacity.div_ceil(self.grain * u64::from(self.entries))
    }

    /// Whether a footer speaks of the same disk.
    pub(crate) fn agrees_with(&self, footer: &Self) -> bool {
        (self.capacity, self.grain, self.entries, self.flags)
            == (footer.capacity, footer.grain, footer.entries, footer.flags)
    }

    fn check_sizes(&self, limits: &Limits) -> Result<()> {
        let directory = self.tables().saturating_mul(4);
        limit("size of the grain directory in bytes", directory, limits::DIRECTORY)?;
        if self.has(flags::COMPRESSED) {
            limit("size of a compressed grain in bytes", self.grain, limits.unit)?;
        }
        Ok(())
    }
}

fn check_kind(raw: &SparseHeader, at: HostOffset) -> Result<()> {
    if raw.magic != MAGIC {
        let found = &raw.magic[..];
        return Err(invalid!(SparseHeader, magic, at, found, "\"KDMV\"").into());
    }
    if !(1..=3).contains(&raw.version.get()) {
        return Err(unsupported(format!("header version {}", raw.version)));
    }
    let found = raw.flags.get();
    let unknown = found & flags::INCOMPATIBLE & !(flags::COMPRESSED | flags::MARKERS);
    if unknown != 0 {
        return Err(unsupported(format!("incompatible flag bit {}", unknown.trailing_zeros())));
    }
    if found & flags::NEWLINE_DETECTOR != 0 && raw.lineChars != LINE_CHARS {
        let expected = "\"\\n \\r\\n\" (the file was changed by a copy in text mode)";
        let found = &raw.lineChars[..];
        return Err(invalid!(SparseHeader, lineChars, at, found, expected).into());
    }
    Ok(())
}

fn check_compression(raw: &SparseHeader, at: HostOffset) -> Result<()> {
    let found = raw.flags.get();
    let compressed = found & flags::COMPRESSED != 0;
    if found & flags::MARKERS != 0 && !compressed {
        let found = Value::Hex(found.into());
        let expected = "markers (bit 17) only with compressed grains (bit 16)";
        return Err(invalid!(SparseHeader, flags, at, found, expected).into());
    }
    let algorithm = raw.compressAlgorithm.get();
    let expected = if compressed { "1 (deflate), as the flags say" } else { "0, as the flags say" };
    if algorithm == u16::from(compressed) {
        return Ok(());
    }
    if compressed && algorithm > 1 {
        return Err(unsupported(format!("compressAlgorithm {algorithm}")));
    }
    let found = u64::from(algorithm);
    Err(invalid!(SparseHeader, compressAlgorithm, at, found, expected).into())
}

fn capacity(raw: &SparseHeader) -> Result<u64> {
    let sectors = raw.capacity.get();
    limit("capacity in sectors", sectors, limits::DISK / SECTOR)?;
    Ok(sectors * SECTOR)
}

fn grain(raw: &SparseHeader, at: HostOffset) -> Result<u64> {
    let found = raw.grainSize.get();
    if !found.is_power_of_two() || found > limits::GRAIN_SECTORS {
        let max = limits::GRAIN_SECTORS;
        let expected = format!("a power of two up to {max}");
        return Err(invalid!(SparseHeader, grainSize, at, found, expected).into());
    }
    Ok(found * SECTOR)
}

fn entries(raw: &SparseHeader, at: HostOffset) -> Result<u32> {
    let found = raw.numGTEsPerGT.get();
    limit("numGTEsPerGT", found.into(), limits::TABLE_ENTRIES.into())?;
    if !found.is_power_of_two() {
        let expected = "a power of two";
        return Err(invalid!(SparseHeader, numGTEsPerGT, at, found, expected).into());
    }
    Ok(found)
}

fn descriptor(
    raw: &SparseHeader,
    at: HostOffset,
    limits: &Limits,
) -> Result<Option<(HostOffset, u64)>> {
    let (start, size) = (raw.descriptorOffset.get(), raw.descriptorSize.get());
    if start == 0 || size == 0 {
        return Ok(None);
    }
    let Some(start) = place(start) else {
        let (found, expected) = (Value::Hex(start), "a sector that a file can have");
        return Err(invalid!(SparseHeader, descriptorOffset, at, found, expected).into());
    };
    let bytes = size.saturating_mul(SECTOR);
    limit("size of the descriptor in bytes", bytes, limits.descriptor as u64)?;
    Ok(Some((start, bytes)))
}

fn directory(raw: &SparseHeader, at: HostOffset) -> Result<Option<HostOffset>> {
    match raw.gdOffset.get() {
        GD_AT_END => Ok(None),
        // A file that only holds a descriptor has no directory.
        0 if raw.capacity.get() == 0 => Ok(None),
        sector => match place(sector) {
            Some(place) if sector != 0 => Ok(Some(place)),
            // In no file, so that the second one is taken.
            _ if matches!(redundant(raw, at), Ok(Some(_))) => Ok(Some(HostOffset(limits::FILE))),
            _ => {
                let expected = "a sector behind the header";
                let found = Value::Hex(sector);
                Err(invalid!(SparseHeader, gdOffset, at, found, expected).into())
            }
        },
    }
}

/// The second directory. Without its flag the field means nothing, whatever it holds.
fn redundant(raw: &SparseHeader, at: HostOffset) -> Result<Option<HostOffset>> {
    let sector = raw.rgdOffset.get();
    // 0 beside the flag: there is none after all, as in streams with the tables at the end.
    if raw.flags.get() & flags::REDUNDANT == 0 || sector == 0 {
        return Ok(None);
    }
    match place(sector) {
        Some(place) => Ok(Some(place)),
        None => {
            let (found, expected) = (Value::Hex(sector), "a sector that a file can have");
            Err(invalid!(SparseHeader, rgdOffset, at, found, expected).into())
        }
    }
}

fn overhead(raw: &SparseHeader, at: HostOffset) -> Result<HostOffset> {
    let sectors = raw.overHead.get();
    match place(sectors) {
        Some(place) => Ok(place),
        None => {
            let (found, expected) = (Value::Hex(sectors), "a sector that a file can have");
            Err(invalid!(SparseHeader, overHead, at, found, expected).into())
        }
    }
}

/// The byte position of a sector, if 32-bit entries can name it.
fn place(sector: u64) -> Option<HostOffset> {
    let at = sector.checked_mul(SECTOR)?;
    (at < limits::FILE).then_some(HostOffset(at))
}

/// A refusal of what is legal and not done.
pub(crate) fn unsupported(feature: impl Into<anydisk_core::Feature>) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}

/// Refuses what is legal and too large.
pub(crate) fn limit(
    what: impl Into<std::borrow::Cow<'static, str>>,
    found: u64,
    limit: u64,
) -> Result<()> {
    anydisk_core::check_limit(NAME, what, found, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    /// The header in the format's worked example: 10288 sectors, written by qemu.
    fn valid() -> SparseHeader {
        SparseHeader {
            magic: MAGIC,
            version: 1.into(),
            flags: (flags::NEWLINE_DETECTOR | flags::REDUNDANT).into(),
            capacity: 10288.into(),
            grainSize: 128.into(),
            descriptorOffset: 1.into(),
            descriptorSize: 20.into(),
            numGTEsPerGT: 512.into(),
            rgdOffset: 21.into(),
            gdOffset: 26.into(),
            overHead: 128.into(),
            uncleanShutdown: 0,
            lineChars: LINE_CHARS,
            compressAlgorithm: 0.into(),
            pad: [0; 433],
        }
    }

    fn parse(raw: &SparseHeader) -> Result<Header> {
        Header::parse(raw.as_bytes(), HostOffset::ZERO, &Limits::default())
    }

    fn refusal(change: impl FnOnce(&mut SparseHeader)) -> String {
        let mut raw = valid();
        change(&mut raw);
        parse(&raw).unwrap_err().to_string()
    }

    #[test]
    fn the_header_of_a_small_sparse_image_is_read_in_bytes() {
        let header = parse(&valid()).expect("valid");
        assert_eq!(header.capacity, 10288 * 512);
        assert_eq!(header.grain, 65536);
        assert_eq!(header.tables(), 1);
        assert_eq!(header.descriptor, Some((HostOffset(512), 20 * 512)));
        assert_eq!(header.directory, Some(HostOffset(26 * 512)));
        assert_eq!(header.redundant, Some(HostOffset(21 * 512)));
        assert!(!header.unclean);
    }

    #[test]
    fn every_broken_field_is_refused_with_its_place_and_value() {
        type Change = fn(&mut SparseHeader);
        let cases: [(Change, &str); 11] = [
            (|raw| raw.magic[0] = b'X', "vmdk: magic at 0x0 is \"XDMV\", expected \"KDMV\""),
            (|raw| raw.version = 4.into(), "vmdk: header version 4 is not supported"),
            (
                |raw| raw.flags = (3 | 1 << 19).into(),
                "vmdk: incompatible flag bit 19 is not supported",
            ),
            (
                |raw| raw.lineChars[3] = b'\r',
                "vmdk: lineChars at 0x49 is \"\\n \\r\\r\", expected \"\\n \\r\\n\" (the file was \
                 changed by a copy in text mode)",
            ),
            (
                |raw| raw.grainSize = 24.into(),
                "vmdk: grainSize at 0x14 is 24, expected a power of two up to 2097152",
            ),
            (
                |raw| raw.grainSize = 0.into(),
                "vmdk: grainSize at 0x14 is 0, expected a power of two up to 2097152",
            ),
            (
                |raw| raw.numGTEsPerGT = 0.into(),
                "vmdk: numGTEsPerGT at 0x2c is 0, expected a power of two",
            ),
            (
                |raw| {
                    // The second one would do.
                    raw.rgdOffset = 0.into();
                    raw.gdOffset = 0.into();
                },
                "vmdk: gdOffset at 0x38 is 0x0, expected a sector behind the header",
            ),
            (
                |raw| raw.capacity = (1 << 62).into(),
                "vmdk: capacity in sectors is 4611686018427387904, more than the limit of \
                 18014398509481983",
            ),
            (
                |raw| raw.capacity = (1 << 52).into(),
                "vmdk: size of the grain directory in bytes is 274877906944, more than the limit \
                 of 33554432",
            ),
            (
                |raw| raw.compressAlgorithm = 1.into(),
                "vmdk: compressAlgorithm at 0x4d is 1, expected 0, as the flags say",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(refusal(change), expected);
        }
    }

    #[test]
    fn a_damaged_newline_detector_counts_only_with_its_flag() {
        let mut raw = valid();
        raw.lineChars = [0; 4];
        raw.flags = flags::REDUNDANT.into();
        assert!(parse(&raw).is_ok());
    }

    #[test]
    fn without_its_flag_the_second_directory_is_not_looked_at() {
        let mut raw = valid();
        raw.flags = flags::NEWLINE_DETECTOR.into();
        raw.rgdOffset = u64::MAX.into();
        assert_eq!(parse(&raw).expect("valid").redundant, None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_and_what_it_accepts_is_bounded(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
            magic in any::<bool>(),
        ) {
            if magic && bytes.len() > 12 {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4..12].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
            }
            if let Ok(header) = Header::parse(&bytes, HostOffset::ZERO, &Limits::default()) {
                prop_assert!(header.tables() * 4 <= limits::DIRECTORY);
                prop_assert!(header.grain.is_power_of_two());
            }
            let _ = Cowd::parse(&bytes);
        }
    }
}
