//! An encrypted image, seen plainly: AES in blocks, each chained to the HMAC of its number.

use std::fmt;
use std::sync::Arc;

use anydisk_core::{
    Error, HostOffset, Limits, OpenRequest, Result, SecretProblem, SecretRequest, Storage,
    StorageExt,
};
use anydisk_crypto::{
    CipherName, CipherSpec, Error as Crypto, Hash, IvGen, Kdf, KdfLimits, Key, Mode, SectorCipher,
};
use anydisk_storage::{Error as StorageError, Result as StorageResult};
use des::TdesEde3;
use des::cipher::{Block, BlockCipherDecrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use crate::NAME;
use crate::encrypted_header::{EncryptedHeader, WrappedKey};

/// The option that names the passphrase.
pub const KEY_SECRET: &str = "key-secret";

/// Bytes of the key of HMAC-SHA-1.
const HMAC_KEY: usize = 20;

/// What follows both keys.
const MARK: &[u8] = b"CKIE\0";

/// Bytes of a block of AES.
const AES_BLOCK: usize = 16;

/// Bytes that are decrypted at a time: whole blocks of any size.
const PIECE: usize = 128 << 10;

/// The plain bytes of the encrypted image in the request's store.
///
/// # Errors
/// As [`EncryptedHeader::read`]; [`Error::Secret`] for a passphrase that is missing or wrong;
/// [`Error::Limit`] for one that costs too much.
pub(crate) fn open(request: &OpenRequest<'_>) -> Result<Arc<dyn Storage>> {
    let header = EncryptedHeader::read(&*request.store)?;
    let secret = request.secrets.secret(&SecretRequest::new(KEY_SECRET, request.location))?;
    let secret = secret.ok_or(Error::Secret {
        option: KEY_SECRET,
        why: SecretProblem::Missing("the passphrase of the image"),
    })?;
    let mut budget = kdf_limits(request.limits);
    for wrapped in &header.keys {
        if let Some(keys) = unwrap(wrapped, header.key_len, secret.as_bytes(), &mut budget)? {
            let plain = PlainStorage::new(Arc::clone(&request.store), &header, &keys)?;
            return Ok(Arc::new(plain));
        }
    }
    let why = SecretProblem::Wrong("it opens none of the keys".into());
    Err(Error::Secret { option: KEY_SECRET, why })
}

fn kdf_limits(limits: &Limits) -> KdfLimits {
    KdfLimits::new(limits.kdf_iterations, 0, 0)
}

/// Both keys, that of AES first; `None` if it is not this passphrase.
fn unwrap(
    wrapped: &WrappedKey,
    key_len: usize,
    passphrase: &[u8],
    budget: &mut KdfLimits,
) -> Result<Option<Key>> {
    let kdf = Kdf::Pbkdf2 { hash: Hash::Sha1, iterations: wrapped.iterations };
    let key = kdf.derive(passphrase, &wrapped.salt, 24, budget).map_err(told)?;
    let cipher = TdesEde3::new_from_slice(&key).map_err(|_| told(Crypto::WrongPassphrase))?;
    let mut plain = Key::zeroed(wrapped.blob.len());
    let mut chained = wrapped.iv;
    for (out, packed) in plain.chunks_exact_mut(8).zip(wrapped.blob.chunks_exact(8)) {
        let mut block = Block::<TdesEde3>::default();
        block.copy_from_slice(packed);
        cipher.decrypt_block(&mut block);
        for ((to, from), before) in out.iter_mut().zip(block).zip(chained) {
            *to = from ^ before;
        }
        chained.copy_from_slice(packed);
    }
    let len = key_len + HMAC_KEY;
    let fits = plain.get(len..).is_some_and(|rest| rest.starts_with(MARK));
    Ok(fits.then(|| {
        let mut keys = Key::zeroed(len);
        keys.copy_from_slice(&plain[..len]);
        keys
    }))
}

/// The error as this format tells it.
fn told(error: Crypto) -> Error {
    match error {
        Crypto::Limit { what, found, limit } => {
            Error::Limit { format: NAME, what: what.into(), found, limit }
        }
        other => {
            let feature = format!("encryption ({other})").into();
            Error::Unsupported { format: NAME, feature }
        }
    }
}

/// The decrypted bytes of a store. It is only read.
struct PlainStorage {
    store: Arc<dyn Storage>,
    cipher: SectorCipher,
    hmac: Hmac<Sha1>,
    block: usize,
    data: HostOffset,
    len: u64,
}

impl PlainStorage {
    fn new(store: Arc<dyn Storage>, header: &EncryptedHeader, keys: &Key) -> Result<Self> {
        let (aes, hmac) = keys.split_at(header.key_len);
        // The IV that this leaves out is put in afterwards.
        let spec = CipherSpec { cipher: CipherName::Aes, mode: Mode::Cbc, iv: IvGen::Null };
        let cipher = SectorCipher::new(spec, aes, header.block_size).map_err(told)?;
        let hmac = Hmac::new_from_slice(hmac).map_err(|_| told(Crypto::WrongPassphrase))?;
        let EncryptedHeader { block_size: block, data, data_len: len, .. } = *header;
        Ok(Self { store, cipher, hmac, block, data, len })
    }

    /// Reads and decrypts whole blocks, the first of which has this number.
    fn read_blocks(&self, first: u64, out: &mut [u8]) -> StorageResult<()> {
        let at = self.data.saturating_add(first.saturating_mul(self.block as u64));
        self.store.read_exact_at(at, out)?;
        self.cipher.decrypt(0, out);
        for (number, block) in (first..).zip(out.chunks_exact_mut(self.block)) {
            let mut hmac = self.hmac.clone();
            // The number has 32 bits, and comes round.
            let [_, _, _, _, number @ ..] = number.to_be_bytes();
            hmac.update(&number);
            let iv = hmac.finalize().into_bytes();
            for (byte, iv) in block.iter_mut().zip(&iv[..AES_BLOCK]) {
                *byte ^= iv;
            }
        }
        Ok(())
    }

    fn read_only(&self) -> StorageError {
        let cause = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
        StorageError::whole("write", self.name(), cause)
    }
}

impl fmt::Debug for PlainStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainStorage").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Storage for PlainStorage {
    fn len(&self) -> StorageResult<u64> {
        Ok(self.len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> StorageResult<usize> {
        let room = usize::try_from(self.len.saturating_sub(at.get())).unwrap_or(usize::MAX);
        let len = buf.len().min(room);
        let block = self.block as u64;
        let mut blocks = vec![0; PIECE.min(len.next_multiple_of(self.block) + self.block)];
        let mut done = 0;
        while done < len {
            let place = at.get() + done as u64;
            let within = usize::try_from(place % block).unwrap_or(0);
            let whole = (within + len - done).next_multiple_of(self.block).min(blocks.len());
            let blocks = &mut blocks[..whole];
            self.read_blocks(place / block, blocks)?;
            let part = (whole - within).min(len - done);
            buf[done..done + part].copy_from_slice(&blocks[within..within + part]);
            done += part;
        }
        Ok(len)
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> StorageResult<()> {
        Err(self.read_only())
    }

    fn set_len(&self, _: u64) -> StorageResult<()> {
        Err(self.read_only())
    }

    fn flush(&self) -> StorageResult<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        self.store.name()
    }

    fn identity(&self) -> Option<anydisk_storage::Identity> {
        self.store.identity()
    }
}
