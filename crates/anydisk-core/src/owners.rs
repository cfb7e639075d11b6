//! Which places of a file have an owner, so that none has two. Pure.

use std::collections::{BTreeSet, HashMap};

/// Words of bits that are in memory together: those of 4096 units.
const WORDS: usize = 64;

/// Most parts of the bits: 64 MiB.
const PAGES: usize = 1 << 17;

/// Most units that are kept in mind outside of the row.
const MOST_ODD: usize = 1 << 20;

/// Units of one size (clusters, grains), by their places, in bytes or sectors, of a file that says nowhere
/// what is in use. Writers put them a whole number of units apart, so a bit for each does; those that are
/// not are in a list. Where there are more than fit in memory, the rest is not noted.
#[derive(Debug)]
pub struct Owners {
    /// A power of two.
    unit: u64,
    /// Where units begin, from a multiple of a unit on: as the first one did.
    within: Option<u64>,
    pages: HashMap<u64, Box<[u64; WORDS]>>,
    odd: BTreeSet<u64>,
}

impl Owners {
    /// No unit yet. `unit`: the size of all of them, a power of two.
    #[must_use]
    pub fn new(unit: u64) -> Self {
        Self { unit, within: None, pages: HashMap::new(), odd: BTreeSet::new() }
    }

    /// The size of each.
    #[must_use]
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// Notes a unit; false if it shares a part with one that was noted before.
    pub fn insert(&mut self, at: u64) -> bool {
        let within = *self.within.get_or_insert(at % self.unit);
        if self.meets(at) {
            return false;
        }
        if at % self.unit != within {
            if self.odd.len() < MOST_ODD {
                self.odd.insert(at);
            }
            return true;
        }
        let (page, word, bit) = self.place(at);
        if self.pages.len() < PAGES || self.pages.contains_key(&page) {
            let words = self.pages.entry(page).or_insert_with(|| Box::new([0; WORDS]));
            words.get_mut(word).into_iter().for_each(|word| *word |= bit);
        }
        true
    }

    /// Whether a unit shares a part with one that was noted.
    #[must_use]
    pub fn meets(&self, at: u64) -> bool {
        self.meets_part(at, self.unit)
    }

    /// Whether `len` bytes or sectors from `at` on share a part with a unit that was noted. It takes a
    /// look at each place for a unit in them.
    #[must_use]
    pub fn meets_part(&self, at: u64, len: u64) -> bool {
        let Some(within) = self.within else { return false };
        let (first, end) = (at.saturating_sub(self.unit - 1), at.saturating_add(len));
        // The one that lies there or before, and the next ones.
        let before = at.saturating_sub(within) / self.unit * self.unit + within;
        let next = |at: &u64| at.checked_add(self.unit).filter(|at| *at < end);
        let mut near = std::iter::successors(Some(before), next);
        near.any(|at| (first..end).contains(&at) && self.has(at))
            || self.odd.range(first..end).next().is_some()
    }

    fn has(&self, at: u64) -> bool {
        let (page, word, bit) = self.place(at);
        self.pages.get(&page).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }

    /// Page, word and bit of a unit in the row.
    fn place(&self, at: u64) -> (u64, usize, u64) {
        let number = at / self.unit;
        let word = usize::try_from(number / 64 % WORDS as u64).unwrap_or_default();
        (number / 64 / WORDS as u64, word, 1 << (number % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_unit_meets_those_that_share_a_part_with_it(
            unit in prop_oneof![Just(1_u64), Just(8), Just(128)],
            places in proptest::collection::vec(0_u64..4096, 1..40),
            len in 1_u64..600,
            aligned in any::<bool>(),
        ) {
            let mut owners = Owners::new(unit);
            let mut model: Vec<u64> = Vec::new();
            for at in places {
                let at = if aligned { at / unit * unit + 3 % unit } else { at };
                let met = model.iter().any(|other| other.abs_diff(at) < unit);
                prop_assert_eq!(owners.meets(at), met);
                let part = model.iter().any(|other| *other < at + len && at < *other + unit);
                prop_assert_eq!(owners.meets_part(at, len), part);
                prop_assert_eq!(owners.insert(at), !met);
                if !met {
                    model.push(at);
                }
            }
        }
    }
}
