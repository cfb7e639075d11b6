//! The writing side of disks without a parent, and what all that are written have in common.
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

use crate::child::Child;
use crate::entries::Entries;
use crate::image::{Body, VhdxImage};
use crate::state::HeaderState;
use crate::tables::Look;

/// What writes a disk.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) table: FlatTable<Entries>,
    pub(crate) state: HeaderState,
}

fn read_only() -> Error {
    Error::ReadOnly { why: "it was opened for reading".into() }
}

impl VhdxImage {
    fn writing(&self) -> Result<&Writer> {
        match &self.body {
            Body::Written(writer) => Ok(writer),
            Body::Read(_) | Body::Child(_) => Err(read_only()),
        }
    }

    /// What must be done before the image is changed.
    fn begin(&self) -> Result<&Body> {
        match &self.body {
            Body::Read(_) => return Err(read_only()),
            Body::Written(writer) => writer.state.renew(&**writer.table.store())?,
            Body::Child(child) => child.state.renew(&*child.tables.store)?,
        }
        Ok(&self.body)
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
        self.begin()?;
        Ok(Some(Handled::Done(self.writing()?.table.change(self, units, change)?)))
    }

    /// As [`zero`](ImageWrite::zero), of a disk without a parent.
    fn zero_alone(&self, writer: &Writer, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let found = self.map(range)?;
        let (len, source) = (found.len, found.source);
        drop(found.lease);
        let here = range.first(len);
        let in_unit = || here.before(writer.table.unit_at(range.start()).end());
        match source {
            Source::Data { .. } => {
                let unmaps = how.unmap && !self.metadata.is_fixed;
                let done = if unmaps { self.change(here, |_| Block::Zero)? } else { None };
                done.map_or_else(|| self.punch(in_unit(), how.unmap), Ok)
            }
            Source::Absent { .. } if how.below == Below::Image => {
                let to_zero = |block| if block == Block::Absent { Block::Zero } else { block };
                let done = self.change(here, to_zero)?;
                Ok(done.unwrap_or_else(|| Handled::ByData(in_unit().len())))
            }
            _ => Ok(Handled::Done(len)),
        }
    }

    /// The same, of a child: what is absent shows the parent.
    fn zero_child(&self, child: &Child, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let block = child.block_at(range.start());
        let here = range.before(block.end());
        let look = loop {
            match child.tables.look(here)? {
                Look::Need(need) => self.satisfy(&need)?,
                look => break look,
            }
        };
        match look {
            Look::Zero { len } => Ok(Handled::Done(len)),
            Look::Absent { .. } | Look::Unset { .. } | Look::Here { .. }
                if here.contains(block) && (how.unmap || matches!(look, Look::Absent { .. })) =>
            {
                self.begin()?;
                child.zero_block(block.start())?;
                Ok(Handled::Done(block.len()))
            }
            Look::Here { len, .. } => self.punch(here.first(len), how.unmap),
            Look::Absent { len } | Look::Unset { len, .. } => Ok(Handled::ByData(len)),
            Look::Need(_) => Ok(Handled::ByData(here.len())),
        }
    }
}

impl ImageWrite for VhdxImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        match self.begin()? {
            Body::Written(writer) => writer.table.try_place(self, range),
            Body::Child(child) => child.try_place(self, range),
            Body::Read(_) => Err(read_only()),
        }
    }

    fn claims(&self) -> Option<&Claims> {
        match &self.body {
            Body::Written(writer) => Some(writer.table.claims()),
            Body::Child(child) => Some(&child.claims),
            Body::Read(_) => None,
        }
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        match &self.body {
            Body::Written(writer) => Ok(writer.table.try_commit(reserved)),
            Body::Child(child) => child.try_commit(reserved),
            Body::Read(_) => Err(read_only()),
        }
    }

    fn abandon(&self, reserved: &Reserved) {
        match &self.body {
            Body::Written(writer) => writer.table.abandon(reserved),
            Body::Child(child) => child.abandon(reserved),
            Body::Read(_) => {}
        }
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        match &self.body {
            Body::Written(writer) => self.zero_alone(writer, range, how),
            Body::Child(child) => self.zero_child(child, range, how),
            Body::Read(_) => Err(read_only()),
        }
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.zero(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        match &self.body {
            Body::Written(writer) => {
                writer.state.doubt.check()?;
                writer.table.write_back(|_| Ok(()))?;
                writer.table.space().shorten(&**writer.table.store())
            }
            Body::Child(child) => child.write_back(),
            Body::Read(_) => Err(read_only()),
        }
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        match &self.body {
            Body::Written(writer) => Some(writer.table.store()),
            Body::Child(child) => Some(&child.tables.store),
            Body::Read(_) => None,
        }
    }

    fn unit(&self) -> u64 {
        match &self.body {
            Body::Child(child) if child.tables.has_parent() => self.metadata.sector,
            _ => self.metadata.block,
        }
    }
}
