//! Catalog and bitmaps: arithmetic and entries. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{GuestOffset, HostOffset};

use crate::Header;
use crate::layout::{NONE, SECTOR};

/// Entries of the catalog in a slice that is cached as one.
pub(crate) const CATALOG_SLICE: u64 = 512;

/// Words of 64 bits of a bitmap in a slice that is cached as one: a sector of the file.
pub(crate) const BITMAP_SLICE: u64 = 64;

/// Sectors whose bits are in a slice of a bitmap.
pub(crate) const SLICE_SECTORS: u64 = BITMAP_SLICE * 64;

/// How an image is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of an extent, a power of two.
    extent: u64,
    /// Bytes that the bitmap of an extent takes: whole sectors.
    bitmap: u64,
    catalog: HostOffset,
    /// Where the extents begin.
    extents: HostOffset,
    file_len: u64,
}

/// Where a byte of the disk is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Entry of the catalog.
    pub entry: u64,
    /// Sector of that extent.
    pub sector: u64,
    /// Bytes from the start of the sector.
    pub within: u64,
}

/// A slice of a table: its place, and the number of an entry or a bit in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceAt {
    pub(crate) at: HostOffset,
    pub(crate) index: u64,
}

impl Geometry {
    /// That of a checked header in a file of `file_len` bytes.
    #[must_use]
    pub fn new(header: &Header, file_len: u64) -> Self {
        Self {
            extent: header.extent.into(),
            bitmap: u64::from(header.bitmap).next_multiple_of(SECTOR),
            catalog: header.catalog,
            extents: header.extents(),
            file_len,
        }
    }

    /// Bytes of an extent.
    #[must_use]
    pub fn extent(&self) -> u64 {
        self.extent
    }

    /// Where a byte of the disk is looked up.
    #[must_use]
    pub fn locate(&self, at: GuestOffset) -> Place {
        let within_extent = at.get() & self.extent.wrapping_sub(1);
        Place {
            entry: at.get() >> self.extent.trailing_zeros(),
            sector: within_extent / SECTOR,
            within: within_extent % SECTOR,
        }
    }

    /// The slice that holds an entry of the catalog.
    pub(crate) fn catalog_slice(&self, entry: u64) -> SliceAt {
        let index = entry % CATALOG_SLICE;
        let first = entry.saturating_sub(index);
        SliceAt { at: self.catalog.saturating_add(first.saturating_mul(4)), index }
    }

    /// Where the extent is that an entry names, its bitmap first; the entry, if its bitmap is not in
    /// the file. `None`: it names none.
    pub(crate) fn place(&self, entry: u64) -> Result<Option<HostOffset>, u64> {
        if entry == u64::from(NONE) {
            return Ok(None);
        }
        let size = self.bitmap.saturating_add(self.extent.next_multiple_of(SECTOR));
        let at = self.extents.saturating_add(entry.saturating_mul(size));
        let end = at.checked_add(self.bitmap).ok_or(entry)?;
        if end.get() <= self.file_len { Ok(Some(at)) } else { Err(entry) }
    }

    /// The slice of the bitmap at `place` that holds the bit of a sector.
    pub(crate) fn bitmap_slice(place: HostOffset, sector: u64) -> SliceAt {
        let index = sector % SLICE_SECTORS;
        let bytes = sector.saturating_sub(index) / 8;
        SliceAt { at: place.saturating_add(bytes), index }
    }

    /// Where a sector of the extent at `place` is; `None` if it is not in the file.
    pub(crate) fn sector_at(&self, place: HostOffset, sector: u64) -> Option<HostOffset> {
        let at = place.checked_add(self.bitmap)?.checked_add(sector.checked_mul(SECTOR)?)?;
        (at.checked_add(SECTOR)?.get() <= self.file_len).then_some(at)
    }

    /// Sectors from `at` on that the file has whole.
    pub(crate) fn held(&self, at: HostOffset) -> u64 {
        self.file_len.saturating_sub(at.get()) / SECTOR
    }
}

/// Bit number `first`, and how many up to `end`, at least 1, are as it is.
pub(crate) fn run(word: impl Fn(u64) -> u64, first: u64, end: u64) -> (bool, u64) {
    let bit = |index: u64| word(index / 64) >> (index % 64) & 1 == 1;
    let is_set = bit(first);
    let mut next = first.saturating_add(1);
    while next < end {
        // Whole words that are alike are passed over.
        let all = if is_set { u64::MAX } else { 0 };
        if next.is_multiple_of(64) && word(next / 64) == all {
            next = next.saturating_add(64);
        } else if bit(next) == is_set {
            next = next.saturating_add(1);
        } else {
            break;
        }
    }
    (is_set, next.min(end).saturating_sub(first))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(extent: u64, bitmap: u64) -> Geometry {
        Geometry {
            extent,
            bitmap,
            catalog: HostOffset(512),
            extents: HostOffset(1520),
            file_len: 100_000,
        }
    }

    #[test]
    fn extents_lie_behind_each_other_each_behind_its_bitmap() {
        let geometry = geometry(4096, 512);
        assert_eq!(geometry.place(u64::from(NONE)), Ok(None));
        assert_eq!(geometry.place(0), Ok(Some(HostOffset(1520))));
        let place = HostOffset(1520 + 2 * 4608);
        assert_eq!(geometry.place(2), Ok(Some(place)));
        assert_eq!(geometry.sector_at(place, 3), Some(HostOffset(1520 + 2 * 4608 + 512 + 1536)));
        assert_eq!(geometry.place(21), Ok(Some(HostOffset(98_288))));
        assert_eq!(geometry.sector_at(HostOffset(98_288), 2), None, "behind the end of the file");
        assert_eq!(geometry.place(22), Err(22));
    }

    proptest! {
        #[test]
        fn a_place_leads_back_to_its_byte(bits in 9u32..27, at in any::<u64>()) {
            let geometry = geometry(1 << bits, 512);
            let place = geometry.locate(GuestOffset(at));
            prop_assert!(place.within < SECTOR);
            let found = (place.entry << bits) + place.sector * SECTOR + place.within;
            prop_assert_eq!(found, at);
        }

        #[test]
        fn every_bit_of_a_run_is_as_the_first(
            words in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()], 1..6),
            first in any::<prop::sample::Index>(),
        ) {
            let count = words.len() as u64 * 64;
            let bit = |index: u64| words[usize::try_from(index / 64).unwrap()] >> (index % 64) & 1 == 1;
            let first = first.index(words.len() * 64) as u64;
            let word = |index: u64| words[usize::try_from(index).unwrap()];
            let (is_set, len) = run(word, first, count);
            prop_assert!((first..first + len).all(|index| bit(index) == is_set));
            prop_assert!(first + len == count || bit(first + len) != is_set);
        }
    }
}
