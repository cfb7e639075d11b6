//! Table arithmetic and the decoding of entries. Pure: no I/O, no locks.
#![deny(clippy::indexing_slicing)]

use anydisk_core::{GuestOffset, HostOffset};

use crate::Header;
use crate::layout::ZERO;

/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 8;

/// Entries in a slice of a table that is cached as one: the smallest table has as many.
pub(crate) const SLICE: u64 = 512;

/// Bytes of a slice.
pub(crate) const SLICE_LEN: usize = 4096;

/// How an image is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    cluster_bits: u32,
    /// Entries of a table, as a binary logarithm.
    entry_bits: u32,
    table_len: u64,
    header_len: u64,
}

/// Where a byte of the disk is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Entry of the L1 table.
    pub l1: u64,
    /// Entry of that L2 table.
    pub l2: u64,
    /// Bytes from the start of the cluster.
    pub within: u64,
}

/// What an L2 entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Not here: the backing file, or zeroes.
    Absent,
    /// Zeroes, whatever lies below.
    Zero,
    /// At this place of the file.
    Data(HostOffset),
}

/// The slice of a table that holds an entry: its place, and the number of the entry in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceAt {
    pub(crate) at: HostOffset,
    pub(crate) index: u64,
}

impl SliceAt {
    /// The slice that holds entry number `entry` of the table at `table`.
    pub(crate) fn of(table: HostOffset, entry: u64) -> Self {
        let index = entry % SLICE;
        Self { at: table.saturating_add((entry - index) * 8), index }
    }

    /// The place of the entry.
    pub(crate) fn entry_at(&self) -> HostOffset {
        self.at.saturating_add(self.index * 8)
    }
}

