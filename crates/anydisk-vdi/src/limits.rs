//! What we refuse for its size. What a caller may set is in [`anydisk_core::Limits`].

/// Largest disk, in bytes: file offsets are signed.
pub(crate) const DISK: u64 = i64::MAX.unsigned_abs();

/// Largest block that is read, in bytes: VirtualBox opens no larger ones either.
pub(crate) const BLOCK: u64 = 128 << 20;

/// Largest block of an image that is made, in bytes: the limit of a unit that is written, where the
/// caller sets none.
pub(crate) const MADE_BLOCK: u64 = 64 << 20;

/// Most blocks of a disk that is made, written or checked: 512 TiB in blocks of 1 MiB; qemu opens no
/// more. The map is read once for that, with a bit in memory for each block of the file.
pub(crate) const BLOCKS: u64 = 0x1FFF_FF80;

/// Most blocks of a disk: the two highest numbers have meanings of their own.
pub(crate) const ENTRIES: u64 = 0xFFFF_FFFE;
