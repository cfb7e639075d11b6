//! Android sparse images (as `fastboot` takes them), read, and written in one pass.
//!
//! ```text
//!   header | chunk | chunk | ...          a chunk:  kind, blocks, length | data
//! ```
//!
//! | module | |
//! |---|---|
//! | [`layout`] | the bytes, as libsparse names them |
//! | [`Header`], [`Chunks`] | bytes to checked values |
//! | [`ChunkMap`] | all chunks in memory |
//! | [`SimgImage`] | translates, never moves guest bytes |
//! | [`SimgFormat`] | recognises, opens, checks, writes |
//!
//! | feature | |
//! |---|---|
//! | chunks: raw, fill, don't care, CRC-32 | read |
//! | checksums of chunks and of the header | verified by a check |
//! | images that were split for `fastboot` | each is read by itself: what it leaves out is zero |
//! | writing | in one pass |
//!
//! What is accepted is told in `docs/formats/simg.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_core::{Disk, GuestOffset, Limits};
//! use anydisk_simg::SimgImage;
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file = FileStorage::open("system.img", &OpenOptions::new())?;
//! let disk = Disk::new(Arc::new(SimgImage::open(Arc::new(file), &Limits::default())?));
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(0), &mut sector)?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod check;
mod chunk;
mod fill;
mod format;
mod header;
mod image;
pub mod layout;
mod map;
mod sink;

pub use chunk::{Chunk, Chunks, Content};
pub use format::{SIMG, SimgFormat};
pub use header::Header;
pub use image::SimgImage;
pub use map::ChunkMap;

pub(crate) const NAME: &str = "simg";
