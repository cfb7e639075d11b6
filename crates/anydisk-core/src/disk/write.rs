//! The only write loop, and what else changes a disk.

use std::io::IoSlice;

use anydisk_storage::{HostOffset, Storage, StorageExt, is_zero};

use super::{Disk, bytes_in, bytes_of};
use crate::image::{check_range, read_only};
use crate::{
    Attempt, Companions, Error, Feature, GuestOffset, GuestRange, Handled, ImageWrite, NewSize,
    NoCompanions, Placement, Preallocation, Reservation, Reserved, Result, Source, Zeroing,
};

impl Disk {
    /// Writes `data` to guest offset `at`. Durable after the next [`flush`](Self::flush), and in the file for
    /// others to see not before.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], also if the rest of a unit lies in an image below that is not open;
    /// [`Error::OutOfRange`], or what the top image or its store says; then any part of the data may
    /// have been written.
    pub fn write(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        let range = self.range_of(at, data.len())?;
        self.write_range(range, Payload::Bytes(data))
    }

    /// The write loop.
    fn write_range(&self, mut range: GuestRange, mut payload: Payload<'_>) -> Result<()> {
        let writer = self.writer()?;
        while !range.is_empty() {
            let done = match writer.place(range)? {
                Placement::InPlace { store, at, len, lease } => {
                    let part = range.first(len);
                    payload.write_to(&**store, at, part.len())?;
                    drop(lease);
                    part.len()
                }
                Placement::Fresh(reservation) => self.write_fresh(reservation, range, payload)?,
            };
            range = range.skip(done);
            payload = payload.skip(done);
        }
        Ok(())
    }

    /// Writes the part of `range` that the reservation covers, fills the rest of its units and
    /// commits. Returns how many bytes of `range` that was.
    fn write_fresh(
        &self,
        reservation: Reservation<'_>,
        range: GuestRange,
        payload: Payload<'_>,
    ) -> Result<u64> {
        let reserved = reservation.reserved();
        let part = range.before(reserved.range.end());
        let at = reserved.place_of(part.start());
        match payload {
            Payload::Bytes(data) => {
                let [head, tail] = reserved.edges(part);
                let (head, tail) = (self.edge(head, reserved)?, self.edge(tail, reserved)?);
                let start = if head.is_empty() { at } else { reserved.at };
                let data = &data[..bytes_in(part)];
                if head.is_empty() && tail.is_empty() {
                    reservation.store().write_at(start, data)?;
                } else {
                    let parts = [IoSlice::new(&head), IoSlice::new(data), IoSlice::new(&tail)];
                    reservation.store().write_vectored_at(start, &parts)?;
                }
            }
            Payload::Zeroes => {
                self.fill(&reservation, part)?;
                if !reserved.zeroed {
                    write_zeroes(&**reservation.store(), at, part.len())?;
                }
            }
        }
        reservation.commit()?;
        Ok(part.len())
    }

    /// What must be written beside the data: the old content of `edge`, or nothing if that is zero
    /// and the new space is zero already.
    fn edge(&self, edge: GuestRange, reserved: &Reserved) -> Result<Vec<u8>> {
        if edge.is_empty() {
            return Ok(Vec::new());
        }
        self.check_complete(edge)?;
        if reserved.zeroed && self.reads_as_zero(edge)? {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; bytes_in(edge)];
        self.read_from(0, edge, &mut bytes)?;
        if reserved.zeroed && is_zero(&bytes) {
            bytes.clear();
        }
        Ok(bytes)
    }

    /// Fails if an image that is not open here may hold some of `range`.
    fn check_complete(&self, mut range: GuestRange) -> Result<()> {
        let last = self.layers.len() - 1;
        let Some(missing) = &self.layers[last].backing else { return Ok(()) };
        while !range.is_empty() {
            let found = self.map(range)?;
            if found.layer == last && matches!(found.extent.source, Source::Absent { .. }) {
                let name = missing.display_name();
                let why = format!("{name}, which holds the bytes beside these, is not open");
                return Err(Error::ReadOnly { why: why.into() });
            }
            range = range.skip(found.extent.len);
        }
        Ok(())
    }

