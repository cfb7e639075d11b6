//! Physical volumes as bytes: the structs of LVM2's on-disk format. No logic.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector, the unit of most numbers, whatever the sectors of the disk are.
pub(crate) const SECTOR: u64 = 512;

/// [`SECTOR`] as the length of a buffer.
pub(crate) const SECTOR_LEN: usize = 512;

/// Sectors in which a label may lie, from the start of the device.
pub(crate) const LABEL_SECTORS: usize = 4;

/// The start of a label.
pub(crate) const LABEL_ID: [u8; 8] = *b"LABELONE";

/// The type of a label of LVM2.
pub(crate) const LABEL_TYPE: [u8; 8] = *b"LVM2 001";

/// The start of a label sector.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LabelHeader {
    pub(crate) id: [u8; 8],
    pub(crate) sector: U64,
    /// Of everything behind this field.
    pub(crate) crc: U32,
    /// From the start of the sector to the [`PvHeader`].
    pub(crate) offset: U32,
    pub(crate) kind: [u8; 8],
}

/// The fixed part of a physical volume's header. Two lists of [`DiskArea`] follow (data, metadata),
/// each ended by one with offset 0.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PvHeader {
    pub(crate) uuid: [u8; 32],
    /// In bytes.
    pub(crate) device_size: U64,
}

/// A range of the device, in bytes. Size 0: up to the end.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DiskArea {
    pub(crate) offset: U64,
    pub(crate) size: U64,
}

/// The magic of a metadata area.
pub(crate) const AREA_MAGIC: [u8; 16] = *b" LVM2 x[5A%r0N*>";

/// The start of the header of a metadata area. [`RawLocation`]s follow, ended by one with offset 0.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct AreaHeader {
    /// Of the rest of the sector.
    pub(crate) checksum: U32,
    pub(crate) magic: [u8; 16],
    pub(crate) version: U32,
    /// Where this header is on the device.
    pub(crate) start: U64,
    /// Of the whole area, in bytes.
    pub(crate) size: U64,
}

/// Where a text is in the ring of a metadata area, counted from the start of the area.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawLocation {
    pub(crate) offset: U64,
    /// In bytes, with the final NUL.
    pub(crate) size: U64,
    pub(crate) checksum: U32,
    /// Bit 0: the area is not in use.
    pub(crate) flags: U32,
}

/// Bit of [`RawLocation::flags`].
pub(crate) const AREA_IGNORED: u32 = 1;

const _: () = assert!(size_of::<LabelHeader>() == 32);
const _: () = assert!(size_of::<PvHeader>() == 40);
const _: () = assert!(size_of::<AreaHeader>() == 40);
const _: () = assert!(size_of::<RawLocation>() == 24);
