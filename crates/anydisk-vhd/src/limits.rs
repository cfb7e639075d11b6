//! What we refuse for its size. What a caller may set is in [`anydisk_core::Limits`].

use crate::layout::SECTOR;

/// Largest disk, in bytes: 2040 GiB, as elsewhere.
pub(crate) const DISK: u64 = 0xFF00_0000 * SECTOR;

/// Smallest block, in bytes: its bitmap has a byte.
pub(crate) const SMALLEST_BLOCK: u64 = 4096;

/// Largest block that is read, in bytes.
pub(crate) const BLOCK: u64 = 256 << 20;

/// Longest text of a parent locator, in bytes.
pub(crate) const LOCATOR: u64 = 64 << 10;

/// Most entries of the table of a disk that is written or checked: the table is read once for that,
/// and kept in mind.
pub(crate) const ENTRIES: u64 = 1 << 22;
