//! seSparse extents: redo logs of newer ESXi.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use anydisk_core::{HostOffset, KnownTables, Result, Storage, StorageExt, Value};

use super::text_invalid;
use crate::extent::{Area, Entries, Packed, Shape, Sparse};
use crate::header::{SeSparse, check_volatile, limit};
use crate::layout::{SE_ENTRIES, SECTOR};
use crate::limits;
use crate::second::Survey;
use crate::table::Geometry;

/// The extent in file number `file`.
///
/// # Errors
/// Those of [`SeSparse::parse`] and [`check_volatile`], and `Invalid` for tables that are not in the
/// file.
pub(super) fn extent(file: usize, store: &dyn Storage) -> Result<Sparse> {
    let mut bytes = [0; 512];
    let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
    let header = SeSparse::parse(&bytes[..count])?;
    store.read_padded_at(header.volatile, &mut bytes)?;
    check_volatile(&bytes, header.volatile)?;
    let end = store.len()?;
    limit("size of a seSparse extent's file in bytes", end, limits::WIDE_FILE)?;
    let geometry = Geometry::new(header.grain, SE_ENTRIES, header.capacity).wide();
    check_area("grain directory size", header.directory, geometry.directory_len(), end)?;
    check_area("grain tables size", header.tables, 0, end)?;
    Ok(Sparse {
        file,
        shape: Shape::new(geometry, header.directory.at, None),
        damaged: false,
        entries: Entries::Numbers { tables: header.tables, grains: header.grains },
        packed: Packed::No,
        overhead: header.grains,
        unclean: false,
        unclean_at: HostOffset::ZERO,
        free_sector_at: None,
        misled: Box::default(),
        header_len: SECTOR,
        end: AtomicU64::new(end),
        known: KnownTables::new(geometry.tables(), SECTOR),
        survey: Survey::default(),
        writer: OnceLock::new(),
    })
}

/// An area must have so many bytes and lie in the file.
fn check_area(field: &'static str, area: Area, needed: u64, end: u64) -> Result<()> {
    if area.len >= needed && area.at.saturating_add(area.len) <= HostOffset(end) {
        return Ok(());
    }
    let expected = format!("{needed} bytes or more, before the end of the file at {end:#x}");
    Err(text_invalid(field, area.at, Value::Number(area.len), expected).into())
}
