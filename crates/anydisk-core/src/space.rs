//! Host space of formats that allot blocks of one size: freed blocks first, else the file grows.
//!
//! For formats whose file says nowhere which blocks are free (VDI, VHDX, Parallels, a sparse VMDK
//! extent): what no table names is free, and new blocks go to the end.
//!
//! ```text
//!   take ------> owned by a reservation --> named by a table --> retire --> quarantine
//!    ^                   |  give_back                                            |
//!    |                   v                                                       |
//!    +------------- free blocks <--------- write_back: the tables are durable ---+
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_storage::{HostOffset, Storage};

use crate::{DirtySlice, Leases, Quarantine, Result, TableCache};

/// Blocks of one size in one store, and the write-back after which freed ones may be used again.
#[derive(Debug)]
pub struct BlockSpace {
    unit: u64,
    leases: Leases,
    /// Behind the last block that was ever handed out. Grows under the lock of `state`.
    bound: AtomicU64,
    state: Mutex<State>,
    /// One write-back runs at a time.
    round: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing from here on is in use.
    end: u64,
    /// Nothing from here on was ever written.
    virgin: u64,
    /// Runs of free blocks before `end`: first byte -> first byte behind.
    free: BTreeMap<u64, u64>,
    quarantine: Quarantine<HostOffset>,
}

/// A block that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenBlock {
    /// Position of its first byte.
    pub at: HostOffset,
    /// It reads as zero; see [`Reserved::zeroed`](crate::Reserved::zeroed).
    pub zeroed: bool,
}

impl BlockSpace {
    /// Blocks of `unit` bytes; those at `end` and behind it have never been used. `end` must not
    /// lie before the end of the last block that a table names, nor before the end of the file,
    /// unless [`with_old_bytes_to`](Self::with_old_bytes_to) says where that is.
    #[must_use]
    pub fn new(unit: u64, end: HostOffset) -> Self {
        let end = end.get();
        let state = State { end, virgin: end, ..State::default() };
        Self {
            unit,
            leases: Leases::new(),
            bound: end.into(),
            state: Mutex::new(state),
            round: Mutex::default(),
        }
    }

    /// The same in a file that reaches to `virgin`: what lies between is free, and may hold
    /// anything.
    #[must_use]
    pub fn with_old_bytes_to(self, virgin: HostOffset) -> Self {
        let mut state = self.lock();
        state.virgin = state.virgin.max(virgin.get());
        drop(state);
        self
    }

    /// The leases on the blocks. Take one **before** reading the entry that names a block.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Behind the last block that was ever handed out: an entry that names a block here or behind it
    /// is invalid. Ask **after** reading the entry, so that a block taken meanwhile is not refused.
    #[must_use]
    pub fn end(&self) -> HostOffset {
        HostOffset(self.bound.load(Acquire))
    }

    /// Takes a block: a free one, the first in the file, else a new one at the end. From memory
    /// alone.
    ///
    /// A lease keeps freed blocks from coming back, the caller's own included: let go of the one
    /// under which the table was looked at.
    #[must_use = "a block that is forgotten is lost until the image is opened again"]
    pub fn take(&self) -> TakenBlock {
        let mut state = self.lock();
        if state.free.is_empty() {
            for at in state.quarantine.release(&self.leases) {
                state.put(at.get(), at.get().saturating_add(self.unit));
            }
        }
        let taken = state.take(self.unit);
        self.bound.fetch_max(state.end, Release);
        taken
    }

    /// Takes a block back that no table ever named: its reservation was abandoned, or it was found
    /// when the file was opened.
    pub fn give_back(&self, at: HostOffset) {
        self.lock().put(at.get(), at.get().saturating_add(self.unit));
    }

    /// As [`give_back`](Self::give_back), for several blocks in a row.
    pub fn give_back_run(&self, at: HostOffset, count: u64) {
        let end = at.get().saturating_add(count.saturating_mul(self.unit));
        self.lock().put(at.get(), end);
    }

