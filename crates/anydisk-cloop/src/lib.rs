//! Compressed loopback images (cloop), read.
//!
//! ```text
//!   a shell script, block size, count | offsets: one more than blocks | blocks, each packed by itself
//!   blocks | offsets | a shell script, block size, count               version 4 may end with them
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes |
//! | [`Header`] | bytes to checked values |
//! | [`Block`], [`Packed`] | entries of the table, pure |
//! | [`CloopImage`] | the table in memory; translates, never moves guest bytes |
//! | [`CloopFormat`] | recognises, opens, checks |
//!
//! | feature | |
//! |---|---|
//! | version 2.0 | read |
//! | version 4.0, its header first or last: plain, zlib, xz, LZ4, LZO1X | read |
//! | versions before 2.0 | refused by name |
//! | writing | missing |
//!
//! What is accepted is told in `docs/formats/cloop.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_cloop::CloopImage;
//! use anydisk_core::{Disk, GuestOffset, Limits};
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file = FileStorage::open("KNOPPIX", &OpenOptions::new())?;
//! let disk = Disk::new(Arc::new(CloopImage::open(Arc::new(file), &Limits::default())?));
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(0), &mut sector)?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod format;
mod header;
mod image;
pub mod layout;
mod table;

pub use format::{CLOOP, CloopFormat};
pub use header::{Header, Version};
pub use image::CloopImage;
pub use table::{BadEntry, Block, Packed};

pub(crate) const NAME: &str = "cloop";
