//! Zeroes and discards as changes of tables (qcow2, "Cluster mapping").
//!
//! | before | zero | zero, may unmap, or discard |
//! |---|---|---|
//! | data, zero with space | zero, space kept | zero, space freed |
//! | compressed | zero, space freed | zero, space freed |
//! | absent | zero | zero; a discard without a backing file changes nothing |
//!
//! Version 2 has no zero flag: without a backing file all of it becomes absent; with one nothing
//! can be said by tables.

use anydisk_core::{
    Below, GuestOffset, GuestRange, Handled, Lookup, Result, Source, Updated, Zeroing,
};
use anydisk_core::{HostOffset, Image, SliceMut};

use crate::alloc::Freed;
use crate::entry::L2Entry;
use crate::image::Table;
use crate::table::{Geometry, L1Run};
use crate::write::{Step, WritableImage, done};

/// How entries of whole clusters change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// They become zero; data keeps its space.
    Zero,
    /// They become zero and space is given back. Absent ones too, or only those with space?
    Free { absent_too: bool },
    /// They become absent.
    Forget,
}

/// What a change of entries did.
enum Outcome {
    Done,
    /// The first cluster is compressed, and only a part of it was meant.
    Packed,
}

impl WritableImage {
    pub(crate) fn zero_range(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let has_backing = self.has_backing(how.below);
        let change = match (self.shared.header.version, has_backing) {
            (2, true) => return Ok(Handled::ByData(range.len())),
            (2, false) => Change::Forget,
            _ if how.unmap => Change::Free { absent_too: true },
            _ => Change::Zero,
        };
        if self.shared.header.has_raw_data_file() {
            return self.zero_raw_data(range, how.unmap);
        }
        let Some(units) = self.first_units(range) else {
            let part = range.before(self.next_unit(range.start()));
            return self.zero_part(part, has_backing);
        };
        let claim = self.claims.hold(units.grown_to(self.shared.geometry.cluster_size()));
        let outcome = self.note_change(units);
        let outcome = outcome.and_then(|()| self.change(units, change, has_backing));
        if how.unmap && matches!(outcome, Ok(Outcome::Done)) {
            self.punch_data_file(units);
        }
        drop(claim);
        Ok(match outcome? {
            Outcome::Done => Handled::Done(units.len()),
            Outcome::Packed => Handled::ByData(units.len()),
        })
    }

    pub(crate) fn discard_range(&self, range: GuestRange, below: Below) -> Result<Handled> {
        let has_backing = self.has_backing(below);
        let change = match (self.shared.header.version, has_backing) {
            (2, true) => return Ok(Handled::ByData(range.len())),
            (2, false) => Change::Forget,
            _ => Change::Free { absent_too: has_backing },
        };
        if self.shared.header.has_raw_data_file() {
            return self.zero_raw_data(range, true);
        }
        let piece = self.shared.geometry.in_one_slice(range);
        let cluster_size = self.shared.geometry.cluster_size();
        let Some(clusters) = self.whole(piece, cluster_size) else {
            let cluster = self.shared.geometry.cluster_range(piece.start());
            return Ok(Handled::ByData(piece.before(cluster.end()).len()));
        };
        let claim = self.claims.hold(clusters.grown_to(cluster_size));
        let outcome = self.note_change(clusters);
        let outcome = outcome.and_then(|()| self.change(clusters, change, has_backing));
        if outcome.is_ok() {
            self.punch_data_file(clusters);
        }
        drop(claim);
        outcome.map(|_| Handled::Done(clusters.len()))
    }

    /// What lies below also counts if the caller did not open it.
    fn has_backing(&self, below: Below) -> bool {
        below == Below::Image || self.live.has_backing()
    }

    /// The units at the start of `range` that one step handles: either whole clusters, or a part of
    /// one. `None` if the range begins with less than a unit.
    fn first_units(&self, range: GuestRange) -> Option<GuestRange> {
        let geometry = &self.shared.geometry;
        let piece = geometry.in_one_slice(range);
        self.whole(piece, geometry.cluster_size()).or_else(|| {
            let cluster = geometry.cluster_range(range.start());
            self.whole(piece.before(cluster.end()), geometry.subcluster_size())
        })
    }

    /// The whole units with which `range` begins, if it does. The last one of the disk may be cut
    /// by its end.
    fn whole(&self, range: GuestRange, unit: u64) -> Option<GuestRange> {
        let size = self.shared.size();
        let up = if range.end().get() == size { unit - 1 } else { 0 };
        let end = GuestOffset((range.end().get() + up) & !(unit - 1));
        let units = GuestRange::between(range.start(), end).before(GuestOffset(size));
        (range.start().get() & (unit - 1) == 0 && !units.is_empty()).then_some(units)
    }

    fn next_unit(&self, at: GuestOffset) -> GuestOffset {
        let unit = self.shared.geometry.subcluster_size();
        GuestOffset((at.get() & !(unit - 1)) + unit)
    }

