//! The block allocation table. Pure: no I/O, no locks.
//!
//! Behind the entries of each chunk of blocks lies one for the bitmap of its sectors, which only a
//! differencing disk has:
//!
//! ```text
//!   block 0 | block 1 | ... | block r-1 | bitmap 0 | block r | ... | block 2r-1 | bitmap 1 | ...
//! ```

use anydisk_core::{Error, GuestOffset, HostOffset, Result, Value};

use crate::header::{Place, Regions, invalid, limit};
use crate::layout::MIB;
use crate::limits;
use crate::metadata::Metadata;

/// Entries of the table in a slice that is cached as one.
pub(crate) const SLICE: usize = 512;

/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 8;

/// Words of a bitmap in a slice that is cached as one.
pub(crate) const BIT_WORDS: usize = 512;

/// Bits in a slice of a bitmap.
pub(crate) const SLICE_BITS: u64 = BIT_WORDS as u64 * 64;

/// Bits of a bitmap block, which has 1 MiB.
const CHUNK_BITS: u64 = 8 * MIB;

/// The entry of a block that is zero.
pub(crate) const ZERO: u64 = 2;

/// The state of a block that is there.
pub(crate) const FULL: u64 = 6;

/// The state of a block some sectors of which are there.
pub(crate) const PARTIAL: u64 = 7;

/// Entries of a chunk of a disk with blocks and sectors of these sizes, that of its bitmap included.
pub(crate) fn chunk_entries(block: u64, sector: u64) -> u64 {
    CHUNK_BITS * sector / block + 1
}

/// Entries that a disk of `size` bytes without a parent needs.
pub(crate) fn entries_for(size: u64, block: u64, sector: u64) -> u64 {
    let blocks = size.div_ceil(block);
    blocks + blocks.saturating_sub(1) / (chunk_entries(block, sector) - 1)
}

/// Where the answers for a disk are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The table.
    pub(crate) table: HostOffset,
    /// Bytes of a block, a power of two.
    pub(crate) block: u64,
    /// Blocks of a chunk.
    pub(crate) ratio: u64,
    /// Bytes that a bit stands for.
    pub(crate) sector: u64,
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// Bits say where sectors are.
    pub(crate) has_parent: bool,
    /// Where no block may lie: regions and log.
    pub(crate) taken: Vec<Place>,
    /// Where the file ends.
    pub(crate) end: HostOffset,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) slice: HostOffset,
    pub(crate) index: usize,
}

/// What an entry says of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Nothing: the parent, else zeroes.
    Absent,
    /// Zeroes, whatever the parent has.
    Zero,
    /// All of it is here.
    Full(HostOffset),
    /// Bits say which sectors are here.
    Partial(HostOffset),
    /// No such state.
    Unknown,
}

/// What a word of the table says.
pub(crate) fn block_of(entry: u64) -> Block {
    let at = HostOffset(entry & !(MIB - 1));
    match entry & 7 {
        0 => Block::Absent,
        // Undefined and unmapped: their places say nothing.
        1..=3 => Block::Zero,
        6 => Block::Full(at),
        7 => Block::Partial(at),
        _ => Block::Unknown,
    }
}

/// What the place in an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing, or there is no place.
    None,
    /// Of a block or bitmap that is there.
    Held(HostOffset),
    /// A place that says nothing. It may be kept for a block that was given up, or the state is what
    /// is wrong: nothing else may lie there.
    Kept(HostOffset),
    /// There is no such state.
    Unknown,
}

/// What an entry is for, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Of the block of this number.
    Block(u64),
    /// Of the bitmap of the chunk of this number.
    Bitmap(u64),
}

impl Shape {
    /// # Errors
    /// `Invalid` for a table that is too short for the disk.
    pub(crate) fn of(
        metadata: &Metadata,
        regions: &Regions,
        log: Place,
        end: HostOffset,
    ) -> Result<Self> {
        let &Metadata { block, size, sector, has_parent, .. } = metadata;
        limit("size of the disk in bytes", size, limits::DISK)?;
        let ratio = CHUNK_BITS * sector / block;
        let mut taken = regions.all.clone();
        taken.push(log);
        let table = regions.table.at;
        let shape = Self { table, block, ratio, sector, size, has_parent, taken, end };
        let needed = shape.entries() * ENTRY;
        if regions.table.len < needed {
            let expected = format!("{needed} bytes or more, for a disk of {size} bytes");
            return Err(invalid("BAT region", table, regions.table.len.into(), expected));
        }
        Ok(shape)
    }