    /// Behind the last block in use.
    #[must_use]
    pub fn used_end(&self) -> HostOffset {
        HostOffset(self.lock().end)
    }

    /// Forgets what is free: every block before `end` is in use, and none behind it. The caller has
    /// made sure that nothing is reserved, and that no write-back is on its way.
    pub fn reset(&self, end: HostOffset) {
        let mut state = self.lock();
        let virgin = state.virgin.max(state.end).max(end.get());
        *state = State { end: end.get(), virgin, ..State::default() };
        self.bound.fetch_max(end.get(), Release);
    }

    /// Takes a block back that a table named. Call it **after** the entry was changed; the block is
    /// used again when that is durable and nobody reads there any more.
    pub fn retire(&self, at: HostOffset) {
        self.lock().quarantine.retire(at);
    }

    /// A flush of an image with tables of one level: data before the tables that name it, freed
    /// blocks into use only when the tables are durable. The order is that of [`TableCache`].
    ///
    /// `write` puts one picture where it belongs in the file.
    ///
    /// # Errors
    /// Those of the store and of `write`; what was changed stays changed, to be written the next
    /// time.
    pub fn write_back(
        &self,
        store: &dyn Storage,
        tables: &TableCache,
        write: impl FnMut(&DirtySlice) -> Result<()>,
    ) -> Result<()> {
        self.write_back_after(store, tables, |_| Ok(()), write)
    }

    /// As [`write_back`](Self::write_back). `before` writes what must be durable before the tables
    /// are, beside the data: it is given the place behind the last block in use, for headers that
    /// keep it.
    ///
    /// # Errors
    /// As [`write_back`](Self::write_back), and those of `before`.
    pub fn write_back_after(
        &self,
        store: &dyn Storage,
        tables: &TableCache,
        before: impl FnOnce(HostOffset) -> Result<()>,
        write: impl FnMut(&DirtySlice) -> Result<()>,
    ) -> Result<()> {
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.lock().quarantine.seal();
        match self.write_round(store, tables, before, write) {
            Ok(()) => {
                self.lock().quarantine.durable(&self.leases, sealed);
                Ok(())
            }
            Err(error) => {
                self.lock().quarantine.unseal(sealed);
                Err(error)
            }
        }
    }

    fn write_round(
        &self,
        store: &dyn Storage,
        tables: &TableCache,
        before: impl FnOnce(HostOffset) -> Result<()>,
        write: impl FnMut(&DirtySlice) -> Result<()>,
    ) -> Result<()> {
        let pictures = tables.dirty();
        // Blocks that the pictures name lie before this end: they cannot have become free since.
        before(self.cover(store)?)?;
        store.flush()?;
        if pictures.is_empty() {
            return Ok(());
        }
        pictures.iter().try_for_each(write)?;
        store.flush()?;
        pictures.iter().for_each(|picture| tables.settle(picture));
        Ok(())
    }

    /// Makes the file reach the end of the last block, and tells where that is. Zeroes need not be
    /// written to a new block, so the file may end before it; opened again, it would have the block
    /// handed out twice.
    fn cover(&self, store: &dyn Storage) -> Result<HostOffset> {
        // Under the lock nobody is given space behind `end`, so this cuts off nobody's data.
        let state = self.lock();
        if store.len()? < state.end {
            store.set_len(state.end)?;
        }
        Ok(HostOffset(state.end))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, unit: u64) -> TakenBlock {
        if let Some((at, end)) = self.free.pop_first() {
            let next = at.saturating_add(unit);
            if next < end {
                self.free.insert(next, end);
            }
            return TakenBlock { at: HostOffset(at), zeroed: false };
        }
        let at = self.end;
        let zeroed = at >= self.virgin;
        // No store is that long: writing to the block fails before the sum is out of range.
        self.end = at.saturating_add(unit);
        self.virgin = self.virgin.max(self.end);
        TakenBlock { at: HostOffset(at), zeroed }
    }

    /// Adds a free run, joined with its neighbours and with the end.
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
