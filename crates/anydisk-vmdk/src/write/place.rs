//! Places for data: in place, or new grains that are reserved and then committed.

use anydisk_core::{
    Attempt, Committed, GuestRange, HostOffset, Lease, Placement, Reservation, Reserved, Result,
    TakenRun, Updated, WriteLease,
};

use super::table::Added;
use super::{SparseWriter, Target, read_only, units};
use crate::extent::{Body, Flat, Sparse};
use crate::image::{Look, Table, VmdkImage, key};
use crate::table::{Grain, SliceAt, sector_of, vacant};

impl VmdkImage {
    pub(super) fn place_flat<'a>(
        &'a self,
        target: &Target<'_>,
        flat: &Flat,
    ) -> Result<Placement<'a>> {
        let (at, rest) = flat.place(target.part.offset_of(target.range))?;
        self.begin(target, flat.file)?;
        let len = target.range.len().min(rest);
        let store = &self.files[flat.file].store;
        Ok(Placement::InPlace { store, at, len, lease: WriteLease::eternal() })
    }

    pub(super) fn place_sparse<'a>(
        &'a self,
        target: &Target<'a>,
        sparse: &'a Sparse,
    ) -> Result<Attempt<'a>> {
        let lease = sparse.lease();
        let (from_start, len) = (target.part.offset_of(target.range), target.range.len());
        if let Some(at) = self.plain_grain(sparse, from_start, len) {
            self.begin_sparse(target, sparse)?;
            return Ok(self.in_place(sparse, at, len, lease));
        }
        let look = self.look(target.part, sparse, target.range)?;
        if let Look::Need(need) = look {
            return Ok(Attempt::Need(need));
        }
        let extent = self.begin_sparse(target, sparse)?;
        let Look::Run { answer, len, slice } = look else {
            drop(lease);
            let place = sparse.geometry().locate(from_start);
            // Nobody moves the directory meanwhile.
            let grain = units(target, sparse, 1);
            let Some(claim) = target.writer.claims.try_hold(grain) else {
                return Ok(Attempt::Busy);
            };
            let added = self.add_table(sparse, extent, place.table)?;
            drop(claim);
            return match added {
                Added::Done => self.place_sparse(target, sparse),
                Added::Need(need) => Ok(Attempt::Need(need)),
                Added::Full => Ok(Attempt::Full),
            };
        };
        match answer {
            Grain::Sector(sector) => {
                let within = sparse.geometry().locate(from_start).within;
                let count = sparse.grains_of(within + len);
                let at = sparse.grain_at(sector, count, slice.entry_at())?;
                Ok(self.in_place(sparse, at.saturating_add(within), len, lease))
            }
            Grain::Absent | Grain::Zero => {
                drop(lease);
                self.reserve(target, sparse, extent, slice)
            }
            Grain::Broken(entry) => Err(sparse.broken(slice.entry_at(), entry)),
        }
    }

    /// What must be done before the first byte of a file of grains is changed.
    fn begin_sparse<'a>(
        &self,
        target: &Target<'_>,
        sparse: &'a Sparse,
    ) -> Result<&'a SparseWriter> {
        self.begin(target, sparse.file)?;
        let extent = sparse.writer()?;
        extent.mark(sparse, &*self.files[sparse.file].store)?;
        Ok(extent)
    }

    fn in_place<'a>(
        &'a self,
        sparse: &Sparse,
        at: HostOffset,
        len: u64,
        lease: Lease<'a>,
    ) -> Attempt<'a> {
        let store = &self.files[sparse.file].store;
        let lease = WriteLease::new(lease);
        Attempt::Placed(Placement::InPlace { store, at, len, lease })
    }

    /// New space for the grains from the start of the range on that have none.
    fn reserve<'a>(
        &'a self,
        target: &Target<'a>,
        sparse: &'a Sparse,
        extent: &SparseWriter,
        slice: SliceAt,
    ) -> Result<Attempt<'a>> {
        let place = sparse.geometry().locate(target.part.offset_of(target.range));
        let wanted = sparse.grains_of(place.within + target.range.len());
        let Some(wanted) = self.vacant(sparse, slice, wanted) else {
            return Ok(Attempt::Need(self.need_table(sparse, slice)));
        };
        if wanted == 0 {
            return Ok(Attempt::Busy); // Someone was faster: the next look shows it.
        }
        let taken = extent.take(wanted)?;
        let count = sparse.grains_of(taken.len);
        let units = units(target, sparse, count);
        let Some(claim) = target.writer.claims.try_hold(units) else {
            extent.space.untake(taken);
            return Ok(Attempt::Busy);
        };
        // Nobody else changes these entries, or where they are, from now on.
        let as_before = self.is_still_vacant(target, sparse, slice, count);
        if !matches!(as_before, Ok(true)) {
            extent.space.untake(taken);
            return as_before.map(|_| Attempt::Busy);
        }
        claim.keep();
        Ok(self.reserved(target, sparse, taken, units))
    }

    /// Whether so many grains have no space, and their entries are where they were.
    fn is_still_vacant(
        &self,
        target: &Target<'_>,
        sparse: &Sparse,
        slice: SliceAt,
        count: u32,
    ) -> Result<bool> {
        Ok(match self.look(target.part, sparse, target.range)? {
            Look::Run { slice: now, .. } if (now.at, now.index) == (slice.at, slice.index) => {
                self.vacant(sparse, slice, count) == Some(count)
            }
            _ => false,
        })
    }

    fn reserved<'a>(
        &'a self,
        target: &Target<'a>,
        sparse: &'a Sparse,
        taken: TakenRun,
        units: GuestRange,
    ) -> Attempt<'a> {
        let token = target.index as u64;
        let reserved = Reserved { range: units, at: taken.at, zeroed: taken.zeroed, token };
        let store = &self.files[sparse.file].store;
        Attempt::Placed(Placement::Fresh(Reservation::new(self, store, reserved)))
    }

    /// How many of `wanted` grains from an entry on have no space; `None` if that is not in memory.
    fn vacant(&self, sparse: &Sparse, slice: SliceAt, wanted: u32) -> Option<u32> {
        let end = slice.index.saturating_add(wanted).min(slice.count);
        self.tables.read(key(sparse.file, slice.at), |entries| {
            vacant(|index| sparse.decode(entries.get(index as usize)), slice.index, end)
        })
    }

    /// The part of a reservation, and where its first entry is.
    pub(super) fn reserved_part(
        &self,
        reserved: &Reserved,
    ) -> Result<(usize, &Sparse, &SparseWriter)> {
        let target = self.target(reserved.range)?;
        let Body::Sparse(sparse) = &target.part.body else {
            return Err(read_only("this extent reserves nothing"));
        };
        Ok((target.index, sparse, sparse.writer()?))
    }

    pub(super) fn commit_sparse<'a>(&'a self, reserved: &Reserved) -> Result<Committed<'a>> {
        let (part, sparse, _) = self.reserved_part(reserved)?;
        let from_start = self.parts[part].offset_of(reserved.range);
        let place = sparse.geometry().locate(from_start);
        let table = match self.table(sparse, place.table)? {
            Table::Need(need) => return Ok(Committed::Need(need)),
            Table::Absent(_) => return Err(read_only("a grain table is missing")),
            Table::At(table) => table,
        };
        let slice = sparse.geometry().table_slice(table, place.entry);
        let first = sector_of(reserved.at).ok_or_else(|| read_only("its file is full"))?;
        let count = sparse.grains_of(reserved.range.len());
        let step = sparse.grain_sectors();
        // Readers ask for the end after they have read the entry.
        sparse.grow_to(reserved.at.saturating_add(u64::from(count) * sparse.geometry().grain()));
        self.forget_unwritten(sparse, slice);
        let update = self.tables.update(key(sparse.file, slice.at), |entries| {
            for index in 0..count {
                let entry = Grain::Sector(first + u64::from(index) * step).encode();
                entries.set((slice.index + index) as usize, entry);
            }
        });
        match update {
            Updated::Missing => Ok(Committed::Need(self.need_table(sparse, slice))),
            Updated::Full => Ok(Committed::Full),
            Updated::Done(()) => {
                self.release(reserved.range);
                Ok(Committed::Done)
            }
        }
    }
}
