//! The file as bytes: the structures of VirtualBox's VDI. No logic.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector: disks end at whole ones.
pub(crate) const SECTOR: u64 = 512;

/// What tells a VDI: the text before it is any.
pub(crate) const SIGNATURE: u32 = 0xBEDA_107F;

/// `version` of the images that are made: 1.1.
pub(crate) const VERSION: u32 = 0x0001_0001;

/// Bytes of an entry of the block map.
pub(crate) const ENTRY: u64 = 4;

/// An entry: nothing here.
pub(crate) const FREE: u32 = 0xFFFF_FFFF;

/// An entry: zeroes, whatever the parent has.
pub(crate) const ZERO: u32 = 0xFFFF_FFFE;

/// Values of `type`.
pub(crate) mod kind {
    pub(crate) const NORMAL: u32 = 1;
    pub(crate) const FIXED: u32 = 2;
    pub(crate) const UNDO: u32 = 3;
    pub(crate) const DIFFERENCING: u32 = 4;
}

/// The bit of `flags` that has a meaning: a block is filled with zeroes when it is made.
pub(crate) const ZERO_EXPAND: u32 = 1;

/// What every version begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PreHeader {
    pub(crate) text: [u8; 64],
    pub(crate) signature: U32,
    pub(crate) version: U32,
}
const _: () = assert!(size_of::<PreHeader>() == 72);

/// Cylinders, heads, sectors and bytes of a sector.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawGeometry {
    pub(crate) cylinders: U32,
    pub(crate) heads: U32,
    pub(crate) sectors: U32,
    pub(crate) sector_size: U32,
}
const _: () = assert!(size_of::<RawGeometry>() == 16);

/// The header of version 1, with what precedes it. Files with `cbHeader` 0x180 end before
/// `lchs_geometry`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of VirtualBox")]
pub(crate) struct HeaderV1 {
    pub(crate) pre: PreHeader,
    pub(crate) cbHeader: U32,
    pub(crate) r#type: U32,
    pub(crate) flags: U32,
    pub(crate) comment: [u8; 256],
    pub(crate) offBlocks: U32,
    pub(crate) offData: U32,
    pub(crate) legacy_geometry: RawGeometry,
    pub(crate) dummy: U32,
    pub(crate) cbDisk: U64,
    pub(crate) cbBlock: U32,
    pub(crate) cbBlockExtra: U32,
    pub(crate) cBlocks: U32,
    pub(crate) cBlocksAllocated: U32,
    pub(crate) uuidCreate: [u8; 16],
    pub(crate) uuidModify: [u8; 16],
    pub(crate) uuidLinkage: [u8; 16],
    pub(crate) uuidParentModify: [u8; 16],
    pub(crate) lchs_geometry: RawGeometry,
}
const _: () = assert!(size_of::<HeaderV1>() == 472);

/// The header of version 0, with what precedes it. The map follows, and the blocks follow that.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of VirtualBox")]
pub(crate) struct HeaderV0 {
    pub(crate) pre: PreHeader,
    pub(crate) r#type: U32,
    pub(crate) flags: U32,
    pub(crate) comment: [u8; 256],
    pub(crate) legacy_geometry: RawGeometry,
    pub(crate) cbDisk: U64,
    pub(crate) cbBlock: U32,
    pub(crate) cBlocks: U32,
    pub(crate) cBlocksAllocated: U32,
    pub(crate) uuidCreate: [u8; 16],
    pub(crate) uuidModify: [u8; 16],
    pub(crate) uuidLinkage: [u8; 16],
}
const _: () = assert!(size_of::<HeaderV0>() == 420);
