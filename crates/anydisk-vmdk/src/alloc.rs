//! Space for grains in one file: what nothing names is free, and new grains go to the end.
//!
//! ```text
//!   0        overHead                               end         virgin
//!   |  metadata  | grains, free runs between them   |  free, but  | never written:
//!   |            |                                  |  used once  | reads as zero
//! ```
//!
//! The runs of free space are those that came free while the image was open: a VMDK says nowhere
//! which space is free, so what is lost in a crash stays lost until a check finds it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{HostOffset, Leases, Quarantine, Result, Sealed, Storage};

use crate::header::limit;
use crate::limits;

/// The space of one file, for any number of threads.
#[derive(Debug)]
pub(crate) struct Grains {
    grain: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing from here on is in use.
    end: u64,
    /// Nothing from here on was ever written.
    virgin: u64,
    /// Runs before `end`: first byte -> first byte behind.
    free: BTreeMap<u64, u64>,
    quarantine: Quarantine<HostOffset>,
}

/// Grains in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) at: HostOffset,
    /// At least 1.
    pub(crate) count: u32,
    /// They read as zero.
    pub(crate) zeroed: bool,
}

impl Grains {
    /// Space for grains of `grain` bytes in a file of which nothing from `end` on is in use or was
    /// ever written.
    pub(crate) fn new(grain: u64, end: HostOffset) -> Self {
        // The file may end inside its last grain, and should not end so when others follow.
        let end = end.get().next_multiple_of(grain);
        Self { grain, state: Mutex::new(State { end, virgin: end, ..State::default() }) }
    }

    /// Takes up to `count` grains in a row, at least one.
    ///
    /// # Errors
    /// [`Error::Limit`](anydisk_core::Error::Limit) if 32-bit sector numbers cannot name the place.
    pub(crate) fn take(&self, count: u32, leases: &Leases) -> Result<Taken> {
        let mut state = self.lock();
        if state.free.is_empty() {
            for at in state.quarantine.release(leases) {
                state.put(at.get(), at.get() + self.grain);
            }
        }
        if let Some(taken) = state.take_free(count, self.grain) {
            return Ok(taken);
        }
        let at = state.end;
        let end = at.saturating_add(u64::from(count) * self.grain);
        limit("size of an extent's file in bytes", end, limits::FILE)?;
        let zeroed = at >= state.virgin;
        state.end = end;
        state.virgin = state.virgin.max(end);
        Ok(Taken { at: HostOffset(at), count, zeroed })
    }

