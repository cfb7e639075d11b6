//! What is refused for its size. What a caller may set is in [`anydisk_core::Limits`].

use std::ops::RangeInclusive;

/// Cluster sizes: 512 bytes to 64 KiB.
pub(crate) const CLUSTER_BITS: RangeInclusive<u32> = 9..=16;

/// L2 tables: 512 bytes to 64 KiB of 8-byte entries.
pub(crate) const L2_BITS: RangeInclusive<u32> = 6..=13;

/// Entries of an L1 table, as in qemu: 2 GiB of them.
pub(crate) const L1_ENTRIES: u64 = 0x7fff_ffff / 8;

/// Longest name of a backing file, in bytes.
pub(crate) const BACKING_NAME: u32 = 1023;

/// File offsets are signed.
pub(crate) const FILE: u64 = i64::MAX.unsigned_abs();

/// L2 tables of an image to be written or checked, which are listed in memory: 8 TiB at the usual
/// geometry, if they map all of it.
pub(crate) const TABLES: u64 = 4 << 20;
