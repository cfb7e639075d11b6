//! Bits in words of 64, the lowest bit first: what bitmaps of sectors (cow, VHD, VHDX) have in common.
//! Pure.

const WORD: u64 = u64::BITS as u64;

/// Bits from `first` on, before `end`, that are as the first one is: it, and their number, at least
/// 1.
#[must_use]
pub fn run(word: impl Fn(usize) -> u64, first: u64, end: u64) -> (bool, u64) {
    let is_set = bits_from(word(index(first)), first) & 1 == 1;
    let mut at = first;
    while at < end {
        let bits = bits_from(word(index(at)), at);
        let same = if is_set { (!bits).trailing_zeros() } else { bits.trailing_zeros() };
        let left = WORD - at % WORD;
        let same = u64::from(same).min(left);
        at += same;
        if same < left {
            break;
        }
    }
    (is_set, at.min(end) - first)
}

/// The bits of one word that lie in `first..end`, as a mask of that word.
#[must_use]
pub fn mask(number: usize, first: u64, end: u64) -> u64 {
    let start = number as u64 * WORD;
    let below = |bit: u64| match bit.saturating_sub(start) {
        bits if bits >= WORD => u64::MAX,
        bits => (1 << bits) - 1,
    };
    below(end) & !below(first)
}

/// The numbers of the words that hold the bits `first..end`.
#[must_use]
pub fn words(first: u64, end: u64) -> std::ops::Range<usize> {
    if first < end { index(first)..index(end - 1) + 1 } else { 0..0 }
}

fn index(bit: u64) -> usize {
    usize::try_from(bit / WORD).unwrap_or(usize::MAX)
}

/// The word from bit `at` on; what comes from the next word is not there.
fn bits_from(word: u64, at: u64) -> u64 {
    word >> (at % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit(words: &[u64], at: u64) -> bool {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let index = usize::try_from(at / 8).expect("small");
        bytes[index] >> (at % 8) & 1 == 1
    }

    fn sparse_words() -> impl Strategy<Value = Vec<u64>> {
        let word =
            prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), (0u32..64).prop_map(|n| 1 << n)];
        proptest::collection::vec(word, 4)
    }

    proptest! {
        #[test]
        fn a_run_is_as_long_as_bit_by_bit(words in sparse_words(), first in 0u64..256, len in 1u64..256) {
            let end = (first + len).min(256);
            let (is_set, count) = run(|index| words[index], first, end);
            let expected = (first..end).take_while(|at| bit(&words, *at) == bit(&words, first)).count();
            prop_assert_eq!((is_set, count), (bit(&words, first), expected as u64));
        }

        #[test]
        fn masks_cover_just_the_bits_asked_for(first in 0u64..256, len in 0u64..256) {
            let end = (first + len).min(256);
            let masks: Vec<u64> = (0..4).map(|number| mask(number, first, end)).collect();
            for at in 0..256 {
                prop_assert_eq!(bit(&masks, at), (first..end).contains(&at));
            }
            for (number, mask) in masks.iter().enumerate() {
                prop_assert!(*mask == 0 || words(first, end).contains(&number));
            }
        }
    }
}
