//! A disk as the target of a copy: places in order, bytes in any order.

use anydisk_core::{
    Disk, Error as CoreError, GuestOffset, GuestRange, HostOffset, ImageWrite, Packing, Placement,
    Storage,
};
use anydisk_storage::is_zero;

use crate::prepare::{Prepared, Ready};
use crate::{Error, Result, Settings};

/// A disk that is being written.
#[derive(Clone, Copy)]
pub(crate) struct DiskTarget<'a> {
    disk: &'a Disk,
    writer: &'a dyn ImageWrite,
    compress: bool,
    zero_run: usize,
    is_zero: bool,
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
                feature: "compressed writing".into(),
            }));
        }
        Ok(Self {
            disk,
            writer,
            compress: settings.compress,
            zero_run: settings.zero_run,
            is_zero: settings.target_is_zero,
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

    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.disk.flush()?)
    }

    /// Takes places for all parts of a step, in order. Zeroes are dealt with here.
    pub(crate) fn place(&self, prepared: &Prepared) -> Result<Vec<Place<'a>>> {
        let mut places = Vec::new();
        for (range, ready) in prepared.parts() {
            self.place_part(range, ready, &mut places)
                .map_err(|source| Error::Write { at: range.start().get(), source })?;
        }
        Ok(places)
    }

    fn place_part(
        &self,
        range: GuestRange,
        ready: Ready<'_>,
        places: &mut Vec<Place<'a>>,
    ) -> anydisk_core::Result<()> {
        match ready {
            Ready::Leave => Ok(()),
            Ready::Zero if self.is_zero => Ok(()),
            Ready::Zero => self.disk.zero(range, true),
            Ready::Packed(bytes, _) => {
                // The target may be longer than the source by a part of a sector.
                let end = GuestOffset(self.writer.size());
                let unit = range.grown_to(self.writer.unit()).before(end);
                let placement = self.writer.place_encoded(unit, bytes.len())?;
                places.push(Place { range: unit, placement });
                Ok(())
            }
            Ready::Data(_) => self.place_data(range, places),
        }
    }

    fn place_data(
        &self,
        mut range: GuestRange,
        places: &mut Vec<Place<'a>>,
    ) -> anydisk_core::Result<()> {
        while !range.is_empty() {
            let placement = self.writer.place(range)?;
            let part = match &placement {
                Placement::InPlace { len, .. } => range.first(*len),
                Placement::Fresh(reservation) => range.before(reservation.range().end()),
            };
            places.push(Place { range: part, placement });
            range = range.skip(part.len());
        }
        Ok(())
    }

    /// Writes the bytes to their places and commits them.
    pub(crate) fn fill(&self, places: Vec<Place<'a>>, prepared: &Prepared) -> Result<()> {
        let mut parts = prepared.parts().peekable();
        for place in places {
            let range = place.range;
            while parts.next_if(|(part, _)| part.end() <= range.start()).is_some() {}
            let bytes = match parts.peek() {
                Some((part, Ready::Data(bytes))) => {
                    let skip =
                        crate::copy::bytes_in(GuestRange::between(part.start(), range.start()));
                    &bytes[skip..skip + crate::copy::bytes_in(range)]
                }
                Some((_, Ready::Packed(bytes, _))) => bytes,
                _ => continue,
            };
            self.fill_one(place, bytes)
                .map_err(|source| Error::Write { at: range.start().get(), source })?;
        }
        Ok(())
    }

    fn fill_one(&self, place: Place<'a>, bytes: &[u8]) -> anydisk_core::Result<()> {
        match place.placement {
            Placement::InPlace { store, at, .. } => self.write(&**store, at, bytes, self.is_zero),
            Placement::Fresh(reservation) => {
                let covered = place.range;
                let units = reservation.range();
                if !covered.contains(units) {
                    self.disk.fill(&reservation, covered)?;
                }
                let skip = covered.start().get() - units.start().get();
                let at = reservation.at().saturating_add(skip);
                self.write(&**reservation.store(), at, bytes, reservation.is_zeroed())?;
                reservation.commit()
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