    /// Entries that the table has.
    pub(crate) fn entries(&self) -> u64 {
        match self.has_parent {
            true => self.size.div_ceil(self.block).div_ceil(self.ratio) * (self.ratio + 1),
            false => entries_for(self.size, self.block, self.sector),
        }
    }

    /// What the entry of this number is for.
    pub(crate) fn slot(&self, number: u64) -> Slot {
        let (chunk, place) = (number / (self.ratio + 1), number % (self.ratio + 1));
        match place == self.ratio {
            true => Slot::Bitmap(chunk),
            false => Slot::Block(chunk * self.ratio + place),
        }
    }

    /// What an entry says of its place.
    pub(crate) fn use_of(&self, slot: Slot, entry: u64) -> Use {
        let at = HostOffset(entry & !(MIB - 1));
        let kept = if at == HostOffset::ZERO { Use::None } else { Use::Kept(at) };
        match (slot, entry & 7) {
            (Slot::Block(number), _) if number * self.block >= self.size => kept,
            (Slot::Block(_), 0..=3) => kept,
            (Slot::Block(_), 6) => Use::Held(at),
            (Slot::Block(_), 7) if self.has_parent => Use::Held(at),
            // A writer's bug moved entries of blocks there.
            (Slot::Bitmap(_), _) if !self.has_parent => kept,
            (Slot::Bitmap(_), 0) => kept,
            (Slot::Bitmap(_), 6) => Use::Held(at),
            _ => Use::Unknown,
        }
    }

    /// Whether a bitmap says which sectors of a block are here.
    pub(crate) fn is_partial(&self, slot: Slot, entry: u64) -> bool {
        let is_block = matches!((slot, self.use_of(slot, entry)), (Slot::Block(_), Use::Held(_)));
        is_block && entry & 7 == PARTIAL
    }

    /// Bytes of the file that an entry explains: those it names, and those of a block that was zeroed,
    /// which may have left as much behind. A table that was lost explains little: where there are
    /// zeroes, it says of no block that it is zero.
    pub(crate) fn explains(&self, slot: Slot, entry: u64) -> u64 {
        match (slot, self.use_of(slot, entry), entry & 7) {
            (_, Use::Held(_) | Use::Kept(_), _) => self.len_of(slot),
            (Slot::Block(_), Use::None, 1..=3) => self.block,
            _ => 0,
        }
    }

    /// Bytes of the file that what an entry is for takes.
    pub(crate) fn len_of(&self, slot: Slot) -> u64 {
        match slot {
            Slot::Block(_) => self.block,
            Slot::Bitmap(_) => MIB,
        }
    }

    /// Bytes of it that must be in the file.
    pub(crate) fn needed(&self, slot: Slot) -> u64 {
        match slot {
            Slot::Block(number) => self.used(number),
            Slot::Bitmap(_) => MIB,
        }
    }

    #[inline]
    pub(crate) fn block_number(&self, at: GuestOffset) -> u64 {
        at.get() >> self.block.trailing_zeros()
    }

    /// The chunk around a guest offset.
    pub(crate) fn chunk(&self, at: GuestOffset) -> u64 {
        self.block_number(at) / self.ratio
    }

    /// The entry of a block.
    #[inline]
    pub(crate) fn block_spot(&self, block: u64) -> Spot {
        // A power of two, as sectors and blocks are.
        self.spot(block + (block >> self.ratio.trailing_zeros()))
    }

    /// The entry of the bitmap for a block.
    pub(crate) fn bitmap_spot(&self, block: u64) -> Spot {
        self.spot(block / self.ratio * (self.ratio + 1) + self.ratio)
    }

    fn spot(&self, index: u64) -> Spot {
        let slice = SLICE as u64;
        let first = index / slice * slice;
        Spot {
            slice: self.table.saturating_add(first * ENTRY),
            index: usize::try_from(index - first).unwrap_or_default(),
        }
    }

    /// Entries that the table has in a slice.
    pub(crate) fn count(&self, slice: HostOffset) -> usize {
        let first = slice.get().saturating_sub(self.table.get()) / ENTRY;
        let count = self.entries().saturating_sub(first).min(SLICE as u64);
        usize::try_from(count).unwrap_or(SLICE)
    }

