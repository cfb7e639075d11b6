//! LUKS containers: a header with key slots, and behind it a disk, encrypted sector by sector.
//!
//! ```text
//!   file    | header | key slots |  encrypted sectors  ...              |
//!                                   ^ payload offset
//!   guest                           0 -------------------------- size
//! ```
//!
//! There are no tables: guest byte `n` is byte `n` of the payload, decrypted. A map is therefore one
//! run of data in a store that decrypts (an [`EncryptedStorage`](anydisk_crypto::EncryptedStorage)),
//! and everything above works as on a raw disk. What lies in the payload may be any image.
//!
//! | feature | |
//! |---|---|
//! | LUKS1 and LUKS2: read, write, create | works |
//! | ciphers, modes, hashes, key derivation | those of [`anydisk_crypto`] |
//! | info without the passphrase | works; reading then asks for it |
//! | passphrases added and removed (amend) | works |
//! | growing and shrinking | works; what is new is written as zeroes |
//! | a header in a file of its own | works: the resolver's [`header_of`](anydisk_core::Resolver::header_of), or [`open_detached`]; made with `detached-header=on` |
//! | LUKS2: integrity protection, reencryption under way | refused by name |
//! | zeroing and discarding without writing | impossible: holes read as noise |
//!
//! A passphrase comes from the caller's [`Secrets`](anydisk_core::Secrets), under the option
//! `key-secret`. See `docs/formats/luks.md` of the repository.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{
//!     CreateRequest, Disk, Format, GuestOffset, Limits, Location, OneSecret, Options, Secret,
//! };
//! use anydisk_luks::LUKS;
//! use anydisk_storage::MemoryStorage;
//!
//! let (location, limits) = (Location::Other("disk".into()), Limits::default());
//! let mut options = Options::of(&LUKS);
//! options.set("iter-time", "10")?; // milliseconds that trying a passphrase takes
//! let secrets = OneSecret(Secret::new(b"correct horse".to_vec()));
//! let store = Arc::new(MemoryStorage::default());
//! let request = CreateRequest::new(store, &location, 1 << 20, &options, &limits);
//! let disk = Disk::new(LUKS.create(CreateRequest { secrets: &secrets, ..request })?);
//!
//! disk.write(GuestOffset(512), b"hello")?;
//! let mut bytes = [0; 5];
//! disk.read(GuestOffset(512), &mut bytes)?;
//! assert_eq!(&bytes, b"hello");
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod amend;
mod create;
mod format;
mod image;
mod info;
mod open;
mod told;

pub use format::{LUKS, LuksFormat};
pub use image::LuksImage;
pub use open::open_detached;

pub(crate) const NAME: &str = "luks";

/// The option under which the passphrase is asked for.
pub(crate) const KEY_SECRET: &str = "key-secret";
