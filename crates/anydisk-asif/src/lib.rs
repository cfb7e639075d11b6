//! Apple sparse images (ASIF), read. **Experimental**: the format was never described by its maker.
//!
//! ```text
//!   header | two directories, of which the newer counts | chunks: tables, data, bitmaps
//!
//!   directory: a table for each 126 GiB    table: groups of 2048 data chunks and their bitmap
//!   bitmap:    two bits for each sector of a chunk that is not all there
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes |
//! | [`Header`] | bytes to checked values |
//! | [`Geometry`], [`Place`], [`Chunk`] | arithmetic and entries, pure |
//! | [`AsifImage`] | the tables in memory; translates, never moves guest bytes |
//! | [`AsifFormat`] | recognises, opens, checks |
//!
//! | feature | |
//! |---|---|
//! | version 1: chunks that are there, not there, partly there | read |
//! | every state that is not known | refused |
//! | metadata, layers, writing | missing |
//!
//! What is accepted is told in `docs/formats/asif.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_asif::AsifImage;
//! use anydisk_core::{Disk, GuestOffset, Limits};
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file = FileStorage::open("disk.asif", &OpenOptions::new())?;
//! let disk = Disk::new(Arc::new(AsifImage::open(Arc::new(file), &Limits::default())?));
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(0), &mut sector)?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod format;
mod header;
mod image;
pub mod layout;
mod table;

pub use format::{ASIF, AsifFormat};
pub use header::Header;
pub use image::AsifImage;
pub use table::{Chunk, Geometry, Place};

pub(crate) const NAME: &str = "asif";
