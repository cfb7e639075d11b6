//! Zeroing and discarding: entries of tables, or holes in flat files.

use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{Below, GuestRange, Handled, Image, Result, Updated, Zeroing};

use super::{Target, read_only, units};
use crate::extent::{Body, Flat, Part, Sparse};
use crate::image::{Look, VmdkImage, key};
use crate::table::{Grain, SLICE, SliceAt, sector_at};

impl VmdkImage {
    /// Makes the start of the range read as zero by its entries, if that can be done.
    fn clear(&self, target: &Target<'_>, sparse: &Sparse, how: Zeroing) -> Result<Handled> {
        let (answer, len, has_table) = self.look_now(target.part, sparse, target.range)?;
        let nothing_below = how.below == Below::Nothing && !target.writer.has_parent.load(Relaxed);
        if answer == Grain::Zero || (answer == Grain::Absent && nothing_below) {
            return Ok(Handled::Done(len));
        }
        let grain = sparse.geometry().grain();
        let within = sparse.geometry().locate(target.part.offset_of(target.range)).within;
        if within != 0 {
            return Ok(Handled::ByData(len.min(grain - within)));
        }
        // The last grain of the extent may be short: its whole is what the extent has of it.
        let reaches_end = target.range.first(len).end() == target.part.range().end();
        let count = if reaches_end { sparse.grains_of(len) } else { whole(len, grain) };
        let to = match (sparse.has_zero_entries(), nothing_below) {
            (true, _) => Grain::Zero,
            (false, true) => Grain::Absent,
            (false, false) => return Ok(Handled::ByData(len)),
        };
        let keeps_space = !how.unmap && matches!(answer, Grain::Sector(_));
        if count == 0 || keeps_space || !has_table {
            return Ok(Handled::ByData(len));
        }
        let units = units(target, sparse, count);
        self.begin(target, sparse.file)?;
        target.writer.claims.claim(units);
        let cleared = self.clear_units(target, sparse, units, to);
        target.writer.claims.release(units);
        cleared.map(|()| Handled::Done(units.len()))
    }

    /// Makes the start of the range, a grain's first byte, absent: how many bytes. The image below holds the
    /// same, so the content is what it was, and keeps its number: whoever was made for it still fits.
    pub(super) fn forget_grains(&self, range: GuestRange) -> Result<u64> {
        let target = self.target(range)?;
        let Body::Sparse(sparse) = &target.part.body else {
            return Err(read_only("this extent has no grains"));
        };
        let (answer, len, _) = self.look_now(target.part, sparse, target.range)?;
        if answer == Grain::Absent {
            return Ok(len);
        }
        let units = units(&target, sparse, sparse.grains_of(len));
        self.files[sparse.file].used.store(true, Relaxed);
        target.writer.claims.claim(units);
        let cleared = self.clear_units(&target, sparse, units, Grain::Absent);
        target.writer.claims.release(units);
        cleared.map(|()| units.len())
    }

    /// Changes the entries of claimed units, and gives back the grains they named.
    fn clear_units(
        &self,
        target: &Target<'_>,
        sparse: &Sparse,
        units: GuestRange,
        to: Grain,
    ) -> Result<()> {
        let extent = sparse.writer()?;
        extent.mark(sparse, &*self.files[sparse.file].store)?;
        let count = sparse.grains_of(units.len());
        loop {
            let slice = self.slice_now(target.part, sparse, units)?;
            let mut freed = Vec::new();
            self.forget_unwritten(sparse, slice);
            let update = self.tables.update(key(sparse.file, slice.at), |entries| {
                for index in slice.index..slice.index + count {
                    let index = index as usize;
                    if let Grain::Sector(sector) = sparse.decode(entries.get(index)) {
                        freed.push(sector);
                    }
                    entries.set(index, to.encode());
                }
            });
            match update {
                Updated::Missing => {}
                Updated::Full => self.relieve()?,
                Updated::Done(()) => {
                    let grain = sparse.geometry().grain();
                    freed.into_iter().for_each(|at| extent.space.retire(sector_at(at), grain));
                    return Ok(());
                }
            }
        }
    }

    /// Where the entry for the start of the range is, its table being in memory.
    fn slice_now(&self, part: &Part, sparse: &Sparse, range: GuestRange) -> Result<SliceAt> {
        loop {
            match self.look(part, sparse, range)? {
                Look::Need(need) => self.satisfy(&need)?,
                Look::NoTable(_) => return Err(read_only("a grain table is missing")),
                Look::Run { slice, .. } => return Ok(slice),
            }
        }
    }

    /// The tables' answer for the start of the range, reading them as needed, and whether there is a
    /// table.
    fn look_now(
        &self,
        part: &Part,
        sparse: &Sparse,
        range: GuestRange,
    ) -> Result<(Grain, u64, bool)> {
        loop {
            match self.look(part, sparse, range)? {
                Look::Need(need) => self.satisfy(&need)?,
                Look::NoTable(len) => return Ok((Grain::Absent, len, false)),
                Look::Run { answer, len, .. } => return Ok((answer, len, true)),
            }
        }
    }

    /// Zeroes a flat extent by changing its file's space, or says that bytes must be written.
    fn clear_flat(&self, target: &Target<'_>, flat: &Flat, unmap: bool) -> Result<Handled> {
        let (at, rest) = flat.place(target.part.offset_of(target.range))?;
        let len = target.range.len().min(rest);
        let Some(space) = self.files[flat.file].store.space() else {
            return Ok(Handled::ByData(len));
        };
        self.begin(target, flat.file)?;
        match space.zero(at, len, unmap) {
            Ok(()) => Ok(Handled::Done(len)),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(Handled::ByData(len)),
            Err(error) => Err(error.into()),
        }
    }

    /// Zeroes or discards the start of the range by metadata, if that can be done.
    pub(super) fn clear_any(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let (_, part, inside) = self.part_at(range)?;
        if matches!(part.body, Body::Zero) && self.writer.is_some() {
            return Ok(Handled::Done(inside.len()));
        }
        let target = self.target(range)?;
        match &target.part.body {
            Body::Zero => Ok(Handled::Done(target.range.len())),
            Body::Flat(flat) => self.clear_flat(&target, flat, how.unmap),
            Body::Sparse(sparse) => self.clear(&target, sparse, how),
        }
    }
}

/// Whole grains in `len` bytes.
fn whole(len: u64, grain: u64) -> u32 {
    u32::try_from(len / grain).unwrap_or(SLICE)
}
