//! The header: bytes to checked values. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Error, HostOffset, Invalid, Result, Storage, Value, invalid_field};
use zerocopy::FromBytes;

use crate::NAME;
use crate::layout::{GROWING, MAGIC, REDOLOG, RawHeader, SECTOR, VERSION_1, VERSION_2};

/// Bytes of the header.
pub(crate) const LEN: usize = size_of::<RawHeader>();

/// Largest extent in bytes: eight times that of the largest disk that bximage makes.
const EXTENT: u32 = 64 << 20;

/// A header that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the catalog is.
    pub catalog: HostOffset,
    /// Its entries, enough for the disk.
    pub entries: u32,
    /// Bytes of the bitmap of an extent.
    pub bitmap: u32,
    /// Bytes of an extent, a power of two.
    pub extent: u32,
    /// Size of the disk in bytes, a multiple of 512.
    pub size: u64,
}

impl Header {
    /// Reads the header from the first bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field; [`Error::Unsupported`] for images that lie over others.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| Invalid {
            format: NAME,
            field: "header".into(),
            at: HostOffset(bytes.len() as u64),
            found: Value::Missing,
            expected: "96 bytes".into(),
        })?;
        check_kind(raw)?;
        check_extent(raw)?;
        check_bitmap(raw)?;
        let header = Self {
            catalog: HostOffset(raw.header.get().into()),
            entries: raw.catalog.get(),
            bitmap: raw.bitmap.get(),
            extent: raw.extent.get(),
            size: disk(raw) & !SECTOR.wrapping_sub(1),
        };
        header.check_catalog(raw, file_len)?;
        Ok(header)
    }

    /// Reads the header of the image in `store`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of the store.
    pub fn read(store: &dyn Storage) -> Result<Self> {
        let mut bytes = [0; LEN];
        let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
        Self::parse(bytes.get(..count).unwrap_or_default(), store.len()?)
    }

    /// The catalog has an entry for each extent of the disk, and lies in the file.
    fn check_catalog(&self, raw: &RawHeader, file_len: u64) -> Result<()> {
        let mapped = u64::from(self.entries).saturating_mul(self.extent.into());
        if mapped < self.size {
            let (found, size) = (self.entries, self.size);
            let expected = "extents for a disk of";
            let field = invalid_field!(NAME, RawHeader, catalog, found, "{expected} {size} bytes");
            return Err(field.into());
        }
        if self.extents().get() > file_len {
            let (found, expected) = (self.entries, "entries in the file");
            return Err(invalid_field!(NAME, RawHeader, catalog, found, "{expected}").into());
        }
        let at = raw.header.get();
        if usize::try_from(at).is_ok_and(|at| at < LEN) {
            let expected = "the length of the header";
            return Err(invalid_field!(NAME, RawHeader, header, at, "{expected}").into());
        }
        Ok(())
    }

    /// Where the extents begin: behind the catalog, not rounded to sectors.
    pub(crate) fn extents(&self) -> HostOffset {
        self.catalog.saturating_add(u64::from(self.entries).saturating_mul(4))
    }
}

/// The size of the disk, as it stands there.
fn disk(raw: &RawHeader) -> u64 {
    match raw.version.get() {
        // Without a timestamp it begins four bytes before.
        VERSION_1 => {
            let low = u64::from(raw.timestamp.get());
            raw.disk.get() << 32 | low
        }
        _ => raw.disk.get(),
    }
}

