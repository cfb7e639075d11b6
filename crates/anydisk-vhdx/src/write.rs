//! The writing side of disks without a parent.
//!
//! ```text
//!   first write:  headers with new GUIDs, one after the other
//!   flush:        data -> flush -> block allocation table -> flush
//! ```
//!
//! The log is for changes of several structures that belong together. Here an entry of the table is
//! all that changes with a block, and a sector holds it whole: the file is good at any moment, and
//! never has a log that others would have to replay.

use std::sync::Arc;

use anydisk_core::{
    Attempt, Below, Block, Claims, Committed, Error, FlatTable, GuestRange, Handled, Image,
    ImageWrite, Placement, Reserved, Result, Source, Storage, Zeroing,
};

use crate::entries::Entries;
use crate::image::{Body, VhdxImage};
use crate::state::HeaderState;

/// What writes a disk.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) table: FlatTable<Entries>,
    pub(crate) state: HeaderState,
}

impl VhdxImage {
    pub(crate) fn writing(&self) -> Result<&Writer> {
        match &self.body {
            Body::Written(writer) => Ok(writer),
            Body::Read(_) => Err(Error::ReadOnly { why: "it was opened for reading".into() }),
        }
    }

    /// What must be done before the image is changed.
    fn begin(&self) -> Result<&Writer> {
        let writer = self.writing()?;
        writer.state.renew(&**writer.table.store())?;
        Ok(writer)
    }

    /// The whole units at the start of the range, the last one cut at the end of the disk.
    fn whole_units(&self, range: GuestRange) -> Option<GuestRange> {
        let unit = self.metadata.block;
        let reaches_end = range.end().get() == self.size();
        let len = if reaches_end { range.len() } else { range.len() / unit * unit };
        (range.start().get().is_multiple_of(unit) && len > 0).then(|| range.first(len))
    }

    /// Makes a part of a block zero where it is, or says that zeroes must be written.
    fn punch(&self, range: GuestRange, unmap: bool) -> Result<Handled> {
        // Placed as for a write: it changes the block.
        let Placement::InPlace { store, at, len, lease: _lease } = self.place(range)? else {
            return Ok(Handled::ByData(range.len()));
        };
        let Some(space) = store.space() else { return Ok(Handled::ByData(len)) };
        match space.zero(at, len, unmap) {
            Ok(()) => Ok(Handled::Done(len)),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(Handled::ByData(len)),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes entries of whole units, or says that the part before the next one must be written.
    fn change(
        &self,
        range: GuestRange,
        change: impl Fn(Block) -> Block,
    ) -> Result<Option<Handled>> {
        let Some(units) = self.whole_units(range) else { return Ok(None) };
        let writer = self.begin()?;
        Ok(Some(Handled::Done(writer.table.change(self, units, change)?)))
    }
}

impl ImageWrite for VhdxImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        self.begin()?.table.try_place(self, range)
    }

    fn claims(&self) -> Option<&Claims> {
        self.writing().ok().map(|writer| writer.table.claims())
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        Ok(self.writing()?.table.try_commit(reserved))
    }

    fn abandon(&self, reserved: &Reserved) {
        if let Ok(writer) = self.writing() {
            writer.table.abandon(reserved);
        }
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let found = self.map(range)?;
        let (len, source) = (found.len, found.source);
        drop(found.lease);
        let here = range.first(len);
        let done = match source {
            Source::Data { .. } if how.unmap && !self.metadata.is_fixed => {
                self.change(here, |_| Block::Zero)?
            }
            Source::Data { .. } => None,
            Source::Absent { .. } if how.below == Below::Image => {
                let to_zero = |block| if block == Block::Absent { Block::Zero } else { block };
                match self.change(here, to_zero)? {
                    Some(done) => return Ok(done),
                    None => {
                        let unit = self.writing()?.table.unit_at(range.start());
                        return Ok(Handled::ByData(here.before(unit.end()).len()));
                    }
                }
            }
            _ => return Ok(Handled::Done(len)),
        };
        match done {
            Some(done) => Ok(done),
            None => {
                let unit = self.writing()?.table.unit_at(range.start());
                self.punch(here.before(unit.end()), how.unmap)
            }
        }
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.zero(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        let table = &self.writing()?.table;
        table.write_back(|_| Ok(()))?;
        table.space().shorten(&**table.store())
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        self.writing().ok().map(|writer| writer.table.store())
    }

    fn unit(&self) -> u64 {
        self.metadata.block
    }
}
