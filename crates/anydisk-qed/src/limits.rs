//! What is refused for its size. What a caller may set is in [`anydisk_core::Limits`].

/// Longest name of a backing file, in bytes.
pub(crate) const BACKING_NAME: u32 = 1023;

/// L2 tables of an image to be written or checked, which are listed in memory: 8 PiB at the usual
/// geometry, if they map all of it.
pub(crate) const TABLES: u64 = 4 << 20;

/// File offsets are signed.
pub(crate) const FILE: u64 = i64::MAX.unsigned_abs();
