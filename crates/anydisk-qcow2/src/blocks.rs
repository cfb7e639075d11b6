//! New refcount blocks, and a refcount table that grows (qcow2, "Host cluster management").
//!
//! Each new block lies in the range that it counts and so counts itself: nothing recurs. The
//! blocks of a new table lie before it, in the range behind everything in use.

use std::ops::Range;

use anydisk_core::{Error, HostOffset, Inserted, Result, Storage, Updated};

use crate::alloc::{Allocator, Freed, RefcountTable, State, bytes_of, overlapping, words_of};
use crate::guard::{Clusters, Metadata};
use crate::{Header, NAME, limits};

/// Places of refcount blocks in the refcount table (bits 0 to 8 are reserved).
const BLOCK_OFFSET: u64 = !0x1ff;

/// What must be written before anything may refer to newly counted clusters.
#[derive(Debug)]
pub(crate) struct TableChange {
    at: HostOffset,
    clusters: u64,
    entries: Range<usize>,
    blocks: Vec<u64>,
    moved: bool,
}

impl RefcountTable {
    /// Reads the table that the header names.
    pub(super) fn read(store: &dyn Storage, header: &Header) -> Result<Self> {
        let at = header.refcount_table_offset;
        let clusters = u64::from(header.refcount_table_clusters);
        let len = usize::try_from(clusters << header.cluster_bits).unwrap_or(0);
        let mut bytes = vec![0; len];
        let count = store.read_at(at, &mut bytes)?;
        bytes[count..].fill(0);
        let blocks = words_of(&bytes).into_iter().map(|entry| entry & BLOCK_OFFSET).collect();
        Ok(Self { at, clusters, blocks, changed: None, moved: false })
    }

    fn set(&mut self, number: usize, block: HostOffset) {
        self.blocks[number] = block.get();
        self.note(number..number + 1);
    }

    /// Whether the medium has all of it.
    pub(super) fn is_settled(&self) -> bool {
        self.changed.is_none()
    }

    pub(super) fn note(&mut self, entries: Range<usize>) {
        self.changed = Some(match self.changed.take() {
            Some(old) => old.start.min(entries.start)..old.end.max(entries.end),
            None => entries,
        });
    }
}

impl Allocator {
    /// Makes the refcount block that counts `cluster`, which is free, in that very cluster.
    pub(super) fn add_block(&self, state: &mut State, cluster: u64) -> Result<()> {
        let run = Clusters::new(cluster, 1);
        self.check_free(state, run)?;
        let number = cluster / self.per_block();
        match usize::try_from(number) {
            Ok(number) if number < state.table.blocks.len() => {
                self.make_block(state, number, cluster)?;
                self.count(state, run)
            }
            _ => self.grow_table(state, cluster),
        }
    }

    /// An empty block in `cluster`.
    pub(super) fn make_block(&self, state: &mut State, number: usize, cluster: u64) -> Result<()> {
        let at = self.offset(cluster);
        if !state.enter(Clusters::new(cluster, 1)) {
            self.store.write_at(at, &vec![0; 1 << self.cluster_bits])?;
        }
        self.guard.add(Clusters::new(cluster, 1), Metadata::RefcountBlock).map_err(overlapping)?;
        state.table.set(number, at);
        Ok(())
    }

    /// Sets the counts of new clusters, whose blocks are new, to 1.
    fn count(&self, state: &State, run: Clusters) -> Result<()> {
        for cluster in run.first..run.end() {
            let Some((slice, index)) = self.slot(state, cluster) else { continue };
            let count = || self.counts.update(slice, |words| self.width.set(words, index, 1));
            loop {
                let full = match count() {
                    Updated::Done(()) => break,
                    // The file has zeroes here, or nothing.
                    Updated::Missing => self.counts.create(slice, []) == Inserted::Full,
                    Updated::Full => true,
                };
                if full {
                    self.write_counts()?;
                }
            }
        }
        Ok(())
    }

