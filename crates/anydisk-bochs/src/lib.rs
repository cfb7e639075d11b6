//! Growing images of Bochs, read.
//!
//! ```text
//!   header | catalog: the number of an extent, or none | extents, in the order of their first write
//!
//!   extent:  a bit for each sector | the sectors
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes |
//! | [`Header`] | bytes to checked values |
//! | [`Geometry`], [`Place`] | arithmetic and entries, pure |
//! | [`BochsImage`] | catalog and bitmaps in memory; translates, never moves guest bytes |
//! | [`BochsFormat`] | recognises, opens, checks |
//!
//! | feature | |
//! |---|---|
//! | growing images, versions 1 and 2 | read |
//! | undoable and volatile images, which lie over others and do not name them | refused by name |
//! | check: the map, and extents that are named twice | works |
//! | writing | missing |
//!
//! What is accepted is told in `docs/formats/bochs.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_bochs::BochsImage;
//! use anydisk_core::{Disk, GuestOffset, Limits};
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file = FileStorage::open("c.img", &OpenOptions::new())?;
//! let disk = Disk::new(Arc::new(BochsImage::open(Arc::new(file), &Limits::default())?));
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(0), &mut sector)?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod check;
mod format;
mod header;
mod image;
pub mod layout;
mod table;

pub use format::{BOCHS, BochsFormat};
pub use header::Header;
pub use image::BochsImage;
pub use table::{Geometry, Place};

pub(crate) const NAME: &str = "bochs";
