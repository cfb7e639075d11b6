//! The file as bytes: the tables of VMware's "Virtual Disk Format 5.0". No logic.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector: the unit of every offset and size in a VMDK, also on disks with sectors of
/// 4 KiB.
pub(crate) const SECTOR: u64 = 512;

/// `KDMV`, the first bytes of a hosted sparse extent.
pub(crate) const MAGIC: [u8; 4] = *b"KDMV";

/// `COWD`, the first bytes of an ESX redo log.
pub(crate) const COWD_MAGIC: [u8; 4] = *b"COWD";

/// The first bytes of an ESXi space-efficient sparse extent: 0x00000000CAFEBABE.
pub(crate) const SESPARSE_MAGIC: [u8; 8] = [0xBE, 0xBA, 0xFE, 0xCA, 0, 0, 0, 0];

/// `gdOffset` of a stream whose directory is named by the footer.
pub(crate) const GD_AT_END: u64 = u64::MAX;

/// What a copy in text mode would have changed: `\n`, blank, `\r\n`.
pub(crate) const LINE_CHARS: [u8; 4] = *b"\n \r\n";

/// Bits of [`SparseHeader::flags`].
pub(crate) mod flags {
    /// The newline detector is valid.
    pub(crate) const NEWLINE_DETECTOR: u32 = 1 << 0;
    /// A second directory and second tables exist.
    pub(crate) const REDUNDANT: u32 = 1 << 1;
    /// Table entry 1 is a grain of zeroes.
    pub(crate) const ZEROED_GRAIN: u32 = 1 << 2;
    /// Grains are compressed.
    pub(crate) const COMPRESSED: u32 = 1 << 16;
    /// Each grain begins with its guest sector, and markers stand between the blocks.
    pub(crate) const MARKERS: u32 = 1 << 17;
    /// Bits that change how the file must be read.
    pub(crate) const INCOMPATIBLE: u32 = 0xFFFF_0000;
}

/// Header of a hosted sparse extent, also its footer. Offsets and sizes are in sectors.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the specification's spelling")]
pub(crate) struct SparseHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) capacity: U64,
    pub(crate) grainSize: U64,
    pub(crate) descriptorOffset: U64,
    pub(crate) descriptorSize: U64,
    pub(crate) numGTEsPerGT: U32,
    pub(crate) rgdOffset: U64,
    pub(crate) gdOffset: U64,
    pub(crate) overHead: U64,
    pub(crate) uncleanShutdown: u8,
    pub(crate) lineChars: [u8; 4],
    pub(crate) compressAlgorithm: U16,
    pub(crate) pad: [u8; 433],
}
const _: () = assert!(size_of::<SparseHeader>() == 512);

/// Header of a COWD extent (ESX redo log), without the names that follow. Offsets in sectors.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(non_snake_case, reason = "the specification's spelling")]
pub(crate) struct CowdHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) numSectors: U32,
    pub(crate) grainSize: U32,
    pub(crate) gdOffset: U32,
    pub(crate) numGDEntries: U32,
    pub(crate) freeSector: U32,
}
const _: () = assert!(size_of::<CowdHeader>() == 32);

/// The version of the only seSparse extents there are: 2.1.
pub(crate) const SE_VERSION: u64 = 0x0000_0002_0000_0001;

/// Sectors of a seSparse grain.
pub(crate) const SE_GRAIN_SECTORS: u64 = 8;

/// Sectors of a seSparse grain table.
pub(crate) const SE_TABLE_SECTORS: u64 = 64;

/// Entries in a seSparse grain table, 8 bytes each.
pub(crate) const SE_ENTRIES: u32 = 4096;

/// Magic of the header of a seSparse extent that changes.
pub(crate) const VOLATILE_MAGIC: u64 = 0x0000_0000_CAFE_CAFE;

/// Header of a seSparse extent. VMware tells nothing; the names are qemu's. Offsets and sizes are in
/// sectors.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SeSparseHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U64,
    pub(crate) capacity: U64,
    pub(crate) grain_size: U64,
    pub(crate) grain_table_size: U64,
    pub(crate) flags: U64,
    pub(crate) reserved: [U64; 4],
    pub(crate) volatile_header_offset: U64,
    pub(crate) volatile_header_size: U64,
    pub(crate) journal_header_offset: U64,
    pub(crate) journal_header_size: U64,
    pub(crate) journal_offset: U64,
    pub(crate) journal_size: U64,
    pub(crate) grain_dir_offset: U64,
    pub(crate) grain_dir_size: U64,
    pub(crate) grain_tables_offset: U64,
    pub(crate) grain_tables_size: U64,
    pub(crate) free_bitmap_offset: U64,
    pub(crate) free_bitmap_size: U64,
    pub(crate) back_map_offset: U64,
    pub(crate) back_map_size: U64,
    pub(crate) grains_offset: U64,
    pub(crate) grains_size: U64,
    pub(crate) pad: [u8; 304],
}
const _: () = assert!(size_of::<SeSparseHeader>() == 512);

/// The header of a seSparse extent that changes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct VolatileHeader {
    pub(crate) magic: U64,
    pub(crate) free_gt_number: U64,
    pub(crate) next_txn_seq_number: U64,
    /// Not 0: what the journal holds is not in the tables.
    pub(crate) replay_journal: U64,
    pub(crate) pad: [u8; 480],
}
const _: () = assert!(size_of::<VolatileHeader>() == 512);

/// Bytes of a COWD header.
pub(crate) const COWD_HEADER: u64 = 4 * SECTOR;

/// In a COWD header, the name of the parent, and how many bytes it may have; or the geometry of a disk
/// without one.
pub(crate) const COWD_PARENT: u64 = 32;
pub(crate) const COWD_PARENT_LEN: usize = 1024;

/// Where a COWD header keeps its next free sector, and whether it was closed.
pub(crate) const COWD_FREE_SECTOR: u64 = 28;
pub(crate) const COWD_UNCLEAN: u64 = 1648;

/// Entries in a COWD grain table.
pub(crate) const COWD_ENTRIES: u32 = 4096;

/// What stands before a compressed grain: `size` bytes of data follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct GrainMarker {
    /// The grain's first guest sector in the extent.
    pub(crate) lba: U64,
    /// Compressed bytes, more than 0.
    pub(crate) size: U32,
}
const _: () = assert!(size_of::<GrainMarker>() == 12);

/// What stands before metadata in a stream: `value` sectors of it follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MetadataMarker {
    pub(crate) value: U64,
    /// 0: this is what tells it from a grain.
    pub(crate) size: U32,
    pub(crate) kind: U32,
    pub(crate) pad: [u8; 496],
}
const _: () = assert!(size_of::<MetadataMarker>() == 512);

impl MetadataMarker {
    /// What stands before `sectors` sectors of metadata.
    pub(crate) fn new(kind: u32, sectors: u64) -> Self {
        Self { value: sectors.into(), size: 0.into(), kind: kind.into(), pad: [0; 496] }
    }
}

/// Values of [`MetadataMarker::kind`].
pub(crate) mod marker {
    pub(crate) const END_OF_STREAM: u32 = 0;
    pub(crate) const GRAIN_TABLE: u32 = 1;
    pub(crate) const GRAIN_DIRECTORY: u32 = 2;
    pub(crate) const FOOTER: u32 = 3;
    /// In exports of vSphere; what it says is not known.
    pub(crate) const PROGRESS: u32 = 4;
}
