//! Zeroing and discarding: an entry of 1 reads as zeroes whatever lies below, one of 0 if nothing does.

use anydisk_core::{Below, GuestRange, Handled, Image, Result, Updated, Zeroing};

use super::{Step, index_in};
use crate::image::{Level, Look, QedImage};
use crate::layout::ZERO;
use crate::table::{Cluster, SLICE, SliceAt};

impl QedImage {
    /// Makes the start of the range read as zero by its entries, if that can be done.
    pub(super) fn clear(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.writing()?;
        let nothing_below = how.below == Below::Nothing && self.lock_now().backing.is_none();
        let (cluster, len) = self.look_now(range)?;
        let size = self.geometry.cluster();
        let within = self.geometry.locate(range.start()).within;
        match cluster {
            Cluster::Zero => Ok(Handled::Done(len)),
            Cluster::Absent if nothing_below => Ok(Handled::Done(len)),
            _ if within > 0 => Ok(Handled::ByData(len.min(size - within))),
            Cluster::Data(_) if !how.unmap => Ok(Handled::ByData(len)),
            Cluster::Absent | Cluster::Data(_) => {
                let entry = self.geometry.locate(range.start()).l2 % SLICE;
                let part = range.first(len.min((SLICE - entry) * size));
                // The last cluster of the disk may be cut: its whole is what the disk has of it.
                let count = match self.reaches_end(part) {
                    true => part.len().div_ceil(size),
                    false => part.len() / size,
                };
                match count {
                    0 => Ok(Handled::ByData(len)),
                    _ => self.clear_units(self.units(range.start(), count), nothing_below),
                }
            }
        }
    }

    /// Changes the entries of whole clusters, which lie in one slice, and gives back what they named.
    fn clear_units(&self, units: GuestRange, nothing_below: bool) -> Result<Handled> {
        let to = if nothing_below { 0 } else { ZERO };
        let _claim = self.writing()?.claims.hold(units);
        let place = self.geometry.locate(units.start());
        loop {
            let table = match self.own_table(place)? {
                Step::Done(table) => table,
                Step::Need(need) => {
                    self.satisfy(&need)?;
                    continue;
                }
                Step::Full => {
                    self.relieve()?;
                    continue;
                }
            };
            let slice = SliceAt::of(table, place.l2);
            let count = usize::try_from(self.clusters(units)).expect("a part of a slice");
            let update = self.l2.update(slice.at, |slots| {
                let mut take = |index| {
                    let old = slots.get(index);
                    slots.set(index, to);
                    old
                };
                let first = index_in(slice);
                (first..first + count).map(&mut take).collect::<Vec<_>>()
            });
            match update {
                Updated::Missing => self.satisfy(&self.need(Level::L2, slice))?,
                Updated::Full => self.relieve()?,
                Updated::Done(old) => {
                    self.retire(&old);
                    return Ok(Handled::Done(units.len()));
                }
            }
        }
    }

    /// Gives back the space that entries named which were changed.
    pub(super) fn retire(&self, old: &[u64]) {
        for entry in old {
            if let Some(Cluster::Data(at)) = self.geometry.decode(*entry, self.end().get()) {
                self.space.retire(at, self.geometry.cluster());
            }
        }
    }

    /// The answer for the start of the range, reading tables as needed.
    fn look_now(&self, range: GuestRange) -> Result<(Cluster, u64)> {
        loop {
            match self.look(range)? {
                Look::Need(need) => self.satisfy(&need)?,
                Look::NoTable(len) => return Ok((Cluster::Absent, len)),
                Look::Run { cluster, len, .. } => return Ok((cluster, len)),
            }
        }
    }
}
