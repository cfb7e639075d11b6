//! QEMU's qcow disk images, version 1: the format before qcow2, without reference counts.
//!
//! ```text
//!   guest offset   | L1 index | L2 index | in the cluster |
//!                       |          |              |
//!   L1 table     ...[ entry ]...   |              |         one, 8 bytes for each L2 table
//!                       |          |              |
//!   L2 table     ......[ entry: data | absent | compressed ]...
//!                                 |               |
//!   host         .........[ cluster: .............byte......... ]
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes, as QEMU's source names them |
//! | [`Header`] | bytes to checked values and back |
//! | [`Geometry`], [`Cluster`] | table arithmetic and entries, pure |
//! | [`QcowImage`] | the tables in memory; translates, never moves guest bytes |
//! | [`QcowFormat`] | recognises, opens, creates, measures |
//!
//! | feature | |
//! |---|---|
//! | clusters of 512 bytes to 64 KiB, L2 tables of 512 bytes to 64 KiB | read, written; created with the tables that qemu takes |
//! | compressed clusters (deflate) | read, written; passed through without decoding where wanted |
//! | a backing file | named in the answer of opening, without a format; the caller decides. Can be changed |
//! | a write of part of a cluster over a backing file | the rest is copied up, whatever the cluster size |
//! | power loss at any moment | what was flushed is there, at worst clusters are lost |
//! | images whose tables overlap or name what is not in the file | read; refused for writing |
//! | zeroes by tables | only where nothing lies below: the format has no entry for them |
//! | check | entries, streams, places named twice, lost space; leaks and harmless entries are mended |
//! | encryption (AES-128, `encrypt.key-secret`) | read, written, created; without the passphrase the image can be told about |
//!
//! What is accepted beyond what QEMU writes is told in `docs/formats/qcow.md`.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{CreateRequest, Disk, Format, GuestOffset, Limits, Location, Options};
//! use anydisk_qcow::QCOW;
//! use anydisk_storage::MemoryStorage;
//!
//! let store = Arc::new(MemoryStorage::default());
//! let (location, options) = (Location::Path("disk.qcow".into()), Options::of(&QCOW));
//! let limits = Limits::default();
//! let request = CreateRequest::new(store.clone(), &location, 1 << 40, &options, &limits);
//! let disk = Disk::new(QCOW.create(request)?);
//! disk.write(GuestOffset(1 << 39), b"hello")?;
//! disk.flush()?;
//! // The L1 table of 1 TiB, an L2 table, and a cluster.
//! assert!(store.to_vec().len() < 5 << 20);
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod check;
mod create;
mod crypt;
mod format;
mod header;
mod image;
pub mod layout;
mod limits;
mod piece;
mod survey;
mod table;
mod write;

pub use format::{QCOW, QcowFormat};
pub use header::Header;
pub use image::QcowImage;
pub use table::{Cluster, Geometry, Place};

pub(crate) const NAME: &str = "qcow";
