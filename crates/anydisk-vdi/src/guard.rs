//! What must hold before an image is written: every block that the map names is in the file, and
//! named once. Else a write might land in another block.

use std::ops::Range;

use anydisk_core::{
    Error, HostOffset, NamedBlocks, Result, Storage, StorageExt, can_be_leaked_blocks,
};

use crate::header::{Header, limit};
use crate::layout::{FREE, ZERO};
use crate::{NAME, limits, suspect};

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
    let each = |at, entry| each(at, u32::from_le_bytes(entry));
    anydisk_core::for_each_entry(table, all, store, each)
}

/// Whether a crash can have left the blocks below `count` that are not named, in an image with this header.
pub(crate) fn lacks_few(named: &NamedBlocks, count: u64, header: &Header) -> bool {
    let unnamed: u64 = named.gaps(count).map(|run| run.end - run.start).sum();
    // What the map has no entries for it did not name before: the disk shrinks.
    let lost = unnamed.saturating_sub(count.saturating_sub(header.blocks));
    let bytes = |blocks: u64| blocks.saturating_mul(header.stride());
    can_be_leaked_blocks(bytes(lost), bytes(count - unnamed), header.stride())
}

/// Blocks that nothing names, of which is looked whether they hold data when an image is opened.
const LOOKED_AT: usize = 1 << 12;

/// What the map says of the blocks that are counted and in the file.
#[derive(Debug, Default)]
pub(crate) struct Surveyed {
    /// Those that nothing names and that hold no data.
    pub(crate) free: Vec<Range<u64>>,
    /// How many are named, and how many are not.
    pub(crate) named: u64,
    pub(crate) unnamed: u64,
}

/// Looks through the map of an image that is to be written. Blocks with data that nothing names are
/// not free: a damaged map may have named them.
///
/// # Errors
/// [`Error::NeedsRepair`] for an entry that names a block which is not in the file or is another's,
/// [`Error::Limit`] for a map that is too large to be looked through.
pub(crate) fn survey(header: &Header, store: &dyn Storage, len: u64) -> Result<Surveyed> {
    limit("number of blocks of a disk to be written", header.blocks, limits::BLOCKS)?;
    let in_file = header.blocks_in(len);
    let count = header.allocated.min(in_file);
    limit("number of blocks in the file", count, limits::BLOCKS)?;
    let mut named = NamedBlocks::new(count);
    let (mut end, mut sum) = (0, 0);
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
            (end, sum) = (end.max(u64::from(number) + 1), sum + 1);
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
    Ok(Surveyed { free, named: sum, unnamed: count - sum })
}

pub(crate) fn read_only(why: &'static str) -> Error {
    Error::ReadOnly { why: why.into() }
}
