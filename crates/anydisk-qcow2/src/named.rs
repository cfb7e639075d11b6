//! Host clusters that tables name, as far as tables were read.
//!
//! Refcounts that are too low call clusters free that hold data. What a table in memory names is
//! known not to be free, so it is not handed out, at the cost of a bit for each cluster of the file.
//! A table that nobody has read says nothing: a check reads them all.

use crate::guard::Clusters;

/// Clusters that are remembered, at most: 4 MiB of bits.
const MOST: u64 = 1 << 25;

/// Which clusters are named.
#[derive(Debug, Default)]
pub(super) struct Named {
    words: Vec<u64>,
}

impl Named {
    /// A table that was read names these.
    pub(super) fn note(&mut self, run: Clusters) {
        for cluster in run.first..run.end().min(MOST) {
            let (word, bit) = place(cluster);
            if word >= self.words.len() {
                self.words.resize((word + 1).next_power_of_two(), 0);
            }
            self.words[word] |= bit;
        }
    }

    /// Nothing names these any more.
    pub(super) fn forget(&mut self, run: Clusters) {
        for cluster in run.first..run.end().min(MOST) {
            let (word, bit) = place(cluster);
            if let Some(word) = self.words.get_mut(word) {
                *word &= !bit;
            }
        }
    }

    /// Nothing is where it was.
    pub(super) fn clear(&mut self) {
        self.words.clear();
    }

    /// The first of the clusters that is named.
    pub(super) fn find(&self, run: Clusters) -> Option<u64> {
        (run.first..run.end().min(MOST)).find(|cluster| {
            let (word, bit) = place(*cluster);
            self.words.get(word).is_some_and(|word| word & bit != 0)
        })
    }
}

fn place(cluster: u64) -> (usize, u64) {
    (usize::try_from(cluster / 64).unwrap_or(usize::MAX), 1 << (cluster % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clusters_far_away_cost_no_memory() {
        let mut named = Named::default();
        named.note(Clusters::new(1 << 60, 1 << 40));
        assert!(named.words.is_empty() && named.find(Clusters::new(1 << 60, 9)).is_none());
    }

    proptest! {
        #[test]
        fn what_is_named_is_what_was_noted_and_not_forgotten(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..200, 0_u64..9), 0..40),
            first in 0_u64..220, count in 0_u64..20,
        ) {
            let (mut named, mut model) = (Named::default(), BTreeSet::new());
            for (is_note, first, count) in steps {
                let (run, numbers) = (Clusters::new(first, count), first..first + count);
                if is_note { named.note(run) } else { named.forget(run) }
                numbers.for_each(|n| { if is_note { model.insert(n); } else { model.remove(&n); } });
            }
            let expected = model.range(first..first + count).next().copied();
            prop_assert_eq!(named.find(Clusters::new(first, count)), expected);
        }
    }
}
