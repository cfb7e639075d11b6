//! Which sectors of a part of a file are in use.

use std::ops::Range;

/// A window of a file: a bit for each of its sectors.
#[derive(Debug)]
pub(super) struct Occupied {
    window: Range<u64>,
    bits: Vec<u64>,
}

impl Occupied {
    /// The sectors of `window`, none of them in use.
    pub(super) fn new(window: Range<u64>) -> Self {
        let words = (window.end - window.start).div_ceil(64);
        let words = usize::try_from(words).expect("a window fits in memory");
        Self { window, bits: vec![0; words] }
    }

    /// Marks the sectors that lie in the window as in use. The first of them that was already.
    pub(super) fn mark(&mut self, sectors: Range<u64>) -> Option<u64> {
        let mut first = None;
        for (word, mask, base) in self.masks(sectors) {
            let both = self.bits[word] & mask;
            if both != 0 && first.is_none() {
                first = Some(base + u64::from(both.trailing_zeros()));
            }
            self.bits[word] |= mask;
        }
        first
    }

    /// Whether any of the sectors that lie in the window is in use.
    pub(super) fn meets(&self, sectors: Range<u64>) -> bool {
        self.masks(sectors).any(|(word, mask, _)| self.bits[word] & mask != 0)
    }

    /// The words that hold the sectors, with the bits of these, and the sector of each first bit.
    fn masks(&self, sectors: Range<u64>) -> impl Iterator<Item = (usize, u64, u64)> + use<> {
        let window = self.window.clone();
        let start = sectors.start.clamp(window.start, window.end) - window.start;
        let end = sectors.end.clamp(window.start, window.end) - window.start;
        let last = if start < end { end.div_ceil(64) } else { start / 64 };
        (start / 64..last).map(move |word| {
            let low = start.saturating_sub(word * 64);
            let high = (end - word * 64).min(64);
            let below = |bits: u64| if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            let index = usize::try_from(word).expect("inside the bits");
            (index, below(high) & !below(low), window.start + word * 64)
        })
    }

    /// Runs of sectors from `from` on that are not in use.
    pub(super) fn free_runs(&self, from: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut next = from.max(self.window.start);
        std::iter::from_fn(move || {
            let start = self.find(next, false)?;
            let end = self.find(start, true).unwrap_or(self.window.end);
            next = end;
            Some(start..end)
        })
    }

    /// The first sector from `from` on that is in use, or that is not.
    fn find(&self, from: u64, used: bool) -> Option<u64> {
        let mut sector = from;
        while sector < self.window.end {
            let at = sector - self.window.start;
            let word = self.bits[usize::try_from(at / 64).expect("inside the bits")];
            let rest = (if used { word } else { !word }) >> (at % 64);
            if rest != 0 {
                let found = sector + u64::from(rest.trailing_zeros());
                return (found < self.window.end).then_some(found);
            }
            sector += 64 - at % 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marks_and_runs_are_those_of_a_list_of_sectors(
            start in 0u64..300,
            len in 0u64..400,
            marks in proptest::collection::vec((0u64..800, 0u64..200), 0..6),
            from in 0u64..800,
        ) {
            let window = start..start + len;
            let mut occupied = Occupied::new(window.clone());
            let mut model = std::collections::BTreeSet::new();
            for (at, count) in marks {
                let sectors = (at..at + count).filter(|sector| window.contains(sector));
                let met = sectors.clone().find(|sector| model.contains(sector));
                prop_assert_eq!(occupied.meets(at..at + count), met.is_some());
                prop_assert_eq!(occupied.mark(at..at + count), met);
                model.extend(sectors);
            }
            let free: Vec<u64> = occupied.free_runs(from).flatten().collect();
            let expected: Vec<u64> =
                window.filter(|sector| *sector >= from && !model.contains(sector)).collect();
            prop_assert_eq!(free, expected);
        }
    }
}
