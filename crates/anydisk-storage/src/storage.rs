//! The trait: bytes of one file or object, by position.

use std::fmt::Debug;
use std::io::{IoSlice, IoSliceMut};
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::buffer::is_zero;
use crate::{Error, HostOffset, Result};

/// A positional byte store: a file, a block device, memory, a window of another store.
///
/// There is no cursor: every call names its offset. All calls take `&self` and may be made by any
/// number of threads at once; calls that touch different bytes do not disturb each other. Two
/// writes to the same bytes at the same time leave either, as with a file.
///
/// What only some stores can do is behind an accessor that answers `None` by default. No default
/// here gives a weaker guarantee than its documentation; filters over another store should forward
/// every method (`#![deny(clippy::missing_trait_methods)]` helps).
pub trait Storage: Send + Sync + Debug {
    /// Length in bytes now.
    fn len(&self) -> Result<u64>;

    /// Whether the store holds no byte.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads until `buf` is full or the store ends, and returns the number of bytes read.
    ///
    /// The count is short **only** at the end of the store; the rest of `buf` is then untouched.
    /// See [`StorageExt`] for the two usual ways to treat a short count.
    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize>;

    /// As [`read_at`](Self::read_at), filling several buffers in turn.
    fn read_vectored_at(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        let mut done = 0;
        for buf in bufs {
            let place = offset_by(self.name(), at, done)?;
            let count = self.read_at(place, buf)?;
            done += count;
            if count < buf.len() {
                break;
            }
        }
        Ok(done)
    }

    /// Writes all of `data`, growing the store if it can grow and must.
    ///
    /// After an error any part of `data` may have been written.
    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()>;

    /// As [`write_at`](Self::write_at), from several buffers in turn.
    fn write_vectored_at(&self, at: HostOffset, data: &[IoSlice<'_>]) -> Result<()> {
        let mut done = 0;
        for part in data {
            self.write_at(offset_by(self.name(), at, done)?, part)?;
            done += part.len();
        }
        Ok(())
    }

    /// Makes the store `len` bytes long. New bytes read as zero.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Returns when every write that has returned before this call is on stable storage.
    ///
    /// After a flush has failed every later one fails too: what was lost is not known, and the
    /// system below may have forgotten it.
    fn flush(&self) -> Result<()>;

    /// Whether the store was opened for writing.
    fn is_writable(&self) -> bool;

    /// The store as a person would name it: for a file, its path.
    fn name(&self) -> &str;

    /// Offsets, lengths and addresses of I/O are multiples of this many bytes on the fast path
    /// (direct I/O); a power of two. 1 where it does not matter; the store accepts any request all
    /// the same.
    fn alignment(&self) -> usize {
        1
    }

    /// Where the store has no data of its own (sparse files).
    fn holes(&self) -> Option<&dyn Holes> {
        None
    }

    /// Zeroing, discarding and reserving space without writing bytes.
    fn space(&self) -> Option<&dyn Space> {
        None
    }

    /// Copying bytes from another store without passing them through this process.
    fn copier(&self) -> Option<&dyn CopyFrom> {
        None
    }

    /// What tells this object from every other one, to find loops and files used twice. A window
    /// has the identity of the store it looks into. Holds as long as the store lives.
    fn identity(&self) -> Option<Identity> {
        None
    }

    /// The file behind the store, for callers that do their own I/O (io_uring). `None` when bytes
    /// are transformed on the way. It is the same file for the whole life of the store.
    ///
    /// Such a caller stays inside [`RawFile::len`], keeps to [`alignment`](Self::alignment), does
    /// not write to an aligned block while this trait writes to part of it, and leaves flushing to
    /// [`flush`](Self::flush). A writable store that has handed out its file no longer remembers
    /// holes, since it is not told of such writes.
    #[cfg(unix)]
    fn fd(&self) -> Option<RawFile<'_>> {
        None
    }

    /// Says that the range will be read soon. Never fails, may do nothing.
    fn prefetch(&self, at: HostOffset, len: u64) {
        let _ = (at, len);
    }
}

/// The file behind a store.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RawFile<'a> {
    /// Its descriptor.
    pub fd: BorrowedFd<'a>,
    /// Where the store's first byte is in it.
    pub start: HostOffset,
    /// Bytes of the file that are the store's, from `start`: what lies behind is another's.
    /// `None`: the store ends where the file does.
    pub len: Option<u64>,
}

