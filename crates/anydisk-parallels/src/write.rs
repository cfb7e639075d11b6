//! The writing side.
//!
//! ```text
//!   first write:  a format extension without dirty bitmaps -> flush -> header -> flush
//!   flush:        data, in_use set -> flush -> block table -> flush -> in_use cleared
//! ```
//!
//! On the medium the mark is set before the block table changes and while it may have changed in part.

use std::sync::Arc;

use anydisk_core::{
    Attempt, Below, Block, Claims, Committed, GuestRange, Handled, HostOffset, Image, ImageWrite,
    Placement, Reserved, Result, Source, Storage, StorageExt, Zeroing,
};

use crate::extension::Extension;
use crate::image::ParallelsImage;

impl ParallelsImage {
    /// What must be done before the disk is changed.
    #[inline]
    pub(crate) fn begin(&self) -> Result<()> {
        self.state.doubt.check()?;
        if self.state.has_begun() { Ok(()) } else { self.begin_writing() }
    }

    /// Drops what nobody here keeps account of, before it can be wrong.
    #[cold]
    fn begin_writing(&self) -> Result<()> {
        let _round = self.lock_round();
        if self.state.has_begun() {
            return Ok(());
        }
        if let Some(extension) = self.extension.as_ref().filter(|extension| !extension.is_kept()) {
            self.replace_extension(extension)?;
        }
        self.state.begin();
        Ok(())
    }

    /// Writes the features that are kept to a new cluster, if there are any. The old one, and the
    /// bitmaps, are then nobody's.
    fn replace_extension(&self, old: &Extension) -> Result<()> {
        let (store, space) = (&**self.table.store(), self.table.space());
        let new = match old.others.iter().any(|other| other.is_kept()) {
            true => {
                let mut bytes = vec![0; usize::try_from(self.header.cluster).unwrap_or(0)];
                store.read_exact_at(old.at, &mut bytes)?;
                let at = space.take().at;
                store.write_at(at, &old.without_dropped(&bytes))?;
                store.flush()?;
                at
            }
            false => HostOffset::ZERO,
        };
        self.state.set_extension(new, store)?;
        store.flush()?;
        old.clusters().for_each(|at| space.retire(at));
        Ok(())
    }

    /// The whole units at the start of the range, the last one cut at the end of the disk.
    fn whole_units(&self, range: GuestRange) -> Option<GuestRange> {
        let unit = self.header.cluster;
        let start = range.start().get();
        let reaches_end = range.end().get() == self.size();
        let len = if reaches_end { range.len() } else { range.len() / unit * unit };
        (start.is_multiple_of(unit) && len > 0).then(|| range.first(len))
    }

    /// Gives the clusters of whole units back, or makes a hole in the first of them.
    fn release(&self, range: GuestRange, below: Below) -> Result<Handled> {
        match self.whole_units(range).filter(|_| below == Below::Nothing) {
            Some(units) => {
                self.begin()?;
                self.state.note_change();
                self.table.change(self, units, |_| Block::Absent).map(Handled::Done)
            }
            None => self.punch(range.before(self.table.unit_at(range.start()).end())),
        }
    }

    /// Makes the start of a range that has a cluster zero without writing it, or says that it must be
    /// written.
    fn punch(&self, range: GuestRange) -> Result<Handled> {
        // Placed as for a write: it changes the cluster.
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

    /// Data, the mark, then the block table.
    fn write_back(&self) -> Result<()> {
        self.state.doubt.check()?;
        let store = &**self.table.store();
        let changed = self.state.take_changed();
        let written = self.table.write_back(|_| {
            // An entry that changed since is among those that are written.
            if changed || self.state.has_changed() { self.state.mark_open(store) } else { Ok(()) }
        });
        if written.is_err() && changed {
            self.state.note_change();
        }
        written
    }
}

impl ImageWrite for ParallelsImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        self.begin()?;
        self.table.try_place(self, range)
    }

    fn claims(&self) -> Option<&Claims> {
        Some(self.table.claims())
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        self.state.note_change();
        Ok(self.table.try_commit(reserved))
    }

    fn abandon(&self, reserved: &Reserved) {
        self.table.abandon(reserved);
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let found = self.map(range)?;
        match found.source {
            Source::Data { .. } if how.unmap => self.release(range.first(found.len), how.below),
            Source::Data { .. } => Ok(Handled::ByData(found.len)),
            // No entry hides what lies below.
            Source::Absent { .. } if how.below == Below::Image => Ok(Handled::ByData(found.len)),
            _ => Ok(Handled::Done(found.len)),
        }
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.zero(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        let _round = self.lock_round();
        self.write_back()?;
        if !self.state.has_begun() {
            return Ok(());
        }
        let store = &**self.table.store();
        // What is freed must not look like lost data, and others count what is left at the end.
        self.table.space().punch_freed(store)?;
        self.table.space().shorten(store)?;
        self.state.mark_closed(store)
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        Some(self.table.store())
    }

    fn unit(&self) -> u64 {
        self.header.cluster
    }
}
