//! How fast things may move: who is told, and who is waited for.

use std::cell::Cell;

use anydisk_core::{Error, Result};

/// Whoever waits for the end, or may not be disturbed.
pub(crate) struct Pace<'a> {
    /// Told bytes that moved and that will have in all; answers whether to go on.
    progress: &'a dyn Fn(u64, u64) -> bool,
    /// Returns when nobody reads where nothing lies, or nothing lies any more.
    settle: &'a dyn Fn() -> Result<()>,
    done: Cell<u64>,
    all: Cell<u64>,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(
        progress: &'a dyn Fn(u64, u64) -> bool,
        settle: &'a dyn Fn() -> Result<()>,
    ) -> Self {
        Self { progress, settle, done: Cell::new(0), all: Cell::new(0) }
    }

    /// So many bytes more will move.
    pub(super) fn expect(&self, len: u64) {
        self.all.set(self.all.get() + len);
    }

    /// So many bytes more have moved.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(super) fn step(&self, len: u64) -> Result<()> {
        self.done.set(self.done.get() + len);
        let (done, all) = (self.done.get(), self.all.get());
        if (self.progress)(done, all.max(done).max(1)) { Ok(()) } else { Err(Error::Cancelled) }
    }

    /// Before anything is written to a place that was free, or cut off.
    pub(super) fn settle(&self) -> Result<()> {
        (self.settle)()
    }
}
