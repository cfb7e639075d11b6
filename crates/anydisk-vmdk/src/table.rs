//! Directory and table arithmetic and the decoding of entries. Pure: no I/O, no locks.

use anydisk_core::HostOffset;

use crate::layout::SECTOR;

/// Entries in the slices that tables are cached in: a whole grain table of all known writers.
pub(crate) const SLICE: u32 = 512;

/// Bytes of an entry in a directory or table, but for seSparse.
pub(crate) const ENTRY: u64 = 4;

/// Bytes of an entry in a directory or table of a seSparse extent.
pub(crate) const WIDE_ENTRY: u64 = 8;

/// How a sparse extent is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    grain_bits: u32,
    /// Entries in a grain table, as a power of two.
    entry_bits: u32,
    /// Bytes of an entry in a directory or table.
    entry_len: u64,
    /// Bytes of guest data.
    capacity: u64,
}

/// Where a byte of the extent is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Entry of the grain directory.
    pub(crate) table: u64,
    /// Entry of that grain table.
    pub(crate) entry: u32,
    /// Bytes from the start of the grain.
    pub(crate) within: u64,
}

/// A part of a directory or table that is cached as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceAt {
    pub(crate) at: HostOffset,
    /// Entries that the table has there, at most [`SLICE`].
    pub(crate) count: u32,
    /// The entry looked for.
    pub(crate) index: u32,
    /// Bytes of an entry.
    pub(crate) entry_len: u64,
}

impl SliceAt {
    /// The place of the entry looked for.
    pub(crate) fn entry_at(&self) -> HostOffset {
        self.at.saturating_add(u64::from(self.index) * self.entry_len)
    }

    /// Bytes of all entries that the table has there.
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.count) * self.entry_len
    }
}

impl Geometry {
    /// `grain` bytes and `entries` are powers of two.
    pub(crate) fn new(grain: u64, entries: u32, capacity: u64) -> Self {
        Self {
            grain_bits: grain.trailing_zeros(),
            entry_bits: entries.trailing_zeros(),
            entry_len: ENTRY,
            capacity,
        }
    }

    /// The same with entries of 8 bytes.
    pub(crate) fn wide(self) -> Self {
        Self { entry_len: WIDE_ENTRY, ..self }
    }

    /// The same for so many bytes of guest data.
    pub(crate) fn with_capacity(self, capacity: u64) -> Self {
        Self { capacity, ..self }
    }

    /// Bytes of a grain.
    pub(crate) fn grain(&self) -> u64 {
        1 << self.grain_bits
    }

    /// Bytes of guest data.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Entries in a grain table.
    pub(crate) fn entries(&self) -> u32 {
        1 << self.entry_bits
    }

    /// Bytes of an entry.
    pub(crate) fn entry_len(&self) -> u64 {
        self.entry_len
    }

    /// Bytes of a grain table.
    pub(crate) fn table_len(&self) -> u64 {
        u64::from(self.entries()) * self.entry_len
    }

    /// Bytes of the directory.
    pub(crate) fn directory_len(&self) -> u64 {
        self.tables().saturating_mul(self.entry_len)
    }

    /// Number of grain tables.
    pub(crate) fn tables(&self) -> u64 {
        self.capacity.div_ceil(self.coverage())
    }

    /// Number of slices of all tables and their directory.
    pub(crate) fn slices(&self) -> u64 {
        let slices = |entries: u64| entries.div_ceil(SLICE.into());
        slices(self.tables()) + self.tables() * slices(self.entries().into())
    }

    /// Bytes of guest data that one grain table maps.
    pub(crate) fn coverage(&self) -> u64 {
        1 << (self.grain_bits + self.entry_bits)
    }

    /// Where the byte `from_start` bytes into the extent is looked up.
    #[inline]
    pub(crate) fn locate(&self, from_start: u64) -> Place {
        let grain = from_start >> self.grain_bits;
        let entry = grain & (u64::from(self.entries()) - 1);
        Place {
            table: grain >> self.entry_bits,
            entry: u32::try_from(entry).unwrap_or_default(),
            within: from_start & (self.grain() - 1),
        }
    }

