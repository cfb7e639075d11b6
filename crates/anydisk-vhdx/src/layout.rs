//! The file as bytes: the structures of MS-VHDX. No logic.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a file begins with.
pub(crate) const FILE_SIGNATURE: [u8; 8] = *b"vhdxfile";

/// Regions, blocks and the log begin at multiples of so many bytes.
pub(crate) const MIB: u64 = 1 << 20;

/// The sector of the log, and of what it changes.
pub(crate) const LOG_SECTOR: u64 = 4096;

/// Where the two headers are.
pub(crate) const HEADERS: [u64; 2] = [64 << 10, 128 << 10];

/// Where the two region tables are.
pub(crate) const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];

/// Bytes of a region table, and of a metadata table.
pub(crate) const TABLE_LEN: usize = 64 << 10;

/// Most entries of either.
pub(crate) const MOST_ENTRIES: usize = 2047;

pub(crate) const HEADER_SIGNATURE: [u8; 4] = *b"head";
pub(crate) const REGION_SIGNATURE: [u8; 4] = *b"regi";
pub(crate) const METADATA_SIGNATURE: [u8; 8] = *b"metadata";
pub(crate) const LOG_SIGNATURE: [u8; 4] = *b"loge";
pub(crate) const ZERO_SIGNATURE: [u8; 4] = *b"zero";
pub(crate) const DATA_SIGNATURE: [u8; 4] = *b"desc";
pub(crate) const SECTOR_SIGNATURE: [u8; 4] = *b"data";

/// GUIDs, as their bytes lie in the file.
pub(crate) mod guid {
    pub(crate) const BAT: [u8; 16] = bytes(0x2DC2_7766, 0xF623, 0x4200, 0x9D64_115E_9BFD_4A08);
    pub(crate) const METADATA: [u8; 16] = bytes(0x8B7C_A206, 0x4790, 0x4B9A, 0xB8FE_575F_050F_886E);
    pub(crate) const FILE_PARAMETERS: [u8; 16] =
        bytes(0xCAA1_6737, 0xFA36, 0x4D43, 0xB3B6_33F0_AA44_E76B);
    pub(crate) const DISK_SIZE: [u8; 16] =
        bytes(0x2FA5_4224, 0xCD1B, 0x4876, 0xB211_5DBE_D83B_F4B8);
    pub(crate) const DISK_ID: [u8; 16] = bytes(0xBECA_12AB, 0xB2E6, 0x4523, 0x93EF_C309_E000_C746);
    pub(crate) const LOGICAL_SECTOR: [u8; 16] =
        bytes(0x8141_BF1D, 0xA96F, 0x4709, 0xBA47_F233_A8FA_AB5F);
    pub(crate) const PHYSICAL_SECTOR: [u8; 16] =
        bytes(0xCDA3_48C7, 0x445D, 0x4471, 0x9CC9_E988_5251_C556);
    pub(crate) const PARENT_LOCATOR: [u8; 16] =
        bytes(0xA8D3_5F2D, 0xB30B, 0x454D, 0xABF7_D3D8_4834_AB0C);
    pub(crate) const VHDX_PARENT: [u8; 16] =
        bytes(0xB04A_EFB7, 0xD19E, 0x4A81, 0xB789_25B8_E944_5913);

    /// The first three parts little-endian, the last two as the text shows them.
    const fn bytes(a: u32, b: u16, c: u16, rest: u64) -> [u8; 16] {
        let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), rest.to_be_bytes());
        [
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ]
    }
}

/// "Headers": the part of 4 KiB that means something.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawHeader {
    pub(crate) Signature: [u8; 4],
    pub(crate) Checksum: U32,
    pub(crate) SequenceNumber: U64,
    pub(crate) FileWriteGuid: [u8; 16],
    pub(crate) DataWriteGuid: [u8; 16],
    pub(crate) LogGuid: [u8; 16],
    pub(crate) LogVersion: U16,
    pub(crate) Version: U16,
    pub(crate) LogLength: U32,
    pub(crate) LogOffset: U64,
}
const _: () = assert!(size_of::<RawHeader>() == 80);

/// What a region table begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawRegionTable {
    pub(crate) Signature: [u8; 4],
    pub(crate) Checksum: U32,
    pub(crate) EntryCount: U32,
    pub(crate) Reserved: U32,
}
const _: () = assert!(size_of::<RawRegionTable>() == 16);

/// An entry of a region table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawRegion {
    pub(crate) Guid: [u8; 16],
    pub(crate) FileOffset: U64,
    pub(crate) Length: U32,
    pub(crate) Required: U32,
}
const _: () = assert!(size_of::<RawRegion>() == 32);

/// What a metadata table begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawMetadataTable {
    pub(crate) Signature: [u8; 8],
    pub(crate) Reserved: U16,
    pub(crate) EntryCount: U16,
    pub(crate) Reserved2: [u8; 20],
}
const _: () = assert!(size_of::<RawMetadataTable>() == 32);

/// An entry of a metadata table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawItem {
    pub(crate) ItemId: [u8; 16],
    pub(crate) Offset: U32,
    pub(crate) Length: U32,
    pub(crate) Flags: U32,
    pub(crate) Reserved: U32,
}
const _: () = assert!(size_of::<RawItem>() == 32);

/// The item's bits.
pub(crate) const IS_USER: u32 = 1;
pub(crate) const IS_REQUIRED: u32 = 4;

/// The bits behind the block size in the file parameters.
pub(crate) const LEAVE_BLOCKS: u32 = 1;
pub(crate) const HAS_PARENT: u32 = 2;

/// What a parent locator begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawLocator {
    pub(crate) LocatorType: [u8; 16],
    pub(crate) Reserved: U16,
    pub(crate) KeyValueCount: U16,
}
const _: () = assert!(size_of::<RawLocator>() == 20);

/// An entry of a parent locator.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawKeyValue {
    pub(crate) KeyOffset: U32,
    pub(crate) ValueOffset: U32,
    pub(crate) KeyLength: U16,
    pub(crate) ValueLength: U16,
}
const _: () = assert!(size_of::<RawKeyValue>() == 12);

/// What an entry of the log begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawLogEntry {
    pub(crate) Signature: [u8; 4],
    pub(crate) Checksum: U32,
    pub(crate) EntryLength: U32,
    pub(crate) Tail: U32,
    pub(crate) SequenceNumber: U64,
    pub(crate) DescriptorCount: U32,
    pub(crate) Reserved: U32,
    pub(crate) LogGuid: [u8; 16],
    pub(crate) FlushedFileOffset: U64,
    pub(crate) LastFileOffset: U64,
}
const _: () = assert!(size_of::<RawLogEntry>() == 64);

/// A descriptor of a log entry, of either kind.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the spelling of the specification")]
pub(crate) struct RawDescriptor {
    pub(crate) Signature: [u8; 4],
    /// Of data: the last four bytes of the sector.
    pub(crate) TrailingBytes: [u8; 4],
    /// Of data: the first eight bytes of the sector. Of zeroes: their number.
    pub(crate) LeadingBytes: [u8; 8],
    pub(crate) FileOffset: U64,
    pub(crate) SequenceNumber: U64,
}
const _: () = assert!(size_of::<RawDescriptor>() == 32);
