//! The entries of an L2 table, those together that name clusters which follow each other. Pure.
//!
//! Most of a table is either absent or was written in order, so a table of thousands of entries is
//! a handful of runs.

use crate::entry::L2Entry;
use crate::layout::entry::{COPIED, OFFSET};
use crate::table::ALLOCATED;
use crate::{Geometry, Header};

/// Entries that can be told at a glance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Words of an entry.
    step: usize,
    cluster_bits: u32,
    /// An entry with one of these bits has to be judged by itself.
    special: u64,
}

/// Entries in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Number of the first in its table.
    pub(super) index: usize,
    /// The first.
    pub(super) entry: L2Entry,
    /// How many name clusters of their own that follow each other, with nothing wrong about the
    /// entries themselves. 0: one entry that has to be judged.
    pub(super) plain: usize,
}

/// All entries of a table that are not absent.
pub(super) struct Runs<'b> {
    shape: Shape,
    words: &'b [[u8; 8]],
    /// Number of the next word.
    next: usize,
}

impl Shape {
    pub(super) fn new(header: &Header) -> Self {
        let geometry = Geometry::new(header);
        let usual = COPIED | OFFSET & !(geometry.cluster_size() - 1);
        Self {
            step: geometry.entry_words(),
            cluster_bits: geometry.cluster_bits(),
            // What lies in a data file is not counted.
            special: if geometry.has_data_file() { u64::MAX } else { !usual },
        }
    }

    /// The runs of a table.
    pub(super) fn runs<'b>(&self, table: &'b [u8]) -> Runs<'b> {
        Runs { shape: *self, words: table.as_chunks::<8>().0, next: 0 }
    }

    /// An entry of a table.
    pub(super) fn entry(&self, table: &[u8], index: usize) -> L2Entry {
        let words = table.as_chunks::<8>().0;
        let word = |number: usize| words.get(number).copied().map_or(0, u64::from_be_bytes);
        let bitmap = if self.step == 1 { 0 } else { word(index * 2 + 1) };
        L2Entry { word: word(index * self.step), bitmap }
    }

    /// Whether the entry names a cluster of its own and breaks no rule that can be seen from it.
    #[inline]
    fn is_plain(&self, entry: L2Entry) -> bool {
        entry.word & self.special == 0 && entry.word & OFFSET != 0 && self.is_bitmap_plain(entry)
    }

    #[inline]
    fn is_bitmap_plain(&self, entry: L2Entry) -> bool {
        self.step == 1 || entry.bitmap & ALLOCATED & entry.bitmap >> 32 == 0
    }

    /// How many of the entries, the first of which is plain and has this word, name clusters that
    /// follow each other.
    #[inline]
    fn plain_len(&self, words: &[[u8; 8]], first: u64) -> usize {
        // Behind the last place that can be named, the sum would spoil the flags.
        let most = ((OFFSET - (first & OFFSET)) >> self.cluster_bits) + 1;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let (mut expected, size) = (first, 1 << self.cluster_bits);
        let mut follows = |word: &[u8; 8]| {
            expected = expected.wrapping_add(size);
            *word == expected.to_be_bytes()
        };
        if self.step == 1 {
            let rest = &words[1..words.len().min(most)];
            return 1 + rest.iter().position(|word| !follows(word)).unwrap_or(rest.len());
        }
        let rest = words.as_chunks::<2>().0.iter().take(most).skip(1);
        let mut plain = |[word, bitmap]: &[[u8; 8]; 2]| {
            let entry = L2Entry { word: 0, bitmap: u64::from_be_bytes(*bitmap) };
            follows(word) && self.is_bitmap_plain(entry)
        };
        1 + rest.take_while(|pair| plain(pair)).count()
    }
}

