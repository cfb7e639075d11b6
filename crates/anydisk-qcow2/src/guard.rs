//! The overlap guard: which host clusters hold metadata.
//!
//! Metadata is never handed out as data, and a write in place never lands in metadata, whatever
//! the tables of a damaged or hostile image say. The question is asked for every write, so most
//! answers come from a filter without a lock; only where that says "perhaps" is the map asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Host clusters that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clusters {
    /// Number of the first.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
}

impl Clusters {
    pub(crate) const fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }

    /// The clusters that `len` bytes at `at` touch.
    pub(crate) const fn touched(at: u64, len: u64, cluster_bits: u32) -> Self {
        let first = at >> cluster_bits;
        if len == 0 {
            return Self { first, count: 0 };
        }
        Self { first, count: (at.saturating_add(len - 1) >> cluster_bits) - first + 1 }
    }

    /// Number of the first cluster behind.
    pub(crate) const fn end(self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// What a cluster of metadata holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metadata {
    Header,
    L1Table,
    L2Table,
    RefcountTable,
    RefcountBlock,
    SnapshotTable,
    SnapshotL1Table,
    CryptoHeader,
    Bitmap,
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "the header",
            Self::L1Table => "the L1 table",
            Self::L2Table => "an L2 table",
            Self::RefcountTable => "the refcount table",
            Self::RefcountBlock => "a refcount block",
            Self::SnapshotTable => "the snapshot table",
            Self::SnapshotL1Table => "the L1 table of a snapshot",
            Self::CryptoHeader => "the crypto header",
            Self::Bitmap => "a bitmap",
        })
    }
}

/// Where the metadata of one image is.
#[derive(Debug)]
pub(crate) struct Guard {
    /// A bit for each hash of a cluster's number; clear if no such cluster holds metadata.
    filter: Box<[AtomicU64]>,
    /// Runs by their first cluster; they do not overlap.
    exact: RwLock<BTreeMap<u64, (u64, Metadata)>>,
}

/// Two structures that claim the same cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) cluster: u64,
    pub(crate) holds: Metadata,
}

impl Guard {
    /// An empty guard that answers fast for about `expected` clusters of metadata.
    pub(crate) fn new(expected: u64) -> Self {
        // 16 bits for each make a wrong "perhaps" rare: 8 KiB to 1 MiB of memory.
        let words = (expected / 4).clamp(1 << 10, 1 << 17).next_power_of_two();
        let filter = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { filter, exact: RwLock::default() }
    }

    /// Notes that these clusters hold metadata.
    ///
    /// # Errors
    /// [`Overlap`] if one of them holds other metadata already. Saying the same twice is allowed:
    /// two L1 entries may name one L2 table.
    pub(crate) fn add(&self, clusters: Clusters, holds: Metadata) -> Result<(), Overlap> {
        let mut exact = self.write();
        if exact.get(&clusters.first) == Some(&(clusters.count, holds)) {
            return Ok(());
        }
        if let Some(overlap) = overlap(&exact, clusters) {
            return Err(overlap);
        }
        for cluster in clusters.first..clusters.end() {
            let (word, bit) = self.place(cluster);
            self.filter[word].fetch_or(bit, Relaxed);
        }
        exact.insert(clusters.first, (clusters.count, holds));
        Ok(())
    }

    /// Takes what `other` says in place of what was said here.
    pub(crate) fn replace(&self, other: Self) {
        let mut exact = self.write();
        *exact = std::mem::take(&mut *other.write());
        // The filter of another size would not fit; what is not metadata any more may say "perhaps".
        for (first, (count, _)) in &*exact {
            for cluster in *first..*first + *count {
                let (word, bit) = self.place(cluster);
                self.filter[word].fetch_or(bit, Relaxed);
            }
        }
    }

