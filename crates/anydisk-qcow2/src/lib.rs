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
//! | [`WritableImage`] | the same, with space for what is written, and the order in which it gets durable |
//! | [`Qcow2Format`] | recognises, opens, creates, measures |
//!
//! | feature | |
//! |---|---|
//! | versions 2 and 3, clusters of 512 bytes to 2 MiB, refcounts of 1 to 64 bits | read, written, created |
//! | clusters that are zero, zero with space kept, absent, shared | read, written |
//! | compressed clusters, deflate (`zlib`) and zstd | read, written; passed through without decoding where wanted |
//! | extended L2 entries (subclusters) | read, written, created |
//! | preallocation, zeroes and discards by tables | written |
//! | resizing both ways, over a longer backing file, with snapshots (version 3) | done |
//! | power loss at any moment | what was flushed is there, at worst clusters are lost |
//! | backing files of any format | named in the answer of opening; the caller decides whether to follow; the name changed or dropped |
//! | unknown extensions, header fields, compatible bits | kept |
//! | unknown incompatible bits | refused by the name the file gives them |
//! | internal snapshots | listed, read without applying, created, applied, deleted, renamed; machine state kept and read |
//! | check, repair | every structure and every reference, also of images that do not open |
//! | amend | version 2 to 3 and back, refcount width, lazy refcounts, name of the data file, size, passphrases |
//! | compaction | in place, also of an image that is open and read |
//! | persistent dirty bitmaps | kept through writes, listed, changed, read as ranges |
//! | images marked dirty or corrupt | read; refused for writing |
//! | external data files, also raw ones | read, written, created; the resolver opens them |
//! | encryption: LUKS, and the legacy AES | read, write, create; also of an external data file |
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
mod alone;
mod amend;
mod beside;
mod bitmap;
mod blocks;
mod check;
mod compacting;
mod create;
mod crypt;
mod data_file;
mod entry;
mod extensions;
pub mod features;
mod flush;
mod format;
mod free;
mod guard;
mod header;
mod image;
pub mod layout;
mod limits;
mod link;
mod live;
mod measure;
mod own_table;
mod packed;
mod passphrases;
mod plan;
mod preallocate;
mod refcount;
mod reserve;
mod resize;
mod room;
mod rules;
mod run;
mod shorten;
mod snapshot;
mod state;
mod survey;
mod table;
mod write;
mod zero;

pub use bitmap::{BitmapEntry, read_directory as read_bitmap_directory};
pub use entry::{Cluster, Compressed, L1Entry, L2Entry};
pub use extensions::Extension;
pub use format::{QCOW2, Qcow2Format};
pub use header::{Compression, Header};
pub use image::Qcow2Image;
pub use table::Geometry;
pub use write::WritableImage;

/// The name of the format.
pub(crate) const NAME: &str = "qcow2";