#[cfg(unix)]
impl<'a> RawFile<'a> {
    /// The whole of a file.
    #[must_use]
    pub const fn whole(fd: BorrowedFd<'a>) -> Self {
        Self { fd, start: HostOffset::ZERO, len: None }
    }

    /// The part of it from `start` on, `len` bytes long or up to its end.
    #[must_use]
    pub fn part(self, start: u64, len: Option<u64>) -> Option<Self> {
        let room = match self.len {
            Some(all) => Some(all.checked_sub(start)?),
            None => None,
        };
        let len = match (room, len) {
            (Some(room), Some(len)) => Some(room.min(len)),
            (room, len) => room.or(len),
        };
        Some(Self { start: self.start.checked_add(start)?, len, ..self })
    }
}

/// One run of a store that is all data or all hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes from the place asked for to the end of the run; 0 only if the limit was 0.
    pub len: u64,
    /// Whether the run is a hole: it reads as zero and occupies no space.
    pub hole: bool,
}

/// Knows which parts of a store are holes.
pub trait Holes {
    /// The run that begins at `at`, cut at `limit` bytes. At or past the end: a hole of `limit`.
    ///
    /// What this store itself has written, zeroed or discarded before the call is seen. Two runs
    /// that follow each other may be of the same kind.
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run>;

    /// Bytes that the store occupies on its medium, as `du` counts.
    fn allocated(&self) -> Result<u64>;
}

/// Changes space without passing bytes.
///
/// Each operation answers [`Error::Unsupported`] when the medium below cannot do it, without
/// having changed anything; the caller then writes zeroes, or does nothing. An empty range is
/// no work and no error.
pub trait Space {
    /// Makes the range read as zero. With `unmap` its space is given back where possible (a hole
    /// is punched), else it stays reserved. Never grows the store: past the end, nothing is done.
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> Result<()>;

    /// Gives the range's space back where possible. What it reads afterwards is undefined. Never
    /// changes the length, nor a byte outside the range.
    fn discard(&self, at: HostOffset, len: u64) -> Result<()>;

    /// Reserves space for the range so that later writes do not fail for want of it. Grows the
    /// store if the range reaches past its end; what was there keeps its bytes, the new reads as
    /// zero.
    fn allocate(&self, at: HostOffset, len: u64) -> Result<()>;
}

/// How [`CopyFrom::copy_from`] moved the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Both stores now share the blocks (reflink): no byte was moved.
    Shared,
    /// The kernel copied.
    InKernel,
}

/// Takes bytes from another store without passing them through this process.
pub trait CopyFrom {
    /// Copies `len` bytes from `source` at `from` to this store at `to`, growing it if need be.
    /// `Ok(None)`: not possible for this pair, copy by hand; at most bytes of the range have been
    /// copied already. Holes of the source may become data.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if `source` ends before `from + len`, before anything is changed.
    fn copy_from(
        &self,
        source: &dyn Storage,
        from: HostOffset,
        to: HostOffset,
        len: u64,
    ) -> Result<Option<Copied>>;

    /// Whether blocks of `source` can be shared with this store: both are files of one file system,
    /// which can. Reads and changes nothing.
    fn shares_with(&self, source: &dyn Storage) -> bool;

    /// Shares as many whole blocks of `source` as there are in the `len` bytes at `from`, to be read
    /// at `to` of this store, and returns their bytes; the rest is to be copied by hand. 0 where
    /// nothing can be shared, also if the two places lie differently in their blocks.
    ///
    /// # Errors
    /// As [`copy_from`](Self::copy_from).
    fn share_from(
        &self,
        source: &dyn Storage,
        from: HostOffset,
        to: HostOffset,
        len: u64,
    ) -> Result<u64>;
}

/// Tells one object behind a store from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// A file: the device and inode that hold it.
    File {
        /// Number of the device.
        device: u64,
        /// Number of the inode on it.
        inode: u64,
    },
    /// A block device, by its device number, whichever node names it.
    Device(u64),
    /// Memory, by address.
    Memory(usize),
}

