//! Places for data: in place, or new clusters that are reserved and then committed.

use anydisk_core::{
    Attempt, Committed, GuestRange, HostOffset, Image, Need, Placement, Reservation, Reserved,
    Result, TakenRun, Updated, WantedRun, WriteLease,
};

use super::{Step, check_place, index_in};
use crate::image::{Level, Look, QedImage};
use crate::table::{Cluster, SLICE, SliceAt};

/// Bytes of clusters that are taken at once: before the first table is on the medium, a part of what a
/// crash may leave.
const AT_ONCE: u64 = 4 << 20;

/// Whether clusters have space of their own, from memory.
enum Vacancy<'a> {
    Need(Need<'a>),
    /// So many from the first on have none.
    Vacant(u64),
}

impl QedImage {
    pub(super) fn place_plain(&self, range: GuestRange) -> Result<Attempt<'_>> {
        self.writing()?.doubt.check()?;
        let lease = self.space.leases().take();
        match self.look(range)? {
            Look::Need(need) => return Ok(Attempt::Need(need)),
            Look::Run { cluster: Cluster::Data(at), len, .. } => {
                let at = at.saturating_add(self.geometry.locate(range.start()).within);
                let (store, lease) = (&self.store, WriteLease::new(lease));
                return Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }));
            }
            Look::Run { .. } | Look::NoTable(_) => {}
        }
        drop(lease); // It would keep freed space from being taken.
        match self.own_table(self.geometry.locate(range.start()))? {
            Step::Done(_) => self.reserve(range),
            Step::Need(need) => Ok(Attempt::Need(need)),
            Step::Full => Ok(Attempt::Full),
        }
    }

    /// New space for the clusters from the start of the range on that have none.
    fn reserve(&self, range: GuestRange) -> Result<Attempt<'_>> {
        let count = match self.vacant(range)? {
            Vacancy::Need(need) => return Ok(Attempt::Need(need)),
            Vacancy::Vacant(0) => return Ok(Attempt::Busy), // Someone was faster.
            Vacancy::Vacant(count) => count,
        };
        let cluster = self.geometry.cluster();
        let count = count.min(AT_ONCE / cluster).max(1);
        if self.writing()?.pace.is_due(count * cluster) {
            return Ok(Attempt::Full);
        }
        let taken = self.space.take(WantedRun { len: cluster, most: count, align: cluster });
        let claimed = self.claim(self.units(range.start(), taken.len / cluster), taken);
        if !matches!(claimed, Ok(Attempt::Placed(_))) {
            self.space.untake(taken);
        }
        claimed
    }

    /// Claims the units for which space was taken.
    fn claim(&self, units: GuestRange, taken: TakenRun) -> Result<Attempt<'_>> {
        check_place(taken.end())?;
        let Some(claim) = self.writing()?.claims.try_hold(units) else { return Ok(Attempt::Busy) };
        // Nobody else changes these entries from now on. Did somebody since they were looked at?
        match self.vacant(units)? {
            Vacancy::Need(need) => return Ok(Attempt::Need(need)),
            Vacancy::Vacant(count) if count < self.clusters(units) => return Ok(Attempt::Busy),
            Vacancy::Vacant(_) => {}
        }
        claim.keep();
        self.writing()?.pace.reserved(taken.len);
        let reserved = Reserved { range: units, at: taken.at, zeroed: taken.zeroed, token: 0 };
        let store = &self.store;
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(self, store, reserved))))
    }

    /// How many clusters from the start of the range on have no space, within the range and one slice of
    /// their table.
    fn vacant(&self, range: GuestRange) -> Result<Vacancy<'_>> {
        let place = self.geometry.locate(range.start());
        let wanted = place.within.saturating_add(range.len()).div_ceil(self.geometry.cluster());
        let slice = match self.look(range)? {
            Look::Need(need) => return Ok(Vacancy::Need(need)),
            Look::NoTable(_) => {
                let slice = SliceAt::of(HostOffset::ZERO, place.l2);
                return Ok(Vacancy::Vacant(wanted.min(SLICE - slice.index)));
            }
            Look::Run { slice, .. } => slice,
        };
        let end = slice.index.saturating_add(wanted).min(SLICE);
        let seen = self.l2.read(slice.at, |entries| {
            let is_vacant = |index: &u64| {
                let entry = entries.get(usize::try_from(*index).unwrap_or(usize::MAX));
                let cluster = self.geometry.decode(entry, self.end().get());
                matches!(cluster, Some(Cluster::Absent | Cluster::Zero))
            };
            (slice.index..end).take_while(is_vacant).count() as u64
        });
        Ok(match seen {
            Some(count) => Vacancy::Vacant(count),
            None => Vacancy::Need(self.need(Level::L2, slice)),
        })
    }

    pub(super) fn commit_reserved(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        let place = self.geometry.locate(reserved.range.start());
        let table = match self.own_table(place)? {
            Step::Done(table) => table,
            Step::Need(need) => return Ok(Committed::Need(need)),
            Step::Full => return Ok(Committed::Full),
        };
        let slice = SliceAt::of(table, place.l2);
        let (count, cluster) = (self.clusters(reserved.range), self.geometry.cluster());
        // Whoever sees the entries must find the clusters in the file.
        self.grow_to(reserved.at.saturating_add(count * cluster));
        let update = self.l2.update(slice.at, |slots| {
            let first = index_in(slice);
            for (index, number) in (first..).zip(0..count) {
                slots.set(index, reserved.at.saturating_add(number * cluster).get());
            }
        });
        match update {
            Updated::Missing => Ok(Committed::Need(self.need(Level::L2, slice))),
            Updated::Full => Ok(Committed::Full),
            Updated::Done(()) => {
                let writer = self.writing()?;
                writer.pace.committed(count * cluster);
                writer.claims.release(reserved.range);
                Ok(Committed::Done)
            }
        }
    }

    /// Whether a range reaches the end of the disk.
    pub(super) fn reaches_end(&self, range: GuestRange) -> bool {
        range.end().get() == self.size()
    }
}
