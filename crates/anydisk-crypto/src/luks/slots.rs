//! Adding and removing passphrases.

use std::ops::Range;

use anydisk_storage::{HostOffset, Storage};
use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use zerocopy::IntoBytes;

use super::create::{NewKdf, NewSlot};
use super::json::{MAX_OBJECTS, Metadata};
use super::layout::{BINARY_LEN, Luks1Slot, SLOT_DISABLED, SLOT_ENABLED};
use super::{Header, Luks, Payload, check_requirements, v1, v2};
use crate::{CipherSpec, Error, Hash, Kdf, KdfLimits, Key, Result, SectorCipher, af_split};

/// Bytes of salts that are made here.
pub(super) const SALT: usize = 32;

/// Stripes of key slots that are made here.
const STRIPES: usize = v1::STRIPES as usize;

/// Hash of the key slots of LUKS2 that are made here.
const HASH: Hash = Hash::Sha256;

/// Areas of key slots of LUKS2 begin at multiples of so many bytes.
const AREA_ALIGN: u64 = 4096;

impl Luks {
    /// Adds a passphrase for the volume key, and answers the number of its slot. After a power
    /// failure the slot is there or it is not. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::WrongPassphrase`] if `key` is not the volume key; [`Error::Refused`] if there is no
    /// free slot, or the one asked for is taken.
    pub fn add_slot(&mut self, key: &Key, new: &NewSlot<'_>, limits: KdfLimits) -> Result<u32> {
        if !self.is_volume_key(key, limits)? {
            return Err(Error::WrongPassphrase);
        }
        let number = self.write_slot(key, new)?;
        self.store.flush()?;
        Ok(number)
    }

    /// As [`add_slot`](Self::add_slot), for a key that is known to be right.
    pub(super) fn write_slot(&mut self, key: &Key, new: &NewSlot<'_>) -> Result<u32> {
        let store = &*self.store;
        match &mut self.header {
            Header::V1(header) => add_v1(store, header, key, new),
            Header::V2(chosen) => add_v2(store, self.payload, &mut chosen.header, key, new),
        }
    }

    /// Removes a slot, and then overwrites its key material. With `force` also the last one, after
    /// which nobody can read the payload any more. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Refused`] for a slot that is not in use, and for the last one without `force`.
    pub fn remove_slot(&mut self, number: u32, force: bool) -> Result<()> {
        let active = self.active_slots();
        if !active.contains(&number) {
            return Err(Error::refused(format!("key slot {number} is not in use")));
        }
        if active.len() == 1 && !force {
            return Err(Error::refused(
                "the last key slot is removed only by force: all data is lost without it",
            ));
        }
        let store = &*self.store;
        let material = match &mut self.header {
            Header::V1(header) => remove_v1(store, header, number)?,
            Header::V2(chosen) => remove_v2(store, self.payload, &mut chosen.header, number)?,
        };
        let len = usize::try_from(material.end - material.start).unwrap_or(usize::MAX);
        store.write_at(HostOffset(material.start), &Key::random(len)?)?;
        Ok(store.flush()?)
    }

    /// Numbers of the slots in use.
    #[must_use]
    pub fn active_slots(&self) -> Vec<u32> {
        let slots = self.info().slots;
        slots.iter().filter(|slot| slot.active).map(|slot| slot.number).collect()
    }
}

/// The slot asked for, or the first free one of `count`.
fn free_slot(wanted: Option<u32>, count: usize, taken: impl Fn(u32) -> bool) -> Result<u32> {
    let count = u32::try_from(count).unwrap_or(0);
    match wanted {
        Some(number) if number >= count => {
            Err(Error::refused(format!("key slot {number}: there are {count}, from 0 on")))
        }
        Some(number) if taken(number) => {
            Err(Error::refused(format!("key slot {number} is in use")))
        }
        Some(number) => Ok(number),
        None => (0..count)
            .find(|number| !taken(*number))
            .ok_or_else(|| Error::refused("no key slot is free")),
    }
}

