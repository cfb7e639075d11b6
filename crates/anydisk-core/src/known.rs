//! What a directory said of its tables, in words beside it: a look at a table without a look at the
//! directory before it.

use anydisk_storage::HostOffset;

use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Tables remembered at most.
const SLOTS: u64 = 512;

/// A word is the place in units, the age, and the number of the table.
const PLACE_BITS: u32 = 32;
const AGE_BITS: u32 = 8;
const NUMBER_BITS: u32 = 24;
const LOW: u64 = (1 << (AGE_BITS + NUMBER_BITS)) - 1;
const _: () = assert!(PLACE_BITS + AGE_BITS + NUMBER_BITS == u64::BITS);

/// Places of tables that a directory named, each in one word, so that no look sees half an answer.
///
/// For a directory whose entries, once they name a table, go on naming it. When it is replaced by
/// another, [`forget`](Self::forget) ends what was known, and what a late reader of the old one
/// still hands in.
#[derive(Debug)]
pub struct KnownTables {
    words: Box<[AtomicU64]>,
    /// How often the directory was replaced.
    age: AtomicU64,
    /// Tables begin at multiples of so many bytes.
    unit: u64,
}

/// Which directory an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryAge(u64);

impl KnownTables {
    /// Nothing is known yet of a directory of so many tables, which begin at multiples of `unit`
    /// bytes.
    #[must_use]
    pub fn new(tables: u64, unit: u64) -> Self {
        let slots = tables.clamp(1, SLOTS).next_power_of_two();
        let words = (0..slots).map(|_| AtomicU64::new(0)).collect();
        Self { words, age: AtomicU64::new(0), unit }
    }

    /// Where table number `number` is, if that is known.
    #[inline]
    #[must_use]
    pub fn get(&self, number: u64) -> Option<HostOffset> {
        let word = self.word(number).load(Relaxed);
        let place = word >> (AGE_BITS + NUMBER_BITS);
        // A number that does not fit would be taken for a later age. Place 0 was never put in.
        let fits = number >> NUMBER_BITS == 0 && place != 0;
        let wanted = self.age.load(Acquire) << NUMBER_BITS | number;
        (fits && word & LOW == wanted).then(|| HostOffset(place * self.unit))
    }

    /// To be taken **before** the directory is looked at, and given back with what it said.
    #[must_use]
    pub fn age(&self) -> DirectoryAge {
        DirectoryAge(self.age.load(Acquire))
    }

    /// The directory that had this age names a table at `at`. What cannot be told in a word is not
    /// remembered.
    pub fn put(&self, of: DirectoryAge, number: u64, at: HostOffset) {
        let place = Some(at.get() / self.unit).filter(|place| place * self.unit == at.get());
        if let Some(word) = place.and_then(|place| self.encode(place, of.0, number)) {
            self.word(number).store(word, Relaxed);
        }
    }

    /// Another directory was put in its place. One caller at a time.
    pub fn forget(&self) {
        self.age.store(self.age.load(Relaxed) + 1, Release);
    }

    fn word(&self, number: u64) -> &AtomicU64 {
        let mask = self.words.len() as u64 - 1;
        let index = usize::try_from(number & mask).unwrap_or_default();
        &self.words[index]
    }

    /// An age that does not fit is never known: no number comes twice.
    fn encode(&self, place: u64, age: u64, number: u64) -> Option<u64> {
        let fits = place >> PLACE_BITS | age >> AGE_BITS | number >> NUMBER_BITS == 0;
        fits.then_some(place << (AGE_BITS + NUMBER_BITS) | age << NUMBER_BITS | number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = 512;

    fn at(units: u64) -> HostOffset {
        HostOffset(units * UNIT)
    }

    #[test]
    fn what_was_put_in_is_known_until_another_table_takes_its_word() {
        let known = KnownTables::new(u64::MAX, UNIT);
        assert_eq!(known.get(0), None);
        known.put(known.age(), 0, at(9));
        known.put(known.age(), 5, at(7));
        assert_eq!((known.get(0), known.get(5)), (Some(at(9)), Some(at(7))));
        assert_eq!(known.get(5 + SLOTS), None);
        known.put(known.age(), 5 + SLOTS, at(8));
        assert_eq!((known.get(5), known.get(5 + SLOTS)), (None, Some(at(8))));
    }

    #[test]
    fn what_was_said_by_the_directory_before_is_not_known_whenever_it_is_handed_in() {
        let known = KnownTables::new(4, UNIT);
        let late = known.age();
        known.put(known.age(), 1, at(7));
        known.forget();
        assert_eq!(known.get(1), None);
        known.put(late, 1, at(7));
        assert_eq!(known.get(1), None);
        known.put(known.age(), 1, at(8));
        assert_eq!(known.get(1), Some(at(8)));
    }

    #[test]
    fn no_age_comes_twice() {
        let known = KnownTables::new(4, UNIT);
        let first = known.age();
        for _ in 0..1_u32 << AGE_BITS {
            known.put(first, 1, at(7));
            known.forget();
            assert_eq!(known.get(1), None);
        }
        known.put(known.age(), 1, at(7));
        assert_eq!(known.get(1), None, "an age that does not fit");
    }

    #[test]
    fn a_place_or_number_that_does_not_fit_is_not_remembered() {
        let known = KnownTables::new(4, UNIT);
        for (number, place) in [(1, at(1 << PLACE_BITS)), (1 << NUMBER_BITS, at(7))] {
            known.put(known.age(), number, place);
            assert_eq!(known.get(number), None);
        }
        known.put(known.age(), 1, HostOffset(513));
        assert_eq!(known.get(1), None);
    }
}
