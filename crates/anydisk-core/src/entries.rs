//! All entries of a table in a row, and the blocks that they name: for checks, and for who opens an
//! image to write. Pure but for reading.

use std::ops::Range;

use anydisk_storage::{HostOffset, Storage, StorageExt};

use crate::{Result, bits};

/// Bytes of a table that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// Words of bits that are in memory together: those of 32768 blocks.
const WORDS: usize = 512;

/// Calls `each` with every one of the `count` entries of the table at `table`, of `N` bytes each, and
/// its place, in order.
///
/// # Errors
/// Those of the store, also for a table that is not all in the file, and of `each`.
pub fn for_each_entry<const N: usize>(
    table: HostOffset,
    count: u64,
    store: &dyn Storage,
    mut each: impl FnMut(HostOffset, [u8; N]) -> Result<()>,
) -> Result<()> {
    let (mut at, end) = ends::<N>(table, count);
    while at < end {
        at = read_piece(at, end, store, &mut each)?;
    }
    Ok(())
}

/// As [`for_each_entry`], leaving out entries of zeroes that lie in holes of the file: the table of a
/// large new disk costs nothing then.
///
/// # Errors
/// As [`for_each_entry`].
pub fn for_each_written_entry<const N: usize>(
    table: HostOffset,
    count: u64,
    store: &dyn Storage,
    mut each: impl FnMut(HostOffset, [u8; N]) -> Result<()>,
) -> Result<()> {
    let (mut at, end) = ends::<N>(table, count);
    let in_file = end.get() <= store.len()?;
    let Some(holes) = store.holes().filter(|_| in_file) else {
        return for_each_entry(table, count, store, each);
    };
    while at < end {
        let run = holes.run_at(at, end.get() - at.get())?;
        let whole = run.len / N as u64 * N as u64;
        at = match run.hole && whole > 0 {
            true => at.saturating_add(whole),
            // Data up to the next hole, and the entry in which that begins.
            false => {
                let data = if run.hole { N as u64 } else { run.len.next_multiple_of(N as u64) };
                read_piece(at, end.min(at.saturating_add(data)), store, &mut each)?
            }
        };
    }
    Ok(())
}

fn ends<const N: usize>(table: HostOffset, count: u64) -> (HostOffset, HostOffset) {
    (table, table.saturating_add(count.saturating_mul(N as u64)))
}

/// Shows the entries from `at` on, as many as are read at once; where the next one is.
fn read_piece<const N: usize>(
    at: HostOffset,
    end: HostOffset,
    store: &dyn Storage,
    each: &mut impl FnMut(HostOffset, [u8; N]) -> Result<()>,
) -> Result<HostOffset> {
    let len = (end.get() - at.get()).min(AT_ONCE / N as u64 * N as u64);
    let mut bytes = vec![0; usize::try_from(len).expect("1 MiB at most")];
    store.read_exact_at(at, &mut bytes)?;
    for (entry, place) in bytes.as_chunks().0.iter().zip((0..).step_by(N)) {
        each(at.saturating_add(place), *entry)?;
    }
    Ok(at.saturating_add(len))
}

/// Which blocks of a file are named; a bit for each, in memory where there are such blocks.
#[derive(Debug)]
pub struct NamedBlocks {
    pages: Vec<Option<Box<[u64; WORDS]>>>,
}

impl NamedBlocks {
    /// For blocks of numbers below `count`, none of which is named yet. Takes eight bytes
    /// for each 32768 of them at once.
    #[must_use]
    pub fn new(count: u64) -> Self {
        let pages = count.div_ceil(64 * WORDS as u64);
        Self { pages: vec![None; usize::try_from(pages).unwrap_or(usize::MAX)] }
    }

    /// Notes that a block is named; false if it was before, or there is no such block.
    pub fn insert(&mut self, number: u64) -> bool {
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        let Some(page) = self.pages.get_mut(word / WORDS) else { return false };
        let page = page.get_or_insert_with(|| Box::new([0; WORDS]));
        let Some(word) = page.get_mut(word % WORDS) else { return false };
        let bit = 1 << (number % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Runs of numbers below `count` that are not named.
    pub fn gaps(&self, count: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            while next < count {
                let start = next;
                let (is_named, len) = bits::run(|word| self.word(word), start, count);
                next += len;
                if !is_named {
                    return Some(start..next);
                }
            }
            None
        })
    }

    /// 64 bits; blocks behind the last are as if they were named.
    fn word(&self, index: usize) -> u64 {
        let Some(page) = self.pages.get(index / WORDS) else { return u64::MAX };
        page.as_ref().and_then(|page| page.get(index % WORDS)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use anydisk_storage::MemoryStorage;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_are_what_no_entry_named_however_far_they_reach() {
        let count = 0x1FFF_FF80;
        let mut named = NamedBlocks::new(count);
        for number in [0, 1, 63, 64, 40_000, count - 1] {
            assert!(named.insert(number) && !named.insert(number), "{number}");
        }
        assert!(!named.insert(count.next_multiple_of(64 * 512)));
        let gaps: Vec<_> = named.gaps(count).collect();
        assert_eq!(gaps, [2..63, 65..40_000, 40_001..count - 1]);
        assert_eq!((named.gaps(64).next(), named.gaps(64).count()), (Some(2..63), 1));
    }

    proptest! {
        #[test]
        fn entries_that_are_left_out_are_zero_and_lie_in_holes(
            written in proptest::collection::vec(0_u64..40_000, 0..6),
            offset in 0_u64..5000,
            count in 0_u64..10_000,
        ) {
            let store = MemoryStorage::default();
            store.set_len(64 << 10).expect("memory grows");
            for at in &written {
                store.write_at(HostOffset(*at), &[7]).expect("memory is written");
            }
            let count = count.min(((64 << 10) - offset) / 4);
            let mut all = Vec::new();
            let table = HostOffset(offset);
            for_each_entry(table, count, &store, |at, entry: [u8; 4]| {
                all.push((at, entry));
                Ok(())
            }).expect("it is read");
            prop_assert_eq!(all.len() as u64, count);
            let mut some = Vec::new();
            for_each_written_entry(table, count, &store, |at, entry: [u8; 4]| {
                some.push((at, entry));
                Ok(())
            }).expect("it is read");
            let set = |all: &[(HostOffset, [u8; 4])]| {
                all.iter().copied().filter(|(_, entry)| *entry != [0; 4]).collect::<Vec<_>>()
            };
            prop_assert_eq!(set(&all), set(&some));
            prop_assert!(some.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }

    #[test]
    fn a_table_that_the_file_cuts_is_an_error() {
        let store = MemoryStorage::new(vec![0; 4096]);
        let none = |_, _: [u8; 4]| Ok(());
        assert!(for_each_entry(HostOffset(4000), 24, &store, none).is_ok());
        assert!(for_each_entry(HostOffset(4000), 25, &store, none).is_err());
        assert!(for_each_written_entry(HostOffset(4000), 25, &store, none).is_err());
    }
}
