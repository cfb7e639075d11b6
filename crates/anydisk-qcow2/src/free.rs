//! Space on its way back: references dropped, refcounts lowered, clusters free again.

use anydisk_core::{HostOffset, Result, Updated};

use crate::alloc::{Allocator, Freed, State};
use crate::guard::Clusters;

/// Why counts in memory cannot be changed now.
enum Blocked {
    Missing(HostOffset),
    Full,
}

impl Allocator {
    /// Notes references that the tables in memory have dropped. Call it **after** changing the
    /// tables, while the write-back cannot begin.
    pub(crate) fn retire(&self, freed: impl IntoIterator<Item = Freed>) {
        let mut freed = freed.into_iter().peekable();
        if freed.peek().is_some() {
            let mut state = self.lock();
            freed.for_each(|freed| state.retire(freed));
        }
    }

    /// Takes what has been retired so far, to be [lowered](Self::lower) when the tables are on the
    /// medium, or [put back](Self::retire).
    pub(crate) fn take_retired(&self) -> Vec<Freed> {
        std::mem::take(&mut self.lock().retired)
    }

    /// Lowers the refcount of each cluster by one: nothing on the medium needs the reference. Does
    /// not write. Returns the clusters that nothing refers to now. Where counts are known to be damaged,
    /// or are not where they were, none is changed: the clusters are lost.
    ///
    /// # Errors
    /// Those of reading refcounts; `freed` is then shorter by what was done.
    pub(crate) fn lower(&self, freed: &mut Freed, free: &mut Vec<Clusters>) -> Result<()> {
        while freed.clusters.count > 0 {
            let mut state = self.lock();
            if state.check().is_err() {
                freed.clusters.count = 0;
                return Ok(());
            }
            match self.lower_slice(&mut state, freed, free) {
                Ok(done) => {
                    freed.clusters.first += done;
                    freed.clusters.count -= done;
                }
                Err(Blocked::Missing(slice)) => {
                    drop(state);
                    self.load(slice)?;
                }
                Err(Blocked::Full) => {
                    drop(state);
                    self.write_counts()?;
                }
            }
        }
        Ok(())
    }

    /// Lowers the counts that lie in the first slice; how many these are.
    fn lower_slice(
        &self,
        state: &mut State,
        freed: &Freed,
        free: &mut Vec<Clusters>,
    ) -> Result<u64, Blocked> {
        let first = freed.clusters.first;
        let Some((slice, index)) = self.slot(state, first) else {
            state.damage(format!("no refcount block for the cluster at {}", self.offset(first)));
            return Ok(freed.clusters.count.min(self.per_block() - first % self.per_block()));
        };
        let count = freed.clusters.count.min(self.per_slice() - index as u64);
        let end = index + usize::try_from(count).unwrap_or(0);
        let lowered = self.counts.update(slice, |words| {
            let mut zero = Vec::new();
            let mut wrong = None;
            for at in index..end {
                match self.width.get_mut(words, at) {
                    0 => wrong = Some(at),
                    count => {
                        self.width.set(words, at, count - 1);
                        zero.extend((count == 1).then_some(at));
                    }
                }
            }
            (zero, wrong)
        });
        let (zero, wrong) = match lowered {
            Updated::Done(lowered) => lowered,
            Updated::Missing => return Err(Blocked::Missing(slice)),
            Updated::Full => return Err(Blocked::Full),
        };
        let number = |at: usize| first - index as u64 + at as u64;
        if let Some(wrong) = wrong {
            let at = self.offset(number(wrong));
            state.damage(format!("the refcount of the cluster at {at}, which was in use, is 0"));
        }
        for run in runs(zero.into_iter().map(number)) {
            state.lay_aside(Freed { clusters: run, discard: freed.discard }, self.cluster_bits);
            free.push(run);
        }
        Ok(count)
    }

    /// Gives the space that nobody can be using any more back to whoever asks next, and to the
    /// file system where the guest gave it up.
    pub(crate) fn release(&self) {
        let released = self.lock().quarantine.release(&self.leases);
        for freed in released.iter().filter(|freed| freed.discard) {
            let (at, len) = (self.offset(freed.clusters.first), freed.clusters.count);
            if let Some(space) = self.store.space() {
                // Only the host's space is at stake: not every file system can.
                let _ = space.discard(at, len << self.cluster_bits);
            }
        }
        let mut state = self.lock();
        if !state.thaw.release(&self.leases).is_empty() {
            (state.frozen, state.hunt) = (0, 1);
        }
        for freed in released {
            state.embargo.remove(&freed.clusters.first);
            state.hunt = state.hunt.min(freed.clusters.first);
        }
    }

    /// Hands out nothing that lies in the file until nobody who looked before now can be reading there.
    pub(crate) fn freeze(&self) -> Result<()> {
        let end = self.store.len()?.div_ceil(1 << self.cluster_bits);
        let mut state = self.lock();
        state.frozen = state.frozen.max(end);
        state.thaw.retire(());
        let sealed = state.thaw.seal();
        state.thaw.durable(&self.leases, sealed);
        Ok(())
    }

    /// What was laid aside is unreferenced on the medium: it waits for leases only.
    pub(crate) fn age(&self) {
        let mut state = self.lock();
        let sealed = state.quarantine.seal();
        state.quarantine.durable(&self.leases, sealed);
    }
}

impl State {
    pub(super) fn retire(&mut self, freed: Freed) {
        let Freed { clusters, discard } = freed;
        match self.retired.last_mut() {
            Some(last) if last.clusters.end() == clusters.first && last.discard == discard => {
                last.clusters.count += clusters.count;
            }
            _ => self.retired.push(freed),
        }
    }

    /// Nothing on the medium refers to the clusters; someone may still be reading or writing them.
    fn lay_aside(&mut self, freed: Freed, cluster_bits: u32) {
        let run = freed.clusters;
        self.embargo.insert(run.first, run.end());
        self.quarantine.retire(freed);
        if self.packed.is_some_and(|at| (run.first..run.end()).contains(&(at >> cluster_bits))) {
            self.packed = None;
        }
    }
}

/// Rising numbers as runs.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<Clusters> {
    let mut runs: Vec<Clusters> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(last) if last.end() == number => last.count += 1,
            _ => runs.push(Clusters::new(number, 1)),
        }
    }
    runs
}
