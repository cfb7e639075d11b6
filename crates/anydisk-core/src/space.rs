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

use anydisk_storage::{HostOffset, Storage};

use crate::{DirtySlice, Leases, Result, RunSpace, TableCache, TakenRun, WantedRun};

/// Blocks of one size in one store, and the write-back after which freed ones may be used again: a
/// [`RunSpace`] of which one length is asked.
#[derive(Debug)]
pub struct BlockSpace {
    unit: u64,
    /// Behind the last block that was ever handed out.
    bound: AtomicU64,
    runs: RunSpace,
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
        Self { unit, bound: end.get().into(), runs: RunSpace::new(end) }
    }

    /// The same in a file that reaches to `virgin`: what lies between is free, and may hold
    /// anything.
    #[must_use]
    pub fn with_old_bytes_to(self, virgin: HostOffset) -> Self {
        Self { runs: self.runs.with_old_bytes_to(virgin), ..self }
    }

    /// The leases on the blocks. Take one **before** reading the entry that names a block.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        self.runs.leases()
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
        let taken = self.runs.take(WantedRun { len: self.unit, most: 1, align: 1 });
        self.bound.fetch_max(taken.end().get(), Release);
        TakenBlock { at: taken.at, zeroed: taken.zeroed }
    }

    /// Takes `len` bytes in a row at a multiple of `align`, a power of two, for something else than
    /// blocks (a table that is moved).
    #[must_use = "space that is forgotten is lost until the image is opened again"]
    pub fn take_run(&self, len: u64, align: u64) -> TakenRun {
        self.runs.take(WantedRun { len, most: 1, align })
    }

    /// Takes a block back that no table ever named: its reservation was abandoned, or it was found
    /// when the file was opened.
    pub fn give_back(&self, at: HostOffset) {
        self.give_back_run(at, 1);
    }

    /// As [`give_back`](Self::give_back), for several blocks in a row.
    pub fn give_back_run(&self, at: HostOffset, count: u64) {
        self.runs.give_back(at, count.saturating_mul(self.unit));
    }

    /// Takes a block back that a table named. Call it **after** the entry was changed; the block is
    /// used again when that is durable and nobody reads there any more.
    pub fn retire(&self, at: HostOffset) {
        self.runs.retire(at, self.unit);
    }

    /// Behind the last block in use.
    #[must_use]
    pub fn used_end(&self) -> HostOffset {
        self.runs.end()
    }

    /// Forgets what is free: every block before `end` is in use, and none behind it. The caller has
    /// made sure that nothing is reserved, and that no write-back is on its way.
    pub fn reset(&self, end: HostOffset) {
        self.runs.reset(end);
        self.bound.fetch_max(end.get(), Release);
    }

    /// Makes holes of what was freed. See [`RunSpace::punch_freed`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn punch_freed(&self, store: &dyn Storage) -> Result<()> {
        self.runs.punch_freed(store)
    }

    /// Cuts the store off behind the last block in use. See [`RunSpace::shorten`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn shorten(&self, store: &dyn Storage) -> Result<()> {
        self.runs.shorten(store)
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
        mut write: impl FnMut(&DirtySlice) -> Result<()>,
    ) -> Result<()> {
        self.runs.write_back_after(store, &[tables], before, |_, picture| write(picture))
    }
}