    /// How many blocks from one on have their entries in a row and in one slice, `most` at most.
    pub(crate) fn row(&self, block: u64, spot: &Spot, most: u64) -> u64 {
        let in_chunk = self.ratio - block % self.ratio;
        let in_slice = self.count(spot.slice).saturating_sub(spot.index) as u64;
        most.min(in_chunk).min(in_slice).max(1)
    }

    /// Bytes of a block that are on the disk.
    pub(crate) fn used(&self, block: u64) -> u64 {
        self.size.saturating_sub(block.saturating_mul(self.block)).min(self.block)
    }

    /// Whether `len` bytes at a place can be those of a block, in the file as it was opened.
    pub(crate) fn may_lie_at(&self, at: HostOffset, len: u64) -> bool {
        self.may_lie_before(self.end, at, len)
    }

    /// The same, of a file that ends at `end` now.
    #[inline]
    pub(crate) fn may_lie_before(&self, file_end: HostOffset, at: HostOffset, len: u64) -> bool {
        let end = at.saturating_add(len);
        let is_free = |place: &Place| {
            end <= place.at || at >= place.at.saturating_add(place.len) || place.len == 0
        };
        at.get() >= MIB && end <= file_end && self.taken.iter().all(is_free)
    }

    /// Where the bit for a byte of a block is, in the bitmap at `bitmap`: its slice, its number
    /// there.
    pub(crate) fn bit(&self, bitmap: HostOffset, block: u64, within: u64) -> (HostOffset, u64) {
        let bit = (block % self.ratio * self.block + within) / self.sector;
        let slice = bitmap.saturating_add(bit / SLICE_BITS * (SLICE_BITS / 8));
        (slice, bit % SLICE_BITS)
    }

    /// The error for an entry that names no place of a block, or has no state that there is.
    pub(crate) fn invalid(&self, spot: &Spot, entry: u64) -> Error {
        let at = spot.slice.saturating_add(spot.index as u64 * ENTRY);
        let expected = "a state that there is, and the place of a block in the file";
        invalid("BAT entry", at, Value::Hex(entry), expected)
    }
}

/// The entries, or the words of a bitmap, in bytes.
pub(crate) fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(block: u64, size: u64, has_parent: bool) -> Shape {
        Shape {
            table: HostOffset(3 * MIB),
            block,
            ratio: CHUNK_BITS * 512 / block,
            sector: 512,
            size,
            has_parent,
            taken: vec![Place { at: HostOffset(3 * MIB), len: MIB }],
            end: HostOffset(100 * MIB),
        }
    }

    #[test]
    fn the_entry_of_a_bitmap_lies_behind_those_of_its_chunk() {
        let shape = shape(256 * MIB, 40 * 256 * MIB, true);
        let index = |spot: Spot| (spot.slice.get() - 3 * MIB) / 8 + spot.index as u64;
        assert_eq!(shape.ratio, 16);
        assert_eq!([0, 15, 16, 32].map(|block| index(shape.block_spot(block))), [0, 15, 17, 34]);
        assert_eq!([0, 15, 16].map(|block| index(shape.bitmap_spot(block))), [16, 16, 33]);
        assert_eq!(shape.entries(), 51);
        assert_eq!(Shape { has_parent: false, ..shape.clone() }.entries(), 42);
        assert_eq!(shape.row(14, &shape.block_spot(14), 9), 2);
    }

    #[test]
    fn a_block_lies_behind_the_headers_in_the_file_and_on_no_region() {
        let shape = shape(MIB, 40 * MIB, false);
        let may = |mib: u64| shape.may_lie_at(HostOffset(mib * MIB), MIB);
        assert_eq!(
            [0, 1, 2, 3, 4, 99, 100].map(may),
            [false, true, true, false, true, true, false]
        );
        assert!(!shape.may_lie_at(HostOffset(u64::MAX - 5), MIB));
    }

    #[test]
    fn states_are_those_of_the_specification() {
        let at = HostOffset(5 * MIB);
        let of = |state: u64| block_of(at.get() | state);
        let expected = [
            Block::Absent,
            Block::Zero,
            Block::Zero,
            Block::Zero,
            Block::Unknown,
            Block::Unknown,
            Block::Full(at),
            Block::Partial(at),
        ];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(of), expected);
    }
}
