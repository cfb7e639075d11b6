//! Alone with an image: what changes many tables at once, or where they are.
//!
//! ```text
//!   claim the whole disk      no reservation is out, and none is made
//!   frozen                    nobody is given a place to write in, and ...
//!   wait for write leases     ... nobody is writing in one
//!   write back                the medium says all that memory says
//!   round, gate               no write-back, and nobody changes a table
//! ```
//!
//! Readers go on meanwhile.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLockWriteGuard};

use anydisk_core::{Claim, GuestRange, Result};

use crate::alloc::Allocator;
use crate::limits;
use crate::write::WritableImage;

/// What keeps those who change an image as a whole apart.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Nobody is given a place to write in.
    frozen: AtomicBool,
    /// One change of the whole image at a time.
    admin: Mutex<()>,
}

/// Nobody else changes the image as a whole.
pub(crate) type Turn<'a> = MutexGuard<'a, ()>;

/// Of an image that is [`Frozen`]: what was written is on the medium, and tables are changed by
/// the holder alone.
pub(crate) struct Alone<'a> {
    // In the order in which they are given back.
    _gate: RwLockWriteGuard<'a, ()>,
    _round: MutexGuard<'a, ()>,
}

/// Nobody writes guest data.
pub(crate) struct Frozen<'a> {
    turns: &'a Turns,
    /// Ends after the image is thawed, so that whoever waits for it finds it so.
    _claim: Claim<'a>,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.turns.frozen.store(false, SeqCst);
    }
}

impl Turns {
    /// Whether places to write in may be given out. To be asked by whoever holds a write lease.
    #[inline]
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(SeqCst)
    }

    /// Waits until nobody else changes the image as a whole.
    pub(crate) fn take(&self) -> Turn<'_> {
        self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WritableImage {
    /// Waits until nobody writes. The caller has a [`Turn`].
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        let claim = self.claims.hold_before_others(GuestRange::whole(limits::OFFSET));
        self.turns.frozen.store(true, SeqCst);
        self.shared.leases.wait_for_writers();
        Frozen { turns: &self.turns, _claim: claim }
    }

    /// Writes back, and waits until nobody changes tables.
    ///
    /// # Errors
    /// Those of writing back.
    pub(crate) fn alone_in<'a>(&'a self, _: &Frozen<'a>) -> Result<Alone<'a>> {
        loop {
            self.write_back()?;
            let round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
            let gate = self.stop();
            // A reader that needed room may have made a table that was wanted before.
            if self.is_settled() {
                return Ok(Alone { _gate: gate, _round: round });
            }
        }
    }

    /// Whether the medium says all that memory says.
    fn is_settled(&self) -> bool {
        let shared = &self.shared;
        shared.l1.dirty_count() == 0 && shared.l2.dirty_count() == 0 && self.space.is_settled()
    }
}

impl Allocator {
    fn is_settled(&self) -> bool {
        let state = self.lock();
        self.counts.dirty_count() == 0 && state.retired.is_empty() && state.table.is_settled()
    }
}
