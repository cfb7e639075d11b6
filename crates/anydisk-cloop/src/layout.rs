//! The file as bytes. All numbers are big-endian; offsets are plain `u64`s.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a file begins with: a shell script that mounts it.
pub const SCRIPT: [u8; 11] = *b"#!/bin/sh\n#";

/// Where the version stands in the script.
pub const VERSION_AT: usize = 11;

/// The header, at the start of the file or at its end.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names that the kernel's module gives the fields")]
pub struct RawHeader {
    pub preamble: [u8; 128],
    pub block_size: U32,
    pub num_blocks: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 136);

/// What an entry of version 4 says in its four highest bits.
pub mod codec {
    /// A zlib stream.
    pub const ZLIB: u64 = 0;
    /// Not packed.
    pub const NONE: u64 = 1;
    /// An .xz stream.
    pub const XZ: u64 = 2;
    /// A block of LZ4.
    pub const LZ4: u64 = 3;
    /// LZO1X.
    pub const LZO: u64 = 4;
}
