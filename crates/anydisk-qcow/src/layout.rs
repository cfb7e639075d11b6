//! The file as bytes. All numbers are big-endian; table entries are plain `u64`s.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `QFI\xfb`, the same as in qcow2.
pub const MAGIC: u32 = 0x5146_49FB;

/// The only version that is qcow; from 2 on it is qcow2.
pub const VERSION: u32 = 1;

/// The header, at the start of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of QEMU's source, which is the specification")]
pub struct RawHeader {
    pub magic: U32,
    pub version: U32,
    pub backing_file_offset: U64,
    pub backing_file_size: U32,
    pub mtime: U32,
    pub size: U64,
    pub cluster_bits: u8,
    pub l2_bits: u8,
    pub padding: U16,
    pub crypt_method: U32,
    pub l1_table_offset: U64,
}
const _: () = assert!(size_of::<RawHeader>() == 48);

/// Bit of an L2 entry: the cluster is compressed.
pub const COMPRESSED: u64 = 1 << 63;

/// Low bits of an L2 entry that names a plain cluster: they must be 0.
pub const UNALIGNED: u64 = 0x1ff;
