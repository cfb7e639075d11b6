//! How far a check has come, and whether it is to go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use anydisk_core::{Error, Result};

/// Told by any thread.
pub(super) struct Progress<'a> {
    told: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>,
    done: AtomicU64,
    all: AtomicU64,
    stopped: AtomicBool,
}

impl<'a> Progress<'a> {
    pub(super) fn new(told: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>) -> Self {
        Self {
            told,
            done: AtomicU64::new(0),
            all: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// More bytes will have to be looked at.
    pub(super) fn expect(&self, len: u64) {
        self.all.fetch_add(len, Relaxed);
    }

    /// So many bytes more were looked at.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(super) fn step(&self, len: u64) -> Result<()> {
        let done = self.done.fetch_add(len, Relaxed) + len;
        let go_on = self.told.is_none_or(|told| told(done, self.all.load(Relaxed).max(done)));
        if !go_on {
            self.stopped.store(true, Relaxed);
        }
        if self.stopped.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}
