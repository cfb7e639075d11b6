//! Hyper-V's disk images of the second generation (VHDX): dynamic, fixed and differencing ones,
//! read.
//!
//! ```text
//!   0       signature, two headers, two region tables
//!   1 MiB   log | block allocation table | metadata | blocks ...    in any order, on whole MiB
//! ```
//!
//! Tables and bitmaps are changed through the log. An image that was not closed cleanly has entries
//! there that are to be replayed first; that is done in memory, and nothing is written.
//!
//! | feature | |
//! |---|---|
//! | dynamic, fixed, differencing (sectors partly here) | read |
//! | sectors of 512 and 4096 bytes, blocks of 1 to 256 MiB | read |
//! | the log, also where it wraps, lies beside old sequences, or makes the file longer | replayed in memory |
//! | either header or region table damaged | read by the other one |
//! | writing, creating, checking | missing |
//!
//! The layout, our limits and the oddities of other writers are in `docs/formats/vhdx.md`.

mod crc;
mod format;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod log;
mod metadata;
mod replayed;
mod table;

pub use format::{VHDX, VhdxFormat};
pub use image::VhdxImage;

pub(crate) const NAME: &str = "vhdx";
