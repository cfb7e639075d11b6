//! Which clusters are free, a bit for each.

use anydisk_core::Result;

use crate::check::Named;
use crate::check::counts::Reader;

/// Free clusters that can be counted, of the whole file.
#[derive(Debug, Default)]
pub(super) struct Free {
    words: Vec<u64>,
    /// Clusters in use.
    pub(super) used: u64,
    /// Behind the last cluster in use.
    pub(super) end: u64,
}

impl Free {
    /// What the refcounts say, which are right.
    pub(super) fn of(image: &Named<'_>) -> Result<Self> {
        let (subject, end) = (image.subject, image.subject.end());
        let words = usize::try_from(end.div_ceil(64)).unwrap_or(0);
        let mut free = Self { words: vec![0; words], used: 0, end: 0 };
        let mut reader = Reader::new(subject, &image.blocks);
        for unit in image.blocks.all_good_units(subject) {
            let Some(counts) = reader.read_or_zero(unit)? else { continue };
            for (cluster, count) in (unit.first..end).zip(counts) {
                if *count == 0 {
                    free.set(cluster);
                } else {
                    (free.used, free.end) = (free.used + 1, free.end.max(cluster + 1));
                }
            }
        }
        Ok(free)
    }

    /// These clusters, of a file of `end`.
    #[cfg(test)]
    pub(super) fn of_clusters(clusters: impl Iterator<Item = u64>, end: u64) -> Self {
        let words = usize::try_from(end.div_ceil(64)).unwrap_or(0);
        let mut free = Self { words: vec![0; words], used: 0, end };
        clusters.for_each(|cluster| free.set(cluster));
        free
    }

    /// Bytes for a file of so many clusters.
    pub(super) const fn len(clusters: u64) -> u64 {
        clusters.div_ceil(8)
    }

    fn set(&mut self, cluster: u64) {
        if let Some(word) = usize::try_from(cluster / 64).ok().and_then(|at| self.words.get_mut(at))
        {
            *word |= 1 << (cluster % 64);
        }
    }

    pub(super) fn remove(&mut self, cluster: u64) {
        if let Some(word) = usize::try_from(cluster / 64).ok().and_then(|at| self.words.get_mut(at))
        {
            *word &= !(1 << (cluster % 64));
        }
    }

    fn word(&self, cluster: u64) -> u64 {
        let word = usize::try_from(cluster / 64).ok().and_then(|at| self.words.get(at));
        word.copied().unwrap_or(0) >> (cluster % 64)
    }

    pub(super) fn contains(&self, cluster: u64) -> bool {
        self.word(cluster) & 1 != 0
    }

    /// The first free cluster from `from` on and before `below`.
    pub(super) fn next(&self, mut from: u64, below: u64) -> Option<u64> {
        while from < below {
            let word = self.word(from);
            if word != 0 {
                let found = from + u64::from(word.trailing_zeros());
                return (found < below).then_some(found);
            }
            from = (from / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_next_free_cluster_is_that_of_a_set(
            clusters in proptest::collection::btree_set(0_u64..300, 0..40),
            from in 0_u64..320,
            below in 0_u64..320,
        ) {
            let mut free = Free::of_clusters(clusters.iter().copied(), 300);
            let next = |set: &BTreeSet<u64>| set.range(from..below.max(from)).next().copied();
            prop_assert_eq!(free.next(from, below), next(&clusters));
            let mut rest = clusters.clone();
            if let Some(first) = rest.pop_first() {
                free.remove(first);
                prop_assert!(!free.contains(first));
            }
            prop_assert_eq!(free.next(from, below), next(&rest));
        }
    }
}
