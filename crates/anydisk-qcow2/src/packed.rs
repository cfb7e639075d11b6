//! Space for compressed clusters: streams one behind the other, byte after byte.

use anydisk_core::{HostOffset, Result, Updated};

use crate::alloc::{Allocator, Freed, State, Taken, Wanted};
use crate::guard::Clusters;

impl Allocator {
    /// Takes `len` bytes for a stream, one reference to each cluster they touch: behind the last
    /// stream if its cluster has room, or if the cluster behind is free too; else in new clusters.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn take_packed(&self, len: u64) -> Result<Taken<HostOffset>> {
        let taken = self.take_behind_last(len)?;
        if let Some(taken) = taken {
            return Ok(taken);
        }
        let clusters = Clusters::touched(0, len, self.cluster_bits).count;
        Ok(match self.take(Wanted::exactly(clusters), None)? {
            Taken::Space(fresh) => {
                let at = self.offset(fresh.clusters.first);
                self.lock().packed = self.rest_of_cluster(at.get() + len);
                Taken::Space(at)
            }
            Taken::Missing(slice) => Taken::Missing(slice),
            Taken::Full => Taken::Full,
        })
    }

    /// Where the next stream may begin, if the cluster that ends there is not full.
    fn rest_of_cluster(&self, end: u64) -> Option<u64> {
        Some(end).filter(|end| end & ((1 << self.cluster_bits) - 1) != 0)
    }

    /// `None`: it does not fit there.
    fn take_behind_last(&self, len: u64) -> Result<Option<Taken<HostOffset>>> {
        let mut state = self.lock();
        state.check()?;
        let Some(at) = state.packed else { return Ok(None) };
        let touched = Clusters::touched(at, len, self.cluster_bits);
        let behind = Clusters::new(touched.first + 1, touched.count - 1);
        match self.may_append(&state, touched.first, behind) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(slice) => return Ok(Some(Taken::Missing(slice))),
        }
        self.check_free(&mut state, behind)?;
        for cluster in touched.first..touched.end() {
            if let Some(blocked) = self.raise(&state, cluster) {
                // What was raised already is given back like a stream that was overwritten.
                let clusters = Clusters::new(touched.first, cluster - touched.first);
                state.retire(Freed { clusters, discard: false });
                return Ok(Some(blocked));
            }
        }
        state.enter(behind);
        state.packed = self.rest_of_cluster(at + len);
        Ok(Some(Taken::Space(HostOffset(at))))
    }

    /// Whether one more stream can refer to `last`, and to the clusters behind it, which must be
    /// free; or the slice of refcounts that is missing to tell.
    fn may_append(&self, state: &State, last: u64, behind: Clusters) -> Result<bool, HostOffset> {
        let in_use = self.count_of(state, last)?;
        if !in_use.is_some_and(|count| count > 0 && count < self.width.max()) {
            return Ok(false);
        }
        for cluster in behind.first..behind.end() {
            if self.count_of(state, cluster)? != Some(0) || state.is_under_embargo(cluster) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The refcount of a cluster; `None` where there is no block to count it.
    fn count_of(&self, state: &State, cluster: u64) -> Result<Option<u64>, HostOffset> {
        let Some((slice, index)) = self.slot(state, cluster) else { return Ok(None) };
        let count = self.counts.read(slice, |words| self.width.get(&words, index));
        count.map(Some).ok_or(slice)
    }

    /// Adds a reference to a cluster whose count is not at its largest.
    fn raise(&self, state: &State, cluster: u64) -> Option<Taken<HostOffset>> {
        let (slice, index) = self.slot(state, cluster)?;
        let raised = self.counts.update(slice, |words| {
            let count = self.width.get_mut(words, index);
            self.width.set(words, index, count + 1);
        });
        match raised {
            Updated::Done(()) => None,
            Updated::Missing => Some(Taken::Missing(slice)),
            Updated::Full => Some(Taken::Full),
        }
    }
}
