//! The block allocation table and the bitmaps before the blocks. Pure: no I/O, no locks.
//!
//! ```text
//!   entry of a block:  sector of its bitmap        bitmap | data of the block
//!   bit of a sector:   the highest of a byte first
//! ```

use anydisk_core::{Error, GuestOffset, GuestRange, HostOffset, Invalid, Value};

use crate::NAME;
use crate::header::{Header, bitmap_len};
use crate::layout::{ABSENT, ENTRY, SECTOR};

/// Entries of the table in a slice that is cached as one.
pub(crate) const SLICE: usize = 512;

/// Words of a bitmap in a slice that is cached as one: a sector of it.
pub(crate) const BIT_WORDS: usize = 64;

/// Sectors whose bits are in a slice of a bitmap.
pub(crate) const SLICE_BITS: u64 = SECTOR * 8;

/// Where the answers for a disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The first entry.
    pub(crate) table: HostOffset,
    /// Number of entries.
    pub(crate) entries: u64,
    /// Bytes of a block, a power of two.
    pub(crate) block: u64,
    /// Bytes of a bitmap.
    pub(crate) bitmap: u64,
    /// Bytes of the disk.
    pub(crate) size: u64,
}

/// Where the entry for a guest offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Number of the block.
    pub(crate) block: u64,
    pub(crate) slice: HostOffset,
    /// Entries that the table has in the slice.
    pub(crate) count: usize,
    pub(crate) index: usize,
    /// Bytes from the start of the block.
    pub(crate) within: u64,
}

/// Where the bit for a byte of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitSpot {
    pub(crate) slice: HostOffset,
    /// Counted from the start of the slice.
    pub(crate) bit: u64,
}

impl Shape {
    pub(crate) fn of(header: &Header, size: u64) -> Self {
        let (table, entries, block) = (header.table, header.entries, header.block);
        Self { table, entries, block, bitmap: bitmap_len(block), size }
    }

    pub(crate) fn locate(&self, at: GuestOffset) -> Spot {
        let block = at.get() / self.block;
        let slice = SLICE as u64;
        let first = block / slice * slice;
        let count = self.entries.saturating_sub(first).min(slice);
        Spot {
            block,
            slice: self.table.saturating_add(first.saturating_mul(ENTRY)),
            count: usize::try_from(count).unwrap_or(SLICE),
            index: usize::try_from(block - first).unwrap_or_default(),
            within: at.get() % self.block,
        }
    }

    /// The bit for the byte `within` of the block whose bitmap is at `bitmap`.
    pub(crate) fn bit(&self, bitmap: HostOffset, within: u64) -> BitSpot {
        let sector = within / SECTOR;
        let slice = bitmap.saturating_add(sector / SLICE_BITS * SECTOR);
        BitSpot { slice, bit: sector % SLICE_BITS }
    }

    /// The block around a guest offset, cut at the end of the disk.
    pub(crate) fn block_at(&self, at: GuestOffset) -> GuestRange {
        let start = GuestOffset(at.get() / self.block * self.block);
        GuestRange::between(start, GuestOffset(self.size)).first(self.block)
    }

    /// The part of the disk around a guest offset whose bits are in one slice of a bitmap.
    pub(crate) fn slice_at(&self, at: GuestOffset) -> GuestRange {
        let bytes = (SLICE_BITS * SECTOR).min(self.block);
        let start = GuestOffset(at.get() / bytes * bytes);
        GuestRange::between(start, GuestOffset(self.size)).first(bytes)
    }

    /// Bytes of the file that a block takes, its bitmap included.
    pub(crate) fn stride(&self) -> u64 {
        self.bitmap + self.block
    }

    /// Bytes of block number `block` that are on the disk.
    pub(crate) fn used(&self, block: u64) -> u64 {
        self.size.saturating_sub(block.saturating_mul(self.block)).min(self.block)
    }

    /// The place in the file that an entry names, if the file, whose footer is at `end`, has all that the
    /// disk needs of the block there, and the table is not.
    pub(crate) fn place(&self, entry: u32, block: u64, end: HostOffset) -> Option<HostOffset> {
        let at = HostOffset(u64::from(entry) * SECTOR);
        let last = at.saturating_add(self.bitmap + self.used(block));
        let table_end = self.table.saturating_add(self.entries.saturating_mul(ENTRY));
        let is_on_table = at < table_end && self.table < last;
        (at.get() >= SECTOR && last <= end && !is_on_table).then_some(at)
    }

    /// The error for an entry that names no place of a block.
    pub(crate) fn invalid(&self, spot: &Spot, entry: u32) -> Error {
        Invalid {
            format: NAME,
            field: "block allocation table entry".into(),
            at: spot.slice.saturating_add(spot.index as u64 * ENTRY),
            found: Value::Number(entry.into()),
            expected: "the sector of a block in the file".into(),
        }
        .into()
    }
}

impl Spot {
    /// Entries of the slice from this one on.
    pub(crate) fn rest(&self) -> u64 {
        self.count.saturating_sub(self.index) as u64
    }
}

/// The entry that a word of the cache stands for.
pub(crate) fn entry_of(word: u64) -> u32 {
    u32::try_from(word).unwrap_or(ABSENT)
}

/// The entries in bytes of the table.
pub(crate) fn entries_of(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|entry| u32::from_be_bytes(*entry).into())
}

/// The words of a bitmap, with the bit of the first sector lowest.
pub(crate) fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word).reverse_bits())
}

/// The bytes of entries.
pub(crate) fn bytes_of_entries(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|word| entry_of(*word).to_be_bytes()).collect()
}

/// The bytes of the words of a bitmap.
pub(crate) fn bytes_of_words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.reverse_bits().to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape() -> Shape {
        let table = HostOffset(0x600);
        Shape { table, entries: 1000, block: 2 << 20, bitmap: 512, size: 1500 << 20 }
    }

    #[test]
    fn the_last_block_needs_only_what_the_disk_has_of_it() {
        let shape = Shape { size: (2 << 20) + 1024, entries: 2, ..shape() };
        let end = HostOffset(0x1000 + 512 + 1024);
        assert_eq!(shape.place(8, 1, end), Some(HostOffset(0x1000)));
        assert_eq!(shape.place(8, 0, end), None);
        assert_eq!(shape.place(9, 1, end), None);
        assert_eq!(shape.place(0, 1, end), None, "the copy of the footer is there");
        assert_eq!(shape.place(3, 1, end), None, "the table is there");
    }

    #[test]
    fn the_highest_bit_of_a_byte_is_its_first_sector() {
        let mut bytes = [0; 512];
        bytes[..2].copy_from_slice(&[0xC1, 0x80]);
        let words: Vec<u64> = words_of(&bytes).collect();
        assert_eq!(words[0], 1 | 1 << 1 | 1 << 7 | 1 << 8);
        assert_eq!(words.len(), BIT_WORDS);
        assert_eq!(bytes_of_words(&words), bytes);
    }

    proptest! {
        #[test]
        fn a_guest_offset_is_where_division_says(at in 0u64..1500 << 20) {
            let spot = shape().locate(GuestOffset(at));
            let entry = spot.slice.get() + 4 * spot.index as u64;
            prop_assert_eq!(entry, 0x600 + at / (2 << 20) * 4);
            prop_assert_eq!(spot.block * (2 << 20) + spot.within, at);
            prop_assert!(spot.index < spot.count);
        }
    }
}
