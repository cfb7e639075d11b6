//! The encryption of disk images: ciphers by sector, keys from passphrases, LUKS headers.
//!
//! A disk is encrypted sector by sector, in place: a sector's number becomes its IV, the key comes
//! from a passphrase, most often through a LUKS header that holds it. This crate has these parts, and
//! gives formats one thing to build upon: an encrypted store that is read and written plainly.
//!
//! ```text
//!   passphrase --- Kdf ---> Key ---.                       limits on memory and time
//!                                   v
//!   "aes-xts-plain64" ------> SectorCipher --> EncryptedStorage --> plain bytes, any place
//!   CipherSpec                      ^                |
//!                                   `--- number ---  v
//!                                              encrypted Storage
//! ```
//!
//! | | |
//! |---|---|
//! | headers | LUKS1 and LUKS2: read, opened, made, passphrases added and removed ([`luks`]) |
//! | ciphers | AES, Serpent, Twofish with 128, 192 and 256 bits; CAST5 with 128 |
//! | modes | XTS, CBC, CTR, ECB |
//! | IVs | plain, plain64, plain64be, essiv, null |
//! | sectors | 512, 1024, 2048, 4096 bytes |
//! | hashes | md5, sha1, sha224, sha256, sha384, sha512, ripemd160, sm3, whirlpool |
//! | keys | PBKDF2, argon2i, argon2id; the anti-forensic splitter |
//!
//! Some of these are weak, and images that use them exist. AES is as fast as the processor allows;
//! Serpent is slow, Twofish very slow.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_crypto::{CipherSpec, EncryptedStorage, Key, PastEnd, SectorCipher};
//! use anydisk_storage::{HostOffset, MemoryStorage, Storage};
//!
//! let key = Key::random(64)?; // AES-256 twice, for XTS
//! let cipher = SectorCipher::new(CipherSpec::aes_xts(), &key, 512)?;
//! let store = Arc::new(MemoryStorage::new(vec![0; 1 << 20]));
//! let plain = EncryptedStorage::new(store, cipher, 0, PastEnd::Nothing);
//!
//! plain.write_at(HostOffset(1000), b"in the middle of a sector")?;
//! let mut bytes = [0; 6];
//! plain.read_at(HostOffset(1003), &mut bytes)?;
//! assert_eq!(&bytes, b"the mi");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not do: authentication. As with every encryption of disks that keeps the size, a
//! change of the encrypted bytes is not noticed, it decrypts to noise. Keys are wiped when they are
//! dropped; sectors that were decrypted are not.

mod by_guest;
mod error;
mod hash;
mod kdf;
mod key;
pub mod luks;
mod mode;
mod sector;
mod spec;
mod split;
mod storage;

pub use by_guest::ByGuest;
pub use error::{Error, Found, Invalid, Result};
pub use hash::Hash;
pub use kdf::{Kdf, KdfLimits, iterations_for};
pub use key::Key;
pub use sector::{SECTOR, SectorCipher};
pub use spec::{CipherName, CipherSpec, IvGen, Mode};
pub use split::{af_merge, af_split};
pub use storage::{EncryptedStorage, PastEnd};
