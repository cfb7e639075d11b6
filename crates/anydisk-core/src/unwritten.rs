//! Tables that were never written: where the file has a hole, every entry is 0.
//!
//! A new image has all its tables, and all of them are holes. Reading them one by one to learn that
//! a disk of terabytes is empty takes long; asking the file system takes one call. For formats with
//! their tables in a row (VMDK, the bitmap of cow).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_storage::{HostOffset, Storage};

use crate::Result;

/// Runs that are remembered, two for each file of a large split disk; the tables of what has more are
/// read one by one.
const RUNS: usize = 1 << 15;

/// Shorter runs are not worth remembering: as many bytes as a few tables have.
const SHORTEST: u64 = 64 << 10;

/// Runs of the metadata that read as zero. A place is known by a key, so that one value serves all files
/// of an image: the place itself, where there is one file.
#[derive(Debug, Default)]
pub struct Unwritten(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// First byte -> first byte behind.
    runs: BTreeMap<u64, u64>,
    /// A table was changed, and holes asked for from now on may be out of date when they are told.
    changed: bool,
}

impl Unwritten {
    /// Asks whether `store` has a hole at `at`, which has the key `key`; looks no further than
    /// `limit` bytes.
    ///
    /// # Errors
    /// Those of the store.
    pub fn learn(
        &self,
        store: &dyn Storage,
        at: HostOffset,
        key: HostOffset,
        limit: u64,
    ) -> Result<()> {
        let Some(holes) = store.holes() else { return Ok(()) };
        // Under the lock: nobody changes a table between the answer and its being remembered.
        let mut state = self.lock();
        let is_known = state.run_end(key).is_some();
        if is_known || state.changed || state.runs.len() >= RUNS || limit < SHORTEST {
            return Ok(());
        }
        let run = holes.run_at(at, limit)?;
        if run.hole && run.len >= SHORTEST {
            state.put(key.get(), key.get().saturating_add(run.len));
        }
        Ok(())
    }

    /// The first byte behind the run that `key` is in; `None`: it is in none that is known.
    #[must_use]
    pub fn run_end(&self, key: HostOffset) -> Option<HostOffset> {
        self.lock().run_end(key)
    }

    /// The `len` bytes at `key` are about to change: call it **before** the change is seen.
    pub fn forget(&self, key: HostOffset, len: u64) {
        let mut state = self.lock();
        state.changed = true;
        let (start, behind) = (key.get(), key.get().saturating_add(len));
        let found = state.runs.range(..behind).next_back().map(|(&at, &end)| (at, end));
        let Some((at, end)) = found.filter(|(_, end)| *end > start) else { return };
        state.runs.remove(&at);
        for (at, end) in [(at, start), (behind, end)] {
            if at < end && end - at >= SHORTEST && state.runs.len() < RUNS {
                state.runs.insert(at, end);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn run_end(&self, key: HostOffset) -> Option<HostOffset> {
        let (_, &end) = self.runs.range(..=key.get()).next_back()?;
        (key.get() < end).then_some(HostOffset(end))
    }

    /// Adds a run. Runs that begin in it become part of it, so that no two overlap.
    fn put(&mut self, at: u64, mut end: u64) {
        while let Some((&next, &its_end)) = self.runs.range(at..end).next() {
            self.runs.remove(&next);
            end = end.max(its_end);
        }
        self.runs.insert(at, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;

    #[test]
    fn a_changed_table_is_cut_out_of_its_run_and_nothing_is_learnt_any_more() {
        let store = MemoryStorage::default();
        store.set_len(1 << 20).expect("memory");
        let unwritten = Unwritten::default();
        let at = HostOffset;
        unwritten.learn(&store, at(0), at(0), 1 << 20).expect("memory");
        assert_eq!(unwritten.run_end(at(5)), Some(at(1 << 20)));
        unwritten.learn(&store, at(0), at(7), 1 << 20).expect("memory");
        unwritten.forget(at(512 << 10), 2048);
        assert_eq!(unwritten.run_end(at(5)), Some(at(512 << 10)));
        assert_eq!(unwritten.run_end(at((512 << 10) + 2047)), None);
        assert_eq!(unwritten.run_end(at((512 << 10) + 2048)), Some(at(1 << 20)));
        unwritten.learn(&store, at(0), at(512 << 10), 1 << 20).expect("memory");
        assert_eq!(unwritten.run_end(at(512 << 10)), None);
    }
}
