//! LUKS volumes: the header in front of the payload, or apart from it (LUKS1 1.2.3, LUKS2 1.1.1).
//!
//! ```text
//!   LUKS1   | header | key slots 0..8          | payload ------------------->
//!   LUKS2   | header, JSON | second copy | key slots | segments ------------>
//!
//!   passphrase -- Kdf --> slot key -- decrypts --> stripes -- merge --> volume key -- decrypts --> payload
//! ```
//!
//! A [`Luks`] is a header that was read, or made, in some [`Storage`]: the container itself
//! ([`Payload::Behind`]), a detached header, or the clusters of a qcow2 file that hold one
//! ([`Payload::Elsewhere`], in a [`Window`] of that file).
//!
//! - A container: [`Luks::read`], [`Luks::unlock`], [`Luks::parts`].
//! - Inside qcow2: [`Luks::read`] on the window, [`Luks::unlock`], [`Luks::cipher`]; and an
//!   [`EncryptedStorage`] with that cipher over the store of the clusters, from sector 0, with
//!   [`PastEnd::Ciphertext`]: sectors there are numbered by their position in the file.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_crypto::KdfLimits;
//! use anydisk_crypto::luks::{Luks, NewLuks, NewSlot, Payload};
//! use anydisk_storage::{HostOffset, MemoryStorage, Storage};
//!
//! let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
//! let new = NewLuks::luks1();
//! store.set_len(new.header_len() + 4096)?;
//! let slot = NewSlot::pbkdf2(b"correct horse", 1000);
//! let (_, key) = Luks::create(Arc::clone(&store), Payload::Behind, &new, &slot)?;
//!
//! let luks = Luks::read(Arc::clone(&store), Payload::Behind)?;
//! assert!(luks.unlock(b"wrong", None, KdfLimits::default()).is_err());
//! let unlocked = luks.unlock(b"correct horse", None, KdfLimits::default())?;
//! let parts = luks.parts(&unlocked.key, &store)?;
//! parts[0].store.write_at(HostOffset(0), b"payload")?;
//! # assert_eq!(*key, *unlocked.key);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod create;
mod fields;
mod json;
mod layout;
mod passphrases;
mod slots;
mod unlock;
mod v1;
mod v2;

use std::sync::Arc;

use anydisk_storage::{HostOffset, Storage, StorageExt, Window};

pub use create::{NewKdf, NewLuks, NewSlot, Words};
pub use fields::Field;
pub use layout::MAGIC;
pub use unlock::Unlocked;

use crate::{CipherSpec, EncryptedStorage, Error, Found, Hash, Key, PastEnd, Result, SectorCipher};

/// Where the payload of a header lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the same store, behind the header.
    Behind,
    /// In another store, or in clusters of a qcow2 file.
    Elsewhere,
}

/// A LUKS header and the store it lies in.
#[derive(Debug)]
pub struct Luks {
    store: Arc<dyn Storage>,
    payload: Payload,
    header: Header,
}

#[derive(Clone, Debug)]
enum Header {
    V1(Box<v1::Header>),
    V2(Box<v2::Chosen>),
}

/// A part of the payload, decrypted. All parts together, in order, are the disk.
#[derive(Clone, Debug)]
pub struct Part {
    /// The plain bytes, from the first of the part on.
    pub store: Arc<dyn Storage>,
    /// Where the part begins in the data store.
    pub at: HostOffset,
    /// Bytes, if the part has a fixed size; else it is as long as the store.
    pub len: Option<u64>,
}

/// What a header says without a passphrase.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LuksInfo {
    /// 1 or 2.
    pub version: u32,
    /// UUID of the volume.
    pub uuid: String,
    /// Encryption of the payload, if it is one that is known here.
    pub spec: Option<CipherSpec>,
    /// Encryption of the payload, as the header spells it.
    pub encryption: String,
    /// Bytes of the volume key.
    pub key_bytes: usize,
    /// Hash of the header (LUKS1).
    pub hash: Option<Hash>,
    /// Iterations of the digest of the volume key (LUKS1).
    pub digest_iterations: Option<u32>,
    /// Position of the payload in its store, in bytes.
    pub payload_offset: u64,
    /// Bytes in a sector.
    pub sector_size: u64,
    /// The key slots: all eight of LUKS1, those that are there of LUKS2.
    pub slots: Vec<SlotInfo>,
    /// What is wrong with one of the two copies of the header, the other being used.
    pub damaged: Option<String>,
}

/// What a header says of a key slot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotInfo {
    /// Its number.
    pub number: u32,
    /// It holds the volume key.
    pub active: bool,
    /// Name of the key derivation function.
    pub kdf: String,
    /// Iterations of PBKDF2, or passes of argon2.
    pub iterations: u32,
    /// Position of the key material in the header's store.
    pub at: HostOffset,
    /// Stripes of the key material.
    pub stripes: u32,
}

