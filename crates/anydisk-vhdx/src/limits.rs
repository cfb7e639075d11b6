//! What we refuse for its size. What a caller may set is in [`anydisk_core::Limits`].

/// Largest disk, in bytes: 64 TiB, by the specification.
pub(crate) const DISK: u64 = 64 << 40;

/// Most entries of the table of a new disk: it is written as a whole.
pub(crate) const ENTRIES: u64 = 1 << 22;

/// Longest file that is written or checked, in bytes: a bit is kept in mind for each MiB of it.
pub(crate) const FILE: u64 = 2 * DISK;

/// Longest log that is replayed, in bytes: it is read as a whole.
pub(crate) const LOG: u64 = 16 << 20;

/// Bytes of log entries whose checksums are looked at, beside four times the log: overlapping ones
/// that somebody made could ask for any number.
pub(crate) const LOG_WORK: u64 = 64 << 20;

/// What a replay may make a file longer by, in bytes.
pub(crate) const GROWTH: u64 = 64 << 30;
