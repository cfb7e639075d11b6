//! A disk as the target of a copy: places in order, bytes in any order.

use anydisk_core::{
    Disk, Error as CoreError, Feature, GuestOffset, GuestRange, HostOffset, ImageWrite, Packing,
    Placement, Storage,
};
use anydisk_storage::is_zero;

use crate::copy::bytes_in;
use crate::prepare::{Prepared, Ready};
use crate::{Error, Offload, Result, Settings, Sources};

/// A disk that is being written.
#[derive(Clone, Copy)]
pub(crate) struct DiskTarget<'a> {
    disk: &'a Disk,
    writer: &'a dyn ImageWrite,
    /// Bytes that are claimed together, at least a unit.
    cluster: u64,
    compress: bool,
    zero_run: usize,
    is_zero: bool,
    offload: Offload,
}

/// What goes to a place.
#[derive(Clone, Copy)]
enum Load<'b> {
    /// These bytes.
    Bytes(&'b [u8]),
    /// What the source holds there.
    Same(&'b Sources<'b>),
}

/// Places that are held until they are filled.
struct Held<'a, 'p> {
    places: Vec<Place<'a>>,
    prepared: &'p Prepared,
    source: &'p Sources<'p>,
    /// Bytes that the target took from the source by itself.
    taken: u64,
}

/// A place for the bytes of one part, or of the start of one.
pub(crate) struct Place<'a> {
    range: GuestRange,
    placement: Placement<'a>,
}

impl<'a> DiskTarget<'a> {
    pub(crate) fn new(disk: &'a Disk, settings: &Settings) -> Result<Self> {
        let writer = disk.top().writer().ok_or_else(|| CoreError::ReadOnly {
            why: "the target was opened for reading".into(),
        })?;
        if settings.compress && writer.packing().is_none() {
            return Err(Error::Target(CoreError::Unsupported {
                format: disk.top().info().format,
                feature: Feature::Compress,
            }));
        }
        Ok(Self {
            disk,
            writer,
            cluster: disk.top().info().cluster_size.unwrap_or(0).max(writer.unit()),
            compress: settings.compress,
            zero_run: settings.zero_run,
            is_zero: settings.target_is_zero,
            offload: settings.offload,
        })
    }

