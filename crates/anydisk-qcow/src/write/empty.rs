//! Forgetting all that is here: an L1 table without tables.

use std::sync::PoisonError;

use anydisk_core::{GuestRange, HostOffset, Image, ImageWrite, Result, Updated};

use crate::image::Level;
use crate::layout::RawHeader;
use crate::piece::each_word;
use crate::table::ENTRY;
use crate::{Header, QcowImage};

impl QcowImage {
    /// Power may fail at any moment: of what an entry of the L1 table covers all is here, or nothing.
    pub(super) fn forget_all(&self) -> Result<()> {
        let _all = self.writing()?.claims.hold_before_others(GuestRange::whole(self.size()));
        // What is given back is nobody else's, and no metadata.
        self.survey()?;
        self.flush()?;
        self.empty_l1()?;
        self.flush()?;
        self.l2.clear();
        let mut next = self.writing()?.next_table.lock().unwrap_or_else(PoisonError::into_inner);
        *next = None;
        self.space.keep_only(&self.pieces()?);
        drop(next);
        self.space.trim(&*self.store)?;
        // A reader may have been late with a slice of a table that was.
        self.l2.clear();
        Ok(())
    }

    /// Takes all entries of the L1 table, in memory. It was written back, so the file has them all.
    fn empty_l1(&self) -> Result<()> {
        let len = self.geometry.l1_entries() * ENTRY;
        let mut emptied = None;
        each_word(self, self.geometry.l1_table(), len, &mut |at, _| {
            let slice = self.geometry.l1_slice_at(at);
            if emptied.replace(slice.at) == Some(slice.at) {
                return Ok(());
            }
            loop {
                match self.l1.update(slice.at, |entries| {
                    (0..slice.count).for_each(|index| entries.set(index as usize, 0));
                }) {
                    Updated::Missing => self.satisfy(&self.need(Level::L1, slice))?,
                    Updated::Full => self.relieve()?,
                    Updated::Done(()) => return Ok(()),
                }
            }
        })
    }

    /// What is in use of an image without tables: header, L1 table, the name of the image below.
    fn pieces(&self) -> Result<Vec<(HostOffset, u64)>> {
        let name = Header::read(&*self.store)?.backing_file;
        let mut pieces = vec![
            (HostOffset::ZERO, size_of::<RawHeader>() as u64),
            (self.geometry.l1_table(), self.header.l1_room()),
        ];
        pieces.extend(name.map(|(at, len)| (at, len.into())));
        pieces.sort_unstable();
        Ok(pieces)
    }
}