    /// Makes a table half as large again, and the blocks that count it, from `first` on. Everything
    /// there is free and has no block.
    pub(super) fn grow_table(&self, state: &mut State, first: u64) -> Result<()> {
        let plan = self.plan_table(state, first)?;
        self.check_free(state, Clusters::new(first, plan.blocks + plan.table))?;
        let old = Clusters::new(state.table.at.get() >> self.cluster_bits, state.table.clusters);
        let entries = plan.table << (self.cluster_bits - 3);
        state.table.blocks.resize(usize::try_from(entries).unwrap_or(0), 0);
        for index in 0..plan.blocks {
            let number = usize::try_from(plan.first_block + index).unwrap_or(usize::MAX);
            self.make_block(state, number, first + index)?;
        }
        let place = Clusters::new(first + plan.blocks, plan.table);
        self.guard.add(place, Metadata::RefcountTable).map_err(overlapping)?;
        state.enter(place);
        self.count(state, Clusters::new(first, plan.blocks + plan.table))?;
        state.table.at = self.offset(place.first);
        state.table.clusters = plan.table;
        state.table.moved = true;
        state.table.changed = Some(0..state.table.blocks.len());
        state.retire(Freed { clusters: old, discard: false });
        Ok(())
    }

    /// How many blocks count a new table and themselves, and how large the table must be: each
    /// depends on the other, and both only grow.
    fn plan_table(&self, state: &State, first: u64) -> Result<TablePlan> {
        let entries_per_cluster = 1_u64 << (self.cluster_bits - 3);
        let first_block = first / self.per_block();
        let half_more = state.table.clusters + state.table.clusters.div_ceil(2);
        let mut plan = TablePlan { first_block, blocks: 1, table: half_more };
        loop {
            let last = (first + plan.blocks + plan.table - 1) / self.per_block();
            let blocks = last - first_block + 1;
            let table = plan.table.max((last + 1).div_ceil(entries_per_cluster));
            let (found, limit) = (table << self.cluster_bits, limits::REFCOUNT_TABLE);
            if found > limit {
                let what = "refcount table, in bytes".into();
                return Err(Error::Limit { format: NAME, what, found, limit });
            }
            if (blocks, table) == (plan.blocks, plan.table) {
                return Ok(plan);
            }
            plan = TablePlan { first_block, blocks, table };
        }
    }

    /// What the refcount table needs written, if anything. On failure [give it
    /// back](Self::put_back).
    pub(crate) fn take_table_change(&self) -> Option<TableChange> {
        let mut state = self.lock();
        let table = &mut state.table;
        let entries = table.changed.take()?;
        let blocks = table.blocks[entries.clone()].to_vec();
        let moved = std::mem::take(&mut table.moved);
        Some(TableChange { at: table.at, clusters: table.clusters, entries, blocks, moved })
    }

    /// The change is not on the medium.
    pub(crate) fn put_back(&self, change: TableChange) {
        let mut state = self.lock();
        if state.table.at == change.at {
            state.table.note(change.entries);
            state.table.moved |= change.moved;
        } // Else the table has moved on meanwhile, and all of it waits for being written.
    }

    /// Makes new blocks durable, and then the table that names them. The counts in the blocks
    /// have been written.
    pub(crate) fn write_table(&self, change: &TableChange) -> Result<()> {
        let at = change.at.saturating_add(change.entries.start as u64 * 8);
        if !change.moved {
            self.store.flush()?;
            return Ok(self.store.write_at(at, &bytes_of(&change.blocks))?);
        }
        self.store.write_at(at, &bytes_of(&change.blocks))?;
        let clusters = u32::try_from(change.clusters).expect("at most 8 MiB of table");
        self.live.set_refcount_table(change.at, clusters)
    }
}

struct TablePlan {
    first_block: u64,
    blocks: u64,
    table: u64,
}
