//! Space in one piece, however long: tables that many clusters hold.

use anydisk_core::{Result, Updated};

use crate::alloc::{Allocator, Freed, State, Taken, Wanted, overlapping};
use crate::guard::{Clusters, Metadata};

impl Allocator {
    /// Takes `count` clusters that follow each other, at least one, reading refcounts as needed.
    /// What they hold is not noted.
    ///
    /// # Errors
    /// As [`take`](Self::take), and those of reading and writing refcounts.
    pub(crate) fn take_run(&self, count: u64) -> Result<Clusters> {
        // In longer pieces holes are not sought: a search sees no farther than a slice.
        if count > self.per_slice() / 2 {
            return self.take_behind(0, count);
        }
        loop {
            match self.take(Wanted::exactly(count), None)? {
                Taken::Space(fresh) => return Ok(fresh.clusters),
                Taken::Missing(slice) => self.load(slice)?,
                Taken::Full => self.write_counts()?,
            }
        }
    }

    /// Takes `count` clusters wherever they are, in as few pieces as it finds.
    ///
    /// # Errors
    /// As [`take_run`](Self::take_run); then nothing is taken.
    pub(crate) fn take_pieces(&self, mut count: u64) -> Result<Vec<Clusters>> {
        let mut pieces = Vec::new();
        while count > 0 {
            let taken = match self.take(Wanted::up_to(count), None) {
                Ok(Taken::Space(fresh)) => {
                    count -= fresh.clusters.count;
                    pieces.push(fresh.clusters);
                    Ok(())
                }
                Ok(Taken::Missing(slice)) => self.load(slice),
                Ok(Taken::Full) => self.write_counts(),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                self.give_back(pieces);
                return Err(error);
            }
        }
        Ok(pieces)
    }

    /// Drops the reference to each of the clusters, which no table names.
    pub(crate) fn give_back(&self, pieces: impl IntoIterator<Item = Clusters>) {
        self.retire(pieces.into_iter().map(|clusters| Freed { clusters, discard: false }));
    }

    /// As [`take_run`](Self::take_run), behind the end of the file: nothing lies there, whatever the
    /// refcounts say.
    pub(crate) fn take_run_behind_file(&self, count: u64) -> Result<Clusters> {
        let end = self.store.len()?.div_ceil(1 << self.cluster_bits);
        self.take_behind(end, count)
    }

    /// What is taken next lies behind the end of the file, if nothing is freed meanwhile: nothing is
    /// in the way there, whatever the refcounts say.
    pub(crate) fn go_behind_file(&self) {
        let mut state = self.lock();
        state.end = state.end.max(state.virgin);
        state.hunt = state.end;
    }

    /// Takes `count` clusters behind everything in use, from cluster `least` on.
    fn take_behind(&self, least: u64, count: u64) -> Result<Clusters> {
        let mut state = self.lock();
        state.check()?;
        loop {
            let first = state.end.max(least).max(state.frozen);
            let missing = self.blocks_missing(&state, first, count);
            let all = Clusters::new(first, count + missing.len() as u64);
            let reach = state.table.blocks.len() as u64 * self.per_block();
            if all.end() > reach {
                self.grow_table(&mut state, reach)?;
                continue;
            }
            self.check_free(&mut state, all)?;
            for (block, cluster) in missing.iter().zip(first..) {
                self.make_block(&mut state, *block, cluster)?;
            }
            self.count_new(&state, all)?;
            let run = Clusters::new(all.end() - count, count);
            state.enter(run);
            return Ok(run);
        }
    }

    /// The refcount blocks that must be made to count `count` clusters and themselves from `first`
    /// on.
    fn blocks_missing(&self, state: &State, first: u64, count: u64) -> Vec<usize> {
        let mut missing = Vec::new();
        loop {
            let last = first + count + missing.len() as u64 - 1;
            let blocks = first / self.per_block()..=last / self.per_block();
            let number = |block| usize::try_from(block).unwrap_or(usize::MAX);
            let has = |block: &usize| state.table.blocks.get(*block).is_some_and(|at| *at != 0);
            let more: Vec<_> = blocks.map(number).filter(|block| !has(block)).collect();
            if more.len() == missing.len() {
                return missing;
            }
            missing = more;
        }
    }

    /// Sets the counts of clusters that were free to 1.
    fn count_new(&self, state: &State, run: Clusters) -> Result<()> {
        for cluster in run.first..run.end() {
            let Some((slice, index)) = self.slot(state, cluster) else { continue };
            loop {
                match self.counts.update(slice, |words| self.width.set(words, index, 1)) {
                    Updated::Done(()) => break,
                    Updated::Missing => self.load(slice)?,
                    Updated::Full => self.write_counts()?,
                }
            }
        }
        Ok(())
    }

    /// Notes what clusters hold.
    ///
    /// # Errors
    /// [`NeedsRepair`](anydisk_core::Error::NeedsRepair) if they hold something else already.
    pub(crate) fn note(&self, clusters: Clusters, holds: Metadata) -> Result<()> {
        if clusters.count == 0 {
            Ok(())
        } else {
            self.guard.add(clusters, holds).map_err(overlapping)
        }
    }
}
