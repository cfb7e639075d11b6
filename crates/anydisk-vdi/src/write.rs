//! The writing side.
//!
//! ```text
//!   first write:  a new uuidModify
//!   flush:        data, cBlocksAllocated -> flush -> block map -> flush
//! ```
//!
//! A block that has its place keeps it: zeroing and discarding punch holes into the file instead. So
//! the numbers of the blocks in use have no gaps, as other programs expect.

use anydisk_core::{
    Attempt, Below, Block, Claims, Committed, GuestRange, Handled, HostOffset, Image, ImageWrite,
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

    /// Makes bytes in a block zero without writing them, or says that they must be written.
    fn punch(&self, at: HostOffset, len: u64) -> Result<Handled> {
        let Some(space) = self.table.store().space() else { return Ok(Handled::ByData(len)) };
        self.begin()?;
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
            Source::Data { at, .. } if how.unmap && self.header.kind != Kind::Fixed => {
                self.punch(at, found.len)
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
        let (first, stride) = (self.table.shape().first, self.table.blocks().stride());
        self.table.write_back(|end| {
            let count = end.get().saturating_sub(first.get()) / stride;
            self.state.set_allocated(count, &**self.table.store())
        })
    }

    fn unit(&self) -> u64 {
        self.table.blocks().unit
    }
}
