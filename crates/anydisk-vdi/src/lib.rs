//! VirtualBox disk images (VDI): dynamic, fixed and differencing ones, read and written in place.
//!
//! One map says for each block of the disk where it is in the file; blocks lie behind each other in
//! the order in which they were first written:
//!
//! ```text
//!   0         header: UUIDs, sizes, number of blocks in the file
//!   offBlocks block map, 4 bytes for each block     0xffffffff: not here (the parent, else zeroes)
//!   offData   block 0 | block 1 | ...               0xfffffffe: zeroes, whatever the parent has
//!                                                   n: block n of the file
//! ```
//!
//! A differencing image, which is what VirtualBox's snapshots are made of, names its parent by UUID
//! only; the program around it knows the files. Here the parent is a
//! [reference by number](anydisk_core::Reference::by_id), to be found by the caller's resolver, and
//! checked when it is opened: its UUID, and the UUID of its content.
//!
//! | feature | |
//! |---|---|
//! | dynamic, fixed, differencing | read, write in place, create |
//! | undo images | read, write |
//! | header 1.1 (both lengths), header 0.x | read, write in place |
//! | free and zero blocks, data before each block, blocks of 512 bytes to 128 MiB | works |
//! | images of any size in bounded memory | works; written up to 256 TiB in blocks of 1 MiB |
//! | check and repair | works |
//! | growing, shrinking, compacting, while in use and at any power failure | works |
//! | UUIDs of one's choice, links checked; UUIDs, parent, comment, geometry changed | works |
//! | encrypted by VirtualBox | not told by the file: it reads as noise |
//!
//! The layout, our limits and the oddities of other writers are in `docs/formats/vdi.md`.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{CreateRequest, Disk, Format, GuestOffset, Limits, Location, Options};
//! use anydisk_storage::{MemoryStorage, Storage};
//! use anydisk_vdi::VDI;
//!
//! let store = Arc::new(MemoryStorage::default());
//! let (location, options) = (Location::Path("disk.vdi".into()), Options::of(&VDI));
//! let limits = Limits::default();
//! let request = CreateRequest::new(store.clone(), &location, 10 << 30, &options, &limits);
//! let disk = Disk::new(VDI.create(request)?);
//! disk.write(GuestOffset(5 << 30), b"hello")?;
//! disk.flush()?;
//! // Header and map, 1 MiB each, and one block.
//! assert_eq!(store.len()?, 3 << 20);
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod check;
mod compact;
mod create;
mod format;
mod guard;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod link;
mod measure;
mod resize;
mod state;
mod suspect;
mod table;
mod write;

pub use format::{VDI, VdiFormat};
pub use image::VdiImage;

pub(crate) const NAME: &str = "vdi";