/// What follows from the required methods: the two ways to treat the end of a store.
pub trait StorageExt: Storage {
    /// Reads exactly `buf`. Past the end: [`Error::OutOfRange`].
    fn read_exact_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<()> {
        let count = self.read_at(at, buf)?;
        if count == buf.len() { Ok(()) } else { Err(self.out_of_range(at, buf.len() as u64)) }
    }

    /// Reads `buf`; bytes past the end of the store are zero (qcow2, "bytes past EOF read as zero").
    fn read_padded_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<()> {
        let count = self.read_at(at, buf)?;
        buf[count..].fill(0);
        Ok(())
    }

    /// Writes `len` zeroes, as bytes: for a place that may hold others, or that is to be written
    /// rather than left a hole.
    fn write_zeroes_at(&self, at: HostOffset, len: u64) -> Result<()> {
        const PIECE: usize = 1 << 20;
        let piece = |len: u64| usize::try_from(len).unwrap_or(PIECE).min(PIECE);
        let zeroes = vec![0; piece(len)];
        let mut done = 0;
        while done < len {
            let part = piece(len - done);
            self.write_at(at.saturating_add(done), &zeroes[..part])?;
            done += part as u64;
        }
        Ok(())
    }

    /// Whether `len` bytes are all zero; those past the end are. Holes are not read, and nothing behind
    /// the first piece that holds something.
    fn is_zero_at(&self, at: HostOffset, len: u64) -> Result<bool> {
        const PIECE: u64 = 1 << 20;
        let len = len.min(self.len()?.saturating_sub(at.get()));
        let mut done = 0;
        while done < len {
            let (at, rest) = (at.saturating_add(done), len - done);
            let run = self.holes().map(|holes| holes.run_at(at, rest)).transpose()?;
            done += match run {
                Some(run) if run.hole => run.len,
                _ => {
                    let count = run.map_or(rest, |run| run.len).min(PIECE);
                    let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
                    self.read_padded_at(at, &mut bytes)?;
                    if !is_zero(&bytes) {
                        return Ok(false);
                    }
                    count
                }
            };
        }
        Ok(true)
    }

    /// The error for an access past the end.
    #[cold]
    fn out_of_range(&self, at: HostOffset, len: u64) -> Error {
        let end = self.len().unwrap_or(0);
        Error::OutOfRange { store: self.name().into(), at, len, end }
    }
}

impl<S: Storage + ?Sized> StorageExt for S {}

fn offset_by(store: &str, at: HostOffset, done: usize) -> Result<HostOffset> {
    at.checked_add(done as u64).ok_or_else(|| Error::OutOfRange {
        store: store.into(),
        at,
        len: done as u64,
        end: u64::MAX,
    })
}

macro_rules! forward_storage {
    ($($pointer:ty),*) => {$(
        impl<S: Storage + ?Sized> Storage for $pointer {
            fn len(&self) -> Result<u64> { (**self).len() }
            fn is_empty(&self) -> Result<bool> { (**self).is_empty() }
            fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> { (**self).read_at(at, buf) }
            fn read_vectored_at(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
                (**self).read_vectored_at(at, bufs)
            }
            fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> { (**self).write_at(at, data) }
            fn write_vectored_at(&self, at: HostOffset, data: &[IoSlice<'_>]) -> Result<()> {
                (**self).write_vectored_at(at, data)
            }
            fn set_len(&self, len: u64) -> Result<()> { (**self).set_len(len) }
            fn flush(&self) -> Result<()> { (**self).flush() }
            fn is_writable(&self) -> bool { (**self).is_writable() }
            fn name(&self) -> &str { (**self).name() }
            fn alignment(&self) -> usize { (**self).alignment() }
            fn holes(&self) -> Option<&dyn Holes> { (**self).holes() }
            fn space(&self) -> Option<&dyn Space> { (**self).space() }
            fn copier(&self) -> Option<&dyn CopyFrom> { (**self).copier() }
            fn identity(&self) -> Option<Identity> { (**self).identity() }
            #[cfg(unix)]
            fn fd(&self) -> Option<RawFile<'_>> { (**self).fd() }
            fn prefetch(&self, at: HostOffset, len: u64) { (**self).prefetch(at, len) }
        }
    )*};
}
forward_storage!(&S, Box<S>, Arc<S>);
