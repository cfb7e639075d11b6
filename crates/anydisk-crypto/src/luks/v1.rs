//! The header of LUKS1: bytes to checked values, and back. Pure.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::mem::offset_of;
use std::ops::Range;

use anydisk_storage::HostOffset;
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{Luks1, Luks1Slot, MAGIC, SLOT_DISABLED, SLOT_ENABLED, SLOTS};
use super::{Payload, text_of};
use crate::{CipherSpec, Error, Hash, Result, SECTOR};

/// Stripes of every key slot.
pub(crate) const STRIPES: u32 = 4000;

/// Key slots begin at multiples of so many sectors.
const SLOT_ALIGN: u64 = 8;

/// A header of LUKS1 that keeps the rules.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) raw: Luks1,
    pub(crate) spec: CipherSpec,
    pub(crate) hash: Hash,
    pub(crate) uuid: String,
    pub(crate) key_bytes: usize,
    pub(crate) slots: Vec<Slot>,
}

/// A key slot of LUKS1.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) active: bool,
    pub(crate) iterations: u32,
    pub(crate) salt: [u8; 32],
    /// Bytes of the header's store.
    pub(crate) material: Range<u64>,
}

fn at(offset: usize) -> HostOffset {
    HostOffset(offset as u64)
}

/// Where a field of key slot `index` lies.
fn in_slot(index: usize, offset: usize) -> HostOffset {
    at(slot_offset(index).saturating_add(offset))
}

/// Where key slot `index` lies.
pub(crate) const fn slot_offset(index: usize) -> usize {
    offset_of!(Luks1, key_slots).saturating_add(index.saturating_mul(size_of::<Luks1Slot>()))
}

macro_rules! field {
    ($field:ident) => {
        (stringify!($field), at(offset_of!(Luks1, $field)))
    };
}

impl Header {
    /// Checks the header at the start of `bytes`.
    pub(crate) fn parse(bytes: &[u8], payload: Payload) -> Result<Self> {
        let (raw, _) = Luks1::read_from_prefix(bytes).map_err(|_| {
            Error::invalid("header", at(bytes.len()), crate::Found::Missing, "592 bytes")
        })?;
        if raw.magic != MAGIC {
            return Err(Error::invalid("magic", at(0), &raw.magic[..], "LUKS\\xba\\xbe"));
        }
        let found = raw.version.get();
        if found != 1 {
            let (field, place) = field!(version);
            return Err(Error::invalid(field, place, u32::from(found), "1"));
        }
        let (spec, hash) = encryption(&raw)?;
        let (field, place) = field!(uuid);
        let uuid = text_of(field, place, &raw.uuid)?.to_owned();
        let key_bytes = key_bytes(&raw, spec)?;
        if raw.mk_digest_iter.get() == 0 {
            let (field, place) = field!(mk_digest_iter);
            return Err(Error::invalid(field, place, 0_u32, "at least 1"));
        }
        let slots = slots(&raw, key_bytes)?;
        let header = Self { raw, spec, hash, uuid, key_bytes, slots };
        header.check_places(payload)?;
        Ok(header)
    }

    /// Position of the first byte of the payload; 0 with a detached header.
    pub(crate) fn payload_offset(&self) -> u64 {
        u64::from(self.raw.payload_offset.get()).saturating_mul(SECTOR)
    }

    /// Key slots lie behind the header and apart from each other, and all before the payload.
    fn check_places(&self, payload: Payload) -> Result<()> {
        let start = self.payload_offset();
        let (field, place) = field!(payload_offset);
        if payload == Payload::Behind && start < SLOT_ALIGN.saturating_mul(SECTOR) {
            let expected = "8 or more, unless the header is detached";
            return Err(Error::invalid(field, place, self.raw.payload_offset.get(), expected));
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let refuse = |expected: String| {
                let sector = slot.material.start / SECTOR;
                let place = in_slot(index, offset_of!(Luks1Slot, key_material_offset));
                Err(Error::invalid(
                    format!("key_slots[{index}].key_material_offset"),
                    place,
                    sector,
                    expected,
                ))
            };
            if slot.material.start < SLOT_ALIGN.saturating_mul(SECTOR) {
                return refuse("8 or more".into());
            }
            if payload == Payload::Behind && slot.material.end > start {
                return refuse(format!(
                    "{} sectors that end before the payload at {}",
                    slot.sectors(),
                    start / SECTOR
                ));
            }
            let before = self.slots.iter().take(index);
            if let Some(other) =
                before.enumerate().find(|(_, other)| overlap(&other.material, &slot.material))
            {
                return refuse(format!("no overlap with key slot {}", other.0));
            }
        }
        Ok(())
    }

