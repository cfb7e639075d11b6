//! Reservations: space for data that has no place of its own, and how tables learn of it.

use anydisk_core::{
    Attempt, Error, GuestOffset, GuestRange, HostOffset, ImageWrite, Lease, Placement, Reservation,
    Reserved, Result, Updated, WriteLease,
};

use crate::NAME;
use crate::alloc::{Freed, Taken, Wanted, needs_repair};
use crate::entry::L2Entry;
use crate::guard::Clusters;
use crate::image::Table;
use crate::plan::Plan;
use crate::table::L1Run;
use crate::write::{Step, WritableImage, done};

/// What a reservation is for, as its token tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Data in new clusters.
    Fresh,
    /// Data in space that the entry keeps.
    Reuse,
    /// A stream of so many bytes.
    Packed(u64),
    /// Space without content (preallocation).
    Space,
}

/// What came of a wish for space.
enum Outcome {
    Reserved(Reserved),
    /// The range has its own place by now.
    InPlace,
    /// Someone else has claimed it.
    Busy,
}

impl Purpose {
    pub(crate) fn token(self) -> u64 {
        match self {
            Self::Fresh => 0,
            Self::Reuse => 1,
            Self::Space => 2,
            Self::Packed(len) => len << 2 | 3,
        }
    }

    fn of(token: u64) -> Self {
        match token & 3 {
            0 => Self::Fresh,
            1 => Self::Reuse,
            2 => Self::Space,
            _ => Self::Packed(token >> 2),
        }
    }
}

