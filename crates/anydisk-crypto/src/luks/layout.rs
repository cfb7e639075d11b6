//! The headers as bytes (LUKS1 1.2.3, "2.1 header"; LUKS2 1.1.1, "2.1 Binary Header").

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first bytes of a LUKS header.
pub const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";

/// The first bytes of the second copy of a LUKS2 header.
pub(crate) const MAGIC_SECOND: [u8; 6] = *b"SKUL\xba\xbe";

/// Key slots of LUKS1.
pub(crate) const SLOTS: usize = 8;

/// Key slot of LUKS1 in use.
pub(crate) const SLOT_ENABLED: u32 = 0x00AC_71F3;

/// Key slot of LUKS1 not in use.
pub(crate) const SLOT_DISABLED: u32 = 0x0000_DEAD;

/// Bytes of a LUKS2 header before its JSON.
pub(crate) const BINARY_LEN: usize = 4096;

/// Header of LUKS1.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Luks1 {
    pub(crate) magic: [u8; 6],
    pub(crate) version: U16,
    pub(crate) cipher_name: [u8; 32],
    pub(crate) cipher_mode: [u8; 32],
    pub(crate) hash_spec: [u8; 32],
    pub(crate) payload_offset: U32,
    pub(crate) key_bytes: U32,
    pub(crate) mk_digest: [u8; 20],
    pub(crate) mk_digest_salt: [u8; 32],
    pub(crate) mk_digest_iter: U32,
    pub(crate) uuid: [u8; 40],
    pub(crate) key_slots: [Luks1Slot; SLOTS],
}

/// Key slot of LUKS1.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Luks1Slot {
    pub(crate) active: U32,
    pub(crate) iterations: U32,
    pub(crate) salt: [u8; 32],
    pub(crate) key_material_offset: U32,
    pub(crate) stripes: U32,
}

/// Header of LUKS2, before the JSON.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Luks2 {
    pub(crate) magic: [u8; 6],
    pub(crate) version: U16,
    pub(crate) hdr_size: U64,
    pub(crate) seqid: U64,
    pub(crate) label: [u8; 48],
    pub(crate) csum_alg: [u8; 32],
    pub(crate) salt: [u8; 64],
    pub(crate) uuid: [u8; 40],
    pub(crate) subsystem: [u8; 48],
    pub(crate) hdr_offset: U64,
    pub(crate) padding: [u8; 184],
    pub(crate) csum: [u8; 64],
    pub(crate) padding4096: [u8; 7 * 512],
}

const _: () = assert!(size_of::<Luks1>() == 592);
const _: () = assert!(size_of::<Luks1Slot>() == 48);
const _: () = assert!(size_of::<Luks2>() == BINARY_LEN);
