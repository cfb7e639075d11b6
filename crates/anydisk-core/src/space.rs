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
    end: AtomicU64,
    state: Mutex<State>,
    /// One write-back runs at a time.
    round: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<HostOffset>,
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
    /// lie before the end of the file, else new blocks are taken for zero that are not, nor before
    /// the end of the last block that a table names.
    #[must_use]
    pub fn new(unit: u64, end: HostOffset) -> Self {
        Self {
            unit,
            leases: Leases::new(),
            end: end.get().into(),
            state: Mutex::default(),
            round: Mutex::default(),
        }
    }

    /// The leases on the blocks. Take one **before** reading the entry that names a block.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The end of the last block: an entry that names a block here or behind it is invalid. Ask
    /// **after** reading the entry, so that a block taken meanwhile is not refused.
    #[must_use]
    pub fn end(&self) -> HostOffset {
        HostOffset(self.end.load(Acquire))
    }

    /// Takes a block: a free one, else a new one at the end. From memory alone.
    ///
    /// A lease keeps freed blocks from coming back, the caller's own included: let go of the one
    /// under which the table was looked at.
    #[must_use = "a block that is forgotten is lost until the image is opened again"]
    pub fn take(&self) -> TakenBlock {
        let mut state = self.lock();
        if state.free.is_empty() {
            state.free = state.quarantine.release(&self.leases);
        }
        match state.free.pop() {
            Some(at) => TakenBlock { at, zeroed: false },
            None => {
                let at = self.end();
                // No store is that long: writing to the block fails before the sum is out of range.
                self.end.store(at.saturating_add(self.unit).get(), Release);
                TakenBlock { at, zeroed: true }
            }
        }
    }

    /// Takes a block back that no table ever named: its reservation was abandoned.
    pub fn give_back(&self, at: HostOffset) {
        self.lock().free.push(at);
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
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.lock().quarantine.seal();
        match self.write_round(store, tables, write) {
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
        write: impl FnMut(&DirtySlice) -> Result<()>,
    ) -> Result<()> {
        let pictures = tables.dirty();
        self.cover(store)?;
        store.flush()?;
        if pictures.is_empty() {
            return Ok(());
        }
        pictures.iter().try_for_each(write)?;
        store.flush()?;
        pictures.iter().for_each(|picture| tables.settle(picture));
        Ok(())
    }

    /// Makes the file reach the end of the last block. Zeroes need not be written to a new block,
    /// so the file may end before it; opened again, it would have the block handed out twice.
    fn cover(&self, store: &dyn Storage) -> Result<()> {
        // Under the lock nobody is given space behind `end`, so this cuts off nobody's data.
        let _state = self.lock();
        let end = self.end().get();
        if store.len()? < end {
            store.set_len(end)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
