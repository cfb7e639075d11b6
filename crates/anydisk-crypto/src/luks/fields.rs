//! What a header says, under the names and in the order in which qemu-img prints it.

use super::{LuksInfo, SlotInfo};
use crate::{CipherSpec, IvGen, Mode};

/// A value of a header, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// Text.
    Text(String),
    /// Several groups of named values.
    List(Vec<Vec<(&'static str, Field)>>),
}

/// A named value.
type Named = (&'static str, Field);

fn text(name: &'static str, value: impl Into<String>) -> Named {
    (name, Field::Text(value.into()))
}

fn number(name: &'static str, value: impl Into<u64>) -> Named {
    (name, Field::Number(value.into()))
}

impl LuksInfo {
    /// What the header says. `format` is told where it lies in another image.
    #[must_use]
    pub fn fields(&self, detached: bool, format: Option<&str>) -> Vec<Named> {
        let mut fields = Vec::new();
        if self.version == 2 {
            fields.push(number("version", self.version));
        }
        match self.spec {
            Some(spec) => fields.extend(self.encryption_fields(spec, detached, format)),
            None => fields.push(text("encryption", self.encryption.clone())),
        }
        if self.version == 2 {
            fields.push(number("sector-size", self.sector_size));
        }
        let slots = self.slots.iter().map(|slot| slot_fields(slot, self.version)).collect();
        fields.push(("slots", Field::List(slots)));
        fields.push(number("payload-offset", self.payload_offset));
        fields.extend(self.digest_iterations.map(|count| number("master-key-iters", count)));
        fields
    }

    fn encryption_fields(
        &self,
        spec: CipherSpec,
        detached: bool,
        format: Option<&str>,
    ) -> Vec<Named> {
        let ivgen = spec.iv.to_string();
        let ivgen = ivgen.split(':').next().unwrap_or_default();
        let mut fields = vec![text("ivgen-alg", ivgen), ("detached-header", Field::Flag(detached))];
        fields.extend(self.hash.map(|hash| text("hash-alg", hash.name())));
        let halves = if spec.mode == Mode::Xts { 2 } else { 1 };
        let bits = self.key_bytes * 8 / halves;
        fields.push(text("cipher-alg", format!("{}-{bits}", spec.cipher.name())));
        fields.push(text("uuid", self.uuid.clone()));
        if let IvGen::Essiv(hash) = spec.iv {
            fields.push(text("ivgen-hash-alg", hash.name()));
        }
        fields.extend(format.map(|format| text("format", format)));
        fields.push(text("cipher-mode", spec.mode.name()));
        fields
    }
}

fn slot_fields(slot: &SlotInfo, version: u32) -> Vec<Named> {
    let mut fields = vec![("active", Field::Flag(slot.active))];
    if version == 2 {
        fields.push(number("slot", slot.number));
        fields.push(text("kdf", slot.kdf.clone()));
    }
    if slot.active {
        fields.push(number("iters", slot.iterations));
    }
    fields.push(number("key-offset", slot.at.get()));
    if slot.active {
        fields.push(number("stripes", slot.stripes));
    }
    fields
}
