//! What must hold before an image is written: every block that the map names is in the file, and
//! named once. Else a write might land in another block.

use std::ops::Range;

use anydisk_core::{Error, HostOffset, Result, Storage, StorageExt, bits, can_be_leaks};

use crate::header::{Header, limit};
use crate::layout::{ENTRY, FREE, ZERO};
use crate::{NAME, limits, suspect};

/// Entries that are read at once.
const AT_ONCE: u64 = 256 << 10;

/// Words of bits that are in memory together: those of 32768 blocks.
const WORDS: usize = 512;

/// Which blocks of the file the map names; a bit for each, in memory where there are such blocks.
#[derive(Debug)]
pub(crate) struct Named {
    pages: Vec<Option<Box<[u64; WORDS]>>>,
}

impl Named {
    /// For blocks of numbers below `count`.
    pub(crate) fn new(count: u64) -> Self {
        let pages = count.div_ceil(64 * WORDS as u64);
        Self { pages: vec![None; usize::try_from(pages).unwrap_or(usize::MAX)] }
    }

    /// Notes that a block is named; false if it was before, or there is no such block.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
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
    pub(crate) fn gaps(&self, count: u64) -> impl Iterator<Item = Range<u64>> + '_ {
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

    /// Whether a crash can have left those below `count` that are not named, in an image with this header.
    pub(crate) fn lacks_few(&self, count: u64, header: &Header) -> bool {
        let unnamed: u64 = self.gaps(count).map(|run| run.end - run.start).sum();
        // What the map has no entries for it did not name before: the disk shrinks.
        let lost = unnamed.saturating_sub(count.saturating_sub(header.blocks));
        let bytes = |blocks: u64| blocks.saturating_mul(header.stride());
        lost <= AT_WORK || can_be_leaks(bytes(lost), bytes(count - unnamed))
    }

    /// 64 bits; blocks behind the last are as if they were named.
    fn word(&self, index: usize) -> u64 {
        let Some(page) = self.pages.get(index / WORDS) else { return u64::MAX };
        page.as_ref().and_then(|page| page.get(index % WORDS)).copied().unwrap_or(0)
    }
}

/// Calls `each` with every one of the `all` entries of the map at `table`, and its place, in order.
///
/// # Errors
/// Those of the store and of `each`.
pub(crate) fn for_each_entry(
    table: HostOffset,
    all: u64,
    store: &dyn Storage,
    mut each: impl FnMut(HostOffset, u32) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < all {
        let count = (all - done).min(AT_ONCE);
        let at = table.saturating_add(done * ENTRY);
        let mut bytes = vec![0; usize::try_from(count * ENTRY).expect("1 MiB at most")];
        store.read_exact_at(at, &mut bytes)?;
        for (entry, place) in bytes.as_chunks().0.iter().zip(0..) {
            each(at.saturating_add(place * ENTRY), u32::from_le_bytes(*entry))?;
        }
        done += count;
    }
    Ok(())
}

/// Blocks that may be on their way when power fails, however large they are.
const AT_WORK: u64 = 4;

/// Blocks that nothing names, of which is looked whether they hold data when an image is opened.
const LOOKED_AT: usize = 1 << 12;

/// The blocks that are counted, that nothing names and that hold no data, which a damaged map may have
/// named.
///
/// # Errors
/// [`Error::NeedsRepair`] for an entry that names a block which is not in the file or is another's,
/// [`Error::Limit`] for a map that is too large to be looked through.
pub(crate) fn free_blocks(
    header: &Header,
    store: &dyn Storage,
    len: u64,
) -> Result<Vec<Range<u64>>> {
    limit("number of blocks of a disk to be written", header.blocks, limits::BLOCKS)?;
    let in_file = header.blocks_in(len);
    let count = header.allocated.min(in_file);
    limit("number of blocks in the file", count, limits::BLOCKS)?;
    let mut named = Named::new(count);
    let mut end = 0;
    for_each_entry(header.table, header.blocks, store, |at, entry| match entry {
        FREE | ZERO => Ok(()),
        number if u64::from(number) >= header.allocated => Err(Error::needs_repair(
            NAME,
            format!(
                "the block map entry at {at} is {number}, and there are {} blocks",
                header.allocated
            ),
        )),
        number if u64::from(number) >= in_file => Err(Error::needs_repair(
            NAME,
            format!("the block map entry at {at} is {number}, and the file ends before that block"),
        )),
        number if !named.insert(number.into()) => Err(Error::needs_repair(
            NAME,
            format!("the block map entry at {at} is {number}, as another one"),
        )),
        number => {
            end = end.max(u64::from(number) + 1);
            Ok(())
        }
    })?;
    // The file ends in a block: it was cut off, or the blocks are not where they seem to be.
    if header.block_at(end).get() > len
        && let Some(suspect) = suspect::field(header, store, len)?
    {
        return Err(Error::needs_repair(NAME, suspect.why));
    }
    let mut free = Vec::new();
    for number in named.gaps(count).flatten().take(LOOKED_AT) {
        if store.is_zero_at(header.block_at(number), header.stride())? {
            free.push(number..number + 1);
        }
    }
    Ok(free)
}

pub(crate) fn read_only(why: &'static str) -> Error {
    Error::ReadOnly { why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_no_entry_named_however_far_they_reach() {
        let count = limits::BLOCKS;
        let mut named = Named::new(count);
        for number in [0, 1, 63, 64, 40_000, count - 1] {
            assert!(named.insert(number) && !named.insert(number), "{number}");
        }
        assert!(!named.insert(count.next_multiple_of(64 * 512)));
        let gaps: Vec<_> = named.gaps(count).collect();
        assert_eq!(gaps, [2..63, 65..40_000, 40_001..count - 1]);
        assert_eq!((named.gaps(64).next(), named.gaps(64).count()), (Some(2..63), 1));
    }
}
