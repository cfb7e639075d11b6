//! New volumes, laid out as qemu-img (LUKS1) and cryptsetup (LUKS2) lay them out.

use std::sync::Arc;
use std::time::Duration;

use anydisk_storage::{HostOffset, Storage};
use base64ct::{Base64, Encoding};
use serde_json::json;
use zerocopy::FromZeros;

use super::json::Metadata;
use super::layout::{BINARY_LEN, Luks1, Luks2, MAGIC, SLOT_DISABLED};
use super::slots::{SALT, change};
use super::{Header, Luks, Payload, padded, v1, v2};
use crate::{CipherSpec, Error, Hash, Kdf, KdfLimits, Key, Result, iterations_for};

/// What a new volume is to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewLuks {
    /// 1 or 2.
    pub version: u32,
    /// Encryption of the payload.
    pub spec: CipherSpec,
    /// Bytes of the volume key: both halves, for XTS.
    pub key_bytes: usize,
    /// Hash of the whole header (LUKS1), of the digest (LUKS2).
    pub hash: Hash,
    /// Iterations of the digest of the volume key.
    pub digest_iterations: u32,
    /// Bytes in a sector (LUKS2; 512 in LUKS1).
    pub sector_size: u32,
    /// The payload begins at the start of another store.
    pub detached: bool,
    /// UUID of the volume; `None`: a random one.
    pub uuid: Option<String>,
}

/// An encryption in the words of qemu-img's options.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are those of the options")]
pub struct Words<'a> {
    pub cipher_alg: &'a str,
    pub cipher_mode: &'a str,
    pub ivgen_alg: &'a str,
    pub ivgen_hash_alg: &'a str,
    pub hash_alg: &'a str,
}

impl Words<'_> {
    /// What `cipher-alg` may be.
    pub const CIPHERS: &'static [&'static str] = &[
        "aes-128",
        "aes-192",
        "aes-256",
        "cast5-128",
        "serpent-128",
        "serpent-192",
        "serpent-256",
        "twofish-128",
        "twofish-192",
        "twofish-256",
    ];
    /// What `cipher-mode` may be.
    pub const MODES: &'static [&'static str] = &["cbc", "ctr", "ecb", "xts"];
    /// What `ivgen-alg` may be.
    pub const IVS: &'static [&'static str] = &["essiv", "plain", "plain64"];
    /// What `hash-alg` and `ivgen-hash-alg` may be.
    pub const HASHES: &'static [&'static str] =
        &["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3", "whirlpool"];
}

/// A passphrase to be added.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct NewSlot<'a> {
    /// The passphrase.
    pub passphrase: &'a [u8],
    /// How it becomes a key.
    pub kdf: NewKdf,
    /// Number of the slot; `None`: the first that is free.
    pub number: Option<u32>,
}

/// How the passphrase of a new slot becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKdf {
    /// PBKDF2, in LUKS1 with the hash of the header.
    Pbkdf2 {
        /// Iterations.
        iterations: u32,
    },
    /// Argon2id, only in LUKS2.
    Argon2id {
        /// Passes over the memory.
        time: u32,
        /// Memory in KiB.
        memory: u32,
        /// Lanes.
        cpus: u32,
    },
}

impl NewKdf {
    /// The function, PBKDF2 with `hash`.
    pub(super) const fn kdf(self, hash: Hash) -> Kdf {
        match self {
            Self::Pbkdf2 { iterations } => Kdf::Pbkdf2 { hash, iterations },
            Self::Argon2id { time, memory, cpus } => Kdf::Argon2 { id: true, time, memory, cpus },
        }
    }
}

impl std::fmt::Debug for NewSlot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSlot")
            .field("kdf", &self.kdf)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl<'a> NewSlot<'a> {
    /// A slot with PBKDF2.
    #[must_use]
    pub const fn pbkdf2(passphrase: &'a [u8], iterations: u32) -> Self {
        Self { passphrase, kdf: NewKdf::Pbkdf2 { iterations }, number: None }
    }

    /// A slot with argon2id; `memory` in KiB.
    #[must_use]
    pub const fn argon2id(passphrase: &'a [u8], time: u32, memory: u32, cpus: u32) -> Self {
        Self { passphrase, kdf: NewKdf::Argon2id { time, memory, cpus }, number: None }
    }

    /// The same, in the slot of this number.
    #[must_use]
    pub const fn at(mut self, number: u32) -> Self {
        self.number = Some(number);
        self
    }
}