impl Geometry {
    /// That of a checked header.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self {
            cluster_bits: header.cluster_bits,
            entry_bits: (header.table_len() / 8).trailing_zeros(),
            table_len: header.table_len(),
            header_len: header.header_len(),
        }
    }

    /// The whole clusters of a file of `len` bytes: what lies behind them may be lost.
    #[must_use]
    pub fn whole(&self, len: u64) -> u64 {
        len & !(self.cluster() - 1)
    }

    /// The same with the last cluster, whole or not.
    pub(crate) fn whole_or_more(&self, len: u64) -> u64 {
        len.checked_next_multiple_of(self.cluster()).unwrap_or(u64::MAX)
    }

    /// Bytes of a table.
    #[must_use]
    pub fn table_len(&self) -> u64 {
        self.table_len
    }

    /// Where on the disk the cluster of an entry of the L2 table number `table` is.
    pub(crate) fn guest_of(&self, table: u64, entry: u64) -> Option<u64> {
        let within = entry.checked_mul(self.cluster())?;
        table.checked_mul(self.coverage())?.checked_add(within)
    }

    /// Bytes of a cluster.
    #[must_use]
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the disk that one L2 table maps, at most 2^53.
    #[must_use]
    pub fn coverage(&self) -> u64 {
        1 << (self.cluster_bits + self.entry_bits)
    }

    /// Where a byte of the disk is looked up.
    #[must_use]
    pub fn locate(&self, at: GuestOffset) -> Place {
        let cluster = at.get() >> self.cluster_bits;
        Place {
            l1: cluster >> self.entry_bits,
            l2: cluster & ((1 << self.entry_bits) - 1),
            within: at.get() & (self.cluster() - 1),
        }
    }

    /// The L2 table that an L1 entry names, in a file that ends at `end`; the entry, if no table can be
    /// there.
    pub(crate) fn table(&self, entry: u64, end: u64) -> Result<Option<HostOffset>, u64> {
        match entry {
            0 => Ok(None),
            _ if self.holds(entry, self.table_len, end) => Ok(Some(HostOffset(entry))),
            _ => Err(entry),
        }
    }

    /// What an L2 entry says, in a file whose [whole](Self::whole) clusters end at `end`; `None` if it
    /// breaks the rules.
    #[must_use]
    pub fn decode(&self, entry: u64, end: u64) -> Option<Cluster> {
        match entry {
            0 => Some(Cluster::Absent),
            ZERO => Some(Cluster::Zero),
            _ => self.holds(entry, self.cluster(), end).then_some(Cluster::Data(HostOffset(entry))),
        }
    }

    /// Whether whole clusters of the file, behind the header, are there.
    fn holds(&self, at: u64, len: u64, end: u64) -> bool {
        let inside = at.checked_add(len).is_some_and(|last| last <= end);
        inside && self.is_place(at)
    }

    /// Whether a cluster or a table can begin at a place, if the file reaches there.
    pub(crate) fn is_place(&self, at: u64) -> bool {
        at & (self.cluster() - 1) == 0 && at >= self.header_len.max(1)
    }

    /// Clusters from entry `first` up to `end` that have one answer: it, and their number, at least
    /// 1. `None`: the first entry breaks the rules. `file_end` is asked after each entry was read.
    pub(crate) fn run(
        &self,
        entry: impl Fn(u64) -> u64,
        first: u64,
        end: u64,
        file_end: impl Fn() -> u64,
    ) -> (Option<Cluster>, u64) {
        let decoded = |index: u64| {
            let entry = entry(index);
            self.decode(entry, file_end())
        };
        let answer = decoded(first);
        let goes_on = |index: &u64| match (answer, decoded(*index)) {
            (Some(Cluster::Data(at)), Some(Cluster::Data(next))) => {
                at.checked_add((index - first) << self.cluster_bits) == Some(next)
            }
            (Some(answer), Some(next)) => answer == next,
            _ => false,
        };
        (answer, 1 + (first + 1..end).take_while(goes_on).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const END: u64 = 10 << 12;

    fn geometry(cluster_bits: u32, table_bits: u32) -> Geometry {
        Geometry {
            cluster_bits,
            entry_bits: cluster_bits + table_bits - 3,
            table_len: 1 << (cluster_bits + table_bits),
            header_len: 1 << cluster_bits,
        }
    }

    #[test]
    fn entries_that_break_the_rules_say_nothing() {
        let geometry = geometry(12, 1);
        for entry in [2, 0x1001, 0xfff, 0xa000, 0x8000_0000_0000_0000, u64::MAX] {
            assert_eq!(geometry.decode(entry, END), None, "{entry:#x}");
        }
        assert_eq!(geometry.decode(0x9000, END), Some(Cluster::Data(HostOffset(0x9000))));
        assert_eq!(
            (geometry.decode(0, END), geometry.decode(1, END)),
            (Some(Cluster::Absent), Some(Cluster::Zero))
        );
        assert_eq!(geometry.table(0x8000, END), Ok(Some(HostOffset(0x8000))));
        assert_eq!(
            geometry.table(0x9000, END),
            Err(0x9000),
            "its second cluster is not in the file"
        );
    }

    proptest! {
        #[test]
        fn a_place_leads_back_to_its_byte(bits in 12u32..27, table in 0u32..5, at in any::<u64>()) {
            let geometry = geometry(bits, table);
            let at = at >> 1;
            let place = geometry.locate(GuestOffset(at));
            let start = u128::from(place.l1) * u128::from(geometry.coverage());
            let found = start + u128::from(place.l2 * geometry.cluster() + place.within);
            prop_assert_eq!(found, u128::from(at));
            let slice = SliceAt::of(HostOffset(0x2000), place.l2);
            prop_assert_eq!(slice.entry_at().get(), 0x2000 + place.l2 * 8);
            prop_assert!(slice.index < SLICE);
        }

        #[test]
        fn every_cluster_of_a_run_has_the_answer_of_the_run(
            entries in proptest::collection::vec(0u64..8, 1..40),
            first in any::<prop::sample::Index>(),
        ) {
            let geometry = geometry(12, 1);
            let value = |n: u64| if n < 2 { n } else { n << 12 };
            let at = |index: u64| value(*entries.get(usize::try_from(index).expect("small")).expect("inside"));
            let first = first.index(entries.len()) as u64;
            let (answer, len) = geometry.run(at, first, entries.len() as u64, || 8 << 12);
            for index in first..first + len {
                let expected = match answer {
                    Some(Cluster::Data(at)) => {
                        Some(Cluster::Data(HostOffset(at.get() + ((index - first) << 12))))
                    }
                    other => other,
                };
                prop_assert_eq!(geometry.decode(at(index), 8 << 12), expected);
            }
        }
    }
}
