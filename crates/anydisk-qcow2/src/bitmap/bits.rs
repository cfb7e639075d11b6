//! Bits in memory, set by any number of threads. Only parts that were touched take memory.

use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Words in a chunk: 4 KiB.
const WORDS: usize = 512;
/// Bytes of the bitmap that a chunk holds.
pub(super) const CHUNK: u64 = WORDS as u64 * 8;
const CHUNK_BITS: u64 = CHUNK * 8;

/// The bits of one bitmap that are known to be set. What is not known may be set in the file.
#[derive(Debug)]
pub(crate) struct Bits {
    chunks: Box<[OnceLock<Chunk>]>,
}

#[derive(Debug)]
struct Chunk {
    words: Box<[AtomicU64]>,
    /// Bits were set that are not in the file.
    changed: AtomicBool,
}

impl Chunk {
    fn new() -> Self {
        let words = std::iter::repeat_with(|| AtomicU64::new(0)).take(WORDS).collect();
        Self { words, changed: AtomicBool::new(false) }
    }
}

/// A word of a chunk, and the bits of a range that lie there.
struct Mask {
    chunk: usize,
    word: usize,
    bits: u64,
}

/// The words that the bits from `first` to `end` lie in.
fn masks(first: u64, end: u64) -> impl Iterator<Item = Mask> {
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (start, count) = (at % 64, (64 - at % 64).min(end - at));
        let bits = (u64::MAX >> (64 - count)) << start;
        let chunk = usize::try_from(at / CHUNK_BITS).unwrap_or(usize::MAX);
        let word = usize::try_from(at % CHUNK_BITS / 64).unwrap_or(usize::MAX);
        at += count;
        Some(Mask { chunk, word, bits })
    })
}

impl Bits {
    /// `count` bits, none of them known to be set.
    pub(crate) fn new(count: u64) -> Self {
        let chunks = usize::try_from(count.div_ceil(CHUNK_BITS)).unwrap_or(usize::MAX);
        Self { chunks: std::iter::repeat_with(OnceLock::new).take(chunks).collect() }
    }

    /// Sets the bits from `first` to `end`.
    pub(crate) fn set(&self, first: u64, end: u64) {
        for Mask { chunk, word, bits } in masks(first, end) {
            let Some(chunk) = self.chunks.get(chunk) else { return };
            let chunk = chunk.get_or_init(Chunk::new);
            let old = chunk.words[word].fetch_or(bits, SeqCst);
            if old & bits != bits {
                chunk.changed.store(true, SeqCst);
            }
        }
    }

    /// Whether all bits from `first` to `end` are known to be set.
    pub(crate) fn all_set(&self, first: u64, end: u64) -> bool {
        masks(first, end).all(|Mask { chunk, word, bits }| {
            let chunk = self.chunks.get(chunk).and_then(OnceLock::get);
            chunk.is_some_and(|chunk| chunk.words[word].load(Relaxed) & bits == bits)
        })
    }

    /// The 64 bits of word `number`, as far as they are known to be set.
    pub(crate) fn word(&self, number: u64) -> u64 {
        let chunk = usize::try_from(number / WORDS as u64).unwrap_or(usize::MAX);
        let word = usize::try_from(number % WORDS as u64).unwrap_or(0);
        let chunk = self.chunks.get(chunk).and_then(OnceLock::get);
        chunk.map_or(0, |chunk| chunk.words[word].load(Relaxed))
    }

    /// Whether nothing is known of the bits in `len` bytes of the bitmap from byte `first` on.
    pub(crate) fn knows_nothing(&self, first: u64, len: u64) -> bool {
        let mut chunks = first / CHUNK..(first + len).div_ceil(CHUNK);
        chunks.all(|chunk| {
            let chunk = usize::try_from(chunk).unwrap_or(usize::MAX);
            self.chunks.get(chunk).is_none_or(|chunk| chunk.get().is_none())
        })
    }

