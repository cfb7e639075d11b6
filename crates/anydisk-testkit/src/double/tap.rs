//! A store with something in the line: every call is shown to it first.

use std::fmt::Debug;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

#[cfg(unix)]
use anydisk_storage::RawFile;
use anydisk_storage::{CopyFrom, Error, Holes, HostOffset, Identity, Result, Run, Space, Storage};

use super::{Call, Kind, joined};

/// What a [`Tap`] lets a call do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is passed on.
    Pass,
    /// A read finds the end of the store after so many bytes.
    Short(u64),
    /// The call fails. Of a write the first `after` bytes are passed on all the same.
    Fail {
        /// Bytes that a write still writes.
        after: u64,
        /// The system's number of the error: 5 is `EIO`, 28 is `ENOSPC`.
        errno: i32,
    },
}

/// Sees every call of a store before it happens.
pub trait Tap: Send + Sync + Debug {
    /// Decides what the call may do.
    fn rule(&self, call: &Call) -> Ruling;
}

/// A store whose calls go through a [`Tap`]. Clones share the store and the tap.
#[derive(Debug)]
#[deny(clippy::missing_trait_methods)]
pub struct Tapped<T> {
    inner: Arc<dyn Storage>,
    tap: Arc<T>,
}

impl<T> Clone for Tapped<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), tap: Arc::clone(&self.tap) }
    }
}

impl<T: Tap> Tapped<T> {
    /// `inner` behind `tap`.
    #[must_use]
    pub fn with_tap(inner: Arc<dyn Storage>, tap: T) -> Self {
        Self { inner, tap: Arc::new(tap) }
    }

    /// What is in the line.
    #[must_use]
    pub fn tap(&self) -> &T {
        &self.tap
    }

    /// The store behind it.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn Storage> {
        &self.inner
    }

    fn failure(&self, call: &Call, errno: i32) -> Error {
        let source = io::Error::from_raw_os_error(errno);
        Error::io(call.kind.word(), self.inner.name(), call.at, call.len, source)
    }

    /// Asks about a call that happens or does not.
    fn ask(&self, kind: Kind, at: HostOffset, len: u64) -> Result<()> {
        let call = Call { kind, at, len };
        match self.tap.rule(&call) {
            Ruling::Pass | Ruling::Short(_) => Ok(()),
            Ruling::Fail { errno, .. } => Err(self.failure(&call, errno)),
        }
    }

    /// Asks about a read of `len` bytes, and answers how many may be read.
    fn ask_read(&self, at: HostOffset, len: usize) -> Result<usize> {
        let call = Call { kind: Kind::Read, at, len: len as u64 };
        match self.tap.rule(&call) {
            Ruling::Pass => Ok(len),
            Ruling::Short(count) => Ok(usize::try_from(count).unwrap_or(len).min(len)),
            Ruling::Fail { errno, .. } => Err(self.failure(&call, errno)),
        }
    }

    fn space_inside(&self) -> Result<&dyn Space> {
        let what = "changing space";
        self.inner.space().ok_or_else(|| Error::Unsupported { store: self.name().into(), what })
    }

    fn holes_inside(&self) -> Result<&dyn Holes> {
        let what = "finding holes";
        self.inner.holes().ok_or_else(|| Error::Unsupported { store: self.name().into(), what })
    }
}

impl<T: Tap> Storage for Tapped<T> {
    fn len(&self) -> Result<u64> {
        self.ask(Kind::Len, HostOffset::ZERO, 0)?;
        self.inner.len()
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let count = self.ask_read(at, buf.len())?;
        self.inner.read_at(at, &mut buf[..count])
    }

    fn read_vectored_at(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        let mut allowed = self.ask_read(at, total)?;
        if allowed == total {
            return self.inner.read_vectored_at(at, bufs);
        }
        let mut done = 0;
        for buf in bufs {
            let part = allowed.min(buf.len());
            let count = self.inner.read_at(at.saturating_add(done as u64), &mut buf[..part])?;
            done += count;
            allowed -= part;
            if count < buf.len() {
                break;
            }
        }
        Ok(done)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        let call = Call { kind: Kind::Write, at, len: data.len() as u64 };
        match self.tap.rule(&call) {
            Ruling::Pass | Ruling::Short(_) => self.inner.write_at(at, data),
            Ruling::Fail { after, errno } => {
                let torso = usize::try_from(after).unwrap_or(data.len()).min(data.len());
                self.inner.write_at(at, &data[..torso])?;
                Err(self.failure(&call, errno))
            }
        }
    }

    fn write_vectored_at(&self, at: HostOffset, data: &[IoSlice<'_>]) -> Result<()> {
        // One call to the medium, so one call to the tap, and one piece where it is cut.
        self.write_at(at, &joined(data))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.ask(Kind::SetLen, HostOffset::ZERO, len)?;
        self.inner.set_len(len)
    }

    fn flush(&self) -> Result<()> {
        self.ask(Kind::Flush, HostOffset::ZERO, 0)?;
        self.inner.flush()
    }

    fn is_writable(&self) -> bool {
        self.inner.is_writable()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn alignment(&self) -> usize {
        self.inner.alignment()
    }

    fn holes(&self) -> Option<&dyn Holes> {
        self.inner.holes().map(|_| self as &dyn Holes)
    }

    fn space(&self) -> Option<&dyn Space> {
        self.inner.space().map(|_| self as &dyn Space)
    }

    fn copier(&self) -> Option<&dyn CopyFrom> {
        None // Bytes would pass the tap by.
    }

    fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<RawFile<'_>> {
        None // Bytes would pass the tap by.
    }

    fn prefetch(&self, at: HostOffset, len: u64) {
        self.inner.prefetch(at, len);
    }
}

impl<T: Tap> Holes for Tapped<T> {
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run> {
        self.ask(Kind::Holes, at, limit)?;
        self.holes_inside()?.run_at(at, limit)
    }

    fn allocated(&self) -> Result<u64> {
        self.ask(Kind::Holes, HostOffset::ZERO, 0)?;
        self.holes_inside()?.allocated()
    }
}

impl<T: Tap> Space for Tapped<T> {
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> Result<()> {
        self.ask(Kind::Zero, at, len)?;
        self.space_inside()?.zero(at, len, unmap)
    }

    fn discard(&self, at: HostOffset, len: u64) -> Result<()> {
        self.ask(Kind::Discard, at, len)?;
        self.space_inside()?.discard(at, len)
    }

    fn allocate(&self, at: HostOffset, len: u64) -> Result<()> {
        self.ask(Kind::Allocate, at, len)?;
        self.space_inside()?.allocate(at, len)
    }
}
