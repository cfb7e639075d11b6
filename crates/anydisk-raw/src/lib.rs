//! Raw disk images: guest byte `n` is byte `n` of the file.
//!
//! ```text
//!   guest   0 ------------------------------------- size
//!           |            |                          |
//!   file    0 ---------- n ------------------------ len     (holes stay holes)
//! ```
//!
//! A raw image has no header, so nothing marks it as one: any file fits. It has no unit of
//! allocation, no backing file and no place for metadata. Zeroing and discarding are punching holes
//! where the file system can.
//!
//! | feature | |
//! |---|---|
//! | read, write, create, sparse files | works |
//! | growing and shrinking | works |
//! | into a pipe, in one pass | [`RawStream`] |
//! | a part of a file (offset, size) | open a [`Window`](anydisk_storage::Window) of it |
//! | block devices | works; their size is fixed |
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{Disk, GuestOffset};
//! use anydisk_raw::RawImage;
//! use anydisk_storage::MemoryStorage;
//!
//! let store = Arc::new(MemoryStorage::new(vec![7; 4096]));
//! let disk = Disk::new(Arc::new(RawImage::open(store, true)?));
//! disk.write(GuestOffset(512), b"hello")?;
//! let mut bytes = [0; 6];
//! disk.read(GuestOffset(512), &mut bytes)?;
//! assert_eq!(&bytes, b"hello\x07");
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod format;
mod image;
mod reserve;
mod stream;

pub use format::{RAW, RawFormat};
pub use image::RawImage;
pub use stream::RawStream;

pub(crate) const NAME: &str = "raw";
