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
//! | fixed (footers of 511 bytes too), dynamic, differencing | read |
//! | blocks of 4 KiB to 256 MiB | read |
//! | sizes: by geometry where Virtual PC or qemu wrote it, else by the footer | as qemu |
//! | a footer that is lost, or its copy | read by the other one |
//! | suspended machines' disks | read |
//!
//! The layout, our limits and the oddities of other writers are in `docs/formats/vhd.md`.

/// The error for a field of a layout struct that lies at a place of the file.
macro_rules! invalid {
    ($at:expr, $layout:ty, $field:ident, $found:expr, $($expected:tt)+) => {
        anydisk_core::Error::from(anydisk_core::Invalid {
            format: crate::NAME,
            field: stringify!($field).into(),
            at: $at.saturating_add(std::mem::offset_of!($layout, $field) as u64),
            found: anydisk_core::Value::from($found),
            expected: format!($($expected)+).into(),
        })
    };
}

mod blocks;
mod footer;
mod format;
mod geometry;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod table;

pub use format::{VHD, VhdFormat};
pub use image::VhdImage;

pub(crate) const NAME: &str = "vpc";
