//! The header of an encrypted image, version 2: bytes to checked values. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Error, HostOffset, Invalid, Result, Storage, StorageExt, Value, invalid_field};
use zerocopy::FromBytes;

use crate::NAME;
use crate::layout::{ENCRYPTED, RawEncrypted, RawKey, RawPassphrase, encryption};

/// Keys that are looked at.
const KEYS: u32 = 64;

/// Bytes of the packed keys of AES and HMAC, their mark, and what fills them up: 48 or 64, and little
/// more.
const BLOB: u32 = 512;

/// A header that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedHeader {
    /// Bytes of the key of AES: 16 or 32.
    pub key_len: usize,
    /// Bytes that are encrypted as one: 512 to 4096, a power of two.
    pub block_size: usize,
    /// Where the encrypted bytes are, whole blocks.
    pub data: HostOffset,
    /// How many plain bytes these are.
    pub data_len: u64,
    /// The keys, each wrapped by a passphrase.
    pub keys: Vec<WrappedKey>,
}

/// The keys of AES and HMAC, encrypted by triple DES with a key from a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Iterations of PBKDF2 with SHA-1.
    pub iterations: u32,
    /// Its salt.
    pub salt: Vec<u8>,
    /// The first block that decryption is chained to.
    pub iv: [u8; 8],
    /// What is encrypted: whole blocks of 8 bytes.
    pub blob: Vec<u8>,
}

impl EncryptedHeader {
    /// Whether the bytes are the start of such an image.
    #[must_use]
    pub fn is_at(head: &[u8]) -> bool {
        head.starts_with(&ENCRYPTED)
    }

    /// Reads the header of the image in `store`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field; [`Error::Unsupported`] for other ciphers, and for images
    /// that no passphrase opens; those of the store.
    pub fn read(store: &dyn Storage) -> Result<Self> {
        let bytes = bytes_of::<RawEncrypted>(store, HostOffset::ZERO)?;
        let (raw, _) = RawEncrypted::ref_from_prefix(&bytes)
            .map_err(|_| missing(HostOffset::ZERO, "a header of 76 bytes"))?;
        let mut header = Self::parse(raw, store.len()?)?;
        let mut at = HostOffset(size_of::<RawEncrypted>() as u64);
        for _ in 0..raw.key_count.get().min(KEYS) {
            let bytes = bytes_of::<RawKey>(store, at)?;
            let (key, _) =
                RawKey::ref_from_prefix(&bytes).map_err(|_| missing(at, "a key of 20 bytes"))?;
            if key.kind.get() == encryption::PASSPHRASE {
                header.keys.push(WrappedKey::read(store, HostOffset(key.offset.get()))?);
            }
            at = at.saturating_add(size_of::<RawKey>() as u64);
        }
        match header.keys.is_empty() {
            true => Err(unsupported("encryption that no passphrase opens")),
            false => Ok(header),
        }
    }

    /// The header without its keys, of a file of `file_len` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(raw: &RawEncrypted, file_len: u64) -> Result<Self> {
        let (version, block) = (raw.version.get(), raw.block_size.get());
        if version != 2 {
            return Err(unsupported(format!("encryption of version {version}")));
        }
        let (algorithm, bits) = (raw.algorithm.get(), raw.key_bits.get());
        if algorithm != encryption::AES || !matches!(bits, 128 | 256) {
            return Err(unsupported(format!("encryption by {algorithm:#x} with {bits} bits")));
        }
        if !block.is_power_of_two() || !(512..=4096).contains(&block) {
            let expected = "a power of two, 512 to 4096";
            let field = invalid_field!(NAME, RawEncrypted, block_size, block, "{expected}");
            return Err(field.into());
        }
        let (data, len) = (raw.data_offset.get(), raw.data_size.get());
        let end = len.checked_next_multiple_of(block.into()).and_then(|len| data.checked_add(len));
        if end.is_none_or(|end| end > file_len) {
            let expected = format!("whole blocks in the file of {file_len} bytes");
            return Err(invalid_field!(NAME, RawEncrypted, data_size, len, "{expected}").into());
        }
        Ok(Self {
            key_len: if bits == 128 { 16 } else { 32 },
            block_size: usize::try_from(block).unwrap_or(4096),
            data: HostOffset(data),
            data_len: len,
            keys: Vec::new(),
        })
    }
}

impl WrappedKey {
    fn read(store: &dyn Storage, at: HostOffset) -> Result<Self> {
        let bytes = bytes_of::<RawPassphrase>(store, at)?;
        let (raw, _) = RawPassphrase::ref_from_prefix(&bytes)
            .map_err(|_| missing(at, "a wrapped key of 104 bytes"))?;
        let kind = [
            raw.kdf_algorithm.get(),
            raw.kdf_hash.get(),
            raw.key_bits.get(),
            raw.algorithm.get(),
            raw.padding.get(),
            raw.mode.get(),
        ];
        if kind != encryption::PBKDF2_SHA1_TRIPLE_DES_CBC {
            return Err(unsupported(format!("keys that are wrapped by {kind:?}")));
        }
        let salt_len = raw.salt_len.get();
        let salt = usize::try_from(salt_len).ok().and_then(|len| raw.salt.get(..len));
        let Some(salt) = salt else {
            let field = invalid_field!(NAME, at => RawPassphrase, salt_len, salt_len, "up to 32");
            return Err(field.into());
        };
        let iv_len = raw.iv_len.get();
        if iv_len != 8 {
            return Err(invalid_field!(NAME, at => RawPassphrase, iv_len, iv_len, "8").into());
        }
        let blob_len = raw.blob_len.get();
        if blob_len == 0 || blob_len > BLOB || !blob_len.is_multiple_of(8) {
            let expected = "a multiple of 8, up to 512";
            let field = invalid_field!(NAME, at => RawPassphrase, blob_len, blob_len, "{expected}");
            return Err(field.into());
        }
        let mut blob = vec![0; usize::try_from(blob_len).unwrap_or(0)];
        store.read_exact_at(at.saturating_add(size_of::<RawPassphrase>() as u64), &mut blob)?;
        let [a, b, c, d, e, f, g, h, ..] = raw.iv;
        Ok(Self {
            iterations: raw.iterations.get(),
            salt: salt.to_vec(),
            iv: [a, b, c, d, e, f, g, h],
            blob,
        })
    }
}

/// The bytes of a `T` at `at`, fewer at the end of the store.
fn bytes_of<T>(store: &dyn Storage, at: HostOffset) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size_of::<T>()];
    let count = store.read_at(at, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cold]
fn missing(at: HostOffset, expected: &'static str) -> Error {
    let (field, found) = ("encryption".into(), Value::Missing);
    Invalid { format: NAME, field, at, found, expected: expected.into() }.into()
}

fn unsupported(feature: impl Into<anydisk_core::Feature>) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}