    /// The slice of the directory at `directory` that holds the entry of table number `table`.
    pub(crate) fn directory_slice(&self, directory: HostOffset, table: u64) -> SliceAt {
        slice(directory, table, self.tables(), self.entry_len)
    }

    /// The slice of the grain table at `table` that holds `entry`.
    pub(crate) fn table_slice(&self, table: HostOffset, entry: u32) -> SliceAt {
        slice(table, entry.into(), self.entries().into(), self.entry_len)
    }
}

#[inline]
fn slice(start: HostOffset, entry: u64, count: u64, entry_len: u64) -> SliceAt {
    let index = entry % u64::from(SLICE);
    let first = entry - index;
    SliceAt {
        at: start.saturating_add(first * entry_len),
        count: u32::try_from((count - first).min(SLICE.into())).unwrap_or(SLICE),
        index: u32::try_from(index).unwrap_or_default(),
        entry_len,
    }
}

/// What one entry of a grain table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Not here.
    Absent,
    /// Zeroes, whatever lies below.
    Zero,
    /// At this sector of the file.
    Sector(u64),
    /// No entry of this format.
    Broken(u64),
}

impl Grain {
    /// Decodes an entry. `zeroed`: the flag that gives entry 1 its meaning is set.
    pub(crate) fn decode(entry: u64, zeroed: bool) -> Self {
        match entry {
            0 => Self::Absent,
            1 if zeroed => Self::Zero,
            sector => Self::Sector(sector),
        }
    }

    /// Decodes an entry of a seSparse table; grains lie from sector `first` on.
    pub(crate) fn decode_wide(entry: u64, first: u64, grain_sectors: u64) -> Self {
        // The type is in the top four bits. What was unmapped may still say where it was.
        match entry >> 60 {
            0 if entry == 0 => Self::Absent,
            1 | 2 => Self::Zero,
            3 => {
                let index = entry >> 48 & 0xFFF | (entry & 0x0000_FFFF_FFFF_FFFF) << 12;
                Self::Sector(first.saturating_add(index.saturating_mul(grain_sectors)))
            }
            _ => Self::Broken(entry),
        }
    }

    /// The entry, as stored.
    pub(crate) fn encode(self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Zero => 1,
            Self::Sector(sector) | Self::Broken(sector) => sector,
        }
    }

    /// Whether `next`, `distance` grains behind, goes on with the same answer.
    fn goes_on(self, next: Self, distance: u32, grain_sectors: u64) -> bool {
        match (self, next) {
            (Self::Sector(first), Self::Sector(next)) => {
                first.checked_add(u64::from(distance) * grain_sectors) == Some(next)
            }
            (first, next) => first == next,
        }
    }
}

/// Grains from entry `first` up to `end` that have one answer: it, and their number (at least 1).
#[inline]
pub(crate) fn run(
    entry: impl Fn(u32) -> Grain,
    first: u32,
    end: u32,
    grain_sectors: u64,
) -> (Grain, u32) {
    let answer = entry(first);
    let mut next = first + 1;
    while next < end && answer.goes_on(entry(next), next - first, grain_sectors) {
        next += 1;
    }
    (answer, next - first)
}

/// Grains from entry `first` up to `end` that have no place of their own: their number.
pub(crate) fn vacant(entry: impl Fn(u32) -> Grain, first: u32, end: u32) -> u32 {
    let taken = (first..end).find(|&index| matches!(entry(index), Grain::Sector(_)));
    taken.unwrap_or(end) - first
}

/// The byte position of a sector number.
pub(crate) fn sector_at(sector: u64) -> HostOffset {
    HostOffset(sector.saturating_mul(SECTOR))
}

