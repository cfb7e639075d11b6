//! The file as bytes: the structures of an expandable image. No logic.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector, the unit of nearly every number.
pub(crate) const SECTOR: u64 = 512;

/// The magic of the older kind, whose block table counts in sectors.
pub(crate) const OLD_MAGIC: [u8; 16] = *b"WithoutFreeSpace";

/// The magic of the newer kind, whose block table counts in clusters.
pub(crate) const MAGIC: [u8; 16] = *b"WithouFreSpacExt";

/// The only `version`.
pub(crate) const VERSION: u32 = 2;

/// Bytes of an entry of the block table.
pub(crate) const ENTRY: u64 = 4;

/// Values of `in_use`.
pub(crate) mod in_use {
    /// Somebody writes, or did not get to the end.
    pub(crate) const OPEN: u32 = 0x746F_6E59;
    /// Closed.
    pub(crate) const CLOSED: u32 = 0x312E_3276;
    /// Closed by who does not know the field, as qemu.
    pub(crate) const UNKNOWING: u32 = 0;
}

/// Whether a value of `in_use` is one of older versions of Parallels, which says closed: `pd17`.
pub(crate) fn is_older_closed(value: u32) -> bool {
    let [p, d, number @ ..] = value.to_le_bytes();
    [p, d] == *b"pd" && number.iter().all(u8::is_ascii_digit)
}

/// The bit of `flags` that has a meaning: nothing was written yet.
pub(crate) const EMPTY: u32 = 1;

/// The header. The block table follows it at once.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: [u8; 16],
    pub(crate) version: U32,
    pub(crate) heads: U32,
    pub(crate) cylinders: U32,
    pub(crate) tracks: U32,
    pub(crate) nb_bat_entries: U32,
    pub(crate) nb_sectors: U64,
    pub(crate) in_use: U32,
    pub(crate) data_off: U32,
    pub(crate) flags: U32,
    pub(crate) ext_off: U64,
}
const _: () = assert!(size_of::<RawHeader>() == 64);

/// What tells a format extension.
pub(crate) const EXTENSION_MAGIC: u64 = 0xAB23_4CEF_23DC_EA87;

/// What a format extension begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtension {
    pub(crate) magic: U64,
    /// MD5 of the rest of the cluster.
    pub(crate) check_sum: [u8; 16],
}
const _: () = assert!(size_of::<RawExtension>() == 24);

/// The feature that is a dirty bitmap.
pub(crate) const DIRTY_BITMAP: u64 = 0x2038_5FAE_252C_B34A;

/// Bits of a feature's `flags`.
pub(crate) mod feature {
    /// Who does not know the feature must not write to the image.
    pub(crate) const NECESSARY: u64 = 1;
    /// Who does not know the feature keeps it.
    pub(crate) const TRANSIT: u64 = 2;
}

/// What a feature begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawFeature {
    pub(crate) magic: U64,
    pub(crate) flags: U64,
    pub(crate) data_size: U32,
    pub(crate) unused: U32,
}
const _: () = assert!(size_of::<RawFeature>() == 24);

/// What the data of a dirty bitmap begins with; its L1 table follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBitmap {
    pub(crate) size: U64,
    pub(crate) id: [u8; 16],
    pub(crate) granularity: U32,
    pub(crate) l1_size: U32,
}
const _: () = assert!(size_of::<RawBitmap>() == 32);
