//! Places for data: in place, or new clusters that are reserved and then committed.

use anydisk_core::{
    Attempt, Committed, Error, GuestOffset, GuestRange, HostOffset, Image, Need, Placement,
    Reservation, Reserved, Result, TakenRun, Updated, WantedRun, WriteLease,
};

use super::{Step, check_place};
use crate::NAME;
use crate::image::{Level, Look, QcowImage};
use crate::table::Cluster;

/// Bytes of clusters that are taken at once: before the first table is on the medium, a part of what a
/// crash may leave.
const AT_ONCE: u64 = 4 << 20;

/// Whether clusters have space of their own, from memory.
enum Vacancy<'a> {
    Need(Need<'a>),
    /// So many from the first on have none.
    Vacant(u64),
}

impl QcowImage {
    pub(super) fn place_plain(&self, range: GuestRange) -> Result<Attempt<'_>> {
        if let Some(need) = self.unsurveyed(&self.writing()?.survey) {
            return Ok(Attempt::Need(need));
        }
        let lease = self.space.leases().take();
        match self.look(range)? {
            Look::Need(need) => return Ok(Attempt::Need(need)),
            Look::Run { cluster: Cluster::Data(at), len, .. } => {
                let within = self.geometry.locate(range.start()).within;
                let store = self.data_store(range.start(), at)?;
                let at = at.saturating_add(within);
                let lease = WriteLease::new(lease);
                return Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }));
            }
            Look::Run { .. } | Look::NoTable(_) => {}
        }
        drop(lease); // It would keep freed space from being taken.
        if self.writing()?.pace.is_due(range.len().min(AT_ONCE)) {
            return Ok(Attempt::Full);
        }
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
        let most = count.min(AT_ONCE / cluster);
        let taken = self.space.take(WantedRun { len: cluster, most, align: cluster });
        self.claim(self.units(range.start(), taken.len / cluster), taken, 0)
    }

    pub(super) fn place_packed(&self, unit: GuestRange, len: usize) -> Result<Attempt<'_>> {
        let survey = &self.writing()?.survey;
        if self.header.encrypted {
            let feature = "compressed clusters, which are not encrypted, in an encrypted image";
            return Err(Error::Unsupported { format: NAME, feature: feature.into() });
        }
        let whole = self.units(unit.start(), 1);
        let stream = u32::try_from(len).unwrap_or(u32::MAX);
        let entry = self.geometry.encode(Cluster::Packed { at: HostOffset(1), len: stream });
        if unit != whole || entry.is_none() {
            let feature = format!("compressed data of {len} bytes for guest range {unit}").into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
        if let Some(need) = self.unsurveyed(survey) {
            return Ok(Attempt::Need(need));
        }
        if self.writing()?.pace.is_due(stream.into()) {
            return Ok(Attempt::Full);
        }
        match self.own_table(self.geometry.locate(unit.start()))? {
            Step::Done(_) => {}
            Step::Need(need) => return Ok(Attempt::Need(need)),
            Step::Full => return Ok(Attempt::Full),
        }
        let taken = self.space.take(WantedRun { len: stream.into(), most: 1, align: 1 });
        self.claim(whole, taken, stream.into())
    }

    /// Claims the units for which space was taken. `stream`: the length of their packed form, 0
    /// for plain clusters.
    fn claim(&self, units: GuestRange, taken: TakenRun, stream: u64) -> Result<Attempt<'_>> {
        let claimed = self.try_claim(units, taken, stream);
        if !matches!(claimed, Ok(Attempt::Placed(_))) {
            self.space.untake(taken);
        }
        claimed
    }

    fn try_claim(&self, units: GuestRange, taken: TakenRun, stream: u64) -> Result<Attempt<'_>> {
        check_place(taken.end())?;
        let Some(claim) = self.writing()?.claims.try_hold(units) else { return Ok(Attempt::Busy) };
        // Nobody else changes these entries from now on. Did somebody since they were looked at?
        if stream == 0 {
            match self.vacant(units)? {
                Vacancy::Need(need) => return Ok(Attempt::Need(need)),
                Vacancy::Vacant(count) if count < self.clusters(units).into() => {
                    return Ok(Attempt::Busy);
                }
                Vacancy::Vacant(_) => {}
            }
        }
        let store = match stream {
            0 => self.data_store(units.start(), taken.at)?,
            _ => &self.store,
        };
        claim.keep();
        self.writing()?.pace.reserved(taken.len);
        // Of a packed cluster the caller writes every byte; zeroes of an encrypted one are no zeroes
        // in the file.
        let zeroed = taken.zeroed && stream == 0 && !self.header.encrypted;
        let reserved = Reserved { range: units, at: taken.at, zeroed, token: stream };
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(self, store, reserved))))
    }

    /// How many clusters from the start of the range on have no space that can be written in
    /// place, within the range and one slice of their table.
    fn vacant(&self, range: GuestRange) -> Result<Vacancy<'_>> {
        let place = self.geometry.locate(range.start());
        let wanted = place.within.saturating_add(range.len()).div_ceil(self.geometry.cluster());
        let (slice, most) = match self.look(range)? {
            Look::Need(need) => return Ok(Vacancy::Need(need)),
            Look::NoTable(_) => {
                let slice = self.geometry.l2_slice(HostOffset::ZERO, place.l2);
                return Ok(Vacancy::Vacant(wanted.min(u64::from(slice.count - slice.index))));
            }
            Look::Run { slice, .. } => (slice, wanted),
        };
        let end = u64::from(slice.index).saturating_add(most).min(slice.count.into());
        let seen = self.l2.read(slice.at, |entries| {
            (u64::from(slice.index)..end)
                .take_while(|index| {
                    let entry = entries.get(usize::try_from(*index).unwrap_or(usize::MAX));
                    matches!(
                        self.geometry.decode(entry),
                        Some(Cluster::Absent | Cluster::Packed { .. })
                    )
                })
                .count() as u64
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
        let slice = self.geometry.l2_slice(table, place.l2);
        let entries = self.entries_for(reserved)?;
        let update = self.l2.update(slice.at, |slots| {
            let set = |(index, entry): (usize, &u64)| {
                let index = slice.index as usize + index;
                let old = slots.get(index);
                slots.set(index, *entry);
                old
            };
            entries.iter().enumerate().map(set).collect::<Vec<_>>()
        });
        match update {
            Updated::Missing => Ok(Committed::Need(self.need(Level::L2, slice))),
            Updated::Full => Ok(Committed::Full),
            Updated::Done(old) => {
                self.retire(&old);
                self.writing()?.pace.committed(self.space_of(reserved).1);
                self.writing()?.claims.release(reserved.range);
                Ok(Committed::Done)
            }
        }
    }

    /// The entries that name the space of a reservation.
    fn entries_for(&self, reserved: &Reserved) -> Result<Vec<u64>> {
        let cluster = self.geometry.cluster();
        let place = |index: u32| match u32::try_from(reserved.token) {
            Ok(len) if len > 0 => Cluster::Packed { at: reserved.at, len },
            _ => Cluster::Data(reserved.at.saturating_add(u64::from(index) * cluster)),
        };
        let entry = |index| {
            self.geometry.encode(place(index)).ok_or_else(|| Error::Limit {
                format: NAME,
                what: "place of a compressed cluster in the file".into(),
                found: reserved.at.get(),
                limit: self.geometry.packed_end() - 1,
            })
        };
        (0..self.clusters(reserved.range)).map(entry).collect()
    }

    /// Gives back the space that entries named which were changed.
    pub(super) fn retire(&self, old: &[u64]) {
        for entry in old {
            match self.geometry.decode(*entry) {
                Some(Cluster::Data(at)) => self.space.retire(at, self.geometry.cluster()),
                Some(Cluster::Packed { at, len }) => self.space.retire(at, len.into()),
                Some(Cluster::Absent) | None => {}
            }
        }
    }

    /// The space that a reservation holds.
    pub(super) fn space_of(&self, reserved: &Reserved) -> (HostOffset, u64) {
        let plain = u64::from(self.clusters(reserved.range)) * self.geometry.cluster();
        (reserved.at, if reserved.token > 0 { reserved.token } else { plain })
    }
}

/// Whether a range reaches the end of the disk.
pub(super) fn reaches_end(image: &QcowImage, range: GuestRange) -> bool {
    range.end() == GuestOffset(image.size())
}