impl WritableImage {
    /// What the L1 table says about the start of `range`.
    pub(crate) fn l1_run(&self, range: GuestRange) -> Result<Step<'_, L1Run>> {
        let (shared, geometry) = (&self.shared, &self.shared.geometry);
        let slot = geometry.l1_slot(shared.l1_table(), range.start());
        match shared.l1.read(slot.slice, |slice| geometry.l1_run(&slice, slot.word, range)) {
            Some(Ok(run)) => Ok(Step::Done(run)),
            Some(Err(fault)) => Err(fault.at(slot.slice).into()),
            None => Ok(Step::Need(shared.need(Table::L1, slot.slice))),
        }
    }

    /// Where the data for the start of `range` can go; looks no farther than one slice.
    fn plan(&self, range: GuestRange) -> Result<Step<'_, Plan>> {
        let (shared, geometry) = (&self.shared, &self.shared.geometry);
        let range = geometry.in_one_slice(range);
        let (at, own) = match done!(self.l1_run(range)?) {
            L1Run::Table { at, copied } => (at, copied),
            L1Run::Absent(_) => {
                let none = vec![0; shared.geometry.slice_len() / 8];
                let slot = geometry.l2_slot(HostOffset::ZERO, range.start());
                let plan = geometry.plan(none.as_slice(), slot.word, range, false);
                return Ok(Step::Done(plan.map_err(|fault| fault.at(slot.slice))?));
            }
        };
        let slot = geometry.l2_slot(at, range.start());
        match shared.l2.read(slot.slice, |slice| geometry.plan(&slice, slot.word, range, own)) {
            Some(Ok(plan)) => Ok(Step::Done(plan)),
            Some(Err(fault)) => Err(fault.at(slot.slice).into()),
            None => Ok(Step::Need(shared.need(Table::L2, slot.slice))),
        }
    }

    /// The place of a run that is its own, unless a damaged table says so of metadata.
    #[inline]
    pub(crate) fn in_place<'a>(
        &'a self,
        guest: GuestOffset,
        at: HostOffset,
        len: u64,
        lease: Lease<'a>,
    ) -> Result<Attempt<'a>> {
        let geometry = &self.shared.geometry;
        let clusters = Clusters::touched(at.get(), len, geometry.cluster_bits());
        if !geometry.has_data_file()
            && let Some(overlap) = self.space.guard().find(clusters)
        {
            let place = self.space.offset(overlap.cluster);
            return Err(needs_repair(format!("guest data at {place} lies in {}", overlap.holds)));
        }
        Ok(Attempt::Placed(Placement::InPlace {
            store: self.shared.view.store(&self.shared.data, guest, at)?,
            at,
            len,
            lease: WriteLease::new(lease),
        }))
    }

    /// New or kept space for units that have no place of their own.
    pub(crate) fn reserve(&self, range: GuestRange, purpose: Purpose) -> Result<Attempt<'_>> {
        Ok(match self.try_reserve(range, purpose)? {
            Step::Done(Outcome::Reserved(reserved)) => self.reserved(reserved)?,
            Step::Done(Outcome::InPlace) => return self.try_place(range),
            Step::Done(Outcome::Busy) => Attempt::Busy,
            Step::Need(need) => Attempt::Need(need),
            Step::Full => Attempt::Full,
        })
    }

    fn try_reserve(&self, range: GuestRange, purpose: Purpose) -> Result<Step<'_, Outcome>> {
        let cluster_size = self.shared.geometry.cluster_size();
        let Some(units) = done!(self.plan(range)?).units() else {
            return Ok(Step::Done(Outcome::InPlace));
        };
        let clusters = units.grown_to(cluster_size);
        let Some(mut claim) = self.claims.try_hold(clusters) else {
            return Ok(Step::Done(Outcome::Busy));
        };
        done!(self.table_in_turn(clusters.start())?);
        // Only a look under the claim counts.
        let reserved = match done!(self.plan(range.before(clusters.end()))?) {
            Plan::InPlace => return Ok(Step::Done(Outcome::InPlace)),
            Plan::Reuse { range, at } => {
                Reserved { range, at, zeroed: false, token: Purpose::Reuse.token() }
            }
            Plan::Fresh { range: units } if self.shared.geometry.has_data_file() => {
                self.place_in_data_file(units, purpose)
            }
            Plan::Fresh { range: units } => done!(self.take_clusters(range, units, purpose)?),
        };
        claim.narrow(reserved.range.grown_to(cluster_size));
        claim.keep();
        let range = reserved.range.before(GuestOffset(self.shared.size()));
        Ok(Step::Done(Outcome::Reserved(Reserved { range, ..reserved })))
    }

    /// Makes the table that is to name a place before the place is taken. What a commit took would
    /// lie where the commits of several threads happen to fall.
    fn table_in_turn(&self, guest: GuestOffset) -> Result<Step<'_, ()>> {
        let _changing = self.enter();
        done!(self.own_table(guest, false)?);
        Ok(Step::Done(()))
    }

    fn reserved(&self, reserved: Reserved) -> Result<Attempt<'_>> {
        let shared = &self.shared;
        let store = shared.view.store(&shared.data, reserved.range.start(), reserved.at);
        let store = store.inspect_err(|_| self.abandon(&reserved))?;
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(self, store, reserved))))
    }

    /// New clusters for `units`, or for as many of them as there are in one piece.
    fn take_clusters(
        &self,
        range: GuestRange,
        units: GuestRange,
        purpose: Purpose,
    ) -> Result<Step<'_, Reserved>> {
        let geometry = &self.shared.geometry;
        let bits = geometry.cluster_bits();
        let whole = units.grown_to(geometry.cluster_size());
        let fresh = match self.space.take(Wanted::up_to(whole.len() >> bits), None)? {
            Taken::Space(fresh) => fresh,
            Taken::Missing(slice) => return Ok(Step::Need(self.need_counts(slice))),
            Taken::Full => return Ok(Step::Full),
        };
        let first = self.space.offset(fresh.clusters.first);
        let skipped = units.start().get() - whole.start().get();
        let mut reserved = Reserved {
            range: units,
            at: first.saturating_add(skipped),
            zeroed: fresh.zeroed && !self.is_encrypted(),
            token: purpose.token(),
        };
        let covered = whole.first(fresh.clusters.count << bits);
        if covered != whole {
            // Fewer clusters: where the last of them has subclusters, less of it may be needed.
            match self.plan(range.before(covered.end()))? {
                Step::Done(Plan::Fresh { range }) => reserved.range = range,
                _ => reserved.range = units.before(covered.end()),
            }
        }
        Ok(Step::Done(reserved))
    }

    /// New space for a stream.
    pub(crate) fn reserve_packed(&self, unit: GuestRange, len: u64) -> Result<Attempt<'_>> {
        let cluster = self.shared.geometry.cluster_range(unit.start());
        let Some(claim) = self.claims.try_hold(cluster) else { return Ok(Attempt::Busy) };
        match self.table_in_turn(cluster.start())? {
            Step::Done(()) => {}
            Step::Need(need) => return Ok(Attempt::Need(need)),
            Step::Full => return Ok(Attempt::Full),
        }
        let at = match self.space.take_packed(len)? {
            Taken::Space(at) => at,
            Taken::Missing(slice) => return Ok(Attempt::Need(self.need_counts(slice))),
            Taken::Full => return Ok(Attempt::Full),
        };
        let token = Purpose::Packed(len).token();
        let reserved = Reserved { range: unit, at, zeroed: false, token };
        if self.shared.geometry.compressed_entry(at, len).is_none() {
            self.space.retire(self.taken_by(&reserved));
            let what = "offset of compressed data".into();
            let limit = 1 << self.shared.geometry.stream_offset_bits();
            return Err(Error::Limit { format: NAME, what, found: at.get(), limit });
        }
        claim.keep();
        self.reserved(reserved)
    }

    /// The references that a reservation took.
    pub(crate) fn taken_by(&self, reserved: &Reserved) -> Option<Freed> {
        if self.shared.geometry.has_data_file() {
            return None;
        }
        let bits = self.shared.geometry.cluster_bits();
        let len = match Purpose::of(reserved.token) {
            Purpose::Reuse => return None,
            Purpose::Packed(len) => len,
            Purpose::Fresh | Purpose::Space => reserved.range.len(),
        };
        let clusters = Clusters::touched(reserved.at.get(), len, bits);
        Some(Freed { clusters, discard: false })
    }

    /// Ends the claim of a reservation.
    pub(crate) fn unclaim(&self, reserved: &Reserved) {
        self.claims.release(reserved.range.grown_to(self.shared.geometry.cluster_size()));
    }

    /// The tables learn of a reservation.
    pub(crate) fn link(&self, reserved: &Reserved) -> Result<Step<'_, ()>> {
        let _changing = self.enter();
        let (shared, start) = (&self.shared, reserved.range.start());
        let table = done!(self.own_table(start, false)?);
        let slot = shared.geometry.l2_slot(table, start);
        let change = shared.l2.update(slot.slice, |l2| {
            let words = (slot.word..).step_by(shared.geometry.entry_words());
            let mut freed = Vec::new();
            for (word, cluster) in words.zip(self.clusters_of(reserved.range)) {
                let old = shared.geometry.entry_of(l2, word);
                let new = self.linked(old, cluster, reserved);
                freed.extend(shared.geometry.replace(l2, word, new, false));
            }
            freed
        });
        match change {
            Updated::Done(freed) => self.space.retire(freed),
            Updated::Missing => return Ok(Step::Need(shared.need(Table::L2, slot.slice))),
            Updated::Full => return Ok(Step::Full),
        }
        Ok(Step::Done(()))
    }

    /// The clusters that a range touches, by their guest offsets.
    pub(crate) fn clusters_of(&self, range: GuestRange) -> impl Iterator<Item = GuestOffset> {
        let size = self.shared.geometry.cluster_size();
        let whole = range.grown_to(size);
        let count = whole.len() / size;
        (0..count).map(move |number| GuestOffset(whole.start().get() + number * size))
    }

    /// The entry of the cluster at `cluster` when it has the space of a reservation.
    fn linked(&self, old: L2Entry, cluster: GuestOffset, reserved: &Reserved) -> L2Entry {
        let geometry = &self.shared.geometry;
        let first = HostOffset(reserved.at.get() & !(geometry.cluster_size() - 1));
        let whole = reserved.range.grown_to(geometry.cluster_size());
        let host = first.saturating_add(cluster.get() - whole.start().get());
        match Purpose::of(reserved.token) {
            Purpose::Packed(len) => {
                let entry = geometry.compressed_entry(reserved.at, len);
                entry.expect("checked when the space was taken")
            }
            Purpose::Space if geometry.is_extended() => {
                L2Entry { word: L2Entry::data(host).word, bitmap: old.bitmap }
            }
            Purpose::Space => L2Entry::data(host),
            Purpose::Fresh | Purpose::Reuse => {
                let units = geometry.subclusters_in(cluster, reserved.range);
                geometry.with_data(old, host, units)
            }
        }
    }
}
