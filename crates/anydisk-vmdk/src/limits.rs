//! What we refuse for its size. What a caller may set is in [`anydisk_core::Limits`].

/// Largest grain directory, in bytes: 8 Mi tables, 256 TiB at the usual geometry.
pub(crate) const DIRECTORY: u64 = 32 << 20;

/// Largest grain directory of an extent opened for writing, in bytes: it is kept in memory.
/// 1 Mi tables, 32 TiB at the usual geometry; 32-bit sector numbers end a file at 2 TiB.
pub(crate) const WRITABLE_DIRECTORY: u64 = 4 << 20;

/// Largest grain, in sectors: 1 GiB, as in qemu.
pub(crate) const GRAIN_SECTORS: u64 = 0x20_0000;

/// Most entries in a grain table of a hosted sparse extent. All writers use 512.
pub(crate) const TABLE_ENTRIES: u32 = 512;

/// Largest disk, in bytes: file offsets are signed.
pub(crate) const DISK: u64 = i64::MAX.unsigned_abs();

/// Bytes that 32-bit sector numbers can name in one file.
pub(crate) const FILE: u64 = 1 << 41;

/// Largest file of a seSparse extent, in bytes: the disks have up to 64 TiB.
pub(crate) const WIDE_FILE: u64 = 1 << 47;

/// Places that one file has in the caches of an image: more than the largest file has bytes.
pub(crate) const KEYS: u64 = 1 << 48;

/// Most files of an image: their places must be numbers of 64 bits.
pub(crate) const FILES: u64 = 1 << 14;

/// Largest compressed form of a grain of `grain` bytes: deflate grows what does not shrink by
/// 5 bytes in 16 KiB at worst.
pub(crate) const fn packed(grain: u64) -> u64 {
    grain + grain / 1000 + 64
}
