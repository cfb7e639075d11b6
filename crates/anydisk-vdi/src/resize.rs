//! Changing the virtual size.
//!
//! The map grows into the gap before the first block. Where that is too small, the first blocks of
//! the file move to its end, and a new map is written where they were:
//!
//! ```text
//!   header | map | block 0 | block 1 | block 2 | ...             the old one
//!   header | (map) | new map ......  | block 0 | ... | old 0 | old 1
//! ```
//!
//! The switch is the header, one sector: offBlocks, offData, the sizes. Until then the old map is
//! true, and no place of a block changes with it but those that were moved before.

use anydisk_core::{
    Error, GuestOffset, GuestRange, HostOffset, Image, ImageWrite, NewSize, Preallocation, Resize,
    Result, Still, Storage, StorageExt, TableShape, give_space,
};

use crate::header::{Kind, Version, limit, unsupported};
use crate::image::VdiImage;
use crate::layout::{ENTRY, FREE, SECTOR, ZERO};
use crate::limits;

/// Entries that are written at once.
const AT_ONCE: u64 = 256 << 10;

impl Resize for VdiImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        limit("size of the disk in bytes", new.size, limits::DISK)?;
        let size = new.size.next_multiple_of(SECTOR);
        limit("number of blocks", size.div_ceil(self.header.block), limits::BLOCKS)?;
        match size.cmp(&self.size()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => self.shrink(size, new),
            std::cmp::Ordering::Greater => self.grow(size, new),
        }
    }
}

impl VdiImage {
    fn grow(&self, size: u64, new: &NewSize<'_>) -> Result<()> {
        let old = self.table.shape();
        self.make_room(size)?;
        let grown =
            self.fill_new(old.size, size, new).and_then(|()| self.put_shape(&self.table.shape()));
        if grown.is_err() {
            // The header still tells the old size, so the disk keeps it. The map may stay where it
            // is: it says the same.
            let now = self.table.shape();
            self.table.reshape(TableShape { size: old.size, entries: old.entries, ..now });
        }
        grown
    }

    /// Makes the map long enough for `size` bytes, and the disk in memory that long.
    fn make_room(&self, size: u64) -> Result<()> {
        let still = self.table.hold_still()?;
        self.flush()?;
        let shape = self.table.shape();
        let entries = size.div_ceil(self.header.block).max(shape.entries);
        let end = shape.table.saturating_add(entries * ENTRY);
        if end > shape.first {
            return self.move_map(&still, size, entries);
        }
        // Entries that the disk did not need yet may say anything.
        self.clear_entries(&still, shape.size.div_ceil(self.header.block), entries)?;
        self.table.reshape(TableShape { size, entries, ..shape });
        Ok(())
    }

    /// Makes what is new read as zero, and gives it space if it is to have some.
    fn fill_new(&self, old: u64, size: u64, new: &NewSize<'_>) -> Result<()> {
        let unit_end = old.next_multiple_of(self.header.block);
        // The rest of the unit with the old end, and what would show of a longer disk below.
        let end = unit_end.max(new.below).min(size);
        if end > old {
            (new.zero)(GuestRange::between(GuestOffset(old), GuestOffset(end)))?;
        }
        let preallocation = match (self.header.kind, new.preallocation) {
            (Kind::Fixed, Preallocation::Off) => Preallocation::Metadata,
            (_, other) => other,
        };
        if preallocation != Preallocation::Off {
            let range = GuestRange::between(GuestOffset(old), GuestOffset(size));
            give_space(self, range, preallocation, |at| self.table.unit_at(at))?;
        }
        self.flush()
    }

    fn shrink(&self, size: u64, new: &NewSize<'_>) -> Result<()> {
        let unit_end = size.next_multiple_of(self.header.block).min(self.size());
        if unit_end > size {
            (new.zero)(GuestRange::between(GuestOffset(size), GuestOffset(unit_end)))?;
        }
        let still = self.table.hold_still()?;
        self.flush()?;
        let old = self.table.shape();
        let needed = size.div_ceil(self.header.block);
        // The first block of version 0 lies behind all entries that the header counts.
        let entries = if self.header.version == Version::Old { old.entries } else { needed };
        self.put_shape(&TableShape { size, entries, ..old })?;
        self.table.reshape(TableShape { size, entries, ..old });
        // Now that the disk ends before them, nothing shows when these entries say nothing.
        self.clear_entries(&still, needed, old.entries)?;
        self.close_gaps(&still)?;
        Ok(())
    }