    /// The chunks with bits that are not in the file; they count as stored from now on.
    pub(crate) fn take_changed(&self) -> Vec<u64> {
        let changed = |(number, chunk): (u64, &OnceLock<Chunk>)| {
            chunk.get().filter(|chunk| chunk.changed.swap(false, SeqCst)).map(|_| number)
        };
        (0..).zip(&self.chunks).filter_map(changed).collect()
    }

    /// These chunks were not stored.
    pub(crate) fn put_back(&self, chunks: &[u64]) {
        for number in chunks {
            let number = usize::try_from(*number).unwrap_or(usize::MAX);
            if let Some(chunk) = self.chunks.get(number).and_then(OnceLock::get) {
                chunk.changed.store(true, SeqCst);
            }
        }
    }

    /// Adds the bits that are known to be set to `bytes` of the bitmap, which begin at byte `first`,
    /// a multiple of 8. Whether that changed any.
    pub(crate) fn add_to(&self, first: u64, bytes: &mut [u8]) -> bool {
        let mut changed = false;
        for (number, part) in (first / 8..).zip(bytes.chunks_mut(8)) {
            let known = self.word(number).to_le_bytes();
            for (byte, known) in part.iter_mut().zip(known) {
                changed |= *byte | known != *byte;
                *byte |= known;
            }
        }
        changed
    }

    /// These bytes, which begin at byte `first`, are in the file: their bits are known now, where
    /// a chunk is there already.
    pub(crate) fn learn(&self, first: u64, bytes: &[u8]) {
        for (number, part) in (first / 8..).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            let chunk = usize::try_from(number / WORDS as u64).unwrap_or(usize::MAX);
            let place = usize::try_from(number % WORDS as u64).unwrap_or(0);
            if let Some(chunk) = self.chunks.get(chunk).and_then(OnceLock::get) {
                chunk.words[place].fetch_or(u64::from_le_bytes(word), SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_that_are_set_are_known_and_stored_and_no_others(
            ranges in proptest::collection::vec((0_u64..70_000, 0_u64..40_000), 0..6),
            asked in (0_u64..70_000, 1_u64..100),
        ) {
            const COUNT: u64 = 100_000;
            let bits = Bits::new(COUNT);
            let mut model = vec![false; 100_000];
            for (first, len) in ranges {
                let end = (first + len).min(COUNT);
                bits.set(first, end);
                (first..end).for_each(|bit| model[usize::try_from(bit).expect("small")] = true);
            }
            let set = |bit: u64| model[usize::try_from(bit).expect("small")];
            let end = asked.0 + asked.1;
            prop_assert_eq!(bits.all_set(asked.0, end), (asked.0..end).all(set));
            let mut bytes = vec![0; usize::try_from(COUNT.div_ceil(8)).expect("small")];
            prop_assert_eq!(bits.add_to(0, &mut bytes), model.contains(&true));
            for bit in 0..COUNT {
                let byte = bytes[usize::try_from(bit / 8).expect("small")];
                prop_assert_eq!(byte >> (bit % 8) & 1 == 1, set(bit), "bit {}", bit);
            }
            let changed = bits.take_changed();
            let expected: Vec<u64> = (0..COUNT.div_ceil(CHUNK_BITS)).filter(|chunk| {
                (chunk * CHUNK_BITS..((chunk + 1) * CHUNK_BITS).min(COUNT)).any(set)
            }).collect();
            prop_assert_eq!(&changed, &expected);
            prop_assert!(bits.take_changed().is_empty());
            bits.put_back(&changed);
            prop_assert_eq!(bits.take_changed(), expected);
        }
    }

    #[test]
    fn what_the_file_has_is_known_where_something_is_known_already() {
        let bits = Bits::new(1 << 20);
        bits.learn(0, &[0xff; 16]);
        assert!(bits.knows_nothing(0, 1 << 17));
        bits.set(7, 8);
        bits.take_changed();
        bits.learn(0, &[0xff; 16]);
        assert!(bits.all_set(0, 128) && !bits.all_set(0, 129));
        assert!(bits.take_changed().is_empty(), "it is in the file");
    }
}
