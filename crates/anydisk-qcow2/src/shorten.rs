//! Cutting free space off the end of the file, where an operation has made much of it.
//!
//! ```text
//!   nothing on the medium names what is free: it has been written back
//!   refcount blocks that count nothing but themselves are named no more      flush
//!   the file ends behind the last cluster that is counted                    flush
//! ```
//!
//! Before the first flush all blocks are whole, whether named or not; after it nothing refers to what
//! is cut off.

use anydisk_core::{HostOffset, Result, Storage};

use crate::alloc::{Allocator, Freed, State};
use crate::alone::Frozen;
use crate::guard::Clusters;
use crate::write::WritableImage;

/// Refcount blocks at the end of the table that count nothing else, and are in nobody's range but
/// their own or that of a block that stays.
#[derive(Default)]
struct Empty {
    numbers: Vec<usize>,
    /// Behind the last cluster that is counted.
    end: u64,
}

impl WritableImage {
    /// Makes the file as short as its refcounts allow. Space in which somebody may be reading stays, and
    /// so does all of it if something is wrong with the counts.
    ///
    /// # Errors
    /// Those of writing back first. A file that cannot be cut stays as long as it is: what was wanted
    /// was done before.
    pub(crate) fn shorten(&self, frozen: &Frozen<'_>) -> Result<()> {
        loop {
            let spare = self.new_tables().spare.take();
            self.space.give_back(spare.map(|fresh| fresh.clusters));
            let alone = self.alone_in(frozen)?;
            self.space.release();
            let freed = self.space.shorten().unwrap_or(false);
            drop(alone);
            if !freed {
                return Ok(());
            }
        }
    }
}

impl Allocator {
    /// Cuts the file. Nothing waits for being written, and nobody is given space meanwhile. Whether
    /// more may be cut after a write-back.
    fn shorten(&self) -> Result<bool> {
        let mut state = self.lock();
        if state.check().is_err() {
            return Ok(false);
        }
        let empty = self.find_empty(&state)?;
        let freed = self.drop_blocks(&mut state, &empty)?;
        let waited_for = state.embargo.last_key_value().map_or(0, |(_, end)| *end);
        let waited_for = waited_for.max(state.frozen);
        let end = empty.end.max(waited_for).max(1);
        // Metadata that is not counted: the counts of data there are not to be believed either.
        if self.guard().last().is_some_and(|last| last >= end) {
            return Ok(freed);
        }
        let len = self.offset(end).get();
        // Only the host's space is at stake: a block device, say, has one length.
        if self.store.len()? > len && self.store.set_len(len).is_ok() {
            self.store.flush()?;
            state.cut(end, self.cluster_bits);
        }
        Ok(freed)
    }

    /// The blocks at the end of the table that count nothing but themselves. One that counts another
    /// goes in a later round, when the count of that has been lowered. One for space that somebody
    /// may still be using stays: without it that would look as if it were free.
    fn find_empty(&self, state: &State) -> Result<Empty> {
        let mut empty = Empty::default();
        for (number, block) in state.table.blocks.iter().enumerate().rev() {
            if *block == 0 {
                continue;
            }
            let own = block >> self.cluster_bits;
            let first = number as u64 * self.per_block();
            let all = Clusters::new(first, self.per_block());
            let last = self.last_counted(state, number, Some(own))?;
            if last.is_some() || state.has_embargo(all) {
                let itself = (first..all.end()).contains(&own);
                empty.end = last.map_or(0, |last| last + 1).max(if itself { own + 1 } else { 0 });
                break;
            }
            empty.numbers.push(number);
        }
        Ok(empty)
    }

    /// The last cluster that a block counts, apart from one.
    pub(super) fn last_counted(
        &self,
        state: &State,
        number: usize,
        apart_from: Option<u64>,
    ) -> Result<Option<u64>> {
        let (first, per_slice) = (number as u64 * self.per_block(), self.per_slice());
        for slice in (0..self.per_block() / per_slice).rev() {
            let from = first + slice * per_slice;
            let Some((at, _)) = self.slot(state, from) else { continue };
            let words = self.read_slice(at)?;
            if words.iter().all(|word| *word == 0) {
                continue;
            }
            let counted = |index: &usize| {
                self.width.get(words.as_slice(), *index) != 0
                    && apart_from != Some(from + *index as u64)
            };
            if let Some(index) = (0..self.width.per_words(words.len())).rev().find(counted) {
                return Ok(Some(from + index as u64));
            }
        }
        Ok(None)
    }

    /// Takes blocks out of the refcount table, durably. Whether clusters elsewhere came free.
    fn drop_blocks(&self, state: &mut State, empty: &Empty) -> Result<bool> {
        for number in &empty.numbers {
            let at = state.table.at.saturating_add(*number as u64 * 8);
            if let Err(error) = self.store.write_at(at, &[0; 8]) {
                state.table.note(*number..state.table.blocks.len());
                return Err(error.into());
            }
        }
        if empty.numbers.is_empty() {
            return Ok(false);
        }
        if let Err(error) = self.store.flush() {
            let first = empty.numbers.iter().min().copied().unwrap_or(0);
            state.table.note(first..state.table.blocks.len());
            return Err(error.into());
        }
        let mut freed = false;
        for number in &empty.numbers {
            let block = HostOffset(std::mem::take(&mut state.table.blocks[*number]));
            let slices = (0..1_u64 << self.cluster_bits).step_by(self.slice_len());
            slices.for_each(|inside| self.counts.remove(block.saturating_add(inside)));
            let cluster = block.get() >> self.cluster_bits;
            self.guard().remove(cluster);
            // One that another block counts, which stays.
            if self.slot(state, cluster).is_some() {
                state.retire(Freed { clusters: Clusters::new(cluster, 1), discard: false });
                freed = true;
            }
        }
        Ok(freed)
    }
}

impl State {
    /// The file ends before cluster `end`: what comes there again is zero.
    fn cut(&mut self, end: u64, cluster_bits: u32) {
        self.end = self.end.min(end);
        self.hunt = self.hunt.min(end);
        self.virgin = self.virgin.min(end);
        if self.packed.is_some_and(|at| at >> cluster_bits >= end) {
            self.packed = None;
        }
    }
}
