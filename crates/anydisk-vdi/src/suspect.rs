//! A field of the header that all the rest contradicts.
//!
//! One wrong bit in a place or a length makes the whole map look damaged, or all blocks lie beside
//! themselves. A repair of what then looks wrong would lose what is whole. So where an entry is wrong,
//! each of these fields is tried with each of its bits the other way: if that alone makes everything fit,
//! the field is told, nothing is repaired and nothing written.
//!
//! ```text
//!   everything fits:  no entry names what another one names, or a block that is not counted or not
//!                     in the file; and, if it is about the place of blocks, the file ends with the last
//! ```

use anydisk_core::{Error, HostOffset, NamedBlocks, Result, Storage};

use crate::guard::for_each_entry;
use crate::header::{Header, Version};
use crate::layout::{ENTRY, FREE, SECTOR, ZERO};
use crate::limits;
use crate::state::{BLOCKS, EXTRA, FIRST, Field, TABLE};

/// A field that is wrong, as it seems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// Where it is.
    pub(crate) at: HostOffset,
    /// Why, for people.
    pub(crate) why: String,
}

impl Suspect {
    /// `expected`: the value with which everything fits, if there is one.
    fn new(header: &Header, field: (Field, &str), found: u64, expected: Option<u64>) -> Self {
        let at = HostOffset(field.0.at(header.version).unwrap_or_default() as u64);
        let why = match expected {
            Some(expected) => format!(
                "{} is {found:#x}: everything fits with {expected:#x}, one bit of it is wrong",
                field.1
            ),
            None => format!(
                "{} is {found:#x}, in the middle of a sector, and the map there is damaged",
                field.1
            ),
        };
        Self { at, why }
    }
}

/// The field that is wrong, of a header of which an entry of the map, as it has it, is damaged. `len`:
/// bytes of the file.
///
/// # Errors
/// Those of the store.
pub(crate) fn field(header: &Header, store: &dyn Storage, len: u64) -> Result<Option<Suspect>> {
    for (field, found, candidate) in candidates(header) {
        let ends_with_blocks = candidate.block_at(candidate.allocated).get() == len;
        let must_end = matches!(field.1, "offData" | "cBlocks");
        if candidate.check_sizes(len).is_ok()
            && (ends_with_blocks || !must_end)
            && fits(&candidate, store, len)?
        {
            let expected = value(field.1, &candidate);
            return Ok(Some(Suspect::new(header, field, found, Some(expected))));
        }
    }
    let is_odd = header.version == Version::One && !header.table.get().is_multiple_of(SECTOR);
    let found = header.table.get();
    Ok(is_odd.then(|| Suspect::new(header, (TABLE, "offBlocks"), found, None)))
}

type Candidate = ((Field, &'static str), u64, Header);

/// The header with one bit the other way, for each that tells a place or a length.
fn candidates(header: &Header) -> Vec<Candidate> {
    let flips = |found: u64| (0..u32::BITS).map(move |bit| found ^ 1 << bit);
    let change = |change: &dyn Fn(&mut Header)| {
        let mut candidate = header.clone();
        change(&mut candidate);
        candidate
    };
    let mut all = Vec::new();
    let mut add = |field, found, candidate| all.push((field, found, candidate));
    if header.version == Version::Old {
        for blocks in flips(header.blocks) {
            let first = header.table.saturating_add(blocks * ENTRY);
            let candidate = change(&|it| (it.blocks, it.first) = (blocks, first));
            add((BLOCKS, "cBlocks"), header.blocks, candidate);
        }
        return all;
    }
    if header.extra != 0 {
        let field = (EXTRA, "cbBlockExtra");
        add(field, header.extra, change(&|it| it.extra = 0));
    }
    for first in flips(header.first.get()) {
        let candidate = change(&|it| it.first = HostOffset(first));
        add((FIRST, "offData"), header.first.get(), candidate);
    }
    // A map that begins a few entries further on may fit by chance.
    let header_end = header.len as u64;
    let sectors = flips(header.table.get()).filter(|at| at.is_multiple_of(SECTOR));
    for table in sectors.filter(|table| *table >= header_end) {
        let candidate = change(&|it| it.table = HostOffset(table));
        add((TABLE, "offBlocks"), header.table.get(), candidate);
    }
    all
}

fn value(field: &str, header: &Header) -> u64 {
    match field {
        "offBlocks" => header.table.get(),
        "offData" => header.first.get(),
        "cbBlockExtra" => header.extra,
        _ => header.blocks,
    }
}

/// Whether no entry is wrong, and they name most of the blocks that are counted.
fn fits(header: &Header, store: &dyn Storage, len: u64) -> Result<bool> {
    let count = header.allocated.min(header.blocks_in(len)).min(limits::BLOCKS);
    let mut named = NamedBlocks::new(count);
    let (mut sum, mut end) = (0_u64, 0);
    let look = for_each_entry(header.table, header.blocks, store, |_, entry| {
        let number = u64::from(entry);
        match entry {
            FREE | ZERO => Ok(()),
            _ if number < count && named.insert(number) => {
                (sum, end) = (sum + 1, end.max(number + 1));
                Ok(())
            }
            // The rest need not be read.
            _ => Err(Error::Cancelled),
        }
    });
    match look {
        Err(Error::Cancelled) => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(sum > 0
            && sum.saturating_mul(2) >= header.allocated
            && header.block_at(end).get() <= len),
    }
}
