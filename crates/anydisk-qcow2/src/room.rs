//! Room for a new state of the metadata: planned, and taken before anything changes.

use anydisk_core::Result;

use crate::alloc::{Allocator, needs_repair};
use crate::alone::{Alone, Frozen};
use crate::guard::Clusters;
use crate::write::WritableImage;

/// Clusters that a new state takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// L2 tables that may be written anew.
    pub(crate) tables: u64,
    /// Bytes of the new L1 table.
    pub(crate) l1: u64,
    /// Bytes of the L1 table of a new snapshot.
    pub(crate) snapshot_l1: u64,
    /// Bytes of the new snapshot table.
    pub(crate) snapshots: u64,
}

/// Clusters that were taken for a new state; their counts are on the medium.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// For tables and blocks of one cluster.
    pub(crate) single: Vec<Clusters>,
    pub(crate) refcount_table: Option<Clusters>,
    pub(crate) l1: Option<Clusters>,
    pub(crate) snapshot_l1: Option<Clusters>,
    pub(crate) snapshots: Option<Clusters>,
}

impl WritableImage {
    /// Takes the room that `plan` asks for, and waits until nothing else changes. The plan is made
    /// anew until it fits: room that is taken may need new refcount blocks.
    pub(crate) fn room_for<'a>(
        &'a self,
        frozen: &'a Frozen<'_>,
        plan: impl Fn() -> Result<Plan>,
    ) -> Result<(Alone<'a>, Room)> {
        let mut room = Room::default();
        let found = loop {
            let alone = match self.alone_in(frozen) {
                Ok(alone) => alone,
                Err(error) => break Err(error),
            };
            let wanted = match plan() {
                Ok(plan) => room.wanted(self, &plan),
                Err(error) => break Err(error),
            };
            if room.fits(&wanted) {
                break Ok(alone);
            }
            drop(alone);
            if let Err(error) = room.take(&self.space, &wanted) {
                break Err(error);
            }
        };
        match found {
            Ok(alone) => Ok((alone, room)),
            Err(error) => {
                self.space.give_back(room.into_all());
                Err(error)
            }
        }
    }
}

/// Clusters by what they are for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    single: u64,
    refcount_table: u64,
    l1: u64,
    snapshot_l1: u64,
    snapshots: u64,
}

impl Room {
    fn wanted(&self, image: &WritableImage, plan: &Plan) -> Wanted {
        let bits = image.shared.geometry.cluster_bits();
        let clusters = |bytes| Clusters::touched(0, bytes, bits).count;
        let state = image.space.lock();
        let blocks = state.table.blocks.iter().filter(|block| **block != 0).count();
        Wanted {
            single: plan.tables + blocks as u64,
            refcount_table: state.table.clusters,
            l1: clusters(plan.l1),
            snapshot_l1: clusters(plan.snapshot_l1),
            snapshots: clusters(plan.snapshots),
        }
    }

    fn fits(&self, wanted: &Wanted) -> bool {
        let count = |run: Option<Clusters>| run.map_or(0, |run| run.count);
        let single: u64 = self.single.iter().map(|run| run.count).sum();
        single >= wanted.single
            && count(self.refcount_table) == wanted.refcount_table
            && count(self.l1) == wanted.l1
            && count(self.snapshot_l1) == wanted.snapshot_l1
            && count(self.snapshots) == wanted.snapshots
    }

    fn take(&mut self, space: &Allocator, wanted: &Wanted) -> Result<()> {
        for (run, count) in [
            (&mut self.refcount_table, wanted.refcount_table),
            (&mut self.l1, wanted.l1),
            (&mut self.snapshot_l1, wanted.snapshot_l1),
            (&mut self.snapshots, wanted.snapshots),
        ] {
            if run.map_or(0, |run| run.count) != count {
                space.give_back(run.take());
                *run = (count > 0).then(|| space.take_run(count)).transpose()?;
            }
        }
        let single: u64 = self.single.iter().map(|run| run.count).sum();
        self.single.extend(space.take_pieces(wanted.single.saturating_sub(single))?);
        Ok(())
    }

    pub(crate) fn into_all(self) -> impl Iterator<Item = Clusters> {
        let runs = [self.refcount_table, self.l1, self.snapshot_l1, self.snapshots];
        runs.into_iter().flatten().chain(self.single)
    }

    /// One of the single clusters.
    pub(crate) fn next(&mut self) -> Result<u64> {
        let Some(last) = self.single.last_mut() else {
            return Err(needs_repair("the tables refer to more than was counted"));
        };
        last.count -= 1;
        let cluster = last.end();
        if last.count == 0 {
            self.single.pop();
        }
        Ok(cluster)
    }
}
