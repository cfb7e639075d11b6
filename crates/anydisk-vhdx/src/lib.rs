//! Hyper-V's disk images of the second generation (VHDX): dynamic, fixed and differencing ones.
//!
//! ```text
//!   0       signature, two headers, two region tables
//!   1 MiB   log | block allocation table | metadata | blocks, bitmaps ...    in any order, on whole MiB
//! ```
//!
//! An image that was not closed cleanly has entries in its log that are to be replayed first: in memory
//! where it is only read, else in the file. What is written here needs no log, since with a block nothing
//! but its entry changes; it is used where several structures change at once.
//!
//! | feature | |
//! |---|---|
//! | dynamic, fixed, differencing (sectors partly here) | read, write in place, create |
//! | sectors of 512 and 4096 bytes, blocks of 1 to 256 MiB | read; written up to the limit of a unit |
//! | the log, also where it wraps, lies beside old sequences, or makes the file longer | replayed |
//! | either header or region table damaged | read by the other one |
//! | check and repair | works |
//! | another parent, or none; emptied after a commit | works, at any power failure |
//! | resizing both ways, preallocation | works, at any power failure; not of children |
//!
//! The layout, our limits and the oddities of other writers are in `docs/formats/vhdx.md`.

mod check;
mod child;
mod crc;
mod create;
mod entries;
mod format;
mod guard;
mod header;
mod image;
mod info;
mod journal;
mod layout;
mod limits;
mod link;
mod locator;
mod log;
mod metadata;
mod occupied;
mod replayed;
mod resize;
mod state;
mod table;
mod tables;
mod write;

pub use format::{VHDX, VhdxFormat};
pub use image::VhdxImage;

pub(crate) const NAME: &str = "vhdx";
