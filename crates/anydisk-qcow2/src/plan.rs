//! Where a write can go, and how entries change. Pure.

use anydisk_core::{GuestOffset, GuestRange, HostOffset, SliceMut};

use crate::alloc::Freed;
use crate::entry::{Cluster, Fault, L2Entry};
use crate::guard::Clusters;
use crate::layout::entry::{COPIED, ZERO};
use crate::table::{ALLOCATED, Geometry, Words};

/// Where the data for the start of a range can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It has a place that is its own.
    InPlace,
    /// Host space is kept for these units, and holds nothing yet.
    Reuse { range: GuestRange, at: HostOffset },
    /// These units need new clusters.
    Fresh { range: GuestRange },
}

/// The subclusters of one cluster from one to another, as bits of the low half of a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subclusters(u64);

impl Plan {
    /// The units that need space.
    pub(crate) fn units(self) -> Option<GuestRange> {
        match self {
            Self::InPlace => None,
            Self::Reuse { range, .. } | Self::Fresh { range } => Some(range),
        }
    }
}

impl Geometry {
    /// Where data for the start of `range` can go, whose L2 entry begins at `word` of a slice.
    /// What is answered ends with the slice.
    ///
    /// `own_table`: nothing else refers to the L2 table, so its COPIED flags count.
    pub(crate) fn plan<W: Words + ?Sized>(
        &self,
        l2: &W,
        word: usize,
        range: GuestRange,
        own_table: bool,
    ) -> Result<Plan, Fault> {
        let within = range.start().get() & (self.cluster_size() - 1);
        let (cluster, _) = self.answer(l2, word, within)?;
        self.check_place(l2, word, cluster.host(), range)?;
        if own_table && self.entry(l2, word).is_copied() {
            match cluster {
                Cluster::Data { .. } => return Ok(Plan::InPlace),
                Cluster::Zero { reserved: Some(at) } | Cluster::Absent { reserved: Some(at) } => {
                    return self.reuse(l2, word, range, at);
                }
                _ => {}
            }
        }
        self.fresh(l2, word, range, own_table)
    }

    /// The run of units that are like the first, inside its cluster.
    fn reuse<W: Words + ?Sized>(
        &self,
        l2: &W,
        word: usize,
        range: GuestRange,
        at: HostOffset,
    ) -> Result<Plan, Fault> {
        let units = range.grown_to(self.subcluster_size());
        let skipped = range.start().get() - units.start().get();
        let within = units.start().get() & (self.cluster_size() - 1);
        let (_, len) = self.answer(l2, word, within)?;
        Ok(Plan::Reuse { range: units.first(len), at: HostOffset(at.get() - skipped) })
    }

    /// The run of units that need new clusters.
    fn fresh<W: Words + ?Sized>(
        &self,
        l2: &W,
        mut word: usize,
        range: GuestRange,
        own_table: bool,
    ) -> Result<Plan, Fault> {
        let first = self.moved_along(self.entry(l2, word), range);
        let mut end = first.end();
        while end < range.end() {
            word += self.entry_words();
            let next = GuestRange::between(end, range.end());
            // A neighbour that breaks the format has its say when it is asked for itself.
            let fresh = word < l2.count() && self.answer(l2, word, 0).is_ok() && {
                let entry = self.entry(l2, word);
                !(own_table && entry.is_copied() && self.host(entry).is_some())
            };
            if !fresh {
                break;
            }
            end = self.moved_along(self.entry(l2, word), next).end();
        }
        Ok(Plan::Fresh { range: GuestRange::between(first.start(), end) })
    }

    /// What must be written when the cluster of the start of `range` gets a new place: the units
    /// that the range touches there, and all that hold data in the old one, in one piece.
    fn moved_along(&self, entry: L2Entry, range: GuestRange) -> GuestRange {
        let cluster = self.cluster_range(range.start());
        if !self.is_extended() || entry.is_compressed() {
            return cluster;
        }
        let units = range.before(cluster.end()).grown_to(self.subcluster_size());
        let Some((first, end)) = bits_in_use(entry.bitmap & ALLOCATED) else { return units };
        let place = |number| GuestOffset(cluster.start().get() + number * self.subcluster_size());
        GuestRange::between(units.start().min(place(first)), units.end().max(place(end)))
    }

