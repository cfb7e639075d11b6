//! Refcounts as they are packed in refcount blocks (qcow2, "Host cluster management"). Pure.
//!
//! A block is looked at in slices of big-endian `u64` words, as the table cache holds them. The
//! specification packs widths below a byte from the least significant bit of each byte; as the
//! bytes of a word are in big-endian order, a count's place in its word depends on both.

use anydisk_core::SliceMut;

use crate::table::Words;

/// Number of bits of a refcount: `1 << refcount_order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Width {
    order: u32,
}

impl Width {
    /// The width of `refcount_order` 0 to 6.
    pub(crate) const fn of_order(order: u32) -> Self {
        debug_assert!(order <= 6);
        Self { order }
    }

    /// Bits of one refcount.
    pub(crate) const fn bits(self) -> u32 {
        1 << self.order
    }

    /// The largest refcount that fits.
    pub(crate) const fn max(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Refcounts in a word.
    const fn per_word(self) -> usize {
        64 >> self.order
    }

    /// Refcounts in `words` words.
    pub(crate) const fn per_words(self, words: usize) -> usize {
        words << (6 - self.order)
    }

    /// How far left refcount number `index` of a slice lies in its word.
    const fn shift(self, index: usize) -> u32 {
        let bit = (index % self.per_word()) << self.order;
        let (byte, within) = (bit / 8, bit % 8);
        let shift =
            if self.order < 3 { 56 - byte * 8 + within } else { 64 - bit - (1 << self.order) };
        #[expect(clippy::cast_possible_truncation, reason = "a shift is below 64")]
        return shift as u32;
    }

    /// Refcount number `index` of a slice; 0 past its end.
    pub(crate) fn get(self, slice: &(impl Words + ?Sized), index: usize) -> u64 {
        slice.word(index / self.per_word()) >> self.shift(index) & self.max()
    }

    /// As [`get`](Self::get), while the slice is changed.
    pub(crate) fn get_mut(self, slice: &SliceMut<'_>, index: usize) -> u64 {
        slice.get(index / self.per_word()) >> self.shift(index) & self.max()
    }

    /// Changes refcount number `index` of a slice to `count`, which fits the width.
    pub(crate) fn set(self, slice: &mut SliceMut<'_>, index: usize, count: u64) {
        let (at, shift) = (index / self.per_word(), self.shift(index));
        let others = slice.get(at) & !(self.max() << shift);
        slice.set(at, others | (count & self.max()) << shift);
    }

    /// All refcounts in bytes of a block, in place of what `into` held.
    pub(crate) fn decode(self, bytes: &[u8], into: &mut Vec<u64>) {
        into.clear();
        match self.order {
            0..3 => {
                for byte in bytes {
                    let shifts = (0..8).step_by(1 << self.order);
                    into.extend(shifts.map(|shift| u64::from(*byte) >> shift & self.max()));
                }
            }
            3 => into.extend(bytes.iter().map(|byte| u64::from(*byte))),
            4 => into.extend(
                bytes.as_chunks().0.iter().map(|count| u64::from(u16::from_be_bytes(*count))),
            ),
            5 => into.extend(
                bytes.as_chunks().0.iter().map(|count| u64::from(u32::from_be_bytes(*count))),
            ),
            _ => into.extend(bytes.as_chunks().0.iter().map(|count| u64::from_be_bytes(*count))),
        }
    }

    /// The bytes of refcounts as a block holds them, in place of what `into` held.
    pub(crate) fn encode(self, counts: &[u64], into: &mut Vec<u8>) {
        into.clear();
        if self.order < 3 {
            for part in counts.chunks(8 >> self.order) {
                let shifts = (0..8).step_by(1 << self.order);
                let byte = part
                    .iter()
                    .zip(shifts)
                    .fold(0, |byte, (count, shift)| byte | (count & self.max()) << shift);
                into.push(byte.to_be_bytes()[7]);
            }
            return;
        }
        let unused = 8 - (self.bits() / 8) as usize;
        for count in counts {
            into.extend_from_slice(&count.to_be_bytes()[unused..]);
        }
    }

    /// The first free cluster of a slice from `from` on, and how many follow it without a gap,
    /// itself included, up to `most`. `None` if there is none.
    pub(crate) fn free_run(
        self,
        slice: &(impl Words + ?Sized),
        from: usize,
        most: usize,
    ) -> Option<FreeRun> {
        let end = self.per_words(slice.count());
        let first = (from..end).find(|index| self.get(slice, *index) == 0)?;
        let limit = end.min(first.saturating_add(most));
        let len = (first..limit).take_while(|index| self.get(slice, *index) == 0).count();
        Some(FreeRun { first, len })
    }
}

/// Free clusters that follow each other, by their indices in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreeRun {
    pub(crate) first: usize,
    pub(crate) len: usize,
}

