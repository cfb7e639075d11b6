//! The file as bytes. All numbers are big-endian; entries of tables are plain `u64`s, but those of
//! bitmaps, whose lowest bits come first.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a file begins with.
pub const MAGIC: [u8; 4] = *b"shdw";

/// The header, at the start of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names that others gave the fields, who looked at such files")]
pub struct RawHeader {
    pub magic: [u8; 4],
    pub version: U32,
    pub header_size: U32,
    pub flags: U32,
    pub directories: [U64; 2],
    pub uuid: [u8; 16],
    pub sector_count: U64,
    pub max_sector_count: U64,
    pub chunk_size: U32,
    pub block_size: U16,
    pub total_segments: U16,
    pub metadata_chunk: U64,
    pub unknown: [u8; 16],
    pub read_only_flags: U32,
    pub metadata_flags: U32,
    pub metadata_read_only_flags: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 108);

/// Parts of the entry of a chunk.
pub mod entry {
    /// The number of the chunk in the file.
    pub const NUMBER: u64 = (1 << 55) - 1;
    /// Where its state begins, in two bits.
    pub const STATE: u32 = 62;
    /// The state of a chunk that is not there.
    pub const NONE: u64 = 0;
    /// The state of a chunk that is all there.
    pub const WHOLE: u64 = 1;
    /// The state of a chunk whose sectors a bitmap tells.
    pub const PARTLY: u64 = 3;
}
