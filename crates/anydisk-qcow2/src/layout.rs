//! The file as bytes: one struct per table of the specification, same names, same order. No logic.
//!
//! All numbers are big-endian. Entries of the L1 and L2 tables are plain `u64`s; their bits are
//! named here and read by [`Geometry`](crate::Geometry).

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `QFI\xfb`.
pub const MAGIC: u32 = 0x5146_49FB;

/// Bytes of the version 2 header: the first fields of [`RawHeader`].
pub const V2_HEADER_LEN: usize = 72;
/// Shortest header of version 3: without a compression type.
pub const V3_HEADER_MIN: usize = 104;

/// The header, at the start of the file. Version 2 ends before `incompatible_features`; a version 3
/// header may end anywhere behind `header_length`, and what lies behind its end is not a field.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification names and explains the fields")]
pub struct RawHeader {
    pub magic: U32,
    pub version: U32,
    pub backing_file_offset: U64,
    pub backing_file_size: U32,
    pub cluster_bits: U32,
    pub size: U64,
    pub crypt_method: U32,
    pub l1_size: U32,
    pub l1_table_offset: U64,
    pub refcount_table_offset: U64,
    pub refcount_table_clusters: U32,
    pub nb_snapshots: U32,
    pub snapshots_offset: U64,
    pub incompatible_features: U64,
    pub compatible_features: U64,
    pub autoclear_features: U64,
    pub refcount_order: U32,
    pub header_length: U32,
    pub compression_type: u8,
    pub padding: [u8; 7],
}
const _: () = assert!(size_of::<RawHeader>() == 112);
const _: () = assert!(core::mem::offset_of!(RawHeader, incompatible_features) == V2_HEADER_LEN);
const _: () = assert!(core::mem::offset_of!(RawHeader, compression_type) == V3_HEADER_MIN);

/// Types of header extensions.
pub mod extension {
    /// End of the list.
    pub const END: u32 = 0;
    /// Name of the backing file's format.
    pub const BACKING_FORMAT: u32 = 0xE279_2ACA;
    /// Names of feature bits.
    pub const FEATURE_NAMES: u32 = 0x6803_F857;
    /// Where the persistent bitmaps are.
    pub const BITMAPS: u32 = 0x2385_2875;
    /// Where the LUKS header is.
    pub const CRYPTO_HEADER: u32 = 0x0537_BE77;
    /// Name of the external data file.
    pub const DATA_FILE: u32 = 0x4441_5441;
}

/// Begins every header extension; `length` bytes of data and padding to 8 follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification names and explains the fields")]
pub struct ExtensionHead {
    pub kind: U32,
    pub length: U32,
}
const _: () = assert!(size_of::<ExtensionHead>() == 8);

/// One entry of the feature name table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification names and explains the fields")]
pub struct RawFeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub kind: u8,
    pub bit: u8,
    /// Padded with zeroes.
    pub name: [u8; 46],
}
const _: () = assert!(size_of::<RawFeatureName>() == 48);

/// The fixed part of an entry of the snapshot table. Extra data, id and name follow, then padding
/// to 8.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification names and explains the fields")]
pub struct RawSnapshot {
    pub l1_table_offset: U64,
    pub l1_size: U32,
    pub id_str_size: U16,
    pub name_size: U16,
    pub date_sec: U32,
    pub date_nsec: U32,
    pub vm_clock_nsec: U64,
    pub vm_state_size: U32,
    pub extra_data_size: U32,
}
const _: () = assert!(size_of::<RawSnapshot>() == 40);

/// The data of the bitmaps extension.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification names and explains the fields")]
pub struct RawBitmaps {
    pub nb_bitmaps: U32,
    pub reserved32: U32,
    pub bitmap_directory_size: U64,
    pub bitmap_directory_offset: U64,
}
const _: () = assert!(size_of::<RawBitmaps>() == 24);

/// The fixed part of an entry of the bitmap directory. Extra data and name follow, then padding to
/// 8.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification names and explains the fields")]
pub struct RawBitmap {
    pub bitmap_table_offset: U64,
    pub bitmap_table_size: U32,
    pub flags: U32,
    pub kind: u8,
    pub granularity_bits: u8,
    pub name_size: U16,
    pub extra_data_size: U32,
}
const _: () = assert!(size_of::<RawBitmap>() == 24);

/// Flags and kinds of bitmaps, and bits of an entry of a bitmap table.
pub mod bitmap {
    /// Flag: a writer records in memory; what the file holds is not to be trusted.
    pub const IN_USE: u32 = 1 << 0;
    /// Flag: writes are recorded.
    pub const AUTO: u32 = 1 << 1;
    /// Kind: writes since some moment.
    pub const DIRTY_TRACKING: u8 = 1;
    /// Table entry: host offset of a cluster of bits; 0: none, see [`ALL_ONES`].
    pub const OFFSET: u64 = super::entry::OFFSET;
    /// Table entry without a cluster: all bits are 1, not 0.
    pub const ALL_ONES: u64 = 1;
}

/// Bits of an L1 entry and of the first word of an L2 entry.
pub mod entry {
    /// The refcount of what the entry names is exactly 1 (`QCOW_OFLAG_COPIED`).
    pub const COPIED: u64 = 1 << 63;
    /// The cluster is compressed. L2 only.
    pub const COMPRESSED: u64 = 1 << 62;
    /// The cluster reads as zeroes. Standard L2 entries of version 3 only.
    pub const ZERO: u64 = 1;
    /// Host offset of an L2 table or a standard cluster.
    pub const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
    /// First host offset that no entry can name.
    pub const HOST_END: u64 = 1 << 56;
}
