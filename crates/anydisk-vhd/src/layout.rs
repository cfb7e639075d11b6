//! The file as bytes: the structures of the VHD specification, version 1.0. No logic.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector: the unit of places, bitmaps and sizes.
pub(crate) const SECTOR: u64 = 512;

/// What a footer begins with.
pub(crate) const COOKIE: [u8; 8] = *b"conectix";

/// What a dynamic header begins with.
pub(crate) const DYNAMIC_COOKIE: [u8; 8] = *b"cxsparse";

/// The version of both, 1.0.
pub(crate) const VERSION: u32 = 0x0001_0000;

/// Bytes of an entry of the block allocation table.
pub(crate) const ENTRY: u64 = 4;

/// An entry: nothing here.
pub(crate) const ABSENT: u32 = 0xFFFF_FFFF;

/// Values of `disk_type`.
pub(crate) mod kind {
    pub(crate) const FIXED: u32 = 2;
    pub(crate) const DYNAMIC: u32 = 3;
    pub(crate) const DIFFERENCING: u32 = 4;
}

/// Values of [`Locator::code`].
pub(crate) mod code {
    /// A path relative to the child, UTF-16, little-endian.
    pub(crate) const RELATIVE: [u8; 4] = *b"W2ru";
    /// A whole path, UTF-16, little-endian.
    pub(crate) const ABSOLUTE: [u8; 4] = *b"W2ku";
}

/// "Hard Disk Footer Format". It ends the file; dynamic and differencing disks begin with a copy.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct RawFooter {
    pub(crate) cookie: [u8; 8],
    pub(crate) features: U32,
    pub(crate) version: U32,
    pub(crate) data_offset: U64,
    pub(crate) timestamp: U32,
    pub(crate) creator_application: [u8; 4],
    pub(crate) creator_version: U32,
    pub(crate) creator_host_os: [u8; 4],
    pub(crate) original_size: U64,
    pub(crate) current_size: U64,
    pub(crate) cylinders: U16,
    pub(crate) heads: u8,
    pub(crate) sectors: u8,
    pub(crate) disk_type: U32,
    pub(crate) checksum: U32,
    pub(crate) unique_id: [u8; 16],
    pub(crate) saved_state: u8,
    pub(crate) reserved: [u8; 427],
}
const _: () = assert!(size_of::<RawFooter>() == 512);

/// "Parent Locator Entry".
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct Locator {
    pub(crate) code: [u8; 4],
    /// Room that is kept for it: sectors by the specification, bytes by Windows. Nobody needs it.
    pub(crate) data_space: U32,
    pub(crate) data_length: U32,
    pub(crate) reserved: U32,
    pub(crate) data_offset: U64,
}
const _: () = assert!(size_of::<Locator>() == 24);

/// Locators in a dynamic header.
pub(crate) const LOCATORS: usize = 8;

/// "Dynamic Disk Header Format".
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) cookie: [u8; 8],
    pub(crate) data_offset: U64,
    pub(crate) table_offset: U64,
    pub(crate) header_version: U32,
    pub(crate) max_table_entries: U32,
    pub(crate) block_size: U32,
    pub(crate) checksum: U32,
    pub(crate) parent_unique_id: [u8; 16],
    pub(crate) parent_time_stamp: U32,
    pub(crate) reserved: U32,
    /// UTF-16, big-endian.
    pub(crate) parent_unicode_name: [u8; 512],
    pub(crate) parent_locators: [Locator; LOCATORS],
    pub(crate) reserved_end: [u8; 256],
}
const _: () = assert!(size_of::<RawHeader>() == 1024);