    /// The subclusters of the cluster at `cluster` that `range` touches; with standard entries,
    /// none.
    pub(crate) fn subclusters_in(&self, cluster: GuestOffset, range: GuestRange) -> Subclusters {
        if !self.is_extended() {
            return Subclusters(0);
        }
        let size = self.subcluster_size();
        let number = |at: GuestOffset| at.get().saturating_sub(cluster.get());
        let first = (number(range.start()) / size).min(32);
        let end = number(range.end()).div_ceil(size).min(32);
        Subclusters((1_u64 << end) - (1_u64 << first.min(end)))
    }

    /// `entry` with data in `units`, in the host cluster at `host`.
    pub(crate) fn with_data(
        &self,
        entry: L2Entry,
        host: HostOffset,
        units: Subclusters,
    ) -> L2Entry {
        let word = host.get() | COPIED;
        if !self.is_extended() {
            return L2Entry { word, bitmap: 0 };
        }
        let same_host = self.host(entry) == Some(host) && !entry.is_compressed();
        let old = if entry.is_compressed() { 0 } else { entry.bitmap };
        let allocated = if same_host { old & ALLOCATED } else { 0 } | units.0;
        L2Entry { word, bitmap: old & !ALLOCATED & !(units.0 << 32) | allocated }
    }

    /// `entry` with zeroes in all of the cluster. `keep`: its host cluster stays its own.
    pub(crate) fn with_zeroes(&self, entry: L2Entry, keep: bool) -> L2Entry {
        let word = if keep && !entry.is_compressed() { entry.word } else { 0 };
        if self.is_extended() {
            L2Entry { word, bitmap: !ALLOCATED }
        } else {
            L2Entry { word: word | ZERO, bitmap: 0 }
        }
    }

    /// `entry`, which is not compressed, with zeroes in `units`.
    pub(crate) fn with_zero_units(&self, entry: L2Entry, units: Subclusters) -> L2Entry {
        L2Entry { word: entry.word, bitmap: entry.bitmap & !units.0 | units.0 << 32 }
    }

    /// The host clusters that an entry refers to. Those of an external data file are not counted.
    pub(crate) fn references(&self, entry: L2Entry) -> Option<Clusters> {
        if self.has_data_file() {
            return None;
        }
        if entry.is_compressed() {
            let stream = self.compressed(entry).ok()?;
            return Some(Clusters::touched(stream.at.get(), stream.len, self.cluster_bits()));
        }
        entry.host().map(|at| Clusters::new(at.get() >> self.cluster_bits(), 1))
    }

    /// Puts `new` in the place of the entry at `word`, and tells what is referred to no more.
    pub(crate) fn replace(
        &self,
        l2: &mut SliceMut<'_>,
        word: usize,
        new: L2Entry,
        discard: bool,
    ) -> Option<Freed> {
        let old = self.entry_of(l2, word);
        l2.set(word, new.word);
        if self.is_extended() {
            l2.set(word + 1, new.bitmap);
        }
        // Two streams are two references, also if they lie in the same cluster.
        let is_kept = !old.is_compressed() && !new.is_compressed() && old.host() == new.host();
        let gone = self.references(old).filter(|_| !is_kept);
        gone.map(|clusters| Freed { clusters, discard })
    }

    /// The entry at `word` of a slice that is being changed.
    pub(crate) fn entry_of(&self, l2: &SliceMut<'_>, word: usize) -> L2Entry {
        let bitmap = if self.is_extended() { l2.get(word + 1) } else { 0 };
        L2Entry { word: l2.get(word), bitmap }
    }

    /// The part of `range` whose entries are in the slice of its first.
    pub(crate) fn in_one_slice(&self, range: GuestRange) -> GuestRange {
        let entries = (self.slice_len() / 8 / self.entry_words()) as u64;
        let coverage = entries << self.cluster_bits();
        let start = range.start().get() & !(coverage - 1);
        range.before(GuestOffset(start.saturating_add(coverage)))
    }
}

/// The first set bit, and the one behind the last.
fn bits_in_use(bits: u64) -> Option<(u64, u64)> {
    let (first, end) = (bits.trailing_zeros(), 64 - bits.leading_zeros());
    (bits != 0).then_some((first.into(), end.into()))
}

#[cfg(test)]
mod tests;
