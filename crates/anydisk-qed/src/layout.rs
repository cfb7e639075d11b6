//! The file as bytes. All numbers are little-endian; table entries are plain `u64`s.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `QED`, and a NUL.
pub const MAGIC: [u8; 4] = *b"QED\0";

/// The header, at the start of the file (QED, "Header").
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the specification names and explains the fields")]
pub struct RawHeader {
    pub magic: [u8; 4],
    pub cluster_size: U32,
    pub table_size: U32,
    pub header_size: U32,
    pub features: U64,
    pub compat_features: U64,
    pub autoclear_features: U64,
    pub l1_table_offset: U64,
    pub image_size: U64,
    pub backing_filename_offset: U32,
    pub backing_filename_size: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 64);

/// Bits of `features`.
pub mod feature {
    /// There is a backing file.
    pub const BACKING_FILE: u64 = 1;
    /// The image was not closed cleanly: tables may name what is not there.
    pub const NEED_CHECK: u64 = 2;
    /// The backing file is raw, whatever it begins with.
    pub const BACKING_FORMAT_NO_PROBE: u64 = 4;
    /// All that is known.
    pub const KNOWN: u64 = 7;
}

/// The L2 entry of a cluster that reads as zeroes.
pub const ZERO: u64 = 1;
