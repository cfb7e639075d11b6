//! Arithmetic of directory, tables and bitmaps, and the decoding of entries. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{GuestOffset, HostOffset};

use crate::layout::entry;

/// Words of 64 bits in a slice of a table or a bitmap that is cached as one.
pub(crate) const SLICE: u64 = 512;

/// Sectors whose bits are in a word of a bitmap.
const WORD_SECTORS: u64 = 32;

/// How an image is divided. All lengths are in bytes and powers of two, but those of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block: u64,
    chunk: u64,
    /// Entries of a group, which has one more, for its bitmap.
    group: u64,
    /// Bytes of the disk that a table maps.
    coverage: u64,
    /// Tables that a directory has.
    tables: u64,
    file_len: u64,
}

/// Where a byte of the disk is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Entry of the directory.
    pub table: u64,
    /// Entry of that table.
    pub entry: u64,
    /// Entry of the same table that names the bitmap.
    pub bitmap: u64,
    /// Sector of the bitmap's group.
    pub sector: u64,
    /// Bytes from the start of the chunk.
    pub within: u64,
}

/// What the entry of a chunk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Not there.
    None,
    /// All of it is at this place of the file.
    Whole(HostOffset),
    /// The sectors that the bitmap names are at this place of the file.
    Partly(HostOffset),
}

/// A slice of a table: its place, and the number of an entry in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceAt {
    pub(crate) at: HostOffset,
    pub(crate) index: u64,
}

impl SliceAt {
    /// The slice that holds word number `word` of the table at `table`.
    pub(crate) fn of(table: HostOffset, word: u64) -> Self {
        let index = word % SLICE;
        let first = word.saturating_sub(index);
        Self { at: table.saturating_add(first.saturating_mul(8)), index }
    }

    /// The place of the entry.
    pub(crate) fn entry_at(&self) -> HostOffset {
        self.at.saturating_add(self.index.saturating_mul(8))
    }
}

impl Geometry {
    /// That of an image of up to `sectors` sectors of `block` bytes, with chunks of `chunk` bytes, in a
    /// file of `file_len` bytes; `None` if it has too many tables to count.
    #[must_use]
    pub fn new(block: u64, chunk: u64, sectors: u64, file_len: u64) -> Option<Self> {
        let group = block.checked_mul(4)?;
        let groups = chunk.checked_div(group.checked_add(1)?.checked_mul(8)?)?;
        let coverage = groups.checked_mul(group)?.checked_mul(chunk)?;
        let size = sectors.checked_mul(block)?;
        let tables = size.checked_add(coverage.checked_sub(1)?)?.checked_div(coverage)?;
        Some(Self { block, chunk, group, coverage, tables, file_len })
    }

    /// Tables that a directory has.
    #[must_use]
    pub fn tables(&self) -> u64 {
        self.tables
    }

    /// Bytes of a chunk.
    #[must_use]
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Bytes of a sector.
    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// Bytes of the disk that a table maps.
    #[must_use]
    pub fn coverage(&self) -> u64 {
        self.coverage
    }

    /// Where a byte of the disk is looked up.
    #[must_use]
    pub fn locate(&self, at: GuestOffset) -> Place {
        let table = at.get().checked_div(self.coverage).unwrap_or(0);
        let in_table = at.get().checked_rem(self.coverage).unwrap_or(0);
        let number = in_table >> self.chunk.trailing_zeros();
        let (group, in_group) =
            (number >> self.group.trailing_zeros(), number & self.group.wrapping_sub(1));
        let within = at.get() & self.chunk.wrapping_sub(1);
        let sectors = in_group << self.chunk.trailing_zeros() >> self.block.trailing_zeros();
        Place {
            table,
            entry: number.saturating_add(group),
            bitmap: group.saturating_mul(self.group.saturating_add(1)).saturating_add(self.group),
            sector: sectors.saturating_add(within >> self.block.trailing_zeros()),
            within,
        }
    }

    /// Entries of a table up to the end of the group that `entry` is in.
    pub(crate) fn left_of_group(&self, entry: u64) -> u64 {
        let within = entry.checked_rem(self.group.saturating_add(1)).unwrap_or(0);
        self.group.saturating_sub(within)
    }

    /// Where chunk number `number` of the file is, if that is behind the header and in the file.
    pub(crate) fn place(&self, number: u64) -> Option<HostOffset> {
        let at = number.checked_mul(self.chunk).filter(|at| *at > 0)?;
        (at < self.file_len).then_some(HostOffset(at))
    }

