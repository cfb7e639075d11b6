//! Table arithmetic and the decoding of entries. Pure: no I/O, no locks.
#![deny(clippy::indexing_slicing)]

use anydisk_core::{GuestOffset, HostOffset};

use crate::Header;
use crate::layout::ZERO;

/// Entries in a slice of a table that is cached as one: the smallest table has as many.
pub(crate) const SLICE: u64 = 512;

/// Bytes of a slice.
pub(crate) const SLICE_LEN: usize = 4096;

/// How an image is divided, and which places are in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    cluster_bits: u32,
    /// Entries of a table, as a binary logarithm.
    entry_bits: u32,
    table_len: u64,
    header_len: u64,
    /// Whole clusters only: what lies behind them may be lost.
    file_end: u64,
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
    /// That of a checked header in a file of `file_len` bytes.
    #[must_use]
    pub fn new(header: &Header, file_len: u64) -> Self {
        Self {
            cluster_bits: header.cluster_bits,
            entry_bits: (header.table_len() / 8).trailing_zeros(),
            table_len: header.table_len(),
            header_len: header.header_len(),
            file_end: file_len & !(header.cluster_size() - 1),
        }
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

    /// The L2 table that an L1 entry names; the entry, if no table can be there.
    pub(crate) fn table(&self, entry: u64) -> Result<Option<HostOffset>, u64> {
        match entry {
            0 => Ok(None),
            _ if self.holds(entry, self.table_len) => Ok(Some(HostOffset(entry))),
            _ => Err(entry),
        }
    }

    /// What an L2 entry says; `None` if it breaks the rules.
    #[must_use]
    pub fn decode(&self, entry: u64) -> Option<Cluster> {
        match entry {
            0 => Some(Cluster::Absent),
            ZERO => Some(Cluster::Zero),
            _ => self.holds(entry, self.cluster()).then_some(Cluster::Data(HostOffset(entry))),
        }
    }

    /// Whether whole clusters of the file, behind the header, are there.
    fn holds(&self, at: u64, len: u64) -> bool {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.file_end);
        inside && at & (self.cluster() - 1) == 0 && at >= self.header_len
    }

    /// Clusters from entry `first` up to `end` that have one answer: it, and their number, at least
    /// 1. `None`: the first entry breaks the rules.
    pub(crate) fn run(
        &self,
        entry: impl Fn(u64) -> u64,
        first: u64,
        end: u64,
    ) -> (Option<Cluster>, u64) {
        let answer = self.decode(entry(first));
        let goes_on = |index: &u64| match (answer, self.decode(entry(*index))) {
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

    fn geometry(cluster_bits: u32, table_bits: u32, clusters: u64) -> Geometry {
        Geometry {
            cluster_bits,
            entry_bits: cluster_bits + table_bits - 3,
            table_len: 1 << (cluster_bits + table_bits),
            header_len: 1 << cluster_bits,
            file_end: clusters << cluster_bits,
        }
    }

    #[test]
    fn entries_that_break_the_rules_say_nothing() {
        let geometry = geometry(12, 1, 10);
        for entry in [2, 0x1001, 0xfff, 0xa000, 0x8000_0000_0000_0000, u64::MAX] {
            assert_eq!(geometry.decode(entry), None, "{entry:#x}");
        }
        assert_eq!(geometry.decode(0x9000), Some(Cluster::Data(HostOffset(0x9000))));
        assert_eq!(
            (geometry.decode(0), geometry.decode(1)),
            (Some(Cluster::Absent), Some(Cluster::Zero))
        );
        assert_eq!(geometry.table(0x8000), Ok(Some(HostOffset(0x8000))));
        assert_eq!(geometry.table(0x9000), Err(0x9000), "its second cluster is not in the file");
    }

    proptest! {
        #[test]
        fn a_place_leads_back_to_its_byte(bits in 12u32..27, table in 0u32..5, at in any::<u64>()) {
            let geometry = geometry(bits, table, 10);
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
            let geometry = geometry(12, 1, 8);
            let value = |n: u64| if n < 2 { n } else { n << 12 };
            let at = |index: u64| value(*entries.get(usize::try_from(index).expect("small")).expect("inside"));
            let first = first.index(entries.len()) as u64;
            let (answer, len) = geometry.run(at, first, entries.len() as u64);
            for index in first..first + len {
                let expected = match answer {
                    Some(Cluster::Data(at)) => {
                        Some(Cluster::Data(HostOffset(at.get() + ((index - first) << 12))))
                    }
                    other => other,
                };
                prop_assert_eq!(geometry.decode(at(index)), expected);
            }
        }
    }
}
