//! The file as bytes. All numbers are big-endian.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// What a trailer begins with.
pub const KOLY: [u8; 4] = *b"koly";

/// What a table begins with.
pub const MISH: [u8; 4] = *b"mish";

/// What an encrypted image of version 2 begins with.
pub const ENCRYPTED: [u8; 8] = *b"encrcdsa";

/// What an encrypted image of version 1 ends with.
pub const ENCRYPTED_V1: [u8; 8] = *b"cdsaencr";

/// A checksum.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the description of the format names and explains the fields")]
pub struct RawChecksum {
    pub kind: U32,
    pub bits: U32,
    pub value: [u8; 128],
}

/// The trailer, the last 512 bytes of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the description of the format names and explains the fields")]
pub struct RawTrailer {
    pub signature: [u8; 4],
    pub version: U32,
    pub header_size: U32,
    pub flags: U32,
    pub running_data_fork_offset: U64,
    pub data_fork_offset: U64,
    pub data_fork_length: U64,
    pub rsrc_fork_offset: U64,
    pub rsrc_fork_length: U64,
    pub segment_number: U32,
    pub segment_count: U32,
    pub segment_id: [u8; 16],
    pub data_checksum: RawChecksum,
    pub xml_offset: U64,
    pub xml_length: U64,
    pub reserved: [u8; 120],
    pub master_checksum: RawChecksum,
    pub image_variant: U32,
    pub sector_count: U64,
    pub reserved_end: [u8; 12],
}
const _: () = assert!(size_of::<RawTrailer>() == 512);

/// The head of a table; its chunks follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the description of the format names and explains the fields")]
pub struct RawTable {
    pub signature: [u8; 4],
    pub version: U32,
    pub first_sector: U64,
    pub sector_count: U64,
    pub data_offset: U64,
    pub buffers_needed: U32,
    pub descriptor: U32,
    pub reserved: [u8; 24],
    pub checksum: RawChecksum,
    pub chunk_count: U32,
}
const _: () = assert!(size_of::<RawTable>() == 204);

/// A chunk: a run of sectors, packed in one piece.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the description of the format names and explains the fields")]
pub struct RawChunk {
    pub kind: U32,
    pub comment: U32,
    pub sector: U64,
    pub sector_count: U64,
    pub offset: U64,
    pub length: U64,
}
const _: () = assert!(size_of::<RawChunk>() == 40);

/// The header of an encrypted image of version 2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names that others gave the fields")]
pub struct RawEncrypted {
    pub signature: [u8; 8],
    pub version: U32,
    pub iv_size: U32,
    pub mode: U32,
    pub algorithm: U32,
    pub key_bits: U32,
    pub hmac_algorithm: U32,
    pub hmac_bits: U32,
    pub uuid: [u8; 16],
    pub block_size: U32,
    pub data_size: U64,
    pub data_offset: U64,
    pub key_count: U32,
}
const _: () = assert!(size_of::<RawEncrypted>() == 76);

/// Where a key is; these follow the header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names that others gave the fields")]
pub struct RawKey {
    pub kind: U32,
    pub offset: U64,
    pub size: U64,
}
const _: () = assert!(size_of::<RawKey>() == 20);

/// A key that a passphrase opens; what is encrypted follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names that others gave the fields")]
pub struct RawPassphrase {
    pub kdf_algorithm: U32,
    pub kdf_hash: U32,
    pub iterations: U32,
    pub salt_len: U32,
    pub salt: [u8; 32],
    pub iv_len: U32,
    pub iv: [u8; 32],
    pub key_bits: U32,
    pub algorithm: U32,
    pub padding: U32,
    pub mode: U32,
    pub blob_len: U32,
}
const _: () = assert!(size_of::<RawPassphrase>() == 104);

/// Values of the fields of encrypted images.
pub mod encryption {
    /// `algorithm` of the image: AES.
    pub const AES: u32 = 0x8000_0001;
    /// `kind` of a key that a passphrase opens.
    pub const PASSPHRASE: u32 = 1;
    /// `kdf_algorithm`, `kdf_hash`, `key_bits`, `algorithm`, `padding` and `mode` of such a key:
    /// PBKDF2 with SHA-1; 192 bits of triple DES, CBC, filled up as PKCS 7 does.
    pub const PBKDF2_SHA1_TRIPLE_DES_CBC: [u32; 6] = [103, 0, 192, 17, 7, 6];
}

/// Values of `kind`.
pub mod kind {
    /// Sectors of zeroes.
    pub const ZERO: u32 = 0;
    /// Sectors as they are.
    pub const RAW: u32 = 1;
    /// Free space, which reads as zero.
    pub const IGNORE: u32 = 2;
    /// No sectors, a comment.
    pub const COMMENT: u32 = 0x7FFF_FFFE;
    /// Apple data compression.
    pub const ADC: u32 = 0x8000_0004;
    /// A zlib stream.
    pub const ZLIB: u32 = 0x8000_0005;
    /// A bzip2 stream.
    pub const BZIP2: u32 = 0x8000_0006;
    /// An LZFSE stream.
    pub const LZFSE: u32 = 0x8000_0007;
    /// An .xz stream.
    pub const XZ: u32 = 0x8000_0008;
    /// The end of a table.
    pub const END: u32 = 0xFFFF_FFFF;
}

/// Values of a checksum's `kind`.
pub mod checksum {
    /// There is none.
    pub const NONE: u32 = 0;
    /// The CRC-32 of zlib, 32 bits.
    pub const CRC32: u32 = 2;
}
