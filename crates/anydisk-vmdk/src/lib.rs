//! VMware disk images (VMDK): read all the everyday kinds, write sparse ones in place and
//! stream-optimized ones in one pass.
//!
//! A VMDK is a text, the *descriptor*, and one or more *extents* laid end to end. An extent is a
//! row of bytes of a file, or a file of *grains* that are found through two levels of tables:
//!
//! ```text
//!   descriptor                      disk
//!   RW  63 FLAT   "a.bin" 0         |--- a.bin ---|
//!   RW 500 SPARSE "b.vmdk"          |             |------ b.vmdk ------|
//!   RW   8 ZERO                     |             |                    |- zeroes -|
//!
//!   b.vmdk:  header -> grain directory -> grain table -> grain (64 KiB)
//!                                             entry 0:  not here: the parent, else zeroes
//!                                             entry 1:  zeroes, whatever the parent has
//!                                             entry n:  at sector n
//! ```
//!
//! A sparse extent may hold its own descriptor; then the file is the whole disk. A compressed one
//! (streamOptimized) packs each grain by itself and can be written to a pipe.
//!
//! | feature | |
//! |---|---|
//! | monolithicSparse, twoGbMaxExtentSparse, sparse extents of custom disks | read, write in place |
//! | monolithicFlat, twoGbMaxExtentFlat, vmfs and other flat extents | read, write in place |
//! | streamOptimized, tables in front or behind, with markers or lengths only | read; written by a [`Sink`](anydisk_core::Sink) |
//! | ZERO extents, RDONLY and NOACCESS | read; writing is refused where the descriptor does |
//! | delta links (`parentCID`) | read, write, create; the parent is named, the caller follows |
//! | zeroed grains | read, write, create |
//! | vmfsSparse (COWD) | read, write in place |
//! | seSparse; COWD without its descriptor | read |
//! | creating monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs, vmfsSparse, streamOptimized | works |
//! | check, repair; changing the parent | works |
//! | resizing; extents of a split disk are added and removed | works, but for streamOptimized |
//! | host devices (fullDevice, partitionedDevice, RDM) | only where the resolver gives them |
//!
//! Files named inside a descriptor are opened by the resolver of the request and by nobody else.
//! The layout, our limits and the oddities of other writers are in `docs/formats/vmdk.md`.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{CreateRequest, Disk, Format, GuestOffset, Limits, Location, Options};
//! use anydisk_storage::MemoryStorage;
//! use anydisk_vmdk::VMDK;
//!
//! let store = Arc::new(MemoryStorage::default());
//! let (location, limits) = (Location::Path("disk.vmdk".into()), Limits::default());
//! let options = Options::of(&VMDK);
//! let request = CreateRequest::new(store.clone(), &location, 10 << 30, &options, &limits);
//! let disk = Disk::new(VMDK.create(request)?);
//! disk.write(GuestOffset(5 << 30), b"hello")?;
//! disk.flush()?;
//! // Header, descriptor and tables of 10 GiB, and one grain.
//! assert!(store.to_vec().len() < 3 << 20);
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod check;
mod codec;
mod content_id;
mod create;
mod descriptor;
mod descriptor_file;
mod extent;
mod format;
mod growing;
mod guard;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod measure;
mod mend;
mod open;
mod second;
mod sink;
mod table;
mod write;

pub use format::{VMDK, VmdkFormat};
pub use image::VmdkImage;

pub(crate) const NAME: &str = "vmdk";
