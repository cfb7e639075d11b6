//! The two headers of a seSparse extent. Pure.

use anydisk_core::{HostOffset, Result, Value};
use zerocopy::FromBytes;

use super::{invalid, limit, unsupported};
use crate::extent::Area;
use crate::layout::{
    SE_GRAIN_SECTORS, SE_TABLE_SECTORS, SE_VERSION, SECTOR, SESPARSE_MAGIC, SeSparseHeader,
    VOLATILE_MAGIC, VolatileHeader,
};
use crate::limits;

/// What the constant header of a seSparse extent says, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeSparse {
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    /// The header that changes.
    pub(crate) volatile: HostOffset,
    pub(crate) directory: Area,
    pub(crate) tables: Area,
    /// The first grain.
    pub(crate) grains: HostOffset,
}

impl SeSparse {
    /// Checks the first sector of the file.
    ///
    /// # Errors
    /// As [`Header::parse`](super::Header::parse).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let base = HostOffset::ZERO;
        let Ok((raw, _)) = SeSparseHeader::read_from_prefix(bytes) else {
            let expected = "a header of 512 bytes";
            return Err(invalid!(SeSparseHeader, magic, base, Value::Missing, expected).into());
        };
        if raw.magic.as_slice() != SESPARSE_MAGIC {
            let (found, expected) = (&raw.magic[..], "the magic 0xcafebabe");
            return Err(invalid!(SeSparseHeader, magic, base, found, expected).into());
        }
        if raw.version.get() != SE_VERSION {
            return Err(unsupported(format!("seSparse version {:#x}", raw.version)));
        }
        let (grain, table) = (raw.grain_size.get(), raw.grain_table_size.get());
        if (grain, table) != (SE_GRAIN_SECTORS, SE_TABLE_SECTORS) {
            let feature =
                format!("a seSparse extent with grains of {grain} and tables of {table} sectors");
            return Err(unsupported(feature));
        }
        if raw.flags.get() != 0 {
            return Err(unsupported(format!("seSparse flags {:#x}", raw.flags)));
        }
        let capacity = raw.capacity.get();
        limit("capacity in sectors", capacity, limits::WIDE_FILE / SECTOR)?;
        Ok(Self {
            capacity: capacity * SECTOR,
            grain: grain * SECTOR,
            volatile: place("volatile header offset in sectors", raw.volatile_header_offset.get())?,
            directory: Area {
                at: place("grain directory offset in sectors", raw.grain_dir_offset.get())?,
                len: place("grain directory size in sectors", raw.grain_dir_size.get())?.get(),
            },
            tables: Area {
                at: place("grain tables offset in sectors", raw.grain_tables_offset.get())?,
                len: place("grain tables size in sectors", raw.grain_tables_size.get())?.get(),
            },
            grains: place("grains offset in sectors", raw.grains_offset.get())?,
        })
    }
}

/// Checks the header that changes: a journal that is still to be played back hides what the tables
/// should say.
///
/// # Errors
/// `Invalid` for another magic, `Unsupported` for such a journal.
pub(crate) fn check_volatile(bytes: &[u8], at: HostOffset) -> Result<()> {
    let Ok((raw, _)) = VolatileHeader::read_from_prefix(bytes) else {
        let expected = "a header of 512 bytes";
        return Err(invalid!(VolatileHeader, magic, at, Value::Missing, expected).into());
    };
    if raw.magic.get() != VOLATILE_MAGIC {
        let (found, expected) = (Value::Hex(raw.magic.get()), "0xcafecafe");
        return Err(invalid!(VolatileHeader, magic, at, found, expected).into());
    }
    if raw.replay_journal.get() != 0 {
        return Err(unsupported("a seSparse extent with a journal to be played back"));
    }
    Ok(())
}

/// The byte position of a sector.
fn place(what: &'static str, sector: u64) -> Result<HostOffset> {
    limit(what, sector, limits::WIDE_FILE / SECTOR)?;
    Ok(HostOffset(sector * SECTOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    /// The header of a real extent of 512 MiB.
    fn valid() -> SeSparseHeader {
        let mut raw = SeSparseHeader::read_from_bytes(&[0; 512]).expect("512 bytes");
        raw.magic = SESPARSE_MAGIC;
        raw.version = SE_VERSION.into();
        raw.capacity = 0x10_0000.into();
        raw.grain_size = 8.into();
        raw.grain_table_size = 64.into();
        raw.volatile_header_offset = 1.into();
        raw.grain_dir_offset = 0x1000.into();
        raw.grain_dir_size = 0x800.into();
        raw.grain_tables_offset = 0x1800.into();
        raw.grain_tables_size = 0x800.into();
        raw.grains_offset = 0x3000.into();
        raw
    }

    #[test]
    fn the_header_of_a_real_extent_is_read_in_bytes() {
        let header = SeSparse::parse(valid().as_bytes()).expect("valid");
        assert_eq!((header.capacity, header.grain), (512 << 20, 4096));
        assert_eq!(header.directory, Area { at: HostOffset(0x20_0000), len: 1 << 20 });
        assert_eq!(header.grains, HostOffset(0x60_0000));
    }

    #[test]
    fn every_broken_field_is_refused_with_its_place_and_value() {
        type Change = fn(&mut SeSparseHeader);
        let cases: [(Change, &str); 5] = [
            (
                |raw| raw.magic[0] = 0,
                "vmdk: magic at 0x0 is \"\\x00\\xba\\xfe\\xca\\x00\\x00\\x00\\x00\", expected the magic 0xcafebabe",
            ),
            (|raw| raw.version = 1.into(), "vmdk: seSparse version 0x1 is not supported"),
            (
                |raw| raw.grain_size = 16.into(),
                "vmdk: a seSparse extent with grains of 16 and tables of 64 sectors is not supported",
            ),
            (|raw| raw.flags = 4.into(), "vmdk: seSparse flags 0x4 is not supported"),
            (
                |raw| raw.grains_offset = u64::MAX.into(),
                "vmdk: grains offset in sectors is 18446744073709551615, more than the limit of 274877906944",
            ),
        ];
        for (change, expected) in cases {
            let mut raw = valid();
            change(&mut raw);
            assert_eq!(SeSparse::parse(raw.as_bytes()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_journal_that_is_still_to_be_played_back_is_refused_by_name() {
        let mut raw = VolatileHeader::read_from_bytes(&[0; 512]).expect("512 bytes");
        raw.magic = VOLATILE_MAGIC.into();
        assert!(check_volatile(raw.as_bytes(), HostOffset(512)).is_ok());
        raw.replay_journal = 1.into();
        let error = check_volatile(raw.as_bytes(), HostOffset(512)).unwrap_err().to_string();
        assert_eq!(
            error,
            "vmdk: a seSparse extent with a journal to be played back is not supported"
        );
    }
}