/// The stripes of `key`, encrypted and filled up to whole sectors.
fn material(spec: CipherSpec, slot_key: &Key, hash: Hash, key: &Key) -> Result<Key> {
    let stripes = af_split(hash, key, STRIPES)?;
    let mut material = Key::zeroed(stripes.len().next_multiple_of(512));
    material[..stripes.len()].copy_from_slice(&stripes);
    SectorCipher::new(spec, slot_key, 512)?.encrypt(0, &mut material);
    Ok(material)
}

fn add_v1(
    store: &dyn Storage,
    header: &mut v1::Header,
    key: &Key,
    new: &NewSlot<'_>,
) -> Result<u32> {
    let NewKdf::Pbkdf2 { iterations } = new.kdf else {
        return Err(Error::unsupported("argon2 in LUKS1"));
    };
    let taken = |number: u32| header.slots[number as usize].active;
    let number = free_slot(new.number, header.slots.len(), taken)?;
    let slot = &mut header.slots[number as usize];
    getrandom::fill(&mut slot.salt)?;
    let kdf = Kdf::Pbkdf2 { hash: header.hash, iterations };
    let slot_key =
        kdf.derive(new.passphrase, &slot.salt, header.key_bytes, &mut KdfLimits::unlimited())?;
    let bytes = material(header.spec, &slot_key, header.hash, key)?;
    store.write_at(HostOffset(slot.material.start), &bytes)?;
    slot.iterations = iterations;
    // The slot may cross a sector of the medium, so what says that it is in use comes last.
    let raw = &mut header.raw.key_slots[number as usize];
    (raw.iterations, raw.salt) = (iterations.into(), slot.salt);
    write_v1_slot(store, raw, number)?;
    raw.active = SLOT_ENABLED.into();
    slot.active = true;
    write_v1_slot(store, raw, number)?;
    Ok(number)
}

/// Flushes, then writes a slot of the header.
fn write_v1_slot(store: &dyn Storage, slot: &Luks1Slot, number: u32) -> Result<()> {
    store.flush()?;
    let at = v1::slot_offset(number as usize) as u64;
    Ok(store.write_at(HostOffset(at), slot.as_bytes())?)
}

fn remove_v1(store: &dyn Storage, header: &mut v1::Header, number: u32) -> Result<Range<u64>> {
    let raw = &mut header.raw.key_slots[number as usize];
    let slot = &mut header.slots[number as usize];
    raw.active = SLOT_DISABLED.into();
    slot.active = false;
    write_v1_slot(store, raw, number)?;
    (raw.iterations, raw.salt) = (0.into(), [0; SALT]);
    (slot.iterations, slot.salt) = (0, [0; SALT]);
    write_v1_slot(store, raw, number)?;
    store.flush()?;
    Ok(slot.material.clone())
}

fn add_v2(
    store: &dyn Storage,
    payload: Payload,
    header: &mut v2::Header,
    key: &Key,
    new: &NewSlot<'_>,
) -> Result<u32> {
    let metadata = &header.metadata;
    check_requirements(metadata)?;
    let taken = |number: u32| metadata.keyslots.contains_key(&number);
    let number = free_slot(new.number, MAX_OBJECTS, taken)?;
    let salt = Key::random(SALT)?;
    let spec = CipherSpec::aes_xts();
    let slot_key =
        new.kdf.kdf(HASH).derive(new.passphrase, &salt, 64, &mut KdfLimits::unlimited())?;
    let bytes = material(spec, &slot_key, HASH, key)?;
    let at = free_area(metadata, bytes.len() as u64)?;
    store.write_at(HostOffset(at.start), &bytes)?;
    let slot = json!({
        "type": "luks2",
        "key_size": key.len(),
        "af": { "type": "luks1", "stripes": STRIPES, "hash": HASH.name() },
        "area": {
            "type": "raw",
            "offset": at.start.to_string(),
            "size": (at.end - at.start).to_string(),
            "encryption": spec.to_string(),
            "key_size": 64,
        },
        "kdf": kdf_json(new.kdf, &salt),
    });
    change(store, payload, header, |json| {
        json["keyslots"][number.to_string()] = slot;
        if let Some(slots) = slots_of_payload(json) {
            slots.push(number.to_string().into());
        }
    })?;
    Ok(number)
}

