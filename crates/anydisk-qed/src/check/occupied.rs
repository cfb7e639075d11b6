//! Which clusters of a part of a file are in use.

use std::ops::Range;

/// A window of a file: a bit for each of its clusters.
#[derive(Debug)]
pub(super) struct Occupied {
    window: Range<u64>,
    bits: Vec<u64>,
}

impl Occupied {
    /// The clusters of `window`, none of them in use.
    pub(super) fn new(window: Range<u64>) -> Self {
        let words = (window.end - window.start).div_ceil(64);
        Self { bits: vec![0; usize::try_from(words).expect("a window fits in memory")], window }
    }

    /// Marks the clusters that lie in the window as in use; whether one of them was already.
    pub(super) fn mark(&mut self, clusters: Range<u64>) -> bool {
        let mut met = false;
        for number in clusters.start.max(self.window.start)..clusters.end.min(self.window.end) {
            let (word, bit) = self.place(number);
            if let Some(word) = self.bits.get_mut(word) {
                met |= *word & bit != 0;
                *word |= bit;
            }
        }
        met
    }

    /// Runs of clusters that are not in use.
    pub(super) fn free_runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut next = self.window.start;
        std::iter::from_fn(move || {
            let start = self.find(next, false)?;
            let end = self.find(start, true).unwrap_or(self.window.end);
            next = end;
            Some(start..end)
        })
    }

    /// The first cluster from `from` on that is in use, or that is not.
    fn find(&self, from: u64, used: bool) -> Option<u64> {
        let mut number = from;
        while number < self.window.end {
            let (index, bit) = self.place(number);
            let word = self.bits.get(index).copied().unwrap_or(0);
            let word = if used { word } else { !word };
            // Whole words of no interest at once.
            if bit == 1 && word == 0 {
                number += 64;
                continue;
            }
            if word & bit != 0 {
                return Some(number);
            }
            number += 1;
        }
        None
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let at = number - self.window.start;
        (usize::try_from(at / 64).unwrap_or(usize::MAX), 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marks_and_runs_are_those_of_a_list_of_clusters(
            start in 0u64..300,
            len in 0u64..400,
            marks in proptest::collection::vec((0u64..800, 0u64..200), 0..6),
        ) {
            let window = start..start + len;
            let mut occupied = Occupied::new(window.clone());
            let mut model = std::collections::BTreeSet::new();
            for (at, count) in marks {
                let inside: Vec<_> = (at..at + count).filter(|it| window.contains(it)).collect();
                let met = inside.iter().any(|it| model.contains(it));
                prop_assert_eq!(occupied.mark(at..at + count), met);
                model.extend(inside);
            }
            let free: Vec<u64> = occupied.free_runs().flatten().collect();
            let expected: Vec<u64> = window.filter(|it| !model.contains(it)).collect();
            prop_assert_eq!(free, expected);
        }
    }
}
