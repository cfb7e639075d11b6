//! The writing side.
//!
//! ```text
//!   first write:  a new uuidModify
//!   flush:        data, cBlocksAllocated -> flush -> block map -> flush
//! ```
//!
//! A block that has its place keeps it: zeroing and discarding punch holes into the file instead. So
//! the numbers of the blocks in use have no gaps, as other programs expect.

use std::sync::Arc;

use anydisk_core::{
    Attempt, Below, Block, Claims, Committed, GuestRange, Handled, Image, ImageWrite, Placement,
    Reserved, Result, Source, Storage, Zeroing,
};

use crate::header::Kind;
use crate::image::VdiImage;

impl VdiImage {
    /// What must be done before the image is changed.
    fn begin(&self) -> Result<()> {
        self.state.renew(&**self.table.store())
    }

    /// Whether what is absent may show something.
    fn has_below(&self, below: Below) -> bool {
        below == Below::Image || !self.state.uuids().linkage.is_nil()
    }

    /// The whole units at the start of the range, the last one cut at the end of the disk.
    fn whole_units(&self, range: GuestRange) -> Option<GuestRange> {
        let unit = self.table.blocks().unit;
        let start = range.start().get();
        let reaches_end = range.end().get() == self.size();
        let len = if reaches_end { range.len() } else { range.len() / unit * unit };
        (start.is_multiple_of(unit) && len > 0).then(|| range.first(len))
    }

    /// Makes the start of a range that has a block zero without writing it, or says that it must be
    /// written.
    fn punch(&self, range: GuestRange) -> Result<Handled> {
        // Placed as for a write: it changes the block.
        let Placement::InPlace { store, at, len, lease: _lease } = self.place(range)? else {
            return Ok(Handled::ByData(range.len()));
        };
        let Some(space) = store.space() else { return Ok(Handled::ByData(len)) };
        match space.zero(at, len, true) {
            Ok(()) => Ok(Handled::Done(len)),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(Handled::ByData(len)),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes whole units that have no block zero, whatever lies below.
    fn mark_zero(&self, range: GuestRange, len: u64) -> Result<Handled> {
        let Some(units) = self.whole_units(range.first(len)) else {
            let unit = self.table.unit_at(range.start());
            return Ok(Handled::ByData(range.first(len).before(unit.end()).len()));
        };
        self.begin()?;
        let to_zero = |block| if block == Block::Absent { Block::Zero } else { block };
        let done = self.table.change(self, units, to_zero)?;
        // Someone may have written there since the look: then it is as if that came after.
        Ok(Handled::Done(done))
    }
}

impl ImageWrite for VdiImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        self.begin()?;
        self.table.try_place(self, range)
    }

    fn claims(&self) -> Option<&Claims> {
        Some(self.table.claims())
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        Ok(self.table.try_commit(reserved))
    }

    fn abandon(&self, reserved: &Reserved) {
        self.table.abandon(reserved);
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let found = self.map(range)?;
        match found.source {
            Source::Data { .. } if how.unmap && self.header.kind != Kind::Fixed => {
                self.punch(range.first(found.len))
            }
            Source::Absent { .. } if self.has_below(how.below) => self.mark_zero(range, found.len),
            Source::Data { .. } => Ok(Handled::ByData(found.len)),
            _ => Ok(Handled::Done(found.len)),
        }
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.zero(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        let _round = self.lock_round();
        self.state.doubt.check()?;
        let write_count =
            |end| self.state.set_allocated(self.number_at(end), &**self.table.store());
        self.table.write_back(write_count)
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        Some(self.table.store())
    }

    fn unit(&self) -> u64 {
        self.table.blocks().unit
    }
}