fn check_kind(raw: &RawHeader) -> Result<()> {
    if !raw.magic.starts_with(&MAGIC) {
        let (found, expected) = (&raw.magic[..], "\"Bochs Virtual HD Image\"");
        return Err(invalid_field!(NAME, RawHeader, magic, found, "{expected}").into());
    }
    if !raw.kind.starts_with(&REDOLOG) {
        let (found, expected) = (text(&raw.kind), "\"Redolog\"");
        return Err(invalid_field!(NAME, RawHeader, kind, found, "{expected}").into());
    }
    if !raw.subtype.starts_with(&GROWING) {
        let subtype = text(&raw.subtype).escape_ascii();
        let feature = format!("a redolog of the type {subtype}, which lies over another image");
        return Err(Error::Unsupported { format: NAME, feature: feature.into() });
    }
    let version = raw.version.get();
    if ![VERSION_1, VERSION_2].contains(&version) {
        let (found, expected) = (Value::Hex(version.into()), "0x10000 or 0x20000");
        return Err(invalid_field!(NAME, RawHeader, version, found, "{expected}").into());
    }
    Ok(())
}

/// Text up to its NUL.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn check_extent(raw: &RawHeader) -> Result<()> {
    let extent = raw.extent.get();
    if extent.is_power_of_two() && (512..=EXTENT).contains(&extent) {
        return Ok(());
    }
    let expected = "a power of two, 512 to 67108864";
    Err(invalid_field!(NAME, RawHeader, extent, extent, "{expected}").into())
}

/// A bit for each sector, and not more bytes than those have.
fn check_bitmap(raw: &RawHeader) -> Result<()> {
    let (bitmap, extent) = (raw.bitmap.get(), raw.extent.get());
    let least = extent.div_ceil(8 * 512);
    if (least..=extent).contains(&bitmap) {
        return Ok(());
    }
    Err(invalid_field!(NAME, RawHeader, bitmap, bitmap, "{least} to {extent}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn header(change: impl FnOnce(&mut RawHeader)) -> Result<Header> {
        let mut raw = RawHeader::new_zeroed();
        raw.magic[..23].copy_from_slice(&MAGIC);
        raw.kind[..8].copy_from_slice(&REDOLOG);
        raw.subtype[..8].copy_from_slice(&GROWING);
        (raw.version, raw.header) = (VERSION_2.into(), 512.into());
        (raw.catalog, raw.bitmap, raw.extent) = (252.into(), 1.into(), 4096.into());
        raw.disk = 1_032_192.into();
        change(&mut raw);
        Header::parse(raw.as_bytes(), 1520)
    }

    #[test]
    fn headers_of_both_versions_are_read() {
        let new = header(|_| ()).expect("it is good");
        assert_eq!((new.size, new.extents()), (1_032_192, HostOffset(1520)));
        let old = header(|raw| {
            raw.version = VERSION_1.into();
            raw.timestamp = 1_032_193.into();
            raw.disk = 0.into();
        });
        assert_eq!(old.expect("it is good").size, 1_032_192, "whole sectors");
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        let refusal = |change: fn(&mut RawHeader)| header(change).unwrap_err().to_string();
        for (error, expected) in [
            (
                refusal(|raw| raw.kind[0] = b'r'),
                "bochs: kind at 0x20 is \"redolog\", expected \"Redolog\"",
            ),
            (
                refusal(|raw| raw.subtype[..9].copy_from_slice(b"Undoable\0")),
                "bochs: a redolog of the type Undoable, which lies over another image is not supported",
            ),
            (
                refusal(|raw| raw.version = 0x30000.into()),
                "bochs: version at 0x40 is 0x30000, expected 0x10000 or 0x20000",
            ),
            (
                refusal(|raw| raw.extent = 5000.into()),
                "bochs: extent at 0x50 is 5000, expected a power of two, 512 to 67108864",
            ),
            (
                refusal(|raw| raw.bitmap = 0.into()),
                "bochs: bitmap at 0x4c is 0, expected 1 to 4096",
            ),
            (
                refusal(|raw| raw.catalog = 251.into()),
                "bochs: catalog at 0x48 is 251, expected extents for a disk of 1032192 bytes",
            ),
            (
                refusal(|raw| raw.catalog = 253.into()),
                "bochs: catalog at 0x48 is 253, expected entries in the file",
            ),
            (
                refusal(|raw| raw.header = 95.into()),
                "bochs: header at 0x44 is 95, expected the length of the header",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }
}
