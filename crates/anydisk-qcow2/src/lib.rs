//! QEMU's qcow2 disk images, versions 2 and 3.
//!
//! A qcow2 file is an array of clusters. Guest clusters find theirs through two levels of tables;
//! what no table names is absent: it shows the backing file, or zeroes.
//!
//! ```text
//!   guest offset   | L1 index | L2 index | in the cluster |
//!                       |          |              |
//!   L1 table     ...[ entry ]...   |              |         one, 8 bytes for each L2 table
//!                       |          |              |
//!   L2 table     ......[ entry: data | zero | absent | compressed ]...     a cluster each
//!                                 |               |
//!   host         .........[ cluster: .............byte......... ]          read by the disk
//!
//!   refcount table -> refcount blocks: how many entries name each host cluster
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes, as the specification names them |
//! | [`Header`] | bytes to checked values and back; keeps what it does not know |
//! | [`Geometry`], [`L1Entry`], [`L2Entry`] | table arithmetic, pure |
//! | [`Qcow2Image`] | the tables in memory; translates, never moves guest bytes |
//! | [`Qcow2Format`] | recognises and opens |
//!
//! | feature | |
//! |---|---|
//! | versions 2 and 3, clusters of 512 bytes to 2 MiB, refcounts of 1 to 64 bits | read |
//! | clusters that are zero, zero with space kept, absent, shared | read |
//! | compressed clusters, deflate (`zlib`) and zstd | read; passed through without decoding where wanted |
//! | extended L2 entries (subclusters) | read |
//! | backing files of any format | named in the answer of opening; the caller decides whether to follow |
//! | unknown extensions, header fields, compatible bits | kept |
//! | unknown incompatible bits | refused by the name the file gives them |
//! | internal snapshots | the active disk is read |
//! | bitmaps | not looked at; the disk is read |
//! | encryption, external data files | refused |
//!
//! What is accepted beyond the specification, and which images other programs disagree about, is
//! told in `docs/formats/qcow2.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_core::{Disk, GuestOffset, GuestRange, Limits, Source};
//! use anydisk_qcow2::Qcow2Image;
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file = FileStorage::open("disk.qcow2", &OpenOptions::new())?;
//! let disk = Disk::new(Arc::new(Qcow2Image::open(Arc::new(file), &Limits::default())?));
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(0), &mut sector)?;
//!
//! // Or only ask where the bytes are, and read them in one's own way.
//! let found = disk.map(GuestRange::whole(disk.size()))?;
//! if let Source::Data { at, .. } = found.extent.source {
//!     println!("the first {} bytes begin at {at} of the file", found.extent.len);
//! }
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod alloc;
mod blocks;
mod create;
mod entry;
mod extensions;
pub mod features;
mod flush;
mod format;
mod guard;
mod header;
mod image;
pub mod layout;
mod limits;
mod measure;
mod packed;
mod plan;
mod refcount;
mod rules;
mod snapshot;
mod survey;
mod table;
mod write;
mod zero;

pub use entry::{Cluster, Compressed, L1Entry, L2Entry};
pub use extensions::Extension;
pub use format::{QCOW2, Qcow2Format};
pub use header::{Compression, Header};
pub use image::Qcow2Image;
pub use table::Geometry;
pub use write::WritableImage;

/// The name of the format.
pub(crate) const NAME: &str = "qcow2";