impl Luks {
    /// Whether a file that begins with `head` begins with a LUKS header.
    #[must_use]
    pub fn probe(head: &[u8]) -> bool {
        head.starts_with(&MAGIC)
    }

    /// Reads and checks the header at the start of `store`. Of two copies the newer one that is
    /// whole is used. Nothing is written, also if the other is damaged.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] for what is not known here, and what the store
    /// says.
    pub fn read(store: Arc<dyn Storage>, payload: Payload) -> Result<Self> {
        let mut head = vec![0; size_of::<layout::Luks1>()];
        let count = store.read_at(HostOffset::ZERO, &mut head)?;
        head.truncate(count);
        // A LUKS2 header may have lost its first copy; LUKS1 has no second one.
        let header = match head.get(6..8) {
            Some([0, 1]) if Self::probe(&head) => {
                Header::V1(Box::new(v1::Header::parse(&head, payload)?))
            }
            _ => Header::V2(Box::new(v2::read(&*store, payload)?)),
        };
        let luks = Self { store, payload, header };
        luks.check_end()?;
        Ok(luks)
    }

    /// The payload begins at or before the end of its store.
    fn check_end(&self) -> Result<()> {
        let (len, start) = (self.store.len()?, self.payload_offset());
        if self.payload == Payload::Behind && start > len {
            let expected = format!("an offset in the file, which ends at {len:#x}");
            let at = HostOffset(std::mem::offset_of!(layout::Luks1, payload_offset) as u64);
            return Err(Error::invalid("payload offset", at, Found::Hex(start), expected));
        }
        Ok(())
    }

    /// 1 or 2.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self.header {
            Header::V1(_) => 1,
            Header::V2(_) => 2,
        }
    }

    /// The store with the header.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Storage> {
        &self.store
    }

    /// Position of the payload in its store, in bytes; of the first part, if there are several.
    #[must_use]
    pub fn payload_offset(&self) -> u64 {
        match &self.header {
            Header::V1(header) => header.payload_offset(),
            Header::V2(chosen) => {
                chosen.header.metadata.segments.first().map_or(0, |segment| segment.offset)
            }
        }
    }

    /// Bytes of the payload in a data store that is `len` bytes long, without decrypting anything.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the store ends before a part that has a fixed size.
    pub fn payload_len(&self, len: u64) -> Result<u64> {
        let mut sum = 0_u64;
        for (start, size, sector) in self.places() {
            let room = len.checked_sub(start).filter(|room| size.is_none_or(|size| size <= *room));
            let expected = || format!("a place in the data, which end at {len:#x}");
            let room = room.ok_or_else(|| {
                Error::invalid("segment", HostOffset::ZERO, Found::Hex(start), expected())
            })?;
            let part = size.unwrap_or(room);
            sum = sum.saturating_add(part - part % sector);
        }
        Ok(sum)
    }

    /// Start, size and sector size of all parts.
    fn places(&self) -> Vec<(u64, Option<u64>, u64)> {
        match &self.header {
            Header::V1(header) => vec![(header.payload_offset(), None, crate::SECTOR)],
            Header::V2(chosen) => {
                let segments = chosen.header.metadata.segments.iter();
                segments.map(|s| (s.offset, s.size, s.sector_size.max(1))).collect()
            }
        }
    }

    /// The payload, decrypted with the volume key; `data` is the store it lies in.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an encryption that is not known here; what the store says.
    pub fn parts(&self, key: &Key, data: &Arc<dyn Storage>) -> Result<Vec<Part>> {
        self.payload_len(data.len()?)?;
        match &self.header {
            Header::V1(header) => {
                let at = HostOffset(header.payload_offset());
                let window = Arc::new(Window::growing(Arc::clone(data), at));
                let cipher = SectorCipher::new(header.spec, key, 512)?;
                let store = EncryptedStorage::new(window, cipher, 0, PastEnd::Nothing);
                Ok(vec![Part { store: Arc::new(store), at, len: None }])
            }
            Header::V2(chosen) => {
                let metadata = &chosen.header.metadata;
                check_requirements(metadata)?;
                metadata.segments.iter().map(|segment| part(segment, key, data)).collect()
            }
        }
    }

    /// The cipher of the payload, for a header inside a qcow2 file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for LUKS2, which is not found there.
    pub fn cipher(&self, key: &Key) -> Result<SectorCipher> {
        match &self.header {
            Header::V1(header) => SectorCipher::new(header.spec, key, 512),
            Header::V2(_) => Err(Error::unsupported("LUKS2 inside another image")),
        }
    }

    /// What the header says without a passphrase.
    #[must_use]
    pub fn info(&self) -> LuksInfo {
        match &self.header {
            Header::V1(header) => info_of_v1(header),
            Header::V2(chosen) => info_of_v2(chosen),
        }
    }
}