fn kdf_json(kdf: NewKdf, salt: &Key) -> Value {
    let salt = Base64::encode_string(salt);
    match kdf {
        NewKdf::Pbkdf2 { iterations } => {
            json!({ "type": "pbkdf2", "hash": HASH.name(), "iterations": iterations, "salt": salt })
        }
        NewKdf::Argon2id { time, memory, cpus } => {
            json!({ "type": "argon2id", "time": time, "memory": memory, "cpus": cpus, "salt": salt })
        }
    }
}

/// The first place among the key slots that nobody has.
fn free_area(metadata: &Metadata, len: u64) -> Result<Range<u64>> {
    let len = len.next_multiple_of(AREA_ALIGN);
    let mut taken: Vec<_> = metadata.keyslots.values().map(|slot| slot.area.clone()).collect();
    taken.sort_by_key(|area| area.start);
    let mut start = metadata.area.start;
    for area in taken {
        if area.start.saturating_sub(start) >= len {
            break;
        }
        start = start.max(area.end.next_multiple_of(AREA_ALIGN));
    }
    if metadata.area.end.saturating_sub(start) < len {
        return Err(Error::refused("the area of the key slots has no room for another one"));
    }
    Ok(start..start + len)
}

fn remove_v2(
    store: &dyn Storage,
    payload: Payload,
    header: &mut v2::Header,
    number: u32,
) -> Result<Range<u64>> {
    check_requirements(&header.metadata)?;
    let area = header.metadata.keyslots.get(&number).map_or(0..0, |slot| slot.area.clone());
    let name = number.to_string();
    change(store, payload, header, |json| {
        if let Some(slots) = json["keyslots"].as_object_mut() {
            slots.shift_remove(&name);
        }
        for_each_list(json, "digests", |slots| slots.retain(|slot| slot.as_str() != Some(&name)));
        for_each_list(json, "tokens", |slots| slots.retain(|slot| slot.as_str() != Some(&name)));
    })?;
    store.flush()?;
    Ok(area)
}

/// The lists of key slots of all objects of a kind.
fn for_each_list(json: &mut Value, kind: &str, mut change: impl FnMut(&mut Vec<Value>)) {
    for object in json[kind].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if let Some(slots) = object.get_mut("keyslots").and_then(Value::as_array_mut) {
            change(slots);
        }
    }
}

/// The list of key slots of the digest of the payload.
fn slots_of_payload(json: &mut Value) -> Option<&mut Vec<Value>> {
    let digests = json["digests"].as_object_mut()?.values_mut();
    let of_payload = |digest: &&mut Value| {
        digest["segments"].as_array().is_some_and(|segments| !segments.is_empty())
    };
    digests.into_iter().find(of_payload)?["keyslots"].as_array_mut()
}

/// Changes the metadata and writes both copies of the header, one after the other, so that one is
/// always whole.
pub(super) fn change(
    store: &dyn Storage,
    payload: Payload,
    header: &mut v2::Header,
    edit: impl FnOnce(&mut Value),
) -> Result<()> {
    let mut json = Value::Object(header.metadata.json.clone());
    edit(&mut json);
    let size = header.raw.hdr_size.get();
    let place = HostOffset(BINARY_LEN as u64);
    let mut changed = header.clone();
    changed.metadata = Metadata::parse(&json.to_string(), place, size, payload)?;
    let next = header.raw.seqid.get().checked_add(1);
    changed.raw.seqid =
        next.ok_or_else(|| Error::refused("the header was changed too often"))?.into();
    for (at, bytes) in changed.copies()? {
        store.flush()?;
        store.write_at(at, &bytes)?;
    }
    *header = changed;
    Ok(())
}
