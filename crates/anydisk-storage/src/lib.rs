//! Positional byte stores for disk images: what lies below every format.
//!
//! A [`Storage`] is bytes with positions: a file, a block device, memory, a part of another
//! store. Formats above it turn guest offsets into positions in it; nothing above it makes
//! system calls, and nothing in it knows a format.
//!
//! ```text
//!   formats        read_at / write_at / flush            holes, zero, discard, copy, ...
//!                              |                                     |
//!              +---------------+-------------------------------------+--------------+
//!   Storage    |     every store can do this               accessors: what some can |
//!              +----------+-----------------+----------------------+----------------+
//!                         |                 |                      |
//!                  FileStorage       MemoryStorage        Window (of any Storage)
//!                  file, device      sparse chunks        start..start + len
//! ```
//!
//! * No cursor: every call names its place ([`HostOffset`]) and takes `&self`, so that threads
//!   share one store.
//! * What only some stores can do is behind an accessor that answers `None` for the others:
//!   [`Storage::holes`], [`Storage::space`], [`Storage::copier`], [`Storage::fd`].
//! * The usual read or write of a file is one system call and nothing else.
//! * Opening is cautious: no FIFO hangs it, no device is opened by mistake, a file that qemu or
//!   another process writes to is not opened beside it ([`LockMode`]), and a name that came out
//!   of an image cannot leave its directory ([`FileStorage::open_beneath`]).
//! * Nothing half-written gets a name ([`PendingFile`]), and a flush that failed is never
//!   followed by one that succeeds.
//!
//! # Example
//!
//! Copy the data of a sparse file, and only that, into a new one:
//!
//! ```
//! use anydisk_storage::{
//!     AlignedBuffer, FileStorage, HostOffset, OpenOptions, PendingFile, Storage, StorageExt,
//! };
//!
//! # let dir = tempfile::tempdir()?;
//! # let (from, to) = (dir.path().join("from.raw"), dir.path().join("to.raw"));
//! # std::fs::File::create(&from)?.set_len(1 << 40)?;
//! let source = FileStorage::open(&from, &OpenOptions::new())?;
//! let pending = PendingFile::create(&to, &OpenOptions::new())?;
//! let target = pending.storage();
//!
//! let len = source.len()?;
//! target.set_len(len)?;
//! let mut buffer = AlignedBuffer::zeroed(1 << 20, source.alignment());
//! let mut at = 0;
//! while at < len {
//!     let here = HostOffset(at);
//!     let run = match source.holes() {
//!         Some(holes) => holes.run_at(here, len - at)?,
//!         None => anydisk_storage::Run { len: len - at, hole: false },
//!     };
//!     let mut step = run.len;
//!     if !run.hole {
//!         step = step.min(buffer.len() as u64);
//!         let bytes = &mut buffer[..usize::try_from(step)?];
//!         source.read_exact_at(here, bytes)?;
//!         target.write_at(here, bytes)?;
//!     }
//!     at += step;
//! }
//! pending.publish(false)?;
//! # assert_eq!(std::fs::metadata(&to)?.len(), 1 << 40);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//!
//! No asynchronous calls: whoever has an event loop takes the file from [`Storage::fd`] and does
//! the I/O there. No caching of bytes: that is the page cache's work, or, with direct I/O, the
//! caller's. Outside Linux there are no locks, no direct I/O and no [`Space`] or [`CopyFrom`] for
//! files; outside Unix there are no files, only memory and windows.

mod buffer;
mod cursor;
mod error;
#[cfg(unix)]
mod file;
mod memory;
pub mod name;
mod offset;
#[cfg(unix)]
mod pending;
mod scratch;
mod storage;
mod window;

pub use buffer::{AlignedBuffer, is_zero};
pub use cursor::StorageCursor;
pub use error::{Error, IoError, Result};
#[cfg(unix)]
pub use file::{FileStorage, LockMode, OpenOptions};
pub use memory::MemoryStorage;
pub use offset::HostOffset;
#[cfg(unix)]
pub use pending::PendingFile;
pub use scratch::Scratch;
#[cfg(unix)]
pub use storage::RawFile;
pub use storage::{Copied, CopyFrom, Holes, Identity, Run, Space, Storage, StorageExt};
pub use window::Window;
