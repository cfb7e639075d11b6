//! The writing side: data to its own place, then the bits that say that it is there.
//!
//! ```text
//!   flush:  data -> the file reaches its end -> flush -> bitmap -> flush
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    Attempt, Below, Claims, Committed, Error, GuestOffset, GuestRange, Handled, HostOffset, Image,
    ImageWrite, Limits, Placement, Reservation, Reserved, Result, RunSpace, Storage, Updated,
    WriteLease, Zeroing,
};

use crate::NAME;
use crate::bitmap::{SLICE_BITS, mask, words};
use crate::image::{CowImage, Look};

/// What writing needs beside the image.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) claims: Claims,
    /// How far the file reaches, and the order of a write-back. Every sector has its own place, which
    /// it loses only when the image is emptied.
    pub(crate) space: RunSpace,
    /// The name of the image below, which may be changed.
    backing: Mutex<Option<Vec<u8>>>,
}

impl CowImage {
    /// Opens the image in `store` for writing. The backing file is not opened.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::ReadOnly`] for the images of user-mode Linux.
    pub fn open_writable(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let mut image = Self::open(store, limits)?;
        if !image.header.kind.is_writable() {
            let why = "an image of user-mode Linux is only read";
            return Err(Error::ReadOnly { why: why.into() });
        }
        let space = RunSpace::new(HostOffset(image.store.len()?));
        let backing = Mutex::new(image.header.backing_file.clone());
        image.writer = Some(Writer { claims: Claims::default(), space, backing });
        Ok(image)
    }

    pub(crate) fn writing(&self) -> Result<&Writer> {
        let why = "it was opened for reading";
        self.writer.as_ref().ok_or_else(|| Error::ReadOnly { why: why.into() })
    }

    /// The name of the image below, while nobody changes it.
    pub(crate) fn lock_backing(&self) -> Result<MutexGuard<'_, Option<Vec<u8>>>> {
        Ok(self.writing()?.backing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whole sectors from the start of the range on, in one slice of the bitmap: those the range
    /// touches that are not here.
    fn reserve(&self, range: GuestRange, len: u64) -> Result<Attempt<'_>> {
        let (sector, end) = (u64::from(self.header.sector), GuestOffset(self.header.size));
        let units = range.first(len).grown_to(sector).before(end);
        let writer = self.writing()?;
        let Some(claim) = writer.claims.try_hold(units) else { return Ok(Attempt::Busy) };
        // Nobody else changes these bits from now on. Did somebody since they were looked at?
        match self.look(units) {
            Look::Need(need) => return Ok(Attempt::Need(need)),
            Look::Run { here: false, len } if len == units.len() => {}
            Look::Run { .. } => return Ok(Attempt::Busy),
        }
        claim.keep();
        let at = self.place_of(units);
        let zeroed = writer.space.take_at(at, units.len());
        let reserved = Reserved { range: units, at, zeroed, token: 0 };
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(self, &self.store, reserved))))
    }

    /// Makes the start of the range zero where its place is, or says that zeroes must be written.
    fn clear(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let nothing_below = how.below == Below::Nothing && self.lock_backing()?.is_none();
        let (here, len) = self.look_now(range)?;
        if !here {
            return Ok(if nothing_below { Handled::Done(len) } else { Handled::ByData(len) });
        }
        let Some(space) = self.store.space() else { return Ok(Handled::ByData(len)) };
        match space.zero(self.place_of(range), len, how.unmap) {
            Ok(()) => Ok(Handled::Done(len)),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(Handled::ByData(len)),
            Err(error) => Err(error.into()),
        }
    }

    fn look_now(&self, range: GuestRange) -> Result<(bool, u64)> {
        loop {
            match self.look(range) {
                Look::Need(need) => self.satisfy(&need)?,
                Look::Run { here, len } => return Ok((here, len)),
            }
        }
    }
}

impl ImageWrite for CowImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        let lease = self.writing()?.space.leases().take();
        match self.look(range) {
            Look::Need(need) => Ok(Attempt::Need(need)),
            Look::Run { here: false, len } => self.reserve(range, len),
            Look::Run { here: true, len } => {
                let (store, at) = (&self.store, self.place_of(range));
                let lease = WriteLease::new(lease);
                Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
            }
        }
    }

    fn claims(&self) -> Option<&Claims> {
        self.writer.as_ref().map(|writer| &writer.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        let (first, end) = self.sectors_of(reserved.range);
        let Some(slice) = self.slice_of(first) else {
            return Err(Error::Unsupported {
                format: NAME,
                feature: "a sector without a bit".into(),
            });
        };
        let (first, end) = (first % SLICE_BITS, slice.bit + (end - first));
        self.unwritten.forget(slice.at, slice.len);
        let update = self.bits.update(slice.at, |bits| {
            for number in words(first, end) {
                bits.set(number, bits.get(number) | mask(number, first, end));
            }
        });
        Ok(match update {
            Updated::Missing => Committed::Need(self.need(slice)),
            Updated::Full => Committed::Full,
            Updated::Done(()) => {
                self.writing()?.claims.release(reserved.range);
                Committed::Done
            }
        })
    }

    fn abandon(&self, reserved: &Reserved) {
        if let Some(writer) = &self.writer {
            writer.claims.release(reserved.range);
        }
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.clear(range, how)
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.clear(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        let space = &self.writing()?.space;
        space.write_back(&*self.store, &[&self.bits], |_, picture| {
            // Behind the end of the bitmap is data.
            let left = self.header.bitmap_end().get() - picture.at.get();
            let mut bytes: Vec<u8> =
                picture.entries.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            Ok(self.store.write_at(picture.at, &bytes)?)
        })
    }

    fn unit(&self) -> u64 {
        self.header.sector.into()
    }
}
