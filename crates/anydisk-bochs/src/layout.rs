//! The file as bytes. All numbers are little-endian; entries of the catalog are plain `u32`s.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// What a file begins with, filled up with NULs.
pub const MAGIC: [u8; 23] = *b"Bochs Virtual HD Image\0";

/// The only type there is.
pub const REDOLOG: [u8; 8] = *b"Redolog\0";

/// A disk of its own.
pub const GROWING: [u8; 8] = *b"Growing\0";

/// Version 2, with a timestamp.
pub const VERSION_2: u32 = 0x0002_0000;

/// Version 1, without one.
pub const VERSION_1: u32 = 0x0001_0000;

/// An entry of the catalog that names no extent.
pub const NONE: u32 = 0xFFFF_FFFF;

/// The header, at the start of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names that Bochs gives the fields")]
pub struct RawHeader {
    pub magic: [u8; 32],
    pub kind: [u8; 16],
    pub subtype: [u8; 16],
    pub version: U32,
    pub header: U32,
    pub catalog: U32,
    pub bitmap: U32,
    pub extent: U32,
    /// In version 1 the size begins here, and `disk` holds its second half.
    pub timestamp: U32,
    pub disk: U64,
}
const _: () = assert!(size_of::<RawHeader>() == 96);
