//! What we refuse for its size. What a caller may set is in [`anydisk_core::Limits`].

/// Largest disk, in bytes: file offsets are signed.
pub(crate) const DISK: u64 = i64::MAX.unsigned_abs();

/// Most sectors of a cluster: qemu reads no larger ones.
pub(crate) const TRACKS: u64 = i32::MAX.unsigned_abs() as u64 / 513;

/// Most entries of a block table: 512 TiB in clusters of 1 MiB. qemu opens no more.
pub(crate) const ENTRIES: u64 = i32::MAX.unsigned_abs() as u64 / 4;

/// Most features of a format extension.
pub(crate) const FEATURES: u64 = 1024;

/// Most clusters of a file that is written or checked, of which a bit for each is in memory where one
/// is named: all that entries can name.
pub(crate) const CLUSTERS: u64 = 1 << 32;

/// Largest cluster of an image that is made, in bytes: the limit of a unit that is written, where
/// the caller sets none.
pub(crate) const MADE_CLUSTER: u64 = 64 << 20;