fn info_of_v1(header: &v1::Header) -> LuksInfo {
    let slot = |(number, slot): (u32, &v1::Slot)| SlotInfo {
        number,
        active: slot.active,
        kdf: "pbkdf2".into(),
        iterations: slot.iterations,
        at: HostOffset(slot.material.start),
        stripes: v1::STRIPES,
    };
    LuksInfo {
        version: 1,
        uuid: header.uuid.clone(),
        spec: Some(header.spec),
        encryption: header.spec.to_string(),
        key_bytes: header.key_bytes,
        hash: Some(header.hash),
        digest_iterations: Some(header.raw.mk_digest_iter.get()),
        payload_offset: header.payload_offset(),
        sector_size: crate::SECTOR,
        slots: (0..).zip(&header.slots).map(slot).collect(),
        damaged: None,
    }
}

fn info_of_v2(chosen: &v2::Chosen) -> LuksInfo {
    let metadata = &chosen.header.metadata;
    let slot = |(number, slot): (&u32, &json::Keyslot)| SlotInfo {
        number: *number,
        active: !slot.foreign,
        kdf: match &slot.kdf {
            json::SlotKdf::Known { kdf, .. } => kdf.name().to_owned(),
            json::SlotKdf::Unknown(name) => name.clone(),
        },
        iterations: match &slot.kdf {
            json::SlotKdf::Known { kdf: crate::Kdf::Pbkdf2 { iterations, .. }, .. } => *iterations,
            json::SlotKdf::Known { kdf: crate::Kdf::Argon2 { time, .. }, .. } => *time,
            json::SlotKdf::Unknown(_) => 0,
        },
        at: HostOffset(slot.area.start),
        stripes: u32::try_from(slot.stripes).unwrap_or(0),
    };
    let first = metadata.segments.first();
    let encryption = first.map_or("", |segment| &segment.encryption).to_owned();
    LuksInfo {
        version: 2,
        uuid: chosen.header.uuid.clone(),
        spec: CipherSpec::parse(&encryption).ok(),
        encryption,
        key_bytes: metadata.keyslots.values().next().map_or(0, |slot| slot.key_size),
        hash: None,
        digest_iterations: None,
        payload_offset: first.map_or(0, |segment| segment.offset),
        sector_size: first.map_or(512, |segment| segment.sector_size),
        slots: metadata.keyslots.iter().map(slot).collect(),
        damaged: chosen.damaged.clone(),
    }
}

/// A volume with requirements that are not known may be laid out in any way.
fn check_requirements(metadata: &json::Metadata) -> Result<()> {
    match metadata.requirements.first() {
        Some(name) => Err(Error::unsupported(format!("the requirement {name:?}"))),
        None => Ok(()),
    }
}

fn part(segment: &json::Segment, key: &Key, data: &Arc<dyn Storage>) -> Result<Part> {
    if let Some(feature) = &segment.unsupported {
        return Err(Error::unsupported(feature.clone()));
    }
    let at = HostOffset(segment.offset);
    let window = match segment.size {
        Some(len) => Window::new(Arc::clone(data), at, len)?,
        None => Window::growing(Arc::clone(data), at),
    };
    let window: Arc<dyn Storage> = Arc::new(window);
    if segment.digest.is_none() {
        return Ok(Part { store: window, at, len: segment.size });
    }
    let spec = CipherSpec::parse(&segment.encryption)?;
    let sector = usize::try_from(segment.sector_size).unwrap_or(usize::MAX);
    let cipher = SectorCipher::new(spec, key, sector)?;
    let store = EncryptedStorage::new(window, cipher, segment.iv_tweak, PastEnd::Nothing);
    Ok(Part { store: Arc::new(store), at, len: segment.size })
}

/// The text of a field that must end with a NUL.
fn text_of<'a>(field: &'static str, at: HostOffset, bytes: &'a [u8]) -> Result<&'a str> {
    let text = bytes.split(|byte| *byte == 0).next().filter(|text| text.len() < bytes.len());
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    text.ok_or_else(|| Error::invalid(field, at, bytes, "text that ends with a NUL"))
}

/// `text` in a field, filled up with NULs. Cut if it is too long, which ours never are.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (byte, char) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *byte = char;
    }
    field
}

/// Key material as it lies in the store. What lies past the end is zero, and then unlocks nothing.
fn read_material(store: &dyn Storage, at: u64, len: usize) -> Result<Key> {
    let mut material = Key::zeroed(len);
    store.read_padded_at(HostOffset(at), &mut material)?;
    Ok(material)
}

#[cfg(test)]
mod tests;
