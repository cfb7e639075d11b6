//! Parallels disk images: expandable ones, read, created and written in place, and bundles of them, read and
//! written.
//!
//! One table says for each cluster of the disk where it is in the file; clusters lie behind each other
//! in the order in which they were first written:
//!
//! ```text
//!   0          header: sizes, whether somebody writes, where the clusters begin
//!   64         block table, 4 bytes for each cluster of the disk     0: not here, zeroes
//!   data_off   cluster | cluster | ...                               n: sector n of the file, or,
//!                                                                    in the newer kind, cluster n
//! ```
//!
//! | feature | |
//! |---|---|
//! | the older kind (`WithoutFreeSpace`), the newer one (`WithouFreSpacExt`) | read, write in place |
//! | new images, as qemu makes them | works |
//! | clusters of any number of sectors | works |
//! | bundles (`name.hdd` with DiskDescriptor.xml): expanding, plain, split, with snapshots | read, checked; the present state written |
//! | dirty bitmaps of the format extension | told, read; dropped by the first write |
//! | features of the format extension that are not known | kept, dropped, or the image is read only, as they say themselves |
//! | check and repair | works |
//! | growing, shrinking, compacting, while in use and at any power failure | works |
//! | images of any size in bounded memory | works |
//!
//! The layout, our limits and the oddities of other writers are in `docs/formats/parallels.md`.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{CreateRequest, Disk, Format, GuestOffset, Limits, Location, Options};
//! use anydisk_parallels::PARALLELS;
//! use anydisk_storage::{MemoryStorage, Storage};
//!
//! let store = Arc::new(MemoryStorage::default());
//! let (location, options) = (Location::Path("disk.hds".into()), Options::of(&PARALLELS));
//! let limits = Limits::default();
//! let request = CreateRequest::new(store.clone(), &location, 10 << 30, &options, &limits);
//! let disk = Disk::new(PARALLELS.create(request)?);
//! disk.write(GuestOffset(5 << 30), b"hello")?;
//! disk.flush()?;
//! // Header and table, and one cluster.
//! assert_eq!(store.len()?, 2 << 20);
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod bitmap;
mod bundle;
mod check;
mod compact;
mod copy;
mod create;
mod extension;
mod format;
mod guard;
mod header;
mod image;
mod layout;
mod limits;
mod measure;
mod resize;
mod state;
mod table;
mod write;

pub use bundle::ParallelsBundle;
pub use format::{PARALLELS, ParallelsFormat};
pub use image::ParallelsImage;

pub(crate) const NAME: &str = "parallels";
