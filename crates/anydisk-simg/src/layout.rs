//! The file as bytes. All numbers are little-endian.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a file begins with.
pub const MAGIC: u32 = 0xED26_FF3A;

/// The header of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names of libsparse")]
pub struct RawHeader {
    pub magic: U32,
    pub major_version: U16,
    pub minor_version: U16,
    pub file_hdr_sz: U16,
    pub chunk_hdr_sz: U16,
    pub blk_sz: U32,
    pub total_blks: U32,
    pub total_chunks: U32,
    pub image_checksum: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 28);

/// The header of a chunk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names of libsparse")]
pub struct RawChunk {
    pub chunk_type: U16,
    pub reserved1: U16,
    pub chunk_sz: U32,
    pub total_sz: U32,
}
const _: () = assert!(size_of::<RawChunk>() == 12);

/// Values of `chunk_type`.
pub mod kind {
    /// Blocks as they are.
    pub const RAW: u16 = 0xCAC1;
    /// Blocks of one pattern of four bytes.
    pub const FILL: u16 = 0xCAC2;
    /// Blocks of any content.
    pub const DONT_CARE: u16 = 0xCAC3;
    /// No blocks: the CRC-32 of all that came before.
    pub const CRC32: u16 = 0xCAC4;
}