    /// What the entry of a chunk says; `None` if nobody knows.
    #[must_use]
    pub fn decode(&self, value: u64) -> Option<Chunk> {
        let number = value & entry::NUMBER;
        let state = value >> entry::STATE;
        if value & !entry::NUMBER != state << entry::STATE {
            return None; // A bit that is not known.
        }
        match (state, number) {
            (entry::NONE, 0) => Some(Chunk::None),
            (entry::WHOLE, _) => self.place(number).map(Chunk::Whole),
            (entry::PARTLY, _) => self.place(number).map(Chunk::Partly),
            _ => None,
        }
    }

    /// Whether the file has `len` bytes at `at`.
    pub(crate) fn holds(&self, at: HostOffset, len: u64) -> bool {
        at.checked_add(len).is_some_and(|end| end.get() <= self.file_len)
    }
}

/// The word of a bitmap that has the bits of a sector.
pub(crate) fn bitmap_word(sector: u64) -> u64 {
    sector / WORD_SECTORS
}

/// Where in that word they are.
fn bitmap_shift(sector: u64) -> u64 {
    (sector % WORD_SECTORS).saturating_mul(2)
}

/// The two bits of sector `sector` (of the slice), and how many sectors up to `end`, at least 1, have
/// the same.
pub(crate) fn run(word: impl Fn(u64) -> u64, sector: u64, end: u64) -> (u64, u64) {
    let bits = |sector: u64| word(bitmap_word(sector)) >> bitmap_shift(sector) & 3;
    let state = bits(sector);
    let goes_on = |next: &u64| bits(*next) == state;
    let count = (sector.saturating_add(1)..end).take_while(goes_on).count() as u64;
    (state, count.saturating_add(1))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry() -> Geometry {
        Geometry::new(512, 1 << 20, 1 << 43, 10 << 20).expect("a real one")
    }

    #[test]
    fn a_table_maps_126_gibibytes() {
        assert_eq!(geometry().coverage(), 126 << 30);
        let place = geometry().locate(GuestOffset((126 << 30) + (2049 << 20) + 513));
        assert_eq!(
            place,
            Place { table: 1, entry: 2050, bitmap: 2 * 2049 - 1, sector: 2049, within: 513 }
        );
    }

    #[test]
    fn only_what_is_known_is_decoded() {
        let geometry = geometry();
        assert_eq!(geometry.decode(0), Some(Chunk::None));
        assert_eq!(geometry.decode(1 << 62 | 9), Some(Chunk::Whole(HostOffset(9 << 20))));
        assert_eq!(geometry.decode(3 << 62 | 3), Some(Chunk::Partly(HostOffset(3 << 20))));
        let unknown =
            [1, 2 << 62 | 3, 1 << 62, 1 << 62 | 10, 1 << 62 | 1 << 55 | 3, 3 << 62, u64::MAX];
        for value in unknown {
            assert_eq!(geometry.decode(value), None, "{value:#x}");
        }
    }

    proptest! {
        #[test]
        fn a_place_leads_back_to_its_byte(at in 0..1_u64 << 52) {
            let geometry = geometry();
            let place = geometry.locate(GuestOffset(at));
            // Every 2049th entry is that of a bitmap.
            let chunks = place.entry - place.entry / 2049;
            prop_assert_eq!(place.table * geometry.coverage() + (chunks << 20) + place.within, at);
            prop_assert_eq!(place.bitmap, place.entry / 2049 * 2049 + 2048);
            prop_assert_eq!(place.sector, (at % geometry.coverage() % (2048 << 20)) / 512);
            prop_assert!(place.entry % 2049 + geometry.left_of_group(place.entry) == 2048);
        }

        #[test]
        fn every_sector_of_a_run_has_the_bits_of_the_first(
            words in prop::collection::vec(prop_oneof![Just(0), Just(0x5555_5555_5555_5555), any::<u64>()], 1..5),
            first in any::<prop::sample::Index>(),
        ) {
            let count = words.len() as u64 * 32;
            let word = |index: u64| words[usize::try_from(index).unwrap()];
            let bits = |sector: u64| word(sector / 32) >> (sector % 32 * 2) & 3;
            let first = first.index(words.len() * 32) as u64;
            let (state, len) = run(word, first, count);
            prop_assert!((first..first + len).all(|sector| bits(sector) == state));
            prop_assert!(first + len == count || bits(first + len) != state);
        }
    }
}
