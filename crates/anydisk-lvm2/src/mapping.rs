//! A volume as a store: what every type of volume answers, and the one loop that reads.

use std::fmt::Debug;
use std::sync::Arc;

use anydisk_core::{Error, Result};
#[cfg(unix)]
use anydisk_storage::RawFile;
use anydisk_storage::{Error as StorageError, Holes, HostOffset, Run, Storage, StorageExt};

use crate::NAME;

type StorageResult<T> = anydisk_storage::Result<T>;

/// One run of a volume with one answer.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    /// Bytes from the place asked for; at least 1.
    pub(crate) len: u64,
    pub(crate) from: From<'a>,
}

/// Where the bytes of a run are.
#[derive(Debug)]
pub(crate) enum From<'a> {
    /// In a store.
    Store(&'a Arc<dyn Storage>, HostOffset),
    /// Nowhere: they are zero.
    Zero,
    /// Nowhere: they have to be computed.
    Computed,
}

/// How the bytes of a volume, or of a part of one, are found.
pub(crate) trait Mapping: Send + Sync + Debug {
    /// The run that begins at byte `at`, at most `limit` bytes long. The caller keeps inside the
    /// volume, and `limit` is not 0.
    fn locate(&self, at: u64, limit: u64) -> Result<Piece<'_>>;

    /// Computes the bytes of a run that [`locate`](Self::locate) called [`From::Computed`]. Most
    /// mappings have no such runs.
    fn compute(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let _ = (at, buf);
        Err(Error::Unsupported { format: NAME, feature: "computing what is stored".into() })
    }
}

/// A volume, open for reading.
#[derive(Debug)]
pub(crate) struct Volume {
    name: String,
    size: u64,
    mapping: Box<dyn Mapping>,
}

impl Volume {
    pub(crate) fn new(name: String, size: u64, mapping: Box<dyn Mapping>) -> Self {
        Self { name, size, mapping }
    }

    fn read_piece(&self, at: u64, buf: &mut [u8]) -> Result<usize> {
        let piece = self.mapping.locate(at, buf.len() as u64)?;
        let len = usize::try_from(piece.len).unwrap_or(usize::MAX).min(buf.len());
        let part = &mut buf[..len];
        match piece.from {
            From::Store(store, place) => store.read_exact_at(place, part)?,
            From::Zero => part.fill(0),
            From::Computed => self.mapping.compute(at, part)?,
        }
        Ok(len)
    }

    /// Bytes of the volume from `at` on, at most `len`.
    fn room(&self, at: HostOffset, len: u64) -> u64 {
        self.size.saturating_sub(at.get()).min(len)
    }

    fn failed(&self, what: &'static str, at: u64, len: u64) -> impl FnOnce(Error) -> StorageError {
        move |error| match error {
            Error::Storage(error) => error,
            other => {
                let cause = std::io::Error::other(other);
                StorageError::io(what, &*self.name, HostOffset(at), len, cause)
            }
        }
    }

    fn read_only(&self) -> StorageError {
        StorageError::ReadOnly { store: self.name.as_str().into() }
    }
}

impl Storage for Volume {
    fn len(&self) -> StorageResult<u64> {
        Ok(self.size)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> StorageResult<usize> {
        let room = self.room(at, buf.len() as u64);
        let len = usize::try_from(room).unwrap_or(usize::MAX);
        let mut done = 0;
        while done < len {
            let place = at.get() + done as u64;
            let left = (len - done) as u64;
            done += self
                .read_piece(place, &mut buf[done..len])
                .map_err(self.failed("read", place, left))?;
        }
        Ok(len)
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> StorageResult<()> {
        Err(self.read_only())
    }

    fn set_len(&self, len: u64) -> StorageResult<()> {
        if len == self.size { Ok(()) } else { Err(self.read_only()) }
    }

    fn flush(&self) -> StorageResult<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    /// The file, if the whole volume is one run of it.
    #[cfg(unix)]
    fn fd(&self) -> Option<RawFile<'_>> {
        let piece = self.mapping.locate(0, self.size).ok()?;
        match piece.from {
            From::Store(store, at) if piece.len == self.size => {
                store.fd()?.part(at.get(), Some(self.size))
            }
            _ => None,
        }
    }

    fn prefetch(&self, at: HostOffset, len: u64) {
        let len = self.room(at, len);
        if len == 0 {
            return;
        }
        if let Ok(Piece { len, from: From::Store(store, place) }) =
            self.mapping.locate(at.get(), len)
        {
            store.prefetch(place, len);
        }
    }
}

impl Holes for Volume {
    fn run_at(&self, at: HostOffset, limit: u64) -> StorageResult<Run> {
        let room = self.room(at, limit);
        if room == 0 {
            return Ok(Run { len: limit, hole: true });
        }
        let piece =
            self.mapping.locate(at.get(), room).map_err(self.failed("map", at.get(), limit))?;
        match piece.from {
            From::Zero => Ok(Run { len: piece.len, hole: true }),
            From::Computed => Ok(Run { len: piece.len, hole: false }),
            From::Store(store, place) => match store.holes() {
                Some(holes) => holes.run_at(place, piece.len),
                None => Ok(Run { len: piece.len, hole: false }),
            },
        }
    }

    fn allocated(&self) -> StorageResult<u64> {
        let (mut at, mut sum) = (0, 0);
        while at < self.size {
            let run = self.run_at(HostOffset(at), self.size - at)?;
            sum += if run.hole { 0 } else { run.len };
            at += run.len;
        }
        Ok(sum)
    }
}
