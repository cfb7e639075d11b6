//! What must hold before a disk in blocks is written: every block is in the file, on nothing else.
//! Else a write might land in another block, or in the table.

use anydisk_core::{Error, HostOffset, Result, Storage, can_be_leaks};

use crate::NAME;
use crate::footer::{FOOTER_LEN, limit};
use crate::header::HEADER_LEN;
use crate::image::Parts;
use crate::layout::{ABSENT, ENTRY, SECTOR};
use crate::limits;
use crate::table::Shape;

/// Free runs that are kept in mind when an image is opened: more of them stay unused until the next
/// time.
const FREE_RUNS: usize = 1 << 16;

/// The data of new blocks begins at multiples of so many bytes, where that can be.
pub(crate) const ALIGNMENT: u64 = 4096;

/// Some bytes of the file, by the first and the first behind.
pub(crate) type Piece = (u64, u64);

/// How space is allotted in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes before each bitmap that are left empty, so that data lies on a boundary.
    pub(crate) pad: u64,
    /// Boundary of pad, bitmap and data together.
    pub(crate) align: u64,
    /// Space between the pieces that are in use.
    pub(crate) free: Vec<Piece>,
    /// Space between them that no block gets: it is too small.
    pub(crate) slivers: Vec<Piece>,
    /// Behind the last of them.
    pub(crate) end: u64,
    /// From the header's usual place to the first thing that is neither header nor locator.
    pub(crate) home: Piece,
    /// Bytes of blocks that the table names.
    pub(crate) named: u64,
    /// Bytes behind the last of them that nothing names.
    pub(crate) unnamed: u64,
}

/// Calls `each` with every entry of the table and its place, in order.
///
/// # Errors
/// Those of the store and of `each`.
pub(crate) fn for_each_entry(
    shape: &Shape,
    store: &dyn Storage,
    mut each: impl FnMut(HostOffset, u32) -> Result<()>,
) -> Result<()> {
    let each = |at, entry| each(at, u32::from_be_bytes(entry));
    anydisk_core::for_each_entry(shape.table, shape.entries, store, each)
}

/// Where footer, header, table and locators are, rising.
pub(crate) fn metadata(parts: &Parts, shape: &Shape) -> Vec<Piece> {
    let piece = |at: HostOffset, len: u64| (at.get(), at.get().saturating_add(len));
    let mut pieces = vec![
        piece(HostOffset::ZERO, FOOTER_LEN as u64),
        piece(parts.footer.header_at(), HEADER_LEN as u64),
        piece(shape.table, shape.entries * ENTRY),
    ];
    pieces.extend(parts.locators.iter().map(|locator| piece(locator.place, locator.length)));
    pieces.retain(|(at, end)| at < end);
    pieces.sort_unstable();
    pieces
}

/// Looks through the table, and tells what of the file is free.
///
/// # Errors
/// [`Error::NeedsRepair`] for a block that is not in the file or lies on something else,
/// [`Error::Limit`] for a table that is too large to be looked through.
pub(crate) fn survey(
    parts: &Parts,
    shape: &Shape,
    store: &dyn Storage,
    is_new: bool,
) -> Result<Room> {
    limit("number of blocks of a disk to be written", shape.entries, limits::ENTRIES)?;
    let mut sectors = Vec::new();
    if !is_new {
        let end = HostOffset(parts.room_end());
        let mut number = 0;
        for_each_entry(shape, store, |at, entry| {
            if entry != ABSENT {
                if shape.place(entry, number, end).is_none() {
                    let why =
                        format!("the entry at {at} names sector {entry}, which is no block's");
                    return Err(needs_repair(why));
                }
                sectors.push(entry);
            }
            number += 1;
            Ok(())
        })?;
    }
    sectors.sort_unstable();
    let metadata = metadata(parts, shape);
    check_apart(&merged(&metadata, &sectors, shape, 0))?;
    let mut room = Room::of(&metadata, &sectors, shape);
    room.unnamed = if is_new { 0 } else { parts.room_end().saturating_sub(room.end) };
    if !can_be_leaks(room.unnamed, room.named) {
        // Blocks of a table that was lost are neither cut off nor written over.
        room.free.clear();
        room.end = parts.room_end().next_multiple_of(SECTOR);
    }
    Ok(room)
}

impl Room {
    /// New blocks get their data on a boundary, if all that are there have it: then the space of
    /// each is as long as that of any other, and can be used again by any.
    fn of(metadata: &[Piece], sectors: &[u32], shape: &Shape) -> Self {
        let pad = shape.bitmap.next_multiple_of(ALIGNMENT) - shape.bitmap;
        let on_boundary =
            |sector: &u32| (u64::from(*sector) * SECTOR + shape.bitmap).is_multiple_of(ALIGNMENT);
        let padded = merged(metadata, sectors, shape, pad);
        let is_aligned = sectors.iter().all(on_boundary) && check_apart(&padded).is_ok();
        let (pieces, pad, align) = match is_aligned && shape.block.is_multiple_of(ALIGNMENT) {
            true => (padded, pad, ALIGNMENT),
            false => (merged(metadata, sectors, shape, 0), 0, SECTOR),
        };
        let end = pieces.last().map_or(0, |piece| piece.1).next_multiple_of(SECTOR);
        let behind = pieces.iter().skip(1).map(|piece| piece.0);
        let gaps = pieces.iter().map(|piece| piece.1).zip(behind);
        let (mut free, mut slivers) = (Vec::new(), Vec::new());
        for gap in gaps.filter(|(at, end)| at < end) {
            let is_room = gap.1 - gap.0 >= shape.stride() && free.len() < FREE_RUNS;
            if is_room { free.push(gap) } else { slivers.push(gap) }
        }
        let table = shape.table.get();
        let first = sectors.first().map_or(table, |sector| u64::from(*sector) * SECTOR);
        let home = (FOOTER_LEN as u64, table.min(first));
        let named = sectors.len() as u64 * (pad + shape.stride());
        Self { pad, align, free, slivers, end, home, named, unnamed: 0 }
    }
}

/// Metadata and blocks, each with the `pad` bytes before it, rising.
fn merged(metadata: &[Piece], sectors: &[u32], shape: &Shape, pad: u64) -> Vec<Piece> {
    let block = |sector: &u32| {
        let at = u64::from(*sector) * SECTOR;
        (at.saturating_sub(pad), at + shape.stride())
    };
    let mut pieces: Vec<Piece> =
        metadata.iter().copied().chain(sectors.iter().map(block)).collect();
    pieces.sort_unstable();
    pieces
}

/// No two pieces share a byte.
pub(crate) fn check_apart(pieces: &[Piece]) -> Result<()> {
    for pair in pieces.windows(2) {
        if let [first, second] = pair
            && second.0 < first.1
        {
            let (first, second) = (HostOffset(first.0), HostOffset(second.0));
            return Err(needs_repair(format!("what is at {second} lies on what is at {first}")));
        }
    }
    Ok(())
}

pub(crate) fn needs_repair(why: String) -> Error {
    Error::NeedsRepair { format: NAME, why: why.into() }
}

pub(crate) fn read_only(why: &'static str) -> Error {
    Error::ReadOnly { why: why.into() }
}
