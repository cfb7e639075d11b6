//! Where a file has no data, and a memory of the last answer.
//!
//! Finding the end of a run can cost the file system a walk over the page cache or over all
//! extents, and callers ask in small steps; so the last run is kept whole. It is dropped by
//! counters, not by comparing ranges, so that a write pays one load and, only where holes were
//! ever asked for, one addition.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{SeekFrom, fstat, seek};
use rustix::io::Errno;

use super::FileStorage;
use super::io::END_OF_OFFSETS;
use crate::{Error, Holes, HostOffset, Result, Run, Storage};

/// The end of a hole that no data follows.
const ENDLESS: u64 = u64::MAX;

/// The last run found, and what makes it wrong.
#[derive(Debug, Default)]
pub(super) struct RunCache {
    /// Somebody asks for holes: writes must count.
    asked: AtomicBool,
    /// Our writes: each makes a hole wrong.
    writes: AtomicU64,
    /// Our punches, truncations and the like: each makes data wrong as well.
    changes: AtomicU64,
    /// The descriptor was handed out for writing: what is written through it is not counted.
    uncounted: AtomicBool,
    last: Mutex<Option<Found>>,
}

/// A whole run, with the counters from before it was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    start: u64,
    end: u64,
    hole: bool,
    seen: Seen,
}

impl Found {
    /// Bytes from `at` to the end of the run, at most `limit`.
    fn len_from(&self, at: u64, limit: u64) -> u64 {
        match self.end {
            ENDLESS => limit,
            end => limit.min(end - at),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    writes: u64,
    changes: u64,
}

// The order that makes it right. Asking: `asked` is set and the counters are read before the
// kernel is asked. Writing: the bytes are in the file before `asked` is looked at and the counter
// raised. If a writer sees `asked` unset, its bytes were there before the kernel was asked; else
// its addition outdates every answer from before it. Hence sequentially consistent throughout.
impl RunCache {
    /// After every write, also one that failed half-way.
    #[inline]
    pub(super) fn written(&self) {
        if self.asked.load(Ordering::SeqCst) {
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// After everything else that changes where data is.
    pub(super) fn changed(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// From now on bytes may be written that are not counted: holes are never remembered.
    #[inline]
    pub(super) fn written_by_others(&self) {
        if !self.uncounted.load(Ordering::Relaxed) {
            self.uncounted.store(true, Ordering::SeqCst);
        }
    }

    fn begin(&self) -> Seen {
        self.asked.store(true, Ordering::SeqCst);
        self.seen()
    }

    fn seen(&self) -> Seen {
        Seen {
            writes: self.writes.load(Ordering::SeqCst),
            changes: self.changes.load(Ordering::SeqCst),
        }
    }

    fn find(&self, at: u64) -> Option<Found> {
        let found = (*self.last.lock().unwrap_or_else(PoisonError::into_inner))?;
        let now = self.seen();
        let holds = match found.hole {
            // Writing into data leaves it data.
            false => found.seen.changes == now.changes,
            true => found.seen == now && !self.uncounted.load(Ordering::SeqCst),
        };
        (holds && (found.start..found.end).contains(&at)).then_some(found)
    }

    fn remember(&self, found: Found) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }
}

impl Holes for FileStorage {
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run> {
        let found = match self.runs.find(at.get()) {
            Some(found) => found,
            None => self.find_run(at)?,
        };
        Ok(Run { len: found.len_from(at.get(), limit), hole: found.hole })
    }

    fn allocated(&self) -> Result<u64> {
        /// The unit of `st_blocks`, whatever the file system.
        const STAT_BLOCK: u64 = 512;
        let stat = fstat(&self.file).map_err(|e| Error::whole("examine", self.name(), e))?;
        Ok(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(STAT_BLOCK))
    }
}

impl FileStorage {
    fn find_run(&self, at: HostOffset) -> Result<Found> {
        let seen = self.runs.begin();
        let (end, hole) = self
            .seek_run(at.get())
            .map_err(|errno| Error::whole("find the holes of", self.name(), errno))?;
        let found = Found { start: at.get(), end, hole, seen };
        // A hole that others may fill behind our back is asked for anew each time. Data that
        // others punch reads as zero and is merely copied for nothing.
        if !hole || self.lock_mode().excludes_other_writers() {
            self.runs.remember(found);
        }
        Ok(found)
    }

    /// The end of the run at `at`, and whether it is a hole.
    fn seek_run(&self, at: u64) -> Result<(u64, bool), Errno> {
        const NO_MORE_DATA: (u64, bool) = (ENDLESS, true);
        if at >= END_OF_OFFSETS {
            return Ok(NO_MORE_DATA);
        }
        match seek(&self.file, SeekFrom::Data(at)) {
            Ok(data) if data > at => Ok((data, true)),
            Ok(_) => self.seek_hole(at),
            Err(Errno::NXIO) => Ok(NO_MORE_DATA),
            // A file system that knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => match self.len_errno()? {
                len if len > at => Ok((len, false)),
                _ => Ok(NO_MORE_DATA),
            },
            Err(errno) => Err(errno),
        }
    }

    fn seek_hole(&self, at: u64) -> Result<(u64, bool), Errno> {
        match seek(&self.file, SeekFrom::Hole(at)) {
            Ok(hole) if hole > at => Ok((hole, false)),
            // The data went away since it was found. Calling one byte data is never wrong.
            Ok(_) | Err(Errno::NXIO) => Ok((at + 1, false)),
            Err(errno) => Err(errno),
        }
    }

    fn len_errno(&self) -> Result<u64, Errno> {
        super::io::len(self.file.as_fd(), self.kind)
    }
}