    /// Takes space for a table of `len` bytes, at the end.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn take_table(&self, len: u64) -> Result<HostOffset> {
        let mut state = self.lock();
        let at = state.end;
        let end = at.saturating_add(len).next_multiple_of(self.grain);
        limit("size of an extent's file in bytes", end, limits::FILE)?;
        state.end = end;
        state.virgin = state.virgin.max(end);
        Ok(HostOffset(at))
    }

    /// Takes the space of a table back that nothing names.
    pub(crate) fn give_table_back(&self, at: HostOffset, len: u64) {
        self.lock().put(at.get(), at.saturating_add(len).get().next_multiple_of(self.grain));
    }

    /// Behind everything that is in use.
    pub(crate) fn end(&self) -> HostOffset {
        HostOffset(self.lock().end)
    }

    /// Takes grains back that nobody wrote to.
    pub(crate) fn untake(&self, taken: Taken) {
        let mut state = self.lock();
        let end = taken.at.get() + u64::from(taken.count) * self.grain;
        if taken.zeroed && state.virgin == end {
            state.virgin = taken.at.get();
        }
        state.put(taken.at.get(), end);
    }

    /// Takes grains back that were never committed, and may have been written to.
    pub(crate) fn give_back(&self, at: HostOffset, len: u64) {
        self.lock().put(at.get(), at.get() + len.next_multiple_of(self.grain));
    }

    /// Takes a grain back that no entry names any more. Call it **after** the entry was changed.
    pub(crate) fn retire(&self, at: HostOffset) {
        self.lock().quarantine.retire(at);
    }

    /// What was retired so far: call it before the pictures of the tables are taken.
    pub(crate) fn seal(&self) -> Sealed<HostOffset> {
        self.lock().quarantine.seal()
    }

    /// The tables that name the sealed grains no more are on the medium, or could not be written.
    pub(crate) fn settle(&self, sealed: Sealed<HostOffset>, durable: bool, leases: &Leases) {
        let mut state = self.lock();
        match durable {
            true => state.quarantine.durable(leases, sealed),
            false => state.quarantine.unseal(sealed),
        }
    }

    /// Makes the file reach the end of the last grain, which need not have been written as a whole.
    pub(crate) fn cover(&self, store: &dyn Storage) -> Result<()> {
        // Under the lock: nobody writes behind `end`, so nothing is cut off.
        let state = self.lock();
        if store.len()? < state.end {
            store.set_len(state.end)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the start of the first free run.
    fn take_free(&mut self, count: u32, grain: u64) -> Option<Taken> {
        let (at, end) = self.free.pop_first()?;
        let next = end.min(at + u64::from(count) * grain);
        if next < end {
            self.free.insert(next, end);
        }
        let count = u32::try_from((next - at) / grain).unwrap_or(count);
        Some(Taken { at: HostOffset(at), count, zeroed: false })
    }

    /// Adds a run, joined with its neighbours.
    fn put(&mut self, mut at: u64, mut end: u64) {
        if let Some((&before, &its_end)) = self.free.range(..at).next_back()
            && its_end == at
        {
            self.free.remove(&before);
            at = before;
        }
        if let Some(behind) = self.free.remove(&end) {
            end = behind;
        }
        if end == self.end {
            self.end = at;
        } else {
            self.free.insert(at, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRAIN: u64 = 4096;

    fn grains() -> Grains {
        Grains::new(GRAIN, HostOffset(3 * GRAIN - 5))
    }

    #[test]
    fn new_grains_go_to_the_end_and_are_zero() {
        let (grains, leases) = (grains(), Leases::new());
        let first = grains.take(2, &leases).expect("room");
        assert_eq!(first, Taken { at: HostOffset(3 * GRAIN), count: 2, zeroed: true });
        let next = grains.take(1, &leases).expect("room");
        assert_eq!(next, Taken { at: HostOffset(5 * GRAIN), count: 1, zeroed: true });
    }

    #[test]
    fn a_table_lies_between_grains_and_its_place_may_become_grains_again() {
        let (grains, leases) = (grains(), Leases::new());
        let table = grains.take_table(5000).expect("room");
        assert_eq!(table, HostOffset(3 * GRAIN));
        assert_eq!(grains.take(1, &leases).expect("room").at, HostOffset(5 * GRAIN));
        grains.give_table_back(table, 5000);
        let taken = grains.take(9, &leases).expect("room");
        assert_eq!(taken, Taken { at: table, count: 2, zeroed: false });
        assert_eq!(grains.end(), HostOffset(6 * GRAIN));
    }

    #[test]
    fn a_grain_that_may_have_been_written_is_never_zero_again() {
        let (grains, leases) = (grains(), Leases::new());
        let taken = grains.take(2, &leases).expect("room");
        grains.give_back(taken.at, 2 * GRAIN - 7);
        assert_eq!(
            grains.take(1, &leases).expect("room"),
            Taken { count: 1, zeroed: false, ..taken }
        );
        let other = grains.take(1, &leases).expect("room");
        grains.untake(other);
        assert!(!grains.take(1, &leases).expect("room").zeroed);
        let virgin = grains.take(1, &leases).expect("room");
        assert!(virgin.zeroed);
        grains.untake(virgin);
        assert_eq!(grains.take(1, &leases).expect("room"), virgin);
    }

    #[test]
    fn a_file_ends_where_32_bit_sector_numbers_do() {
        let grains = Grains::new(GRAIN, HostOffset(limits::FILE - GRAIN));
        let leases = Leases::new();
        assert!(grains.take(1, &leases).is_ok());
        let error = grains.take(1, &leases).unwrap_err().to_string();
        assert_eq!(
            error,
            "vmdk: size of an extent's file in bytes is 2199023259648, more than the limit of \
             2199023255552"
        );
    }

    proptest! {
        #[test]
        fn no_grain_is_handed_out_twice(
            steps in proptest::collection::vec((1u32..5, any::<bool>(), any::<prop::sample::Index>()), 1..60),
        ) {
            let (grains, leases) = (grains(), Leases::new());
            let mut held: Vec<Taken> = Vec::new();
            for (count, give, pick) in steps {
                if give && !held.is_empty() {
                    let taken = held.swap_remove(pick.index(held.len()));
                    grains.give_back(taken.at, u64::from(taken.count) * GRAIN);
                    continue;
                }
                let taken = grains.take(count, &leases).expect("room");
                prop_assert!(taken.count >= 1 && taken.count <= count);
                let range = |t: &Taken| t.at.get()..t.at.get() + u64::from(t.count) * GRAIN;
                for other in &held {
                    let (a, b) = (range(&taken), range(other));
                    prop_assert!(a.end <= b.start || b.end <= a.start);
                }
                held.push(taken);
            }
        }
    }
}
