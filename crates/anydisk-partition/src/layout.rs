//! Partition tables as bytes. No logic.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector of an MBR, and of most disks.
pub(crate) const SECTOR: u64 = 512;

/// The last bytes of an MBR and of each sector of the extended chain.
pub(crate) const SIGNATURE: [u8; 2] = [0x55, 0xAA];

/// Sector 0, or a sector of the chain of logical partitions.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Mbr {
    pub(crate) code: [u8; 446],
    pub(crate) entries: [MbrEntry; 4],
    pub(crate) signature: [u8; 2],
}

/// A partition of an MBR, in sectors.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MbrEntry {
    /// 0x80: the one to boot from; else 0.
    pub(crate) status: u8,
    pub(crate) first_chs: [u8; 3],
    pub(crate) kind: u8,
    pub(crate) last_chs: [u8; 3],
    pub(crate) start: U32,
    pub(crate) count: U32,
}

/// The first bytes of a GPT header.
pub(crate) const GPT_MAGIC: [u8; 8] = *b"EFI PART";

/// Header of a GPT (UEFI, "GPT Header"). Places are numbers of sectors.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct GptHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) revision: U32,
    pub(crate) header_size: U32,
    /// Of `header_size` bytes, with this field 0.
    pub(crate) header_crc: U32,
    pub(crate) reserved: U32,
    pub(crate) my_lba: U64,
    pub(crate) alternate_lba: U64,
    pub(crate) first_usable_lba: U64,
    pub(crate) last_usable_lba: U64,
    pub(crate) disk_guid: [u8; 16],
    pub(crate) entries_lba: U64,
    pub(crate) entry_count: U32,
    pub(crate) entry_size: U32,
    pub(crate) entries_crc: U32,
}

/// A partition of a GPT. `last_lba` belongs to it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct GptEntry {
    pub(crate) type_guid: [u8; 16],
    pub(crate) unique_guid: [u8; 16],
    pub(crate) first_lba: U64,
    pub(crate) last_lba: U64,
    pub(crate) attributes: U64,
    pub(crate) name: [U16; 36],
}

const _: () = assert!(size_of::<Mbr>() == 512);
const _: () = assert!(size_of::<GptHeader>() == 92);
const _: () = assert!(size_of::<GptEntry>() == 128);
