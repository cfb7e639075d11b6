//! Virtual PC and Hyper-V disk images of the first generation (VHD, qemu's `vpc`).
//!
//! ```text
//!   fixed:                   bytes of the disk | footer
//!   dynamic, differencing:   footer's copy | header | table | blocks ... | footer
//!                                                     |
//!                              sector of each block --'   bitmap | data
//! ```
//!
//! A differencing disk has a bit for each sector of a block: the sector is here, or in the parent,
//! which is named by paths and a UUID.
//!
//! | feature | |
//! |---|---|
//! | fixed (footers of 511 bytes too), dynamic, differencing | read, write in place, create |
//! | blocks of 4 KiB to 256 MiB | read; written up to the limit of a unit |
//! | sizes: by geometry where Virtual PC or qemu wrote it, else by the footer | as qemu |
//! | a footer that is lost, or its copy | read by the other one, written anew |
//! | check and repair | works |
//! | another parent, or none; emptied after a commit | works, at any power failure |
//! | resizing both ways, preallocation | works, at any power failure; not of children |
//! | compacting | missing |
//!
//! The layout, our limits and the oddities of other writers are in `docs/formats/vhd.md`.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{CreateRequest, Disk, Format, GuestOffset, Limits, Location, Options};
//! use anydisk_storage::{MemoryStorage, Storage};
//! use anydisk_vhd::VHD;
//!
//! let store = Arc::new(MemoryStorage::default());
//! let (location, options) = (Location::Path("disk.vhd".into()), Options::of(&VHD));
//! let limits = Limits::default();
//! let request = CreateRequest::new(store.clone(), &location, 10 << 30, &options, &limits);
//! let disk = Disk::new(VHD.create(request)?);
//! disk.write(GuestOffset(5 << 30), b"hello")?;
//! disk.flush()?;
//! // Header and table, one block with its bitmap, and the footer.
//! assert_eq!(store.len()?, (24 << 10) + (2 << 20) + 4096 + 512);
//! # Ok::<(), anydisk_core::Error>(())
//! ```

/// The error for a field of a layout struct that lies at a place of the file.
macro_rules! invalid {
    ($at:expr, $layout:ty, $field:ident, $found:expr, $($expected:tt)+) => {
        anydisk_core::Error::from(anydisk_core::invalid_field!(
            crate::NAME, $at => $layout, $field, $found, $($expected)+
        ))
    };
}

mod blocks;
mod check;
mod create;
mod ends;
mod footer;
mod format;
mod geometry;
mod guard;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod link;
mod measure;
mod resize;
mod space;
mod table;
mod unset;
mod write;

pub use format::{VHD, VhdFormat};
pub use image::VhdImage;

pub(crate) const NAME: &str = "vpc";
