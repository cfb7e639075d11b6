//! The header: bytes to checked values. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Error, HostOffset, Invalid, Result, Storage, StorageExt, Value, invalid_field};
use zerocopy::FromBytes;

use crate::layout::{MAGIC, RawHeader};
use crate::{Geometry, NAME};

/// Bytes of the header that are known.
const LEN: usize = size_of::<RawHeader>();

/// Bytes of a directory before its entries: its version.
pub(crate) const DIRECTORY_HEAD: u64 = 8;

/// A header that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the two directories are.
    pub directories: [HostOffset; 2],
    /// Size of the disk in bytes.
    pub size: u64,
    /// How the image is divided.
    pub geometry: Geometry,
}

impl Header {
    /// Reads the header from the first bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field; [`Error::Unsupported`] for other versions.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| Invalid {
            format: NAME,
            field: "header".into(),
            at: HostOffset(bytes.len() as u64),
            found: Value::Missing,
            expected: "108 bytes".into(),
        })?;
        check_kind(raw)?;
        check_units(raw)?;
        let (block, chunk) = (u64::from(raw.block_size.get()), u64::from(raw.chunk_size.get()));
        let (sectors, most) = (raw.sector_count.get(), raw.max_sector_count.get());
        let size = sectors.checked_mul(block).filter(|size| *size <= i64::MAX.unsigned_abs());
        let size = size.filter(|_| sectors <= most).ok_or_else(|| {
            let expected = "up to max_sector_count, less than 2^63 bytes";
            invalid_field!(NAME, RawHeader, sector_count, sectors, "{expected}")
        })?;
        let geometry = Geometry::new(block, chunk, most, file_len).ok_or_else(|| {
            let expected = "what tables of such chunks can map";
            invalid_field!(NAME, RawHeader, max_sector_count, most, "{expected}")
        })?;
        let [first, second] = raw.directories;
        let directories = [HostOffset(first.get()), HostOffset(second.get())];
        check_directories(directories, &geometry, file_len)?;
        Ok(Self { directories, size, geometry })
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

    /// The directory of the higher version, which is the one that counts: where its entries are.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn live_directory(&self, store: &dyn Storage) -> Result<HostOffset> {
        let version = |at: HostOffset| {
            let mut bytes = [0; 8];
            store.read_exact_at(at, &mut bytes).map(|()| u64::from_be_bytes(bytes))
        };
        let [first, second] = self.directories;
        let live = if version(second)? > version(first)? { second } else { first };
        Ok(live.saturating_add(DIRECTORY_HEAD))
    }
}

fn check_kind(raw: &RawHeader) -> Result<()> {
    let (version, size) = (raw.version.get(), raw.header_size.get());
    if raw.magic != MAGIC {
        let found = &raw.magic[..];
        return Err(invalid_field!(NAME, RawHeader, magic, found, "\"shdw\"").into());
    }
    if version != 1 {
        let feature = format!("version {version}").into();
        return Err(Error::Unsupported { format: NAME, feature });
    }
    if size != 512 {
        return Err(invalid_field!(NAME, RawHeader, header_size, size, "512").into());
    }
    if raw.flags.get() != 0 {
        let feature = format!("flags {:#x}", raw.flags.get()).into();
        return Err(Error::Unsupported { format: NAME, feature });
    }
    Ok(())
}

fn check_units(raw: &RawHeader) -> Result<()> {
    let (block, chunk) = (u32::from(raw.block_size.get()), raw.chunk_size.get());
    if !block.is_power_of_two() || !(512..=4096).contains(&block) {
        let expected = "a power of two, 512 to 4096";
        return Err(invalid_field!(NAME, RawHeader, block_size, block, "{expected}").into());
    }
    // A group of a table, and a bitmap, fit into a chunk.
    if !chunk.is_power_of_two() || !(64 << 10..=64 << 20).contains(&chunk) {
        let expected = "a power of two, 65536 to 67108864";
        return Err(invalid_field!(NAME, RawHeader, chunk_size, chunk, "{expected}").into());
    }
    Ok(())
}

/// Both lie in the file, behind the header.
fn check_directories(
    directories: [HostOffset; 2],
    geometry: &Geometry,
    file_len: u64,
) -> Result<()> {
    let len = geometry.tables().saturating_mul(8).saturating_add(DIRECTORY_HEAD);
    for at in directories {
        let is_inside = at.checked_add(len).is_some_and(|end| end.get() <= file_len);
        if !is_inside || at.get() < 512 {
            let expected = format!("a directory of {len} bytes in the file");
            return Err(invalid_field!(NAME, RawHeader, directories, at, "{expected}").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn header(change: impl FnOnce(&mut RawHeader)) -> Result<Header> {
        let mut raw = RawHeader::new_zeroed();
        raw.magic = MAGIC;
        (raw.version, raw.header_size) = (1.into(), 512.into());
        raw.directories = [0x200.into(), 0x41400.into()];
        (raw.sector_count, raw.max_sector_count) = (0x1DCD65.into(), (1 << 43).into());
        (raw.chunk_size, raw.block_size) = ((1 << 20).into(), 512.into());
        change(&mut raw);
        Header::parse(raw.as_bytes(), 3 << 20)
    }

    #[test]
    fn the_header_of_a_real_image_is_read_and_its_directories_lie_as_they_must() {
        let header = header(|_| ()).expect("it is good");
        assert_eq!(header.size, 0x1DCD65 * 512);
        assert_eq!(header.geometry.tables(), 33_289);
        let len = (8_u64 * (33_289 + 1)).next_multiple_of(512);
        assert_eq!(0x200 + len, 0x41400);
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        let refusal = |change: fn(&mut RawHeader)| header(change).unwrap_err().to_string();
        for (error, expected) in [
            (
                refusal(|raw| raw.magic = *b"shdx"),
                "asif: magic at 0x0 is \"shdx\", expected \"shdw\"",
            ),
            (refusal(|raw| raw.version = 2.into()), "asif: version 2 is not supported"),
            (
                refusal(|raw| raw.header_size = 108.into()),
                "asif: header_size at 0x8 is 108, expected 512",
            ),
            (refusal(|raw| raw.flags = 4.into()), "asif: flags 0x4 is not supported"),
            (
                refusal(|raw| raw.block_size = 8192.into()),
                "asif: block_size at 0x44 is 8192, expected a power of two, 512 to 4096",
            ),
            (
                refusal(|raw| raw.chunk_size = 4096.into()),
                "asif: chunk_size at 0x40 is 4096, expected a power of two, 65536 to 67108864",
            ),
            (
                refusal(|raw| raw.max_sector_count = 0.into()),
                "asif: sector_count at 0x30 is 1953125, expected up to max_sector_count, less than 2^63 bytes",
            ),
            (
                refusal(|raw| raw.max_sector_count = u64::MAX.into()),
                "asif: max_sector_count at 0x38 is 18446744073709551615, expected what tables of such chunks \
                 can map",
            ),
            (
                refusal(|raw| raw.directories = [0x200.into(), (3 << 20).into()]),
                "asif: directories at 0x10 is 0x300000, expected a directory of 266320 bytes in the file",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }
}
