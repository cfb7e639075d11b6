//! What we refuse for its size. What a caller may set is in [`anydisk_core::Limits`].

use anydisk_core::{Limits, Result};

use crate::NAME;

/// A group's text may be this many times as long as a usual descriptor: it describes thousands of
/// volumes.
const TEXT_FACTOR: u64 = 16;

/// Values, sections and list entries of one text. Ten thousand volumes have fewer.
pub(crate) const ITEMS: usize = 512 << 10;

/// Sections inside each other.
pub(crate) const DEPTH: usize = 32;

/// Volumes below each other.
pub(crate) const NESTING: usize = 32;

/// Images of an array, as in the kernel.
pub(crate) const IMAGES: u64 = 253;

/// Largest chunk of a thin pool or a cache, in bytes, as in the kernel.
pub(crate) const CHUNK: u64 = 1 << 30;

/// Largest volume, in bytes: offsets are signed.
pub(crate) const VOLUME: u64 = i64::MAX.unsigned_abs();

/// Metadata areas of a physical volume: LVM makes two at most.
pub(crate) const AREAS: usize = 2;

/// Texts of the largest size that are read of all disks together.
const TEXTS: u64 = 16;

/// Most bytes of all texts that are read.
pub(crate) fn texts(limits: &Limits) -> u64 {
    TEXTS * text(limits)
}

/// A table that has no order of its own is in memory as a whole. It may have this many times what
/// tables have that are read as they are needed: a cache of 40 GiB in scattered blocks of 4 KiB fits.
const TABLE_FACTOR: usize = 8;

/// Most bytes of memory of a table that is in memory as a whole.
pub(crate) fn table(limits: &Limits) -> usize {
    TABLE_FACTOR.saturating_mul(limits.table_cache)
}

/// Most bytes of a group's text.
pub(crate) fn text(limits: &Limits) -> u64 {
    TEXT_FACTOR * limits.descriptor as u64
}

/// Refuses `found` if it is more than `limit`.
pub(crate) fn check(what: &'static str, found: u64, limit: u64) -> Result<()> {
    anydisk_core::check_limit(NAME, what, found, limit)
}