    /// A part of a unit is zero by tables only if it is so already.
    fn zero_part(&self, part: GuestRange, has_backing: bool) -> Result<Handled> {
        let extent = loop {
            match self.shared.map_cached(part)? {
                Lookup::Found(extent) => break extent,
                Lookup::Need(need) => self.satisfy(&need)?,
            }
        };
        Ok(match extent.source {
            Source::Zero { .. } => Handled::Done(extent.len),
            Source::Absent { .. } if !has_backing => Handled::Done(extent.len),
            _ => Handled::ByData(extent.len),
        })
    }

    /// Changes the entries of whole clusters, which lie in one slice.
    pub(crate) fn change_claimed(
        &self,
        clusters: GuestRange,
        change: Change,
        has_backing: bool,
    ) -> Result<()> {
        let claim = self.claims.hold(clusters.grown_to(self.shared.geometry.cluster_size()));
        let outcome = self.change(clusters, change, has_backing);
        drop(claim);
        outcome.map(|_| ())
    }

    /// Changes the entries of `units`, which lie in one slice and are claimed.
    fn change(&self, units: GuestRange, change: Change, has_backing: bool) -> Result<Outcome> {
        loop {
            let step = {
                let _changing = self.enter();
                self.try_change(units, change, has_backing)?
            };
            match step {
                Step::Done(outcome) => return Ok(outcome),
                Step::Need(need) => self.satisfy(&need)?,
                Step::Full => self.relieve()?,
            }
        }
    }

    fn try_change(
        &self,
        units: GuestRange,
        change: Change,
        has_backing: bool,
    ) -> Result<Step<'_, Outcome>> {
        let has_no_table = matches!(done!(self.l1_run(units)?), L1Run::Absent(_));
        if has_no_table && self.is_done_without_table(units, change, has_backing) {
            return Ok(Step::Done(Outcome::Done));
        }
        let table = done!(self.own_table(units.start(), true)?);
        self.change_entries(table, units, change)
    }

    /// Where there is no table, everything is absent.
    fn is_done_without_table(&self, units: GuestRange, change: Change, has_backing: bool) -> bool {
        let whole_slice = units.len() >> self.shared.geometry.cluster_bits()
            == (self.shared.geometry.slice_len() / 8 / self.shared.geometry.entry_words()) as u64;
        match change {
            Change::Forget | Change::Free { absent_too: false } => true,
            // Nothing shows through, and no table need be made to say so.
            Change::Zero | Change::Free { .. } => !has_backing && whole_slice,
        }
    }

    fn change_entries(
        &self,
        table: HostOffset,
        units: GuestRange,
        change: Change,
    ) -> Result<Step<'_, Outcome>> {
        let (shared, geometry) = (&self.shared, &self.shared.geometry);
        let slot = geometry.l2_slot(table, units.start());
        let part = self.is_part(units);
        let changed = shared.l2.update(slot.slice, |l2| {
            if part {
                return zero_units(geometry, l2, slot.word, units);
            }
            let words = (slot.word..).step_by(geometry.entry_words());
            let mut freed = Vec::new();
            for (word, _) in words.zip(self.clusters_of(units)) {
                let old = geometry.entry_of(l2, word);
                let new = change.of(geometry, old);
                freed.extend(geometry.replace(l2, word, new, true));
            }
            Some(freed)
        });
        match changed {
            Updated::Done(Some(freed)) => {
                self.space.retire(freed);
                Ok(Step::Done(Outcome::Done))
            }
            Updated::Done(None) => Ok(Step::Done(Outcome::Packed)),
            Updated::Missing => Ok(Step::Need(shared.need(Table::L2, slot.slice))),
            Updated::Full => Ok(Step::Full),
        }
    }

    /// Whether `units` are some subclusters of a cluster.
    fn is_part(&self, units: GuestRange) -> bool {
        let is_border = |at: GuestOffset| {
            at.get().is_multiple_of(self.shared.geometry.cluster_size())
                || at.get() == self.shared.size()
        };
        !(is_border(units.start()) && is_border(units.end()))
    }
}

impl Change {
    fn of(self, geometry: &Geometry, old: L2Entry) -> L2Entry {
        let is_absent = !old.is_compressed() && geometry.host(old).is_none();
        match self {
            Self::Zero => geometry.with_zeroes(old, true),
            Self::Free { absent_too: false } if is_absent => old,
            Self::Free { .. } => geometry.with_zeroes(old, false),
            Self::Forget => L2Entry::default(),
        }
    }
}

/// Makes subclusters zero; `None` if the cluster is compressed.
fn zero_units(
    geometry: &Geometry,
    l2: &mut SliceMut<'_>,
    word: usize,
    units: GuestRange,
) -> Option<Vec<Freed>> {
    let old = geometry.entry_of(l2, word);
    if old.is_compressed() {
        return None;
    }
    let cluster = geometry.cluster_range(units.start()).start();
    let new = geometry.with_zero_units(old, geometry.subclusters_in(cluster, units));
    geometry.replace(l2, word, new, true);
    Some(Vec::new())
}
