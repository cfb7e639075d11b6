//! Table arithmetic and the decoding of entries. Pure: no I/O, no locks.
#![deny(clippy::indexing_slicing)]

use anydisk_core::{GuestOffset, GuestRange, HostOffset};

use crate::layout::{COMPRESSED, UNALIGNED};
use crate::{Header, limits};

/// Entries in a slice of a table that is cached as one, at most.
pub(crate) const SLICE: u32 = 512;

/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 8;

/// How an image is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    cluster_bits: u32,
    l2_bits: u32,
    l1_entries: u64,
    l1_table: HostOffset,
}

/// Where a byte of the disk is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Entry of the L1 table.
    pub l1: u64,
    /// Entry of that L2 table.
    pub l2: u32,
    /// Bytes from the start of the cluster.
    pub within: u64,
}

/// What an L2 entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Not here: the backing file, or zeroes.
    Absent,
    /// Plain bytes at this place of the file.
    Data(HostOffset),
    /// Compressed: a deflate stream of exactly so many bytes.
    Packed {
        /// Its first byte.
        at: HostOffset,
        /// Its length in bytes, at least 1 and less than a cluster.
        len: u32,
    },
}

/// A part of a table that is cached as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceAt {
    pub(crate) at: HostOffset,
    /// Entries that the table has there, at most [`SLICE`].
    pub(crate) count: u32,
    /// The entry looked for.
    pub(crate) index: u32,
}

impl SliceAt {
    /// The place of the entry looked for.
    pub(crate) fn entry_at(&self) -> HostOffset {
        self.at.saturating_add(u64::from(self.index) * ENTRY)
    }

    /// Bytes of the slice.
    pub(crate) fn len(&self) -> usize {
        self.count as usize * size_of::<u64>()
    }
}

