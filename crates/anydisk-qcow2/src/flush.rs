//! Writing back, in the order in which nothing can be lost.
//!
//! ```text
//!   pictures of what changed: L1, L2, dropped references, refcount table
//!   refcounts; where blocks are new:        flush, the refcount table
//!   new L2 tables that no L1 entry names    flush  <- guest data is durable from here on
//!   changed L2 tables, L1 table             flush
//!   marks of bitmaps that are stored        flush
//!   lower the refcounts of what nothing on the medium refers to: a leak if that is lost
//! ```
//!
//! So a reference is on the medium only with a refcount and with the content it names, and a
//! cluster comes back into use only when nothing on the medium refers to it.

use std::collections::BTreeSet;

use anydisk_core::Storage;
use anydisk_core::{DirtySlice, HostOffset, Result, TableCache};

use crate::alloc::{Freed, bytes_of};
use crate::bitmap::Stored;
use crate::blocks::TableChange;
use crate::guard::{Clusters, Metadata};
use crate::write::WritableImage;

/// What one write-back writes.
struct Pictures {
    l1: Vec<DirtySlice>,
    l2: Vec<DirtySlice>,
    /// L2 tables that no L1 entry on the medium names before.
    unlinked: BTreeSet<HostOffset>,
    freed: Vec<Freed>,
    counts: Vec<DirtySlice>,
    refcount_table: Option<TableChange>,
}

impl WritableImage {
    /// Makes everything that was done before durable.
    pub(crate) fn write_back(&self) -> Result<()> {
        let _round = self.round();
        self.write_round()
    }

    /// The same for whoever holds the round.
    pub(crate) fn write_round(&self) -> Result<()> {
        self.live.doubt.check()?;
        // Before the pictures: it takes clusters, whose counts must be in them.
        let mut bitmaps = self.begin_storing()?;
        let mut pictures = self.take_pictures();
        if let Err(error) = self.write_pictures(&mut pictures, &mut bitmaps) {
            self.put_back_bitmaps(bitmaps);
            self.put_back(pictures);
            return Err(error);
        }
        let finished = self.finish_storing(&bitmaps);
        self.lower(pictures.freed)?;
        self.space.release();
        finished
    }

    /// References before what they refer to: nothing is in a picture whose refcount is not.
    fn take_pictures(&self) -> Pictures {
        let _stopped = self.stop();
        Pictures {
            l1: self.shared.l1.dirty(),
            l2: self.shared.l2.dirty(),
            unlinked: std::mem::take(&mut self.new_tables().unlinked),
            freed: self.space.take_retired(),
            counts: self.space.dirty_counts(),
            refcount_table: self.space.take_table_change(),
        }
    }

    fn write_pictures(&self, pictures: &mut Pictures, bitmaps: &mut Stored) -> Result<()> {
        let store = &*self.shared.store;
        self.space.extend_file()?;
        write_slices(store, pictures.counts.iter().map(|picture| (picture, usize::MAX)))?;
        if let Some(change) = &pictures.refcount_table {
            self.space.write_table(change)?;
        }
        let cluster_size = self.shared.geometry.cluster_size();
        let is_new = |picture: &&DirtySlice| {
            let table = HostOffset(picture.at.get() & !(cluster_size - 1));
            pictures.unlinked.contains(&table)
        };
        let (new, old): (Vec<&DirtySlice>, Vec<_>) = pictures.l2.iter().partition(is_new);
        write_slices(store, new.into_iter().map(|picture| (picture, usize::MAX)))?;
        if self.shared.geometry.has_data_file() {
            self.shared.data.flush()?;
        }
        store.flush()?;
        self.space.settle_counts(&pictures.counts);
        pictures.counts.clear();
        pictures.refcount_table = None;
        if pictures.l2.is_empty() && pictures.l1.is_empty() && bitmaps.links.is_empty() {
            return Ok(());
        }
        self.link_bitmaps(bitmaps)?;
        write_slices(store, old.into_iter().map(|picture| (picture, usize::MAX)))?;
        write_slices(
            store,
            pictures.l1.iter().map(|picture| (picture, self.l1_words(picture.at))),
        )?;
        store.flush()?;
        settle(&self.shared.l2, &pictures.l2);
        settle(&self.shared.l1, &pictures.l1);
        Ok(())
    }

    /// Words of a slice that belong to the L1 table: behind its end lies something else.
    fn l1_words(&self, slice: HostOffset) -> usize {
        let first = slice.get().saturating_sub(self.shared.l1_table().get()) / 8;
        let entries = u64::from(self.live.with(|header| header.l1_size));
        usize::try_from(entries.saturating_sub(first)).unwrap_or(0)
    }

    /// After a failure everything stays as if no write-back had begun.
    fn put_back(&self, pictures: Pictures) {
        self.new_tables().unlinked.extend(pictures.unlinked);
        self.space.retire(pictures.freed);
        if let Some(change) = pictures.refcount_table {
            self.space.put_back(change);
        }
    }

    /// Lowers the refcounts of references that are gone from the medium.
    fn lower(&self, freed: Vec<Freed>) -> Result<()> {
        if freed.is_empty() {
            return Ok(());
        }
        let mut rest = freed.into_iter();
        let mut free = Vec::new();
        let mut lowered = Ok(());
        while lowered.is_ok()
            && let Some(mut next) = rest.next()
        {
            lowered = self.space.lower(&mut next, &mut free);
            if lowered.is_err() {
                self.space.retire([next]);
            }
        }
        self.space.retire(rest);
        free.into_iter().for_each(|run| self.forget_tables(run));
        lowered?;
        self.space.write_counts()?;
        self.space.age();
        Ok(())
    }

    /// Clusters that are free now hold no tables any more.
    fn forget_tables(&self, run: Clusters) {
        for cluster in run.first..run.end() {
            let Some(found) = self.space.guard().find(Clusters::new(cluster, 1)) else { continue };
            self.space.guard().remove(cluster);
            if found.holds == Metadata::L2Table {
                self.forget_slices(self.space.offset(cluster));
            }
        }
    }

    pub(crate) fn forget_slices(&self, table: HostOffset) {
        let slices =
            (0..self.shared.geometry.cluster_size()).step_by(self.shared.geometry.slice_len());
        slices.for_each(|inside| self.shared.l2.remove(table.saturating_add(inside)));
    }
}

fn settle(cache: &TableCache, pictures: &[DirtySlice]) {
    pictures.iter().for_each(|picture| cache.settle(picture));
}

/// Writes the first words of each slice; those that follow each other in one piece.
fn write_slices<'a>(
    store: &dyn Storage,
    slices: impl Iterator<Item = (&'a DirtySlice, usize)>,
) -> Result<()> {
    let mut piece = (HostOffset::ZERO, Vec::new());
    for (slice, words) in slices {
        let bytes = bytes_of(&slice.entries[..slice.entries.len().min(words)]);
        if piece.0.saturating_add(piece.1.len() as u64) != slice.at {
            write_piece(store, &piece)?;
            piece = (slice.at, bytes);
        } else {
            piece.1.extend(bytes);
        }
    }
    write_piece(store, &piece)
}

fn write_piece(store: &dyn Storage, (at, bytes): &(HostOffset, Vec<u8>)) -> Result<()> {
    if bytes.is_empty() { Ok(()) } else { Ok(store.write_at(*at, bytes)?) }
}
