//! What must hold before an image is written: every block is in the file, on nothing else.

use std::ops::Range;

use anydisk_core::{Error, HostOffset, Result, Storage, StorageExt, can_be_leaks};

use crate::NAME;
use crate::layout::MIB;
use crate::occupied::Occupied;
use crate::table::{ENTRY, Shape, Use, words_of};

/// Entries that are read at once.
const AT_ONCE: u64 = 128 << 10;

/// Free runs that are kept in mind when an image is opened.
const FREE_RUNS: usize = 1 << 16;

/// What of a file is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Places and bytes.
    pub(crate) free: Vec<(HostOffset, u64)>,
    /// Nothing from here on is in use.
    pub(crate) end: HostOffset,
    /// Bytes that the table explains, and bytes that nothing names.
    pub(crate) named: u64,
    pub(crate) unnamed: u64,
}

/// Calls `each` with every entry of the table and its number, in order.
///
/// # Errors
/// Those of the store and of `each`.
pub(crate) fn for_each_entry(
    shape: &Shape,
    store: &dyn Storage,
    each: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    for_entries(shape.table, 0..shape.entries(), store, each)
}

/// The same, of some entries of a table.
///
/// # Errors
/// Those of the store and of `each`.
pub(crate) fn for_entries(
    table: HostOffset,
    numbers: Range<u64>,
    store: &dyn Storage,
    mut each: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let mut done = numbers.start;
    while done < numbers.end {
        let count = (numbers.end - done).min(AT_ONCE);
        let mut bytes = vec![0; usize::try_from(count * ENTRY).expect("1 MiB at most")];
        store.read_exact_at(table.saturating_add(done * ENTRY), &mut bytes)?;
        (done..).zip(words_of(&bytes)).try_for_each(|(number, entry)| each(number, entry))?;
        done += count;
    }
    Ok(())
}

/// A file of which headers, regions and log are in use.
///
/// # Errors
/// `Limit` for a file that is too long.
pub(crate) fn metadata(shape: &Shape) -> Result<Occupied> {
    let mut occupied = Occupied::new(shape.end.get())?;
    occupied.take(HostOffset::ZERO, MIB);
    for place in shape.taken.iter().filter(|place| place.len > 0) {
        occupied.take(place.at, place.len);
    }
    Ok(occupied)
}

/// Looks through the table.
///
/// # Errors
/// [`Error::NeedsRepair`] for a block that is not in the file or lies on something else, `Limit` for
/// a file that is too long to be looked through.
pub(crate) fn survey(shape: &Shape, store: &dyn Storage) -> Result<Room> {
    let (mut occupied, mut explained, mut behind) = (metadata(shape)?, 0, HostOffset::ZERO);
    let mut kept = Vec::new();
    for_each_entry(shape, store, |number, entry| {
        let slot = shape.slot(number);
        explained += shape.explains(slot, entry);
        match shape.use_of(slot, entry) {
            Use::None => return Ok(()),
            Use::Kept(at) if kept.len() < FREE_RUNS => kept.push((at, shape.len_of(slot))),
            // So many that none of them can be kept in mind: all of the file is.
            Use::Kept(_) => kept = vec![(HostOffset::ZERO, u64::MAX)],
            Use::Held(at) if shape.may_lie_at(at, shape.needed(slot)) => {
                let len = shape.len_of(slot);
                if !occupied.take(at, len) {
                    let why = format!("what BAT entry {number} names lies on something else");
                    return Err(needs_repair(why));
                }
                behind = behind.max(at.saturating_add(len));
            }
            Use::Held(_) | Use::Unknown => {
                let why = format!("BAT entry {number} names no place of a block");
                return Err(needs_repair(why));
            }
        }
        Ok(())
    })?;
    for (at, len) in kept {
        occupied.take(at, len);
    }
    Ok(Room::of(&occupied, explained, behind, shape))
}

impl Room {
    /// Of a file of which the table [explains](Shape::explains) so many bytes, and whose last block
    /// reaches to `behind`.
    fn of(occupied: &Occupied, explained: u64, behind: HostOffset, shape: &Shape) -> Self {
        let (named, unnamed) = (explained, occupied.free());
        if !can_be_leaks(unnamed, named) {
            // Blocks of a table that was lost are neither cut off nor written over.
            let end = HostOffset(shape.end.max(behind).get().next_multiple_of(MIB));
            return Self { free: Vec::new(), end, named, unnamed };
        }
        let end = occupied.end().max(behind);
        let free = occupied.gaps().filter(|(at, _)| *at < end).take(FREE_RUNS).collect();
        Self { free, end, named, unnamed }
    }
}

pub(crate) fn needs_repair(why: String) -> Error {
    Error::NeedsRepair { format: NAME, why: why.into() }
}

pub(crate) fn read_only(why: &'static str) -> Error {
    Error::ReadOnly { why: why.into() }
}
