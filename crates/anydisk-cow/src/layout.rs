//! The file as bytes: one struct per kind of header. No logic.
//!
//! Names are those of the programs' sources. Numbers are big-endian but in user-mode Linux's
//! version 1, which has the byte order of the machine that wrote it.

use zerocopy::byteorder::{BigEndian, ByteOrder, I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `OOOM`.
pub const MAGIC: u32 = 0x4F4F_4F4D;

/// Bytes kept for the name of the backing file in QEMU's header, a NUL included.
pub const NAME_LEN: usize = 1024;

/// Bytes of the longest header here, which is that of user-mode Linux's version 3 with a long time.
pub const LONGEST: usize = size_of::<Uml3Long>();

/// The fields that all have.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Start {
    pub magic: U32<BigEndian>,
    pub version: U32<BigEndian>,
}
const _: () = assert!(size_of::<Start>() == 8);

/// QEMU, on machines that align numbers of 64 bits to 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Qemu64 {
    pub magic: U32<BigEndian>,
    pub version: U32<BigEndian>,
    pub backing_file: [u8; NAME_LEN],
    pub mtime: I32<BigEndian>,
    pub padding: U32<BigEndian>,
    pub size: U64<BigEndian>,
    pub sectorsize: U32<BigEndian>,
    pub end_padding: U32<BigEndian>,
}
const _: () = assert!(size_of::<Qemu64>() == 1056);

/// QEMU, on machines that align them to 4 bytes (x86 with 32 bits).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Qemu32 {
    pub magic: U32<BigEndian>,
    pub version: U32<BigEndian>,
    pub backing_file: [u8; NAME_LEN],
    pub mtime: I32<BigEndian>,
    pub size: U64<BigEndian>,
    pub sectorsize: U32<BigEndian>,
}
const _: () = assert!(size_of::<Qemu32>() == 1048);

/// User-mode Linux, version 1, in the byte order `O`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Uml1<O: ByteOrder> {
    pub magic: U32<O>,
    pub version: U32<O>,
    pub backing_file: [u8; 256],
    pub mtime: I32<O>,
    pub size: U64<O>,
    pub sectorsize: U32<O>,
}
const _: () = assert!(size_of::<Uml1<BigEndian>>() == 280);

/// User-mode Linux, version 1, with a time of 64 bits.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Uml1Long<O: ByteOrder> {
    pub magic: U32<O>,
    pub version: U32<O>,
    pub backing_file: [u8; 256],
    pub mtime: I64<O>,
    pub size: U64<O>,
    pub sectorsize: U32<O>,
    pub end_padding: U32<O>,
}
const _: () = assert!(size_of::<Uml1Long<BigEndian>>() == 288);

/// User-mode Linux, version 2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Uml2 {
    pub magic: U32<BigEndian>,
    pub version: U32<BigEndian>,
    pub backing_file: [u8; 4096],
    pub mtime: I32<BigEndian>,
    pub size: U64<BigEndian>,
    pub sectorsize: U32<BigEndian>,
}
const _: () = assert!(size_of::<Uml2>() == 4120);

/// User-mode Linux, version 3.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Uml3 {
    pub magic: U32<BigEndian>,
    pub version: U32<BigEndian>,
    pub mtime: I32<BigEndian>,
    pub size: U64<BigEndian>,
    pub sectorsize: U32<BigEndian>,
    pub alignment: U32<BigEndian>,
    pub cow_format: U32<BigEndian>,
    pub backing_file: [u8; 4096],
}
const _: () = assert!(size_of::<Uml3>() == 4128);

/// User-mode Linux, version 3, as 64-bit programs of before 2006 wrote it: with a time of 64 bits.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the sources name the fields")]
pub struct Uml3Long {
    pub magic: U32<BigEndian>,
    pub version: U32<BigEndian>,
    pub mtime: I64<BigEndian>,
    pub size: U64<BigEndian>,
    pub sectorsize: U32<BigEndian>,
    pub alignment: U32<BigEndian>,
    pub cow_format: U32<BigEndian>,
    pub backing_file: [u8; 4096],
}
const _: () = assert!(size_of::<Uml3Long>() == 4132);
