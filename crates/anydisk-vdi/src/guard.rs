//! What must hold before an image is written: every block that the map names is in the file, and
//! named once. Else a write might land in another block.

use std::ops::Range;

use anydisk_core::{Error, HostOffset, NamedBlocks, Result, Storage, StorageExt};

use crate::NAME;
use crate::header::{Header, limit};
use crate::layout::{FREE, ZERO};
use crate::limits;

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
    let mut named = NamedBlocks::new(count);
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
        _ => Ok(()),
    })?;
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
