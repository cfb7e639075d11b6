//! The largest numbers accepted from a file: those that qemu accepts.

/// Smallest and largest `cluster_bits`: 512 bytes to 2 MiB.
pub(crate) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Smallest `cluster_bits` with extended L2 entries: a subcluster has 512 bytes.
pub(crate) const EXTENDED_CLUSTER_BITS: u32 = 14;
/// Largest `refcount_order`: 64 bits.
pub(crate) const REFCOUNT_ORDER: u32 = 6;
/// Largest L1 table, in entries (32 MiB).
pub(crate) const L1_ENTRIES: u32 = (32 << 20) / 8;
/// Largest refcount table, in bytes.
pub(crate) const REFCOUNT_TABLE: u64 = 8 << 20;
/// Largest number of internal snapshots.
pub(crate) const SNAPSHOTS: u32 = 65536;
/// Largest snapshot table, in bytes.
pub(crate) const SNAPSHOT_TABLE: u64 = 64 << 20;
/// Largest extra data of a snapshot, in bytes.
pub(crate) const SNAPSHOT_EXTRA: u32 = 1024;
/// Largest number of bitmaps.
pub(crate) const BITMAPS: u32 = 65535;
/// Largest bitmap directory, in bytes.
pub(crate) const BITMAP_DIRECTORY: u64 = 1024 * 65535;
/// Most entries of a bitmap table.
pub(crate) const BITMAP_TABLE: u32 = 0x800_0000;
/// Largest bitmap, in bytes.
pub(crate) const BITMAP: u64 = 512 << 20;
/// Binary logarithm of what a bit of a bitmap may stand for, in bytes.
pub(crate) const GRANULARITY_BITS: std::ops::RangeInclusive<u32> = 9..=31;
/// Longest name of a bitmap, in bytes.
pub(crate) const BITMAP_NAME: usize = 1023;
/// Longest name of a backing file, in bytes.
pub(crate) const BACKING_NAME: u64 = 1023;
/// Longest name of a backing file's format, in bytes.
pub(crate) const BACKING_FORMAT: usize = 15;
/// Largest position in a file, and largest virtual size, in bytes.
pub(crate) const OFFSET: u64 = i64::MAX as u64;

/// Bytes of tables that an image may always keep in memory, if the caller's limits allow.
pub(crate) const LEAST_CACHE: usize = 1 << 20;