#[cfg(test)]
mod tests {
    use anydisk_core::{HostOffset, Inserted, TableCache};
    use proptest::prelude::*;

    use super::*;

    const AT: HostOffset = HostOffset(0x1000);

    /// The specification's own words: byte `i*w/8`, shifted by `(i*w) % 8`; whole bytes big-endian.
    fn by_the_specification(bytes: &[u8], bits: usize, index: usize) -> u64 {
        if bits < 8 {
            let byte = bytes[index * bits / 8];
            return u64::from(byte >> (index * bits % 8)) & ((1 << bits) - 1);
        }
        let width = bits / 8;
        bytes[index * width..][..width].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn words(bytes: &[u8]) -> Vec<u64> {
        bytes.chunks(8).map(|word| u64::from_be_bytes(word.try_into().expect("8"))).collect()
    }

    #[test]
    fn the_examples_of_the_specification_decode() {
        let pad = |head: [u8; 4]| words(&[&head[..], &[0; 4]].concat());
        let all = |order, words: &[u64], count| -> Vec<u64> {
            (0..count).map(|index| Width::of_order(order).get(words, index)).collect()
        };
        let two_bits = pad([0x55, 0x99, 0xAA, 0xAA]);
        assert_eq!(all(1, &two_bits, 16), [1, 1, 1, 1, 1, 2, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(all(2, &pad([0x11, 0x11, 0x21, 0x21]), 8), [1, 1, 1, 1, 1, 2, 1, 2]);
    }

    #[test]
    fn the_largest_count_of_each_width_is_all_ones() {
        let largest: Vec<u64> = (0..=6).map(|order| Width::of_order(order).max()).collect();
        assert_eq!(largest, [1, 3, 15, 255, 65535, u64::from(u32::MAX), u64::MAX]);
    }

    proptest! {
        #[test]
        fn a_count_is_read_as_the_specification_packs_it(
            bytes in proptest::collection::vec(any::<u8>(), 64), order in 0_u32..=6,
        ) {
            let width = Width::of_order(order);
            for index in 0..width.per_words(8) {
                let expected = by_the_specification(&bytes, 1 << order, index);
                prop_assert_eq!(width.get(words(&bytes).as_slice(), index), expected);
            }
        }

        #[test]
        fn counts_are_decoded_together_as_one_by_one(
            bytes in proptest::collection::vec(any::<u8>(), 64), order in 0_u32..=6,
        ) {
            let width = Width::of_order(order);
            let mut decoded = Vec::new();
            width.decode(&bytes, &mut decoded);
            let count = width.per_words(8);
            let one_by_one = (0..count).map(|index| width.get(words(&bytes).as_slice(), index));
            prop_assert_eq!(&decoded, &one_by_one.collect::<Vec<_>>());
            let mut encoded = Vec::new();
            width.encode(&decoded, &mut encoded);
            prop_assert_eq!(encoded, bytes);
        }

        #[test]
        fn a_count_that_is_set_is_read_again_and_no_other_changes(
            values in proptest::collection::vec(any::<u64>(), 8), order in 0_u32..=6,
            index in any::<prop::sample::Index>(), count in any::<u64>(),
        ) {
            let width = Width::of_order(order);
            let index = index.index(width.per_words(8));
            let cache = TableCache::new(8, 4096);
            prop_assert_eq!(cache.insert(AT, cache.ticket(AT), values.iter().copied()), Inserted::Yes);
            cache.update(AT, |slice| width.set(slice, index, count)).done().expect("cached");
            for other in 0..width.per_words(8) {
                let expected = match other == index {
                    true => count & width.max(),
                    false => width.get(values.as_slice(), other),
                };
                prop_assert_eq!(cache.read(AT, |slice| width.get(&slice, other)), Some(expected));
            }
        }

        #[test]
        fn a_free_run_is_the_first_one_and_as_long_as_it_may_be(
            values in proptest::collection::vec(prop_oneof![Just(0), any::<u64>(), Just(1)], 8),
            order in 0_u32..=6, from in any::<prop::sample::Index>(), most in 1_usize..40,
        ) {
            let width = Width::of_order(order);
            let all = width.per_words(8);
            let from = from.index(all);
            let used: Vec<bool> = (0..all).map(|i| width.get(values.as_slice(), i) != 0).collect();
            let found = width.free_run(values.as_slice(), from, most);
            let first = (from..all).find(|index| !used[*index]);
            prop_assert_eq!(found.map(|run| run.first), first);
            if let Some(run) = found {
                prop_assert!(run.len >= 1 && run.len <= most);
                let end = run.first + run.len;
                prop_assert!(used[run.first..end].iter().all(|used| !used));
                prop_assert!(run.len == most || end == all || used[end]);
            }
        }
    }
}
