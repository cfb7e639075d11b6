//! Zeroing and discarding: a cluster without an entry reads as zero, if nothing lies below.

use anydisk_core::{Below, GuestRange, Handled, Image, Result, Updated, Zeroing};

use super::place::reaches_end;
use crate::image::{Look, QcowImage};
use crate::table::{Cluster, SliceAt};

impl QcowImage {
    /// Makes the start of the range read as zero by its entries, if that can be done. There is no
    /// entry for zeroes: over a backing file they are written.
    pub(super) fn clear(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.writing()?;
        let nothing_below = how.below == Below::Nothing && self.lock_backing().is_none();
        let (cluster, len) = self.look_now(range)?;
        if !nothing_below {
            return Ok(Handled::ByData(len));
        }
        let size = self.geometry.cluster();
        let within = self.geometry.locate(range.start()).within;
        match cluster {
            Cluster::Absent => Ok(Handled::Done(len)),
            _ if within > 0 => Ok(Handled::ByData(len.min(size - within))),
            Cluster::Data(_) if !how.unmap => Ok(Handled::ByData(len)),
            _ => {
                // The last cluster of the disk may be cut: its whole is what the disk has of it.
                let part = range.first(len);
                let count = match reaches_end(self, part) {
                    true => len.div_ceil(size),
                    false => len / size,
                };
                match count {
                    0 => Ok(Handled::ByData(len)),
                    _ => self.clear_units(self.units(range.start(), count)),
                }
            }
        }
    }

    /// Takes the entries of whole clusters, which lie in one slice, and gives back what they named.
    fn clear_units(&self, units: GuestRange) -> Result<Handled> {
        // What is given back must be nobody else's, and no metadata.
        self.survey()?;
        let _claim = self.writing()?.claims.hold(units);
        loop {
            // Entries may have changed before the claim, but tables are never given back.
            let Some(slice) = self.slice_now(units)? else {
                return Ok(Handled::Done(units.len()));
            };
            let first = slice.index as usize;
            let update = self.l2.update(slice.at, |slots| {
                let mut take = |index| {
                    let old = slots.get(index);
                    slots.set(index, 0);
                    old
                };
                (first..first + self.clusters(units) as usize).map(&mut take).collect::<Vec<_>>()
            });
            match update {
                Updated::Missing => {}
                Updated::Full => self.relieve()?,
                Updated::Done(old) => {
                    self.retire(&old);
                    return Ok(Handled::Done(units.len()));
                }
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

    /// Where the entry for the start of the range is, its table being in memory; `None` if there is
    /// no table.
    fn slice_now(&self, range: GuestRange) -> Result<Option<SliceAt>> {
        loop {
            match self.look(range)? {
                Look::Need(need) => self.satisfy(&need)?,
                Look::NoTable(_) => return Ok(None),
                Look::Run { slice, .. } => return Ok(Some(slice)),
            }
        }
    }
}
