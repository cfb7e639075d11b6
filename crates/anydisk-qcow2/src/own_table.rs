//! L2 tables that are this disk's own: new ones, and copies of those that a snapshot shares.

use anydisk_core::{
    GuestOffset, GuestRange, HostOffset, Image, Inserted, Result, StorageExt, Updated,
};

use crate::alloc::{Freed, Fresh, Taken, Wanted};
use crate::entry::L1Entry;
use crate::guard::{Clusters, Metadata};
use crate::image::Table;
use crate::table::L1Run;
use crate::write::{NewTables, Step, WritableImage, done};

impl WritableImage {
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
        let old = match done!(self.l1_run(range)?) {
            L1Run::Table { at, copied: true } => return Ok(Step::Done(at)),
            L1Run::Table { at, .. } => Some(at),
            L1Run::Absent(_) => None,
        };
        let fresh = done!(self.cluster_for_table(&mut tables)?);
        if !may_block && (old.is_some() || !fresh.zeroed) {
            tables.wanted.push(guest);
            return Ok(Step::Full);
        }
        self.make_table(&mut tables, guest, old, fresh)
    }

    /// A cluster for the next table. It stays the next one until it is a table.
    fn cluster_for_table(&self, tables: &mut NewTables) -> Result<Step<'_, Fresh>> {
        if let Some(fresh) = tables.spare {
            return Ok(Step::Done(fresh));
        }
        Ok(match self.space.take(Wanted::ONE, Some(Metadata::L2Table))? {
            Taken::Space(fresh) => Step::Done(*tables.spare.insert(fresh)),
            Taken::Missing(slice) => Step::Need(self.need_counts(slice)),
            Taken::Full => Step::Full,
        })
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