/// The fewest iterations that are used.
const LEAST_ITERATIONS: u32 = 1000;

/// Bytes of a LUKS2 header with its JSON.
const HDR_SIZE: u64 = 16 << 10;

/// Where the payload of a new LUKS2 volume begins.
const LUKS2_PAYLOAD: u64 = 16 << 20;

impl NewLuks {
    /// As qemu-img creates them: LUKS1, AES-256-XTS, sha256.
    #[must_use]
    pub const fn luks1() -> Self {
        Self {
            version: 1,
            spec: CipherSpec::aes_xts(),
            key_bytes: 64,
            hash: Hash::Sha256,
            digest_iterations: LEAST_ITERATIONS,
            sector_size: 512,
            detached: false,
            uuid: None,
        }
    }

    /// As cryptsetup creates them: LUKS2, AES-256-XTS, sha256.
    #[must_use]
    pub fn luks2() -> Self {
        Self { version: 2, ..Self::luks1() }
    }

    /// With the encryption and the hash that the words name.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is no such encryption.
    pub fn named(mut self, words: &Words<'_>) -> Result<Self> {
        let (cipher, bits) = words.cipher_alg.split_once('-').unwrap_or_default();
        let mode = match (words.cipher_mode, words.ivgen_alg) {
            (mode, "essiv") => format!("{mode}-essiv:{}", words.ivgen_hash_alg),
            (mode, iv) => format!("{mode}-{iv}"),
        };
        self.hash = Hash::by_name(words.hash_alg)?;
        self.encryption(CipherSpec::from_names(cipher, &mode)?, bits.parse().unwrap_or(0))
    }

    /// With another encryption; `key_bits` is that of the cipher, which XTS needs twice.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is no such cipher.
    pub fn encryption(mut self, spec: CipherSpec, key_bits: usize) -> Result<Self> {
        let bytes = key_bits / 8;
        self.key_bytes = if spec.mode == crate::Mode::Xts { bytes * 2 } else { bytes };
        self.spec = spec;
        if !key_bits.is_multiple_of(8) || !spec.takes_key(self.key_bytes) {
            return Err(Error::unsupported(format!("{spec} with {key_bits} bits")));
        }
        Ok(self)
    }

    /// Iterations for a slot that takes about `time` to open, and for the digest an eighth of them,
    /// as qemu-img chooses them.
    #[must_use]
    pub fn iterations(&self, time: Duration) -> (u32, u32) {
        let slot = iterations_for(self.hash, self.key_bytes, time, LEAST_ITERATIONS);
        (slot, (slot / 8).max(LEAST_ITERATIONS))
    }

    /// Bytes of the header with its key slots: where the payload begins, unless it is detached.
    #[must_use]
    pub fn header_len(&self) -> u64 {
        if self.version == 1 { v1::header_len(self.key_bytes) } else { LUKS2_PAYLOAD }
    }

    fn check(&self) -> Result<()> {
        if !self.spec.takes_key(self.key_bytes) {
            return Err(Error::unsupported(format!(
                "{} with a key of {} bytes",
                self.spec, self.key_bytes
            )));
        }
        match (self.version, self.sector_size) {
            (1, 512) | (2, 512 | 1024 | 2048 | 4096) => Ok(()),
            (version, size) => {
                Err(Error::unsupported(format!("LUKS{version} with sectors of {size} bytes")))
            }
        }
    }
}

impl Luks {
    /// Makes a volume with one passphrase at the start of `store`, and answers its key too. The
    /// store is made as long as the header, if it is shorter; the payload is not written, and until
    /// it is, reads as noise. Not flushed.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Random`], and what the store says.
    pub fn create(
        store: Arc<dyn Storage>,
        payload: Payload,
        new: &NewLuks,
        slot: &NewSlot<'_>,
    ) -> Result<(Self, Key)> {
        new.check()?;
        if store.len()? < new.header_len() {
            store.set_len(new.header_len())?;
        }
        let key = Key::random(new.key_bytes)?;
        let header = match new.version {
            1 => Header::V1(Box::new(new_v1(new, &key, payload)?)),
            _ => Header::V2(Box::new(v2::Chosen {
                header: new_v2(new, &key, payload)?,
                damaged: None,
            })),
        };
        let mut luks = Self { store, payload, header };
        luks.write_header()?;
        luks.write_slot(&key, slot)?;
        Ok((luks, key))
    }

