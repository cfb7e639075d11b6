//! Which windows of the file are worth a look of their own.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use anydisk_core::{Error, Result};

use super::references::{COST, PAGE};
use crate::NAME;
use crate::guard::Clusters;

/// Most windows of one check: with the usual limits, 46 TiB of clusters of 64 KiB.
const MOST: usize = 256;

/// Windows behind the first in which something is named.
pub(super) struct Touched {
    /// Clusters of a window.
    size: u64,
    seen: Mutex<BTreeSet<u64>>,
    /// The window that was noted last.
    last: AtomicU64,
}

impl Touched {
    /// Windows that take about `memory` bytes each.
    pub(super) fn new(memory: usize) -> Self {
        let size = ((memory / COST) as u64 / PAGE).max(1) * PAGE;
        Self { size, seen: Mutex::default(), last: AtomicU64::new(0) }
    }

    /// The clusters of a window.
    pub(super) fn window(&self, number: u64) -> Range<u64> {
        number * self.size..number.saturating_add(1).saturating_mul(self.size)
    }

    /// Something names the cluster.
    #[inline]
    pub(super) fn note(&self, cluster: u64) {
        if cluster >= self.size {
            self.note_window(cluster / self.size);
        }
    }

    fn note_window(&self, number: u64) {
        if self.last.swap(number, Relaxed) == number {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() <= MOST {
            seen.insert(number);
        }
    }

    /// Something names the clusters.
    pub(super) fn note_run(&self, run: Clusters) {
        if run.count > 0 && run.end() > self.size {
            let last = (run.end() - 1) / self.size;
            for number in (run.first / self.size).max(1)..=last {
                if self.is_full() {
                    break;
                }
                self.note_window(number);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len() > MOST
    }

    /// All windows but the first in which something is named.
    ///
    /// # Errors
    /// [`Error::Limit`] if there are too many.
    pub(super) fn others(&self) -> Result<Vec<u64>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MOST {
            return Ok(seen.iter().copied().collect());
        }
        let limit = self.size * MOST as u64;
        let found = seen.last().map_or(0, |number| (number + 1) * self.size);
        let what = "clusters in use, for the memory that a check may take".into();
        Err(Error::Limit { format: NAME, what, found, limit })
    }
}