impl Runs<'_> {
    /// Passes over entries that are zero.
    #[inline]
    fn skip_absent(&mut self) {
        let step = self.shape.step;
        let is_zero = |words: &[[u8; 8]]| words.iter().all(|word| *word == [0; 8]);
        let rest = &self.words[self.next..];
        if rest.first().is_none_or(|word| *word != [0; 8]) {
            return;
        }
        let eights = rest.as_chunks::<8>().0.iter().take_while(|words| **words == [[0; 8]; 8]);
        let absent = eights.count() * 8;
        let more = rest[absent..].chunks(step).take_while(|entry| is_zero(entry)).count();
        self.next += absent + more * step;
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        self.skip_absent();
        let rest = self.words.get(self.next..).filter(|rest| rest.len() >= self.shape.step)?;
        let word = u64::from_be_bytes(rest[0]);
        let bitmap = if self.shape.step == 1 { 0 } else { u64::from_be_bytes(rest[1]) };
        let (index, entry) = (self.next / self.shape.step, L2Entry { word, bitmap });
        let plain = if self.shape.is_plain(entry) { self.shape.plain_len(rest, word) } else { 0 };
        self.next += plain.max(1) * self.shape.step;
        Some(Run { index, entry, plain })
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::{Named, Rules};
    use super::*;
    use anydisk_core::Limits;
    use anydisk_storage::MemoryStorage;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn header(options: &[(&str, &str)]) -> Header {
        use anydisk_core::{CreateRequest, Format, Location, Options, Storage};
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let (location, limits) = (Location::Other("test".into()), Limits::default());
        let mut given = Options::of(&crate::QCOW2);
        options.iter().for_each(|(name, value)| given.set(name, value).expect("known"));
        let request = CreateRequest::new(Arc::clone(&store), &location, 1 << 20, &given, &limits);
        crate::QCOW2.create(request).expect("an image").writer().expect("new").flush().expect("ok");
        Header::read(&*store, &limits).expect("a header")
    }

    /// Words that make runs, breaks in them, and entries of every kind.
    fn words() -> impl Strategy<Value = Vec<u64>> {
        let word = prop_oneof![
            3 => Just(None),
            1 => Just(Some(0)),
            1 => (1_u64..40).prop_map(|at| Some(at << 16)),
            1 => (1_u64..40).prop_map(|at| Some(COPIED | at << 16)),
            1 => any::<u64>().prop_map(Some),
            1 => Just(Some(OFFSET & !0xffff)),
        ];
        proptest::collection::vec(word, 64).prop_map(|given| {
            let follow = |last: &mut u64, word: Option<u64>| {
                *last = word.unwrap_or(last.wrapping_add(1 << 16));
                Some(*last)
            };
            given.into_iter().scan(0, follow).collect()
        })
    }

    proptest! {
        #[test]
        fn runs_are_the_entries_that_are_not_zero_and_plain_ones_are_judged_so(
            words in words(), extended in any::<bool>(),
        ) {
            let header = header(if extended { &[("extended_l2", "on")] } else { &[] });
            let (shape, rules) = (Shape::new(&header), Rules::new(&header));
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let entry = |words: &[u64]| L2Entry {
                word: words[0], bitmap: words.get(1).copied().unwrap_or(0),
            };
            let all: Vec<L2Entry> = words.chunks(shape.step).map(entry).collect();
            let mut shown = vec![false; all.len()];
            for run in shape.runs(&bytes) {
                prop_assert_eq!(run.entry, all[run.index]);
                for number in 0..run.plain.max(1) {
                    shown[run.index + number] = true;
                    if run.plain > 0 {
                        let at = (run.entry.word & OFFSET) + number as u64 * 0x10000;
                        let (named, troubles) = rules.judge(all[run.index + number], None);
                        prop_assert_eq!((named, troubles.is_empty()), (Named::Cluster(at), true));
                        prop_assert_eq!(all[run.index + number].word & COPIED, run.entry.word & COPIED);
                    }
                }
            }
            let wanted: Vec<bool> = all.iter().map(|one| one.word | one.bitmap != 0).collect();
            prop_assert_eq!(shown, wanted);
        }
    }
}