    pub(crate) fn disk(&self) -> &'a Disk {
        self.disk
    }

    pub(crate) fn unit(&self) -> u64 {
        self.writer.unit()
    }

    pub(crate) fn packing(&self) -> Option<Packing> {
        self.writer.packing().filter(|_| self.compress)
    }

    /// The store that all data goes to, if there is just one.
    pub(crate) fn store(&self) -> Option<&'a dyn Storage> {
        self.writer.data_store().map(|store| &**store)
    }

    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.disk.flush()?)
    }

    /// Takes places for all parts of a step, in order. Zeroes are dealt with here, and so is what
    /// must be out of the way of the next place; of that, how many bytes the target took from the
    /// source by itself.
    pub(crate) fn place(
        &self,
        prepared: &Prepared,
        source: &Sources<'_>,
    ) -> Result<(Vec<Place<'a>>, u64)> {
        let mut held = Held { places: Vec::new(), prepared, source, taken: 0 };
        for (range, ready) in prepared.parts() {
            self.place_part(range, ready, &mut held)?;
        }
        Ok((held.places, held.taken))
    }

    fn place_part(
        &self,
        range: GuestRange,
        ready: Ready<'_>,
        held: &mut Held<'a, '_>,
    ) -> Result<()> {
        match ready {
            Ready::Leave => Ok(()),
            Ready::Zero if self.is_zero => Ok(()),
            Ready::Zero => {
                self.clear_way(range, held)?;
                self.disk.zero(range, true).map_err(Error::writing(range))
            }
            Ready::Packed(bytes, _) => {
                // The target may be longer than the source by a part of a sector.
                let end = GuestOffset(self.writer.size());
                let unit = range.grown_to(self.writer.unit()).before(end);
                let placement = self.writer.place_encoded(unit, bytes.len());
                let placement = placement.map_err(Error::writing(range))?;
                held.places.push(Place { range: unit, placement });
                Ok(())
            }
            Ready::Data(_) | Ready::Same => self.place_data(range, held),
        }
    }

    fn place_data(&self, mut range: GuestRange, held: &mut Held<'a, '_>) -> Result<()> {
        while !range.is_empty() {
            self.clear_way(range, held)?;
            let placement = self.writer.place(range).map_err(Error::writing(range))?;
            let part = match &placement {
                Placement::InPlace { len, .. } => range.first(*len),
                Placement::Fresh(reservation) => range.before(reservation.range().end()),
            };
            held.places.push(Place { range: part, placement });
            range = range.skip(part.len());
        }
        Ok(())
    }

    /// Fills what is held if the start of `range` lies in the same cluster as the end of it: a
    /// cluster whose parts have places of their own is claimed as a whole, and whoever holds it
    /// would wait for itself.
    fn clear_way(&self, range: GuestRange, held: &mut Held<'a, '_>) -> Result<()> {
        if self.cluster == self.writer.unit() {
            return Ok(());
        }
        let next = range.first(1).grown_to(self.cluster);
        let is_in_way = |place: &Place<'_>| match &place.placement {
            Placement::Fresh(reservation) => reservation.range().end() > next.start(),
            Placement::InPlace { .. } => false,
        };
        if held.places.iter().any(is_in_way) {
            let places = std::mem::take(&mut held.places);
            held.taken += self.fill(places, held.prepared, held.source)?;
        }
        Ok(())
    }

    /// Writes the bytes to their places and commits them. Returns how many the target took from
    /// the source by itself.
    pub(crate) fn fill(
        &self,
        places: Vec<Place<'a>>,
        prepared: &Prepared,
        source: &Sources<'_>,
    ) -> Result<u64> {
        let mut parts = prepared.parts().peekable();
        let mut taken = 0;
        for place in places {
            let range = place.range;
            while parts.next_if(|(part, _)| part.end() <= range.start()).is_some() {}
            let load = match parts.peek() {
                Some((part, Ready::Data(bytes))) => {
                    let skip = bytes_in(GuestRange::between(part.start(), range.start()));
                    Load::Bytes(&bytes[skip..skip + bytes_in(range)])
                }
                Some((_, Ready::Packed(bytes, _))) => Load::Bytes(bytes),
                Some((_, Ready::Same)) => Load::Same(source),
                _ => continue,
            };
            taken += self.fill_one(place, load)?;
        }
        Ok(taken)
    }

    fn fill_one(&self, place: Place<'a>, load: Load<'_>) -> Result<u64> {
        let covered = place.range;
        let failed = Error::writing(covered);
        match place.placement {
            Placement::InPlace { store, at, .. } => {
                self.put(covered, &**store, at, load, self.is_zero)
            }
            Placement::Fresh(reservation) => {
                let units = reservation.range();
                if !covered.contains(units) {
                    self.disk.fill(&reservation, covered).map_err(failed)?;
                }
                let skip = covered.start().get() - units.start().get();
                let at = reservation.at().saturating_add(skip);
                let store = &**reservation.store();
                let taken = self.put(covered, store, at, load, reservation.is_zeroed())?;
                reservation.commit().map_err(failed)?;
                Ok(taken)
            }
        }
    }

    fn put(
        &self,
        range: GuestRange,
        store: &dyn Storage,
        at: HostOffset,
        load: Load<'_>,
        zeroed: bool,
    ) -> Result<u64> {
        match load {
            Load::Same(source) => source.hand_over(range, store, at, self.offload),
            Load::Bytes(bytes) => {
                self.write(store, at, bytes, zeroed).map(|()| 0).map_err(Error::writing(range))
            }
        }
    }

    /// Writes `bytes`, leaving out long runs of zeroes where the place is zero already.
    fn write(
        &self,
        store: &dyn Storage,
        at: HostOffset,
        bytes: &[u8],
        zeroed: bool,
    ) -> anydisk_core::Result<()> {
        if !zeroed || self.zero_run == 0 {
            return Ok(store.write_at(at, bytes)?);
        }
        let mut done = 0;
        for (len, zero) in runs(bytes, self.zero_run) {
            if !zero {
                store.write_at(at.saturating_add(done as u64), &bytes[done..done + len])?;
            }
            done += len;
        }
        Ok(())
    }
}

/// The bytes as runs of whole `step`s (the last may be short) that are all zero or not.
fn runs(bytes: &[u8], step: usize) -> impl Iterator<Item = (usize, bool)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let first = rest.get(..step.min(rest.len())).filter(|first| !first.is_empty())?;
        let zero = is_zero(first);
        let same = rest.chunks(step).take_while(|chunk| is_zero(chunk) == zero);
        let len = same.map(<[u8]>::len).sum();
        rest = &rest[len..];
        Some((len, zero))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_alternate_and_cover_the_bytes() {
        let mut bytes = vec![0; 20];
        bytes[9] = 1;
        assert_eq!(runs(&bytes, 4).collect::<Vec<_>>(), [(8, true), (4, false), (8, true)]);
        assert_eq!(runs(&[], 4).count(), 0);
    }
}
