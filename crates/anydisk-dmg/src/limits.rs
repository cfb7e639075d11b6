//! What an image may cost.

use anydisk_core::{Limits, Result, check_limit};

use crate::NAME;
use crate::table::Chunk;

/// Nesting of a property list; those of images have 6.
pub(crate) const DEPTH: usize = 32;

/// The text of all tables is read as one, and is the size of what is kept of it.
pub(crate) fn check_text(len: u64, limits: &Limits) -> Result<usize> {
    check_limit(NAME, "bytes of the tables", len, limits.table_cache as u64)?;
    Ok(usize::try_from(len).unwrap_or(usize::MAX))
}

/// Chunks in all tables together.
pub(crate) fn check_chunks(count: usize, limits: &Limits) -> Result<()> {
    let most = limits.table_cache / size_of::<Chunk>();
    check_limit(NAME, "chunks", count as u64, most as u64)
}

/// A chunk that is unpacked in one piece.
pub(crate) fn check_unit(len: u64, limits: &Limits) -> Result<()> {
    check_limit(NAME, "bytes of a chunk", len, limits.unit)
}