/// The sector number of a byte position; `None` if 32 bits cannot name it.
pub(crate) fn sector_of(at: HostOffset) -> Option<u64> {
    u32::try_from(at.get() / SECTOR).ok().map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry() -> impl Strategy<Value = Geometry> {
        (9u32..24, 0u32..13, 1u64..1 << 40)
            .prop_map(|(grain, entry, size)| Geometry::new(1 << grain, 1 << entry, size))
    }

    proptest! {
        #[test]
        fn a_place_leads_back_to_its_byte(geometry in geometry(), part in 0u64..1 << 40) {
            let byte = part % geometry.capacity();
            let place = geometry.locate(byte);
            let start = place.table * geometry.coverage();
            prop_assert_eq!(start + u64::from(place.entry) * geometry.grain() + place.within, byte);
            prop_assert!(place.table < geometry.tables());
            prop_assert!(place.entry < geometry.entries());
        }

        #[test]
        fn a_slice_holds_the_entry_looked_for(geometry in geometry(), part in 0u64..1 << 40) {
            let place = geometry.locate(part % geometry.capacity());
            let start = HostOffset(0x2000);
            for (slice, entry, count) in [
                (geometry.directory_slice(start, place.table), place.table, geometry.tables()),
                (
                    geometry.table_slice(start, place.entry),
                    place.entry.into(),
                    geometry.entries().into(),
                ),
            ] {
                prop_assert!(slice.index < slice.count);
                prop_assert_eq!(slice.at.get() + u64::from(slice.index) * 4, 0x2000 + entry * 4);
                prop_assert!(slice.at.get() + u64::from(slice.count) * 4 <= 0x2000 + count * 4);
            }
        }

        #[test]
        fn every_grain_of_a_run_has_the_answer_of_the_run(
            entries in proptest::collection::vec(0u32..6, 1..40),
            first in 0usize..40,
            scale in 1u64..4,
        ) {
            let first = first % entries.len();
            let at = |index: u32| {
                let number = entries[usize::try_from(index).expect("small")];
                Grain::decode(u64::from(number) * scale, true)
            };
            let count = u32::try_from(entries.len()).expect("small");
            let start = u32::try_from(first).expect("small");
            let (answer, len) = run(at, start, count, scale);
            for index in start..start + len {
                match answer {
                    Grain::Sector(sector) => {
                        let place = Grain::Sector(sector + u64::from(index - start) * scale);
                        prop_assert_eq!(at(index), place);
                    }
                    other => prop_assert_eq!(at(index), other),
                }
            }
            let vacant = vacant(at, start, count);
            prop_assert!((start..start + vacant).all(|i| !matches!(at(i), Grain::Sector(_))));
            if start + vacant < count {
                prop_assert!(matches!(at(start + vacant), Grain::Sector(_)));
            }
        }
    }

    /// The low 12 bits of a grain's number stand above the others.
    #[test]
    fn wide_entries_say_their_type_in_the_top_bits_and_the_place_in_two_parts() {
        let decode = |entry| Grain::decode_wide(entry, 100, 8);
        assert_eq!(decode(0), Grain::Absent);
        assert_eq!(decode(0x1003_0000_0000_0002), Grain::Zero);
        assert_eq!(decode(0x2000_0000_0000_0000), Grain::Zero);
        assert_eq!(decode(0x3003_0000_0000_0002), Grain::Sector(100 + 8 * 0x2003));
        assert_eq!(decode(0x4000_0000_0000_0000), Grain::Broken(0x4000_0000_0000_0000));
        assert_eq!(decode(5), Grain::Broken(5));
        assert!(matches!(decode(0x3FFF_FFFF_FFFF_FFFF), Grain::Sector(_)));
    }

    #[test]
    fn entry_one_is_zeroes_only_with_its_flag() {
        assert_eq!(Grain::decode(1, true), Grain::Zero);
        assert_eq!(Grain::decode(1, false), Grain::Sector(1));
        assert_eq!(Grain::decode(0, true), Grain::Absent);
    }
}