    /// The header as bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.raw.as_bytes()
    }
}

impl Slot {
    fn sectors(&self) -> u64 {
        self.material.end.saturating_sub(self.material.start) / SECTOR
    }

    /// Bytes of key material, whole sectors.
    pub(crate) fn material_len(&self) -> usize {
        usize::try_from(self.material.end.saturating_sub(self.material.start)).unwrap_or(usize::MAX)
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

fn encryption(raw: &Luks1) -> Result<(CipherSpec, Hash)> {
    let (field, place) = field!(cipher_name);
    let cipher = text_of(field, place, &raw.cipher_name)?;
    let (field, place) = field!(cipher_mode);
    let mode = text_of(field, place, &raw.cipher_mode)?;
    let (field, place) = field!(hash_spec);
    let hash = text_of(field, place, &raw.hash_spec)?;
    Ok((CipherSpec::from_names(cipher, mode)?, Hash::by_name(hash)?))
}

fn key_bytes(raw: &Luks1, spec: CipherSpec) -> Result<usize> {
    let found = raw.key_bytes.get();
    let len = usize::try_from(found).ok().filter(|len| spec.takes_key(*len));
    let (field, place) = field!(key_bytes);
    len.ok_or_else(|| Error::invalid(field, place, found, format!("a length of keys of {spec}")))
}

fn slots(raw: &Luks1, key_bytes: usize) -> Result<Vec<Slot>> {
    raw.key_slots
        .iter()
        .enumerate()
        .map(|(index, slot)| parse_slot(index, slot, key_bytes))
        .collect()
}

fn parse_slot(index: usize, slot: &Luks1Slot, key_bytes: usize) -> Result<Slot> {
    let refuse = |name: &str, offset, found: crate::Found, expected: &'static str| {
        Error::invalid(
            format!("key_slots[{index}].{name}"),
            in_slot(index, offset),
            found,
            expected,
        )
    };
    let state = slot.active.get();
    let active = match state {
        SLOT_ENABLED => true,
        SLOT_DISABLED => false,
        _ => {
            let found = crate::Found::Hex(state.into());
            return Err(refuse(
                "active",
                offset_of!(Luks1Slot, active),
                found,
                "0xac71f3 or 0xdead",
            ));
        }
    };
    if active && slot.iterations.get() == 0 {
        let offset = offset_of!(Luks1Slot, iterations);
        return Err(refuse("iterations", offset, 0_u32.into(), "at least 1"));
    }
    if slot.stripes.get() != STRIPES {
        let (offset, found) = (offset_of!(Luks1Slot, stripes), slot.stripes.get());
        return Err(refuse("stripes", offset, found.into(), "4000"));
    }
    let start = u64::from(slot.key_material_offset.get()).saturating_mul(SECTOR);
    let material = start..start.saturating_add(material_len(key_bytes));
    Ok(Slot { active, iterations: slot.iterations.get(), salt: slot.salt, material })
}

/// Bytes of a slot's key material: the stripes, in whole sectors.
pub(crate) fn material_len(key_bytes: usize) -> u64 {
    (key_bytes as u64).saturating_mul(STRIPES.into()).next_multiple_of(SECTOR)
}

/// The sector where key slot `index` begins in a header that is made here; with `index` the number
/// of slots, where the last one ends (as cryptsetup and qemu lay them out).
pub(crate) fn new_slot_sector(key_bytes: usize, index: usize) -> u32 {
    let sectors = material_len(key_bytes) / SECTOR;
    let stride = sectors.next_multiple_of(SLOT_ALIGN);
    let sector = SLOT_ALIGN.saturating_add(stride.saturating_mul(index as u64));
    u32::try_from(sector).unwrap_or(u32::MAX)
}

/// Bytes of a header that is made here, its key slots included.
pub(crate) fn header_len(key_bytes: usize) -> u64 {
    u64::from(new_slot_sector(key_bytes, SLOTS)).saturating_mul(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Luks1 {
        let (mut raw, _) = Luks1::read_from_prefix(&[0; 592]).unwrap();
        raw.magic = MAGIC;
        raw.version = 1.into();
        raw.cipher_name[..3].copy_from_slice(b"aes");
        raw.cipher_mode[..11].copy_from_slice(b"xts-plain64");
        raw.hash_spec[..6].copy_from_slice(b"sha256");
        raw.payload_offset = 4040.into();
        raw.key_bytes = 64.into();
        raw.mk_digest_iter = 1000.into();
        for (index, slot) in raw.key_slots.iter_mut().enumerate() {
            slot.active = SLOT_DISABLED.into();
            slot.key_material_offset = new_slot_sector(64, index).into();
            slot.stripes = STRIPES.into();
        }
        raw
    }

    #[track_caller]
    fn refused(change: impl Fn(&mut Luks1), message: &str) {
        let mut raw = valid();
        change(&mut raw);
        let error = Header::parse(raw.as_bytes(), Payload::Behind).unwrap_err();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn a_valid_header_tells_its_encryption_and_its_places() {
        let header = Header::parse(valid().as_bytes(), Payload::Behind).unwrap();
        assert_eq!(header.spec.to_string(), "aes-xts-plain64");
        assert_eq!((header.key_bytes, header.payload_offset()), (64, 4040 * 512));
        assert_eq!(header.slots[1].material, 512 * 512..512 * 1012);
        assert_eq!(header_len(64), 4040 * 512);
    }

    #[test]
    fn key_slots_are_laid_out_as_qemu_and_cryptsetup_do() {
        for (key_bytes, end) in [(16, 1032), (32, 2056), (48, 3016), (64, 4040)] {
            assert_eq!(new_slot_sector(key_bytes, SLOTS), end);
        }
    }

    #[test]
    fn each_broken_rule_is_named_with_its_place_and_value() {
        refused(|raw| raw.version = 3.into(), "version at 0x6 is 3, expected 1");
        refused(
            |raw| raw.cipher_name = [b'a'; 32],
            "cipher_name at 0x8 is \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\", expected text that ends with a NUL",
        );
        refused(
            |raw| raw.key_bytes = 33.into(),
            "key_bytes at 0x6c is 33, expected a length of keys of aes-xts-plain64",
        );
        refused(
            |raw| raw.mk_digest_iter = 0.into(),
            "mk_digest_iter at 0xa4 is 0, expected at least 1",
        );
        refused(
            |raw| raw.key_slots[1].active = 7.into(),
            "key_slots[1].active at 0x100 is 0x7, expected 0xac71f3 or 0xdead",
        );
        refused(
            |raw| raw.key_slots[0].active = SLOT_ENABLED.into(),
            "key_slots[0].iterations at 0xd4 is 0, expected at least 1",
        );
        refused(
            |raw| raw.key_slots[2].stripes = 1.into(),
            "key_slots[2].stripes at 0x15c is 1, expected 4000",
        );
        refused(
            |raw| raw.payload_offset = 7.into(),
            "payload_offset at 0x68 is 7, expected 8 or more, unless the header is detached",
        );
    }

    #[test]
    fn key_slots_overlap_nothing_and_their_places_do_not_wrap() {
        let place = "key_slots[3].key_material_offset at 0x188";
        refused(
            |raw| raw.key_slots[3].key_material_offset = 1.into(),
            &format!("{place} is 1, expected 8 or more"),
        );
        refused(
            |raw| raw.key_slots[3].key_material_offset = 9.into(),
            &format!("{place} is 9, expected no overlap with key slot 0"),
        );
        let end = "500 sectors that end before the payload at 4040";
        for sector in [4000, u32::MAX] {
            refused(
                |raw| raw.key_slots[3].key_material_offset = sector.into(),
                &format!("{place} is {sector}, expected {end}"),
            );
        }
    }

    #[test]
    fn a_detached_header_has_no_payload_behind_it() {
        let mut raw = valid();
        raw.payload_offset = 0.into();
        assert!(Header::parse(raw.as_bytes(), Payload::Behind).is_err());
        let header = Header::parse(raw.as_bytes(), Payload::Elsewhere).unwrap();
        assert_eq!(header.payload_offset(), 0);
    }

    #[test]
    fn a_header_cut_short_is_refused() {
        let bytes = valid();
        for len in [0, 5, 591] {
            assert!(Header::parse(&bytes.as_bytes()[..len], Payload::Behind).is_err());
        }
    }
}
