//! What `info` shows, under the names that qemu-img has for it.

use anydisk_core::{Detail, DetailValue};
use anydisk_crypto::luks::{LuksInfo, SlotInfo};
use anydisk_crypto::{CipherSpec, IvGen, Mode};

fn text(name: &'static str, value: impl Into<String>) -> Detail {
    Detail { name, value: DetailValue::Text(value.into()) }
}

fn number(name: &'static str, value: impl Into<u64>) -> Detail {
    Detail { name, value: DetailValue::Number(value.into()) }
}

fn flag(name: &'static str, value: bool) -> Detail {
    Detail { name, value: DetailValue::Flag(value) }
}

/// In the order in which qemu-img prints them.
pub(crate) fn details(header: &LuksInfo, detached: bool) -> Vec<Detail> {
    let mut details = Vec::new();
    if header.version == 2 {
        details.push(number("version", header.version));
    }
    match header.spec {
        Some(spec) => details.extend(encryption(header, spec, detached)),
        None => details.push(text("encryption", header.encryption.clone())),
    }
    if header.version == 2 {
        details.push(number("sector-size", header.sector_size));
    }
    let slots = header.slots.iter().map(|slot| slot_of(slot, header.version)).collect();
    details.push(Detail { name: "slots", value: DetailValue::List(slots) });
    details.push(number("payload-offset", header.payload_offset));
    details.extend(header.digest_iterations.map(|count| number("master-key-iters", count)));
    details
}

fn encryption(header: &LuksInfo, spec: CipherSpec, detached: bool) -> Vec<Detail> {
    let iv_hash = match spec.iv {
        IvGen::Essiv(hash) => Some(text("ivgen-hash-alg", hash.name())),
        _ => None,
    };
    let ivgen = spec.iv.to_string();
    let ivgen = ivgen.split(':').next().unwrap_or_default();
    let mut details = vec![text("ivgen-alg", ivgen), flag("detached-header", detached)];
    details.extend(header.hash.map(|hash| text("hash-alg", hash.name())));
    let halves = if spec.mode == Mode::Xts { 2 } else { 1 };
    let bits = header.key_bytes * 8 / halves;
    details.push(text("cipher-alg", format!("{}-{bits}", spec.cipher.name())));
    details.push(text("uuid", header.uuid.clone()));
    details.extend(iv_hash);
    details.push(text("cipher-mode", spec.mode.name()));
    details
}

fn slot_of(slot: &SlotInfo, version: u32) -> DetailValue {
    let mut details = vec![flag("active", slot.active)];
    if version == 2 {
        details.push(number("slot", slot.number));
        details.push(text("kdf", slot.kdf.clone()));
    }
    if slot.active {
        details.push(number("iters", slot.iterations));
    }
    details.push(number("key-offset", slot.at.get()));
    if slot.active {
        details.push(number("stripes", slot.stripes));
    }
    DetailValue::Map(details)
}
