//! What an allocator knows, under its lock: where free space is sought, what is on its way back.

use std::collections::BTreeMap;
use std::ops::Range;

use anydisk_core::{HostOffset, Quarantine, Result};

use crate::alloc::{Freed, Look, needs_repair};
use crate::guard::Clusters;

/// Slices of refcounts that are read for one allocation before it gives up looking for holes.
const PATIENCE: u32 = 8;

/// What is known of the space in a file.
#[derive(Debug)]
pub(super) struct State {
    pub(super) table: RefcountTable,
    pub(super) hunt: u64,
    pub(super) patience: u32,
    /// No cluster from here on has a refcount.
    pub(super) end: u64,
    /// No cluster from here on was ever written.
    pub(super) virgin: u64,
    /// Where the last packed stream ended, if its cluster has room left.
    pub(super) packed: Option<u64>,
    /// References dropped in memory only.
    pub(super) retired: Vec<Freed>,
    /// Clusters without a refcount that are still in use: first -> end.
    pub(super) embargo: BTreeMap<u64, u64>,
    pub(super) quarantine: Quarantine<Freed>,
    /// No cluster before this one is handed out: whoever looked at the tables before everything moved
    /// may still be reading there. 0: nobody is.
    pub(super) frozen: u64,
    /// Empty when nobody can be any more.
    pub(super) thaw: Quarantine<()>,
    /// The refcounts contradict the tables: nothing more is handed out.
    damage: Option<String>,
}

/// The refcount table in memory.
#[derive(Clone, Debug)]
pub(super) struct RefcountTable {
    pub(super) at: HostOffset,
    pub(super) clusters: u64,
    /// Places of the refcount blocks; 0 where there is none.
    pub(super) blocks: Vec<u64>,
    /// Entries that are not in the file yet.
    pub(super) changed: Option<Range<usize>>,
    /// The header still names another place.
    pub(super) moved: bool,
}

impl State {
    /// Nothing is known but the table, and that no cluster from `virgin` on was ever written.
    pub(super) fn new(table: RefcountTable, virgin: u64) -> Self {
        Self {
            table,
            hunt: 1,
            patience: 0,
            end: 1,
            virgin,
            packed: None,
            retired: Vec::new(),
            embargo: BTreeMap::new(),
            quarantine: Quarantine::default(),
            frozen: 0,
            thaw: Quarantine::default(),
            damage: None,
        }
    }

    /// Where to look next.
    pub(super) fn position(&self) -> u64 {
        let hunting = self.hunt < self.end && self.patience < PATIENCE;
        if hunting { self.hunt } else { self.end }
    }

    /// There is nothing between `from` and `next` any more.
    pub(super) fn pass(&mut self, from: u64, next: u64) {
        if from == self.hunt {
            self.hunt = next;
        }
        self.end = self.end.max(if from >= self.end { next } else { 0 });
    }

    /// Clusters come into use. Whether they still read as zero.
    pub(super) fn enter(&mut self, run: Clusters) -> bool {
        let zeroed = run.first >= self.virgin;
        self.virgin = self.virgin.max(run.end());
        self.end = self.end.max(run.end());
        zeroed
    }

    /// The part of `run` before the first cluster under embargo.
    pub(super) fn allowed(&self, run: Clusters) -> Look {
        if let Some((_, end)) = self.embargo.range(..=run.first).next_back()
            && *end > run.first
        {
            return Look::Next(*end);
        }
        let next = self.embargo.range(run.first..run.end()).next();
        let count = next.map_or(run.count, |(first, _)| first - run.first);
        Look::Free(Clusters::new(run.first, count))
    }

    /// Forgets where space was sought, in a file of which clusters from `virgin` on were never written.
    pub(super) fn forget_places(&mut self, virgin: u64) {
        (self.hunt, self.patience, self.end, self.virgin) = (1, 0, 1, virgin);
        self.packed = None;
    }

    /// Whether any of the clusters may still be in use without a refcount.
    pub(super) fn has_embargo(&self, run: Clusters) -> bool {
        let embargo = self.embargo.range(..run.end()).next_back();
        run.first < self.frozen || embargo.is_some_and(|(_, end)| *end > run.first)
    }

    /// Whether the cluster may still be in use without a refcount.
    pub(super) fn is_under_embargo(&self, cluster: u64) -> bool {
        self.has_embargo(Clusters::new(cluster, 1))
    }

    /// Notes that refcounts contradict the tables.
    pub(super) fn damage(&mut self, why: String) {
        self.damage.get_or_insert(why);
    }

    pub(super) fn check(&self) -> Result<()> {
        match &self.damage {
            Some(why) => Err(needs_repair(why.clone())),
            None => Ok(()),
        }
    }
}
