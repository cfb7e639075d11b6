//! Apple disk images (UDIF, `.dmg`), read, and written in one pass.
//!
//! ```text
//!   data fork: chunks ...  |  property list, or resource fork: tables of chunks  |  trailer "koly"
//!
//!   table:  a run of sectors (a partition, or all)     chunk:  kind, sectors, place, length
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes, as they are described |
//! | [`Trailer`], [`Table`] | bytes to checked values, pure |
//! | [`EncryptedHeader`] | what an encrypted image begins with |
//! | [`ChunkMap`] | all chunks by sector, pure |
//! | [`DmgImage`] | the map in memory; translates, never moves guest bytes |
//! | [`DmgFormat`] | recognises, opens, checks, writes |
//!
//! | feature | |
//! |---|---|
//! | chunks: plain, zero, free, ADC, zlib, bzip2, LZFSE, LZMA (.xz) | read |
//! | tables in a property list or in a resource fork, in any order, with gaps | read |
//! | checksums (CRC-32) of the data, of each table, of all tables | verified by a check |
//! | segmented images (`.dmgpart`) | refused by name |
//! | images encrypted by a passphrase (`encrcdsa`), with a trailer or without | read |
//! | those of version 1 (`cdsaencr`), and those that only a certificate opens | refused by name |
//! | writing | in one pass, packed by zlib (UDZO) |
//!
//! Images without a trailer (UDRW) are raw. What is accepted is told in `docs/formats/dmg.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_core::{Disk, GuestOffset, Limits, Location, OpenRequest};
//! use anydisk_dmg::DmgImage;
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file = Arc::new(FileStorage::open("disk.dmg", &OpenOptions::new())?);
//! let (location, limits) = (Location::Path("disk.dmg".into()), Limits::default());
//! let request = OpenRequest::new(file, &location, &limits);
//! let disk = Disk::new(Arc::new(DmgImage::open(&request)?));
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(0), &mut sector)?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod check;
mod checksum;
mod encrypted;
mod encrypted_header;
mod fork;
mod format;
mod image;
pub mod layout;
mod limits;
mod map;
mod plist;
mod sink;
mod table;
mod tables;
mod trailer;

pub use checksum::Checksum;
pub use encrypted::KEY_SECRET;
pub use encrypted_header::{EncryptedHeader, WrappedKey};
pub use format::{DMG, DmgFormat};
pub use image::DmgImage;
pub use map::ChunkMap;
pub use table::{Chunk, ChunkKind, Frame, Table};
pub use trailer::Trailer;

pub(crate) const NAME: &str = "dmg";