    /// Writes sizes and places into the header.
    fn put_shape(&self, shape: &TableShape) -> Result<()> {
        let store = &**self.table.store();
        self.state.doubt.during(|| {
            self.state.set_shape(shape, None, store)?;
            Ok(store.flush()?)
        })
    }

    /// Makes entries free, whatever they said. Their blocks are then nobody's.
    pub(crate) fn clear_entries(&self, still: &Still<'_>, from: u64, to: u64) -> Result<()> {
        self.write_free(self.table.shape().table, from, to)?;
        self.table.store().flush()?;
        self.table.forget(still, from..to);
        Ok(())
    }

    /// Puts a longer map where the first blocks of the file are.
    fn move_map(&self, still: &Still<'_>, size: u64, entries: u64) -> Result<()> {
        if self.header.version == Version::Old {
            return Err(unsupported("growing the map of an image of version 0"));
        }
        let old = self.table.shape();
        let stride = self.header.stride();
        let vacated = (entries * ENTRY).div_ceil(stride);
        let first = old.first.saturating_add(vacated * stride);
        limit("place of the first block", first.get(), u32::MAX.into())?;
        self.vacate(still, vacated)?;
        // Readers of the blocks that were moved must be gone before the map is written there.
        still.drain()?;
        self.write_moved(&old, old.size.div_ceil(self.header.block), vacated, entries)?;
        let shape = TableShape { table: old.first, entries, size: old.size, first };
        let count = self.blocks_used().saturating_sub(vacated);
        let store = &**self.table.store();
        store.flush()?;
        let _round = self.lock_round();
        self.state.doubt.during(|| {
            self.state.set_shape(&shape, Some(count), store)?;
            Ok(store.flush()?)
        })?;
        self.table.reshape(TableShape { size, ..shape });
        self.table.space().reset(first.saturating_add(count * stride));
        Ok(())
    }

    fn reset_space(&self, end: HostOffset) {
        let _round = self.lock_round();
        self.table.space().reset(end);
    }

    /// Moves the first `count` blocks of the file behind all others.
    fn vacate(&self, still: &Still<'_>, count: u64) -> Result<()> {
        let end = self.blocks_used().max(count);
        let mut moves = self.moves_of(|from| from < count)?;
        for (one, to) in moves.iter_mut().zip(end..) {
            one.to = to;
        }
        // They are behind everything, so that the count must be raised first.
        let new_end = end + moves.len() as u64;
        limit("number of blocks in the file", new_end, limits::ENTRIES)?;
        self.reset_space(self.block_at(new_end));
        self.flush()?;
        self.move_blocks(still, &moves)
    }

    /// Writes the `used` entries of the map as they are, the numbers lower by `vacated`, and free
    /// ones behind them.
    fn write_moved(&self, old: &TableShape, used: u64, vacated: u64, entries: u64) -> Result<()> {
        let store = &**self.table.store();
        let mut done = 0;
        while done < used {
            let count = (used - done).min(AT_ONCE);
            let mut bytes = vec![0; usize::try_from(count * ENTRY).expect("1 MiB at most")];
            store.read_exact_at(old.table.saturating_add(done * ENTRY), &mut bytes)?;
            for entry in bytes.as_chunks_mut::<4>().0 {
                *entry = lowered(u32::from_le_bytes(*entry), vacated)?.to_le_bytes();
            }
            store.write_at(old.first.saturating_add(done * ENTRY), &bytes)?;
            done += count;
        }
        self.write_free(old.first, used, entries)
    }

    /// Writes free entries from number `from` up to `to` of the map at `table`.
    fn write_free(&self, table: HostOffset, from: u64, to: u64) -> Result<()> {
        let mut done = from;
        while done < to {
            let count = (to - done).min(AT_ONCE);
            let bytes = vec![0xFF; usize::try_from(count * ENTRY).expect("1 MiB at most")];
            self.table.store().write_at(table.saturating_add(done * ENTRY), &bytes)?;
            done += count;
        }
        Ok(())
    }
}

/// The number of a block whose place stays, counted from a first block that lies further behind.
fn lowered(entry: u32, by: u64) -> Result<u32> {
    if matches!(entry, FREE | ZERO) {
        return Ok(entry);
    }
    let lower = u64::from(entry).checked_sub(by).and_then(|lower| u32::try_from(lower).ok());
    lower.ok_or_else(|| Error::NeedsRepair {
        format: crate::NAME,
        why: "a block that was to be moved is where it was".into(),
    })
}