    fn write_header(&mut self) -> Result<()> {
        match &mut self.header {
            Header::V1(header) => Ok(self.store.write_at(HostOffset::ZERO, header.as_bytes())?),
            Header::V2(chosen) => change(&*self.store, self.payload, &mut chosen.header, |_| {}),
        }
    }
}

fn uuid(new: &NewLuks) -> Result<String> {
    if let Some(uuid) = &new.uuid {
        return Ok(uuid.clone());
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0F | 0x40; // Version 4, random.
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

fn new_v1(new: &NewLuks, key: &Key, payload: Payload) -> Result<v1::Header> {
    let mut raw = Luks1::new_zeroed();
    raw.magic = MAGIC;
    raw.version = 1.into();
    raw.cipher_name = padded(new.spec.cipher.name());
    raw.cipher_mode = padded(&new.spec.mode_name());
    raw.hash_spec = padded(new.hash.name());
    raw.uuid = padded(&uuid(new)?);
    let sectors = v1::new_slot_sector(new.key_bytes, raw.key_slots.len());
    raw.payload_offset = if new.detached { 0 } else { sectors }.into();
    raw.key_bytes = u32::try_from(new.key_bytes).unwrap_or(0).into();
    getrandom::fill(&mut raw.mk_digest_salt)?;
    raw.mk_digest_iter = new.digest_iterations.into();
    let kdf = Kdf::Pbkdf2 { hash: new.hash, iterations: new.digest_iterations };
    let (salt, len) = (&raw.mk_digest_salt, raw.mk_digest.len());
    let digest = kdf.derive(key, salt, len, &mut KdfLimits::unlimited())?;
    raw.mk_digest.copy_from_slice(&digest);
    for (index, slot) in raw.key_slots.iter_mut().enumerate() {
        slot.active = SLOT_DISABLED.into();
        slot.key_material_offset = v1::new_slot_sector(new.key_bytes, index).into();
        slot.stripes = v1::STRIPES.into();
    }
    v1::Header::parse(zerocopy::IntoBytes::as_bytes(&raw), payload)
}

fn new_v2(new: &NewLuks, key: &Key, payload: Payload) -> Result<v2::Header> {
    let mut raw = Luks2::new_zeroed();
    let uuid = uuid(new)?;
    raw.version = 2.into();
    raw.hdr_size = HDR_SIZE.into();
    raw.uuid = padded(&uuid);
    let salt = Key::random(SALT)?;
    let kdf = Kdf::Pbkdf2 { hash: new.hash, iterations: new.digest_iterations };
    let digest = kdf.derive(key, &salt, new.hash.digest_len(), &mut KdfLimits::unlimited())?;
    let offset = if new.detached { 0 } else { LUKS2_PAYLOAD };
    let json = json!({
        "keyslots": {},
        "tokens": {},
        "segments": { "0": {
            "type": "crypt",
            "offset": offset.to_string(),
            "size": "dynamic",
            "iv_tweak": "0",
            "encryption": new.spec.to_string(),
            "sector_size": new.sector_size,
        } },
        "digests": { "0": {
            "type": "pbkdf2",
            "keyslots": [],
            "segments": ["0"],
            "hash": new.hash.name(),
            "iterations": new.digest_iterations,
            "salt": Base64::encode_string(&salt),
            "digest": Base64::encode_string(&digest),
        } },
        "config": {
            "json_size": (HDR_SIZE - BINARY_LEN as u64).to_string(),
            "keyslots_size": (LUKS2_PAYLOAD - 2 * HDR_SIZE).to_string(),
        },
    });
    let place = HostOffset(BINARY_LEN as u64);
    let metadata = Metadata::parse(&json.to_string(), place, HDR_SIZE, payload)?;
    Ok(v2::Header { raw, uuid, metadata })
}
