//! The first copy-on-write disk images: QEMU's cow, and those of user-mode Linux, which begin alike.
//!
//! ```text
//!   header | bitmap: one bit for each sector | sector 0 | sector 1 | sector 2 | ...
//!                    1: it is here                            each at its own place
//!                    0: it is in the backing file, else zero
//! ```
//!
//! There is no table of places and no free space: the holes of the host's file system keep sectors
//! that were never written from taking space.
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the headers, seven kinds |
//! | [`Header`] | which kind it is; bytes to checked values |
//! | [`CowImage`] | the bitmap in memory; translates, never moves guest bytes |
//! | [`CowFormat`] | recognises, opens, creates, measures |
//!
//! | feature | |
//! |---|---|
//! | QEMU's images ("version 2"), of 64-bit and of 32-bit x86 machines | read, written |
//! | new images | as QEMU on 64-bit machines made them |
//! | a backing file | named in the answer of opening; the caller decides |
//! | another backing file, none; an empty bitmap | works: commit and rebase |
//! | user-mode Linux, version 1 (either byte order), 2 and 3 | read |
//! | power loss at any moment | each sector is old or new, what was flushed is new |
//! | check | sectors that are not in the file, bits of no sector, a file that is too long; all can be mended |
//! | zeroes, discards | as holes of the file where the sector is here; over a backing file by data |
//!
//! No program that is still shipped reads QEMU's cow. What is known of it is told in
//! `docs/formats/cow.md`.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{CreateRequest, Disk, Format, GuestOffset, Limits, Location, Options};
//! use anydisk_cow::COW;
//! use anydisk_storage::MemoryStorage;
//!
//! let store = Arc::new(MemoryStorage::default());
//! let (location, options) = (Location::Path("disk.cow".into()), Options::of(&COW));
//! let limits = Limits::default();
//! let request = CreateRequest::new(store.clone(), &location, 1 << 30, &options, &limits);
//! let disk = Disk::new(COW.create(request)?);
//! disk.write(GuestOffset(5000), b"hello")?;
//! disk.flush()?;
//! // Header, bitmap, and ten sectors, nine of which are holes.
//! assert_eq!(store.to_vec().len(), 263_680 + 10 * 512);
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod bitmap;
mod check;
mod create;
mod format;
mod header;
mod image;
pub mod layout;
mod link;
mod write;

pub use format::{COW, CowFormat};
pub use header::{Header, Kind};
pub use image::CowImage;

pub(crate) const NAME: &str = "cow";
