//! Telling whoever watches how far a job of several threads is.

use std::sync::{Mutex, PoisonError};

use crate::{Error, Result, Watch};

/// How far a job is. One thread tells at a time, so that what is told never falls.
pub(crate) struct Telling<'a> {
    watch: &'a dyn Watch,
    done: Mutex<u64>,
    total: u64,
}

impl<'a> Telling<'a> {
    pub(crate) fn new(watch: &'a dyn Watch, total: u64) -> Self {
        Self { watch, done: Mutex::new(0), total }
    }

    /// `more` bytes are dealt with.
    pub(crate) fn add(&self, more: u64) -> Result<()> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += more;
        if self.watch.progress(*done, self.total).is_break() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}