    /// The run of metadata that begins at cluster `first` is metadata no more.
    pub(crate) fn remove(&self, first: u64) -> Option<Metadata> {
        // Its bits stay in the filter: they may be those of others too.
        self.write().remove(&first).map(|(_, held)| held)
    }

    /// The first of the clusters that holds metadata.
    #[inline]
    pub(crate) fn find(&self, clusters: Clusters) -> Option<Overlap> {
        let perhaps = (clusters.first..clusters.end()).any(|cluster| {
            let (word, bit) = self.place(cluster);
            self.filter[word].load(Relaxed) & bit != 0
        });
        if perhaps { self.find_exactly(clusters) } else { None }
    }

    /// The last cluster that holds metadata.
    pub(crate) fn last(&self) -> Option<u64> {
        self.read().last_key_value().map(|(first, (count, _))| first + count - 1)
    }

    #[cold]
    fn find_exactly(&self, clusters: Clusters) -> Option<Overlap> {
        overlap(&self.read(), clusters)
    }

    fn place(&self, cluster: u64) -> (usize, u64) {
        let hash = cluster.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let word = usize::try_from(hash >> 40).unwrap_or(0) & (self.filter.len() - 1);
        (word, 1 << (hash >> 34 & 63))
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, (u64, Metadata)>> {
        self.exact.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, (u64, Metadata)>> {
        self.exact.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn overlap(exact: &BTreeMap<u64, (u64, Metadata)>, clusters: Clusters) -> Option<Overlap> {
    if clusters.count == 0 {
        return None;
    }
    let before = exact.range(..clusters.first).next_back();
    let before = before.filter(|(first, (count, _))| *first + count > clusters.first);
    let found = before.or_else(|| exact.range(clusters.first..clusters.end()).next())?;
    let (first, (_, holds)) = found;
    Some(Overlap { cluster: (*first).max(clusters.first), holds: *holds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_touch_every_cluster_they_lie_in() {
        assert_eq!(Clusters::touched(0x1ff, 2, 9), Clusters::new(0, 2));
        assert_eq!(Clusters::touched(0x200, 512, 9), Clusters::new(1, 1));
        assert_eq!(Clusters::touched(0x200, 0, 9).count, 0);
    }

    #[test]
    fn a_cluster_cannot_be_two_kinds_of_metadata() {
        let guard = Guard::new(0);
        guard.add(Clusters::new(3, 4), Metadata::L1Table).expect("nothing there");
        let overlap = guard.add(Clusters::new(1, 3), Metadata::RefcountTable).unwrap_err();
        assert_eq!(overlap, Overlap { cluster: 3, holds: Metadata::L1Table });
        guard.add(Clusters::new(3, 4), Metadata::L1Table).expect("the same again");
        guard.add(Clusters::new(1, 2), Metadata::RefcountTable).expect("beside it");
    }

    proptest! {
        #[test]
        fn a_cluster_is_found_if_and_only_if_it_is_in_a_run(
            runs in proptest::collection::vec((0_u64..300, 1_u64..20), 0..10),
            gone in any::<prop::sample::Index>(),
            first in 0_u64..320, count in 0_u64..20,
        ) {
            let guard = Guard::new(0);
            let asked = Clusters::new(first, count);
            let mut model = vec![false; 400];
            let mut kept = Vec::new();
            for (first, count) in runs {
                let run = Clusters::new(first, count);
                // Said twice, it is noted once.
                if guard.add(run, Metadata::L2Table).is_ok() && !kept.contains(&run) {
                    kept.push(run);
                }
            }
            if !kept.is_empty() {
                let gone = kept.swap_remove(gone.index(kept.len()));
                guard.remove(gone.first);
            }
            for run in kept {
                (run.first..run.end()).for_each(|n| model[usize::try_from(n).expect("small")] = true);
            }
            let hit = (asked.first..asked.end()).find(|n| model[usize::try_from(*n).expect("small")]);
            prop_assert_eq!(guard.find(asked).map(|overlap| overlap.cluster), hit);
        }
    }
}