impl Geometry {
    /// That of a checked header.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self {
            cluster_bits: header.cluster_bits,
            l2_bits: header.l2_bits,
            l1_entries: header.l1_entries(),
            l1_table: header.l1_table_offset,
        }
    }

    /// Bytes of a cluster.
    #[must_use]
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    #[must_use]
    pub fn l2_entries(&self) -> u32 {
        1 << self.l2_bits
    }

    /// Bytes of an L2 table.
    #[must_use]
    pub fn l2_len(&self) -> u64 {
        ENTRY << self.l2_bits
    }

    /// Bytes of the disk that one L2 table maps.
    #[must_use]
    pub fn coverage(&self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits)
    }

    /// Entries of the L1 table.
    #[must_use]
    pub fn l1_entries(&self) -> u64 {
        self.l1_entries
    }

    /// Where the L1 table is.
    #[must_use]
    pub fn l1_table(&self) -> HostOffset {
        self.l1_table
    }

    /// Where a byte of the disk is looked up.
    #[must_use]
    pub fn locate(&self, at: GuestOffset) -> Place {
        let cluster = at.get() >> self.cluster_bits;
        let entry = cluster & (u64::from(self.l2_entries()) - 1);
        Place {
            l1: cluster >> self.l2_bits,
            l2: u32::try_from(entry).expect("at most 13 bits"),
            within: at.get() & (self.cluster() - 1),
        }
    }

    /// The whole cluster that holds a byte of the disk. It may reach past the end of the disk.
    #[must_use]
    pub fn cluster_range(&self, at: GuestOffset) -> GuestRange {
        GuestRange::between(at, GuestOffset(at.get().saturating_add(1))).grown_to(self.cluster())
    }

    /// The slice of the L1 table that holds entry `index`.
    pub(crate) fn l1_slice(&self, index: u64) -> SliceAt {
        slice(self.l1_table, index, self.l1_entries, SLICE)
    }

    /// The slice of the L1 table that begins at `at`.
    pub(crate) fn l1_slice_at(&self, at: HostOffset) -> SliceAt {
        self.l1_slice(at.get().saturating_sub(self.l1_table.get()) / ENTRY)
    }

    /// The slice of the L2 table at `table` that holds entry `index`.
    pub(crate) fn l2_slice(&self, table: HostOffset, index: u32) -> SliceAt {
        slice(table, index.into(), self.l2_entries().into(), self.l2_slice_entries())
    }

    /// Entries in a slice of an L2 table.
    pub(crate) fn l2_slice_entries(&self) -> u32 {
        self.l2_entries().min(SLICE)
    }

    /// The L2 table that an L1 entry names, 0 if it names none; the entry, if no table can be there.
    pub(crate) fn table(&self, entry: u64) -> Result<Option<HostOffset>, u64> {
        let end = entry.checked_add(self.l2_len());
        match end {
            _ if entry == 0 => Ok(None),
            Some(end) if end <= limits::FILE => Ok(Some(HostOffset(entry))),
            _ => Err(entry),
        }
    }

    /// What an L2 entry says; `None` if it breaks the rules.
    #[must_use]
    pub fn decode(&self, entry: u64) -> Option<Cluster> {
        if entry == 0 {
            return Some(Cluster::Absent);
        }
        if entry & COMPRESSED == 0 {
            let fits = entry & UNALIGNED == 0 && entry <= limits::FILE - self.cluster();
            return fits.then_some(Cluster::Data(HostOffset(entry)));
        }
        let at = entry & (self.packed_end() - 1);
        let len = (entry >> (63 - self.cluster_bits)) & (self.cluster() - 1);
        let len = u32::try_from(len).expect("less than a cluster");
        (len > 0).then_some(Cluster::Packed { at: HostOffset(at), len })
    }

    /// The entry that says it; `None` if none can.
    #[must_use]
    pub fn encode(&self, cluster: Cluster) -> Option<u64> {
        let entry = match cluster {
            Cluster::Absent => 0,
            Cluster::Data(at) => at.get(),
            Cluster::Packed { at, len } if at.get() < self.packed_end() => {
                let len = u64::from(len) & (self.cluster() - 1);
                COMPRESSED | len << (63 - self.cluster_bits) | at.get()
            }
            Cluster::Packed { .. } => return None,
        };
        (self.decode(entry) == Some(cluster)).then_some(entry)
    }

    /// The first place that the entry of a compressed cluster cannot name.
    pub(crate) fn packed_end(&self) -> u64 {
        1 << (63 - self.cluster_bits)
    }

    /// Clusters from entry `first` up to `end` that have one answer: it, and their number, at least
    /// 1. `None`: the first entry breaks the rules.
    pub(crate) fn run(
        &self,
        entry: impl Fn(u32) -> u64,
        first: u32,
        end: u32,
    ) -> (Option<Cluster>, u32) {
        let answer = self.decode(entry(first));
        let goes_on = |index: &u32| match (answer, self.decode(entry(*index))) {
            (Some(Cluster::Absent), Some(Cluster::Absent)) => true,
            (Some(Cluster::Data(at)), Some(Cluster::Data(next))) => {
                at.checked_add(u64::from(*index - first) << self.cluster_bits) == Some(next)
            }
            _ => false,
        };
        let more = (first + 1..end).take_while(goes_on).count();
        (answer, 1 + u32::try_from(more).expect("entries of one slice"))
    }
}

