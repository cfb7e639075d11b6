//! Which places of a file have grains, so that none has two. Pure.

use std::collections::{BTreeSet, HashMap};

/// Words of bits that are in memory together: those of 4096 grains.
const WORDS: usize = 64;

/// Grains of one size, by their sectors. All writers put them a whole number of grains apart, so a bit for
/// each does; those that are not are in a list.
#[derive(Debug)]
pub(crate) struct Owners {
    /// Sectors of a grain, a power of two.
    grain: u64,
    /// Where grains begin, from a multiple of a grain on: as the first one did.
    within: Option<u64>,
    pages: HashMap<u64, Box<[u64; WORDS]>>,
    odd: BTreeSet<u64>,
}

impl Owners {
    /// No grain of `grain` sectors yet.
    pub(crate) fn new(grain: u64) -> Self {
        Self { grain, within: None, pages: HashMap::new(), odd: BTreeSet::new() }
    }

    /// Notes a grain at a sector; false if it shares a sector with one that was noted before, or there
    /// are too many to be kept in mind.
    pub(crate) fn insert(&mut self, sector: u64) -> bool {
        let within = *self.within.get_or_insert(sector % self.grain);
        if self.meets(sector) {
            return false;
        }
        if sector % self.grain != within {
            return self.odd.len() < MOST_ODD && self.odd.insert(sector);
        }
        let (page, word, bit) = self.place(sector);
        let words = self.pages.entry(page).or_insert_with(|| Box::new([0; WORDS]));
        words.get_mut(word).is_some_and(|word| {
            *word |= bit;
            true
        })
    }

    /// Whether a grain at a sector shares one with a grain that was noted.
    pub(crate) fn meets(&self, sector: u64) -> bool {
        let (first, end) = (sector.saturating_sub(self.grain - 1), sector + self.grain);
        let Some(within) = self.within else { return false };
        // The one that holds the first sector, or begins behind it.
        let before = sector.saturating_sub(within) / self.grain * self.grain + within;
        let mut near = [before, before + self.grain].into_iter();
        near.any(|at| (first..end).contains(&at) && self.has(at))
            || self.odd.range(first..end).next().is_some()
    }

    fn has(&self, sector: u64) -> bool {
        let (page, word, bit) = self.place(sector);
        self.pages.get(&page).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }

    /// Page, word and bit of a grain in its place.
    fn place(&self, sector: u64) -> (u64, usize, u64) {
        let number = sector / self.grain;
        let word = usize::try_from(number / 64 % WORDS as u64).unwrap_or_default();
        (number / 64 / WORDS as u64, word, 1 << (number % 64))
    }
}

/// Most grains that are kept in mind outside of the row.
const MOST_ODD: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_grain_meets_those_that_share_a_sector_with_it(
            grain in prop_oneof![Just(1_u64), Just(8), Just(128)],
            sectors in proptest::collection::vec(0_u64..4096, 1..40),
            aligned in any::<bool>(),
        ) {
            let mut owners = Owners::new(grain);
            let mut model: Vec<u64> = Vec::new();
            for sector in sectors {
                let sector = if aligned { sector / grain * grain + 3 % grain } else { sector };
                let met = model.iter().any(|at| at.abs_diff(sector) < grain);
                prop_assert_eq!(owners.meets(sector), met);
                prop_assert_eq!(owners.insert(sector), !met);
                if !met {
                    model.push(sector);
                }
            }
        }
    }
}
