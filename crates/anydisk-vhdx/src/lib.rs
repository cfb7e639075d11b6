//! Hyper-V's disk images of the second generation (VHDX): dynamic and fixed ones, read and written,
//! and differencing ones, read.
//!
//! ```text
//!   0       signature, two headers, two region tables
//!   1 MiB   log | block allocation table | metadata | blocks ...    in any order, on whole MiB
//! ```
//!
//! Tables and bitmaps are changed through the log. An image that was not closed cleanly has entries
//! there that are to be replayed first: in memory where it is only read, else in the file. What is
//! written here needs no log: an entry of the table is all that changes with a block.
//!
//! | feature | |
//! |---|---|
//! | dynamic, fixed | read, write in place, create |
//! | differencing (sectors partly here) | read |
//! | sectors of 512 and 4096 bytes, blocks of 1 to 256 MiB | read; written up to the limit of a unit |
//! | the log, also where it wraps, lies beside old sequences, or makes the file longer | replayed |
//! | either header or region table damaged | read by the other one |
//! | check and repair | works |
//! | resizing, writing children | missing |
//!
//! The layout, our limits and the oddities of other writers are in `docs/formats/vhdx.md`.

mod check;
mod crc;
mod create;
mod entries;
mod format;
mod guard;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod log;
mod metadata;
mod occupied;
mod replayed;
mod state;
mod table;
mod write;

pub use format::{VHDX, VhdxFormat};
pub use image::VhdxImage;

pub(crate) const NAME: &str = "vhdx";
