//! What must hold before an image is written: every block is in the file, on nothing else.

use anydisk_core::{Error, HostOffset, Result, Storage, StorageExt};

use crate::NAME;
use crate::header::limit;
use crate::layout::MIB;
use crate::limits;
use crate::table::{Block, ENTRY, Shape, block_of};

/// Entries that are read at once.
const AT_ONCE: u64 = 128 << 10;

/// Free runs that are kept in mind when an image is opened.
const FREE_RUNS: usize = 1 << 16;

/// Free space, by its place and number of blocks, and where nothing is in use any more.
pub(crate) type Room = (Vec<(HostOffset, u64)>, HostOffset);

/// Looks through the table.
///
/// # Errors
/// [`Error::NeedsRepair`] for a block that is not in the file or lies on something else,
/// [`Error::Limit`] for a table that is too large to be looked through.
pub(crate) fn survey(shape: &Shape, store: &dyn Storage) -> Result<Room> {
    let entries = shape.entries();
    limit("number of blocks of a disk to be written", entries, limits::ENTRIES)?;
    let mut pieces: Vec<(u64, u64)> = vec![(0, MIB)];
    pieces.extend(
        shape
            .taken
            .iter()
            .filter(|place| place.len > 0)
            .map(|place| (place.at.get(), place.at.saturating_add(place.len).get())),
    );
    let mut done = 0;
    while done < entries {
        let count = (entries - done).min(AT_ONCE);
        let at = shape.table.saturating_add(done * ENTRY);
        let mut bytes = vec![0; usize::try_from(count * ENTRY).expect("1 MiB at most")];
        store.read_exact_at(at, &mut bytes)?;
        for (word, place) in bytes.as_chunks().0.iter().zip(0..) {
            let number = done + place;
            // The entry of a bitmap, which is not used without a parent.
            if number % (shape.ratio + 1) == shape.ratio {
                continue;
            }
            match block_of(u64::from_le_bytes(*word)) {
                Block::Absent | Block::Zero => {}
                Block::Full(at) if shape.may_lie_at(at, shape.block) => {
                    pieces.push((at.get(), at.saturating_add(shape.block).get()));
                }
                _ => {
                    let why = format!("BAT entry {number} names no place of a block");
                    return Err(needs_repair(why));
                }
            }
        }
        done += count;
    }
    pieces.sort_unstable();
    let (mut free, mut end) = (Vec::new(), 0);
    for (at, behind) in pieces {
        if at < end {
            return Err(needs_repair(format!("what is at {at:#x} lies on something else")));
        }
        let count = (at - end) / shape.block;
        if count > 0 && free.len() < FREE_RUNS {
            free.push((HostOffset(end), count));
        }
        end = behind;
    }
    Ok((free, HostOffset(end.next_multiple_of(MIB))))
}

fn needs_repair(why: String) -> Error {
    Error::NeedsRepair { format: NAME, why: why.into() }
}
