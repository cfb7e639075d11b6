//! A new redo log of ESX: a header and an empty directory.

use anydisk_core::{HostOffset, Reference, Result, Storage};
use zerocopy::IntoBytes;

use super::{Plan, sectors_of};
use crate::header::limit;
use crate::layout::{
    COWD_ENTRIES, COWD_HEADER, COWD_MAGIC, COWD_PARENT, COWD_PARENT_LEN, CowdHeader, SECTOR,
};
use crate::table::ENTRY;

/// Sectors of a grain of a new redo log, as ESX makes them.
pub(crate) const GRAIN_SECTORS: u64 = 1;

/// What ESX writes.
const FLAGS: u32 = 3;

fn tables(sectors: u64) -> u64 {
    sectors.div_ceil(GRAIN_SECTORS * u64::from(COWD_ENTRIES))
}

/// Sectors of header and directory of a redo log for so many sectors.
pub(crate) fn overhead(sectors: u64) -> u64 {
    COWD_HEADER / SECTOR + sectors_of(tables(sectors) * ENTRY)
}

/// Writes an empty redo log for `sectors`, over `parent` if there is one.
///
/// # Errors
/// `Limit` for the name of the parent, and those of the store.
pub(super) fn write(
    store: &dyn Storage,
    plan: &Plan<'_>,
    sectors: u64,
    parent: Option<&Reference>,
) -> Result<()> {
    let number = |value: u64| u32::try_from(value).expect("the plan limits the size");
    let header = CowdHeader {
        magic: COWD_MAGIC,
        version: 1.into(),
        flags: FLAGS.into(),
        numSectors: number(sectors).into(),
        grainSize: number(GRAIN_SECTORS).into(),
        gdOffset: number(COWD_HEADER / SECTOR).into(),
        numGDEntries: number(tables(sectors)).into(),
        freeSector: number(overhead(sectors)).into(),
    };
    store.set_len(overhead(sectors) * SECTOR)?;
    store.write_at(HostOffset::ZERO, header.as_bytes())?;
    let (heads, each) = plan.geometry();
    let origin = match parent {
        Some(parent) => {
            let len = parent.name.len() as u64;
            limit("length of the parent's name in bytes", len, COWD_PARENT_LEN as u64 - 1)?;
            parent.name.clone()
        }
        None => [sectors / (heads * each), heads, each]
            .map(|value| number(value).to_le_bytes())
            .concat(),
    };
    Ok(store.write_at(HostOffset(COWD_PARENT), &origin)?)
}