    /// Whether the tables alone tell that all of `range` is zero.
    fn reads_as_zero(&self, mut range: GuestRange) -> Result<bool> {
        while !range.is_empty() {
            let found = self.map(range)?;
            if !matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. }) {
                return Ok(false);
            }
            range = range.skip(found.extent.len);
        }
        Ok(true)
    }

    /// A place for the start of `range` in the top image (layer 0), from memory alone, for callers
    /// that do their own I/O. Before committing a reservation, [`fill`](Self::fill) what the data does not cover.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::OutOfRange`], or what the top image says.
    pub fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        check_range(range, self.size())?;
        self.writer()?.try_place(range)
    }

    /// Fills the units of a reservation, except `covered`, with what the disk holds there now.
    ///
    /// # Errors
    /// Those of reading, and of writing to the reservation's store.
    pub fn fill(&self, reservation: &Reservation<'_>, covered: GuestRange) -> Result<()> {
        let reserved = reservation.reserved();
        for edge in reserved.edges(covered) {
            let bytes = self.edge(edge, reserved)?;
            if !bytes.is_empty() {
                reservation.store().write_at(reserved.place_of(edge.start()), &bytes)?;
            }
        }
        Ok(())
    }

    /// Makes `range` read as zero, by metadata where the format can, else by writing zeroes. With
    /// `unmap`, space is given back.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn zero(&self, range: GuestRange, unmap: bool) -> Result<()> {
        self.zero_by_writing(range, unmap, u64::MAX).map(drop)
    }

    /// As [`zero`](Self::zero) where metadata does it, all but the units that the range begins and
    /// ends within. False: it does not, and writing all of the range would not take longer. Any part
    /// of it may read as zero then.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn zero_fast(&self, range: GuestRange, unmap: bool) -> Result<bool> {
        let unit = self.writer()?.unit();
        self.zero_by_writing(range, unmap, unit.saturating_mul(2).min(range.len() / 2))
    }

    /// Makes `range` read as zero, of which it writes `most` bytes at most. False: that was not enough.
    fn zero_by_writing(&self, range: GuestRange, unmap: bool, mut most: u64) -> Result<bool> {
        check_range(range, self.size())?;
        let writer = self.writer()?;
        let how = Zeroing { unmap, below: self.below() };
        let mut rest = range;
        while !rest.is_empty() {
            let done = match writer.zero(rest, how)? {
                Handled::Done(len) => len,
                Handled::ByData(len) => {
                    let part = rest.first(len);
                    let Some(left) = most.checked_sub(part.len()) else { return Ok(false) };
                    most = left;
                    self.write_range(part, Payload::Zeroes)?;
                    len
                }
            };
            rest = rest.skip(done);
        }
        Ok(true)
    }

    /// Gives the space of `range` back where that can be done for whole units. What was discarded
    /// reads as zero; what could not be keeps its bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn discard(&self, range: GuestRange) -> Result<()> {
        check_range(range, self.size())?;
        let writer = self.writer()?;
        let mut rest = range;
        while !rest.is_empty() {
            let (Handled::Done(len) | Handled::ByData(len)) = writer.discard(rest, self.below())?;
            rest = rest.skip(len);
        }
        Ok(())
    }

    /// Returns when everything written, zeroed and discarded before is on stable storage.
    ///
    /// # Errors
    /// What the top image or its store says; then nothing is known about what was not flushed
    /// before.
    pub fn flush(&self) -> Result<()> {
        match self.top().writer() {
            Some(writer) => writer.flush(),
            None => Ok(()),
        }
    }

    /// Makes the disk `size` bytes long. New bytes read as zero, whatever lies below; shrinking
    /// drops what lies behind, and the caller guarantees that nothing is read or written there
    /// meanwhile. Durable after the next [`flush`](Self::flush) at the latest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the top image cannot; else as [`write`](Self::write).
    pub fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.resize_with(size, preallocation, &NoCompanions)
    }

    /// As [`resize`](Self::resize). An image of several files may need more of them, or fewer:
    /// `companions` makes and removes them.
    ///
    /// # Errors
    /// As [`resize`](Self::resize), and those of the maker.
    pub fn resize_with(
        &self,
        size: u64,
        preallocation: Preallocation,
        companions: &dyn Companions,
    ) -> Result<()> {
        self.writer()?;
        let Some(resizer) = self.top().resizer() else {
            let format = self.top().info().format;
            return Err(Error::Unsupported { format, feature: Feature::Resize });
        };
        let below = self.layers.get(1).map_or(0, |layer| layer.image.size());
        let zero = |range| self.zero(range, false);
        resizer.resize(&NewSize { size, preallocation, below, zero: &zero, companions })
    }

    fn writer(&self) -> Result<&dyn ImageWrite> {
        self.top().writer().ok_or_else(|| {
            read_only("it was opened for reading, or images of its kind are only read")
        })
    }
}

/// What is written: bytes, or as many zeroes as the range is long.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Bytes(&'a [u8]),
    Zeroes,
}

impl Payload<'_> {
    fn skip(self, len: u64) -> Self {
        match self {
            Self::Bytes(data) => Self::Bytes(&data[usize::try_from(len).unwrap_or(data.len())..]),
            Self::Zeroes => Self::Zeroes,
        }
    }

    /// Writes the first `len` bytes.
    fn write_to(self, store: &dyn Storage, at: HostOffset, len: u64) -> Result<()> {
        match self {
            Self::Bytes(data) => Ok(store.write_at(at, &data[..bytes_of(len)])?),
            Self::Zeroes => write_zeroes(store, at, len),
        }
    }
}

/// Writes zeroes where bytes must be written, because the place may hold old ones.
fn write_zeroes(store: &dyn Storage, at: HostOffset, len: u64) -> Result<()> {
    let inside = store.len()?.saturating_sub(at.get()).min(len);
    if let Some(space) = store.space()
        && inside == len
        && space.zero(at, len, false).is_ok()
    {
        return Ok(());
    }
    Ok(store.write_zeroes_at(at, len)?)
}
