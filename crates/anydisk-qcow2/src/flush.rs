//! Writing back, in the order in which nothing can be lost.
//!
//! ```text
//!   pictures of what changed: L1, L2, dropped references, refcount table
//!   refcounts; where blocks are new:        flush, the refcount table
//!   new L2 tables that no L1 entry names    flush  <- guest data is durable from here on
//!   changed L2 tables, L1 table             flush
//!   lower the refcounts of what nothing on the medium refers to: a leak if that is lost
//! ```
//!
//! So a reference is on the medium only with a refcount and with the content it names, and a
//! cluster comes back into use only when nothing on the medium refers to it.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use anydisk_core::{
    DirtySlice, GuestOffset, GuestRange, HostOffset, Result, StorageExt, TableCache,
};
use anydisk_core::{Image, Inserted, Storage, Updated};

use crate::alloc::{Freed, Fresh, Taken, Wanted, bytes_of};
use crate::blocks::TableChange;
use crate::entry::L1Entry;
use crate::guard::{Clusters, Metadata};
use crate::image::Table;
use crate::table::L1Run;
use crate::write::{NewTables, Step, WritableImage};

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
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pictures = self.take_pictures();
        if let Err(error) = self.write_pictures(&mut pictures) {
            self.put_back(pictures);
            return Err(error);
        }
        self.lower(pictures.freed)?;
        self.space.release();
        Ok(())
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

    fn write_pictures(&self, pictures: &mut Pictures) -> Result<()> {
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
        store.flush()?;
        self.space.settle_counts(&pictures.counts);
        pictures.counts.clear();
        pictures.refcount_table = None;
        if pictures.l2.is_empty() && pictures.l1.is_empty() {
            return Ok(());
        }
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
        usize::try_from(u64::from(self.shared.header.l1_size).saturating_sub(first)).unwrap_or(0)
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
        while let Some(mut next) = rest.next() {
            let lowered = self.space.lower(&mut next);
            match lowered {
                Ok(free) => free.into_iter().for_each(|run| self.forget_tables(run)),
                Err(error) => {
                    self.space.retire(std::iter::once(next).chain(rest));
                    return Err(error);
                }
            }
        }
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

    fn forget_slices(&self, table: HostOffset) {
        let slices =
            (0..self.shared.geometry.cluster_size()).step_by(self.shared.geometry.slice_len());
        slices.for_each(|inside| self.shared.l2.remove(table.saturating_add(inside)));
    }

    /// The L2 table that maps `guest`, which nothing else refers to; made now if there is none.
    /// The caller has [entered](Self::enter).
    ///
    /// Without `may_block` a table that must be copied or zeroed is only noted as wanted.
    pub(crate) fn own_table(
        &self,
        guest: GuestOffset,
        may_block: bool,
    ) -> Result<Step<'_, HostOffset>> {
        let Some(range) = GuestRange::new(guest, 1) else { return Ok(Step::Full) };
        if let Step::Done(L1Run::Table { at, copied: true }) = self.l1_run(range)? {
            return Ok(Step::Done(at));
        }
        let mut tables = self.new_tables();
        // Another thread may have made it meanwhile.
        let old = match self.l1_run(range)? {
            Step::Done(L1Run::Table { at, copied: true }) => return Ok(Step::Done(at)),
            Step::Done(L1Run::Table { at, .. }) => Some(at),
            Step::Done(L1Run::Absent(_)) => None,
            Step::Need(need) => return Ok(Step::Need(need)),
            Step::Full => return Ok(Step::Full),
        };
        if tables.spare.is_none() {
            match self.space.take(Wanted::ONE, Some(Metadata::L2Table))? {
                Taken::Space(fresh) => tables.spare = Some(fresh),
                Taken::Missing(slice) => return Ok(Step::Need(self.need_counts(slice))),
                Taken::Full => return Ok(Step::Full),
            }
        }
        let Some(fresh) = tables.spare else { return Ok(Step::Full) };
        if !may_block && (old.is_some() || !fresh.zeroed) {
            tables.wanted.push(guest);
            return Ok(Step::Full);
        }
        self.make_table(&mut tables, guest, old, fresh)
    }

    /// Fills a new table and names it in the L1 table.
    fn make_table(
        &self,
        tables: &mut NewTables,
        guest: GuestOffset,
        old: Option<HostOffset>,
        fresh: Fresh,
    ) -> Result<Step<'_, HostOffset>> {
        let shared = &self.shared;
        let at = self.space.offset(fresh.clusters.first);
        self.forget_slices(at);
        if old.is_some() || !fresh.zeroed {
            let len = usize::try_from(shared.geometry.cluster_size()).expect("at most 2 MiB");
            let mut bytes = vec![0; len];
            if let Some(old) = old {
                // Nothing is changed in a table that is shared, so the file has all of it.
                shared.store.read_padded_at(old, &mut bytes)?;
            }
            shared.store.write_at(at, &bytes)?;
        } else if shared.l2.create(shared.geometry.l2_slot(at, guest).slice, []) == Inserted::Full {
            return Ok(Step::Full);
        }
        let slot = shared.geometry.l1_slot(shared.l1_table(), guest);
        match shared.l1.update(slot.slice, |l1| l1.set(slot.word, L1Entry::own(at).0)) {
            Updated::Done(()) => {}
            Updated::Missing => return Ok(Step::Need(shared.need(Table::L1, slot.slice))),
            Updated::Full => return Ok(Step::Full),
        }
        tables.spare = None;
        tables.unlinked.insert(at);
        let old = old.map(|old| Clusters::new(old.get() >> shared.geometry.cluster_bits(), 1));
        self.space.retire(old.map(|clusters| Freed { clusters, discard: false }));
        Ok(Step::Done(at))
    }

    /// Makes the tables that could not be made without I/O. Whether there were any.
    pub(crate) fn make_wanted_tables(&self) -> Result<bool> {
        let wanted = std::mem::take(&mut self.new_tables().wanted);
        for guest in &wanted {
            loop {
                let step = {
                    let _changing = self.enter();
                    self.own_table(*guest, true)?
                };
                match step {
                    Step::Done(_) => break,
                    Step::Need(need) => self.satisfy(&need)?,
                    Step::Full => self.write_back()?,
                }
            }
        }
        Ok(!wanted.is_empty())
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
