//! QEMU enhanced disk images (QED).
//!
//! ```text
//!   header | L1 table | L2 tables, clusters ...       all in clusters, a table is 1 to 16 of them
//!
//!   L1 entry:  0: nothing here        else: an L2 table
//!   L2 entry:  0: not here: the backing file, else zeroes    1: zeroes    else: a cluster
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes, as the specification names them |
//! | [`Header`] | bytes to checked values |
//! | [`Geometry`], [`Cluster`] | table arithmetic and entries, pure |
//! | [`QedImage`] | the tables in memory; translates, never moves guest bytes |
//! | [`QedFormat`] | recognises, opens, creates, checks |
//!
//! | feature | |
//! |---|---|
//! | clusters of 4 KiB to 64 MiB, tables of 1 to 16 clusters | read, also those of 1, which qemu makes and refuses |
//! | zero clusters | read, written where zeroes would hide a backing file |
//! | a backing file | named in the answer of opening; the caller decides. It can be changed |
//! | images that were not closed cleanly | read, told as `dirty`; repaired when they are opened for writing |
//! | writing in place, creating, growing, shrinking, emptying | works |
//! | check, repair | works |
//!
//! What is accepted is told in `docs/formats/qed.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_core::{Disk, GuestOffset, Limits};
//! use anydisk_qed::QedImage;
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file = FileStorage::open("disk.qed", &OpenOptions::new())?;
//! let disk = Disk::new(Arc::new(QedImage::open(Arc::new(file), &Limits::default())?));
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(0), &mut sector)?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod check;
mod create;
mod format;
mod header;
mod image;
pub mod layout;
mod limits;
mod piece;
mod survey;
mod table;
mod write;

pub use format::{QED, QedFormat};
pub use header::Header;
pub use image::QedImage;
pub use table::{Cluster, Geometry, Place};

pub(crate) const NAME: &str = "qed";
