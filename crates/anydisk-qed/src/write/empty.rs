//! Forgetting all that is here: an L1 table without tables.

use std::sync::PoisonError;

use anydisk_core::{GuestRange, Image, ImageWrite, Result, Updated};

use crate::QedImage;
use crate::image::Level;
use crate::piece::each_word;
use crate::table::{ENTRY, SliceAt};

impl QedImage {
    /// Power may fail at any moment: of what an entry of the L1 table covers all is here, or nothing.
    pub(super) fn forget_all(&self) -> Result<()> {
        let _all = self.writing()?.claims.hold_before_others(GuestRange::whole(self.size()));
        self.flush()?;
        self.empty_l1(0)?;
        self.flush()?;
        self.l2.clear();
        let mut next = self.writing()?.next_table.lock().unwrap_or_else(PoisonError::into_inner);
        *next = None;
        let pieces = [self.header.piece(), self.header.l1_piece()];
        let mut pieces = pieces.map(|piece| (piece.at, piece.len));
        pieces.sort_unstable();
        self.space.keep_only(&pieces);
        drop(next);
        self.space.trim(&*self.store)?;
        // A reader may have been late with a slice of a table that was.
        self.l2.clear();
        Ok(())
    }

    /// Takes the entries of the L1 table from number `first` on, in memory. It was written back, so the
    /// file has them all. Returns those that there were.
    pub(super) fn empty_l1(&self, first: u64) -> Result<Vec<u64>> {
        let l1 = self.header.l1_piece();
        let mut taken = Vec::new();
        each_word(&*self.store, l1, &mut |at, _| {
            let number = (at.get() - l1.at.get()) / ENTRY;
            if number < first {
                return Ok(());
            }
            let slice = SliceAt::of(l1.at, number);
            loop {
                let update = self.l1.update(slice.at, |entries| {
                    let index = usize::try_from(slice.index).unwrap_or(usize::MAX);
                    let old = entries.get(index);
                    entries.set(index, 0);
                    old
                });
                match update {
                    Updated::Missing => self.satisfy(&self.need(Level::L1, slice))?,
                    Updated::Full => self.relieve()?,
                    Updated::Done(old) => {
                        taken.push(old);
                        return Ok(());
                    }
                }
            }
        })?;
        Ok(taken)
    }
}
