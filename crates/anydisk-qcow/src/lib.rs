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
//! | [`QcowFormat`] | recognises and opens |
//!
//! | feature | |
//! |---|---|
//! | clusters of 512 bytes to 64 KiB, L2 tables of 512 bytes to 64 KiB | read |
//! | compressed clusters (deflate) | read |
//! | a backing file | named in the answer of opening, without a format; the caller decides |
//! | writing, creating | missing |
//! | encryption (AES) | refused |
//!
//! What is accepted beyond what QEMU writes is told in `docs/formats/qcow.md`.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{Disk, GuestOffset, HostOffset, Limits};
//! use anydisk_qcow::{Header, QcowImage};
//! use anydisk_storage::MemoryStorage;
//!
//! // A disk of 64 KiB on which nothing was written: a header and an L1 table of one entry.
//! let header = Header {
//!     backing_file: None,
//!     mtime: 0,
//!     size: 65536,
//!     cluster_bits: 12,
//!     l2_bits: 9,
//!     encrypted: false,
//!     l1_table_offset: HostOffset(48),
//! };
//! let file = [&header.to_bytes()[..], &[0; 8]].concat();
//! let disk = Disk::new(Arc::new(QcowImage::open(Arc::new(MemoryStorage::new(file)), &Limits::default())?));
//! let mut sector = [7; 512];
//! disk.read(GuestOffset(65024), &mut sector)?;
//! assert_eq!(sector, [0; 512]);
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod format;
mod header;
mod image;
pub mod layout;
mod limits;
mod table;

pub use format::{QCOW, QcowFormat};
pub use header::Header;
pub use image::QcowImage;
pub use table::{Cluster, Geometry, Place};

pub(crate) const NAME: &str = "qcow";
