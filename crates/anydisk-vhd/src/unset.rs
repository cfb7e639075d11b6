//! Which blocks a flush looks after.

use std::collections::BTreeSet;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks of a dynamic disk whose bits may not all be set: a sector without its bit is zero to some
/// readers.
#[derive(Debug)]
pub(crate) struct Unset {
    /// A bit for each block that was looked after since the image was opened.
    seen: Box<[AtomicU64]>,
    /// Numbers of blocks to be looked after by the next flush.
    blocks: Mutex<BTreeSet<u64>>,
}

impl Unset {
    pub(crate) fn new(blocks: u64) -> Self {
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(usize::MAX);
        let seen = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { seen, blocks: Mutex::default() }
    }

    /// Notes that a block is about to be written. Costs one load if it was before.
    pub(crate) fn note(&self, block: u64) {
        let Some(word) = usize::try_from(block / 64).ok().and_then(|at| self.seen.get(at)) else {
            // The disk has grown.
            return self.note_new(block);
        };
        let bit = 1 << (block % 64);
        if word.load(Acquire) & bit == 0 {
            self.lock().insert(block);
            // After it is in the list: who sees the bit need not look there.
            word.fetch_or(bit, AcqRel);
        }
    }

    /// Notes a block that is new, whatever was noted of one before it.
    pub(crate) fn note_new(&self, block: u64) {
        self.lock().insert(block);
    }

    /// The block is gone; one that takes its number is another one.
    pub(crate) fn forget(&self, block: u64) {
        if let Some(word) = usize::try_from(block / 64).ok().and_then(|at| self.seen.get(at)) {
            word.fetch_and(!(1 << (block % 64)), AcqRel);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