fn slice(table: HostOffset, entry: u64, entries: u64, most: u32) -> SliceAt {
    let index = entry % u64::from(most);
    let first = entry - index;
    SliceAt {
        at: table.saturating_add(first * ENTRY),
        count: u32::try_from((entries - first).min(most.into())).unwrap_or(most),
        index: u32::try_from(index).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(cluster_bits: u32, l2_bits: u32, l1_entries: u64) -> Geometry {
        Geometry { cluster_bits, l2_bits, l1_entries, l1_table: HostOffset(48) }
    }

    fn geometries() -> impl Strategy<Value = Geometry> {
        (9u32..17, 6u32..14, 1u64..5000).prop_map(|(c, l, n)| geometry(c, l, n))
    }

    #[test]
    fn entries_are_read_as_qemu_writes_them() {
        let geometry = geometry(12, 9, 1);
        let packed = |at, len| Some(Cluster::Packed { at: HostOffset(at), len });
        assert_eq!(geometry.decode(0x80b0_0000_0000_2000), packed(0x2000, 22));
        assert_eq!(geometry.decode(0x89a8_0000_0000_2200), packed(0x2200, 309));
        assert_eq!(geometry.decode(0x3000), Some(Cluster::Data(HostOffset(0x3000))));
        assert_eq!(geometry.decode(0), Some(Cluster::Absent));
    }

    #[test]
    fn entries_that_break_the_rules_say_nothing() {
        let geometry = geometry(12, 9, 1);
        for entry in [0x3001, 0x3100, (1 << 63) - 512, 1 << 63, 1 << 63 | 0x2000] {
            assert_eq!(geometry.decode(entry), None, "{entry:#x}");
        }
        assert_eq!(geometry.table(1 << 63), Err(1 << 63));
    }

    #[test]
    fn what_no_entry_can_say_is_not_encoded() {
        let packed = |at, len| Cluster::Packed { at: HostOffset(at), len };
        for (bits, cluster) in [
            (16, packed(1 << 47, 9)),
            (9, packed(1 << 54, 9)),
            (12, packed(5, 4096)),
            (12, packed(5, 0)),
            (12, Cluster::Data(HostOffset(0x1100))),
            (12, Cluster::Data(HostOffset(0))),
        ] {
            assert_eq!(geometry(bits, 9, 1).encode(cluster), None, "{cluster:?}");
        }
    }

    proptest! {
        #[test]
        fn a_place_leads_back_to_its_byte(geometry in geometries(), at in any::<u64>()) {
            let at = at % (geometry.l1_entries() * geometry.coverage());
            let place = geometry.locate(GuestOffset(at));
            let start = place.l1 * geometry.coverage();
            prop_assert_eq!(start + u64::from(place.l2) * geometry.cluster() + place.within, at);
            prop_assert!(place.l1 < geometry.l1_entries() && place.l2 < geometry.l2_entries());
        }

        #[test]
        fn a_slice_holds_the_entry_looked_for(geometry in geometries(), pick in any::<u64>()) {
            let (first, second) = (pick % geometry.l1_entries(), pick % (1 << geometry.l2_bits));
            let l2 = geometry.l2_slice(HostOffset(0x2000), u32::try_from(second).expect("small"));
            for (slice, table, entry, count) in [
                (geometry.l1_slice(first), 48, first, geometry.l1_entries()),
                (l2, 0x2000, second, geometry.l2_entries().into()),
            ] {
                prop_assert!(slice.index < slice.count);
                prop_assert_eq!(slice.entry_at().get(), table + entry * 8);
                prop_assert!(slice.at.get() + slice.len() as u64 <= table + count * 8);
            }
        }

        #[test]
        fn what_an_entry_says_is_encoded_as_that_entry(geometry in geometries(), entry in any::<u64>()) {
            for entry in [entry, entry >> 9 << 9, entry >> 20 << 9] {
                if let Some(cluster) = geometry.decode(entry) {
                    prop_assert_eq!(geometry.encode(cluster), Some(entry));
                }
            }
        }

        #[test]
        fn every_cluster_of_a_run_has_the_answer_of_the_run(
            entries in proptest::collection::vec(0u64..7, 1..40),
            first in any::<prop::sample::Index>(),
        ) {
            let geometry = geometry(9, 6, 1);
            // Plain, absent, compressed and broken ones, and rows that follow each other.
            let value = |n: u64| if n < 5 { n << 9 } else { (n - 5) << 63 | 0x201 };
            let entry = |index: u32| *entries.get(index as usize).expect("inside");
            let at = |index: u32| value(entry(index));
            let (first, count) = (first.index(entries.len()), entries.len());
            let (first, count) = (u32::try_from(first).expect("small"), u32::try_from(count).expect("small"));
            let (answer, len) = geometry.run(at, first, count);
            prop_assert!(len >= 1 && first + len <= count);
            for index in first..first + len {
                let expected = match answer {
                    Some(Cluster::Data(at)) => {
                        Some(Cluster::Data(HostOffset(at.get() + (u64::from(index - first) << 9))))
                    }
                    other => other,
                };
                prop_assert_eq!(geometry.decode(at(index)), expected);
            }
        }
    }
}
