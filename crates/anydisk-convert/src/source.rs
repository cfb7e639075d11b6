//! What is read: one disk, or several laid end to end.

use std::fmt;

use anydisk_core::{Disk, Encoded, GuestOffset, GuestRange, HostOffset, Source, Storage};
use anydisk_storage::StorageExt;

use crate::copy::bytes_in;
use crate::salvage::{SECTOR, halves, unit_of, unmapped};
use crate::shortcut::Shortcuts;
use crate::{Error, Offload, Result};

/// Bytes that are copied by hand at once, where a store does not take them by itself.
const BY_HAND: u64 = 1 << 20;

/// One disk, or several end to end, as one guest range from 0.
///
/// What lies behind the end of a file that was cut off is an error, whatever the disk that was given makes of
/// it: copied, it would be zeroes like others.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Each disk with the offset of its first byte.
    disks: Vec<(u64, Disk)>,
    size: u64,
    /// Layers of the (only) disk from this index on are left out: the target lies over them.
    base: usize,
    /// Who is told what cannot be read; it is zero then. `None`: it is an error.
    salvage: Option<Salvage<'a>>,
}

/// Is told what is lost, and why.
#[derive(Clone, Copy)]
struct Salvage<'a>(&'a (dyn Fn(GuestRange, &Error) + Sync));

impl fmt::Debug for Salvage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salvage(..)")
    }
}

/// What a run of the source is to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes to be read.
    Data,
    /// Bytes that the target can take from the source's file by itself.
    Same,
    /// Units that are packed as the target packs them.
    Packed,
    /// Zero.
    Zero,
    /// Below the target's own backing file: nothing to do.
    Below,
}

impl<'a> Sources<'a> {
    /// One disk.
    #[must_use]
    pub fn one(disk: &Disk) -> Self {
        Self::concatenated([disk])
    }

    /// Several disks end to end.
    #[must_use]
    pub fn concatenated<'d>(disks: impl IntoIterator<Item = &'d Disk>) -> Self {
        let mut size = 0;
        let disks = disks
            .into_iter()
            .map(|disk| {
                let start = size;
                size = disk.size().saturating_add(size);
                (start, disk.unpadded_but_for_last_unit())
            })
            .collect();
        Self { disks, size, base: usize::MAX, salvage: None }
    }

    /// Leaves out what comes from layer `base` of the disk or from below it, because the target
    /// has the same image as its backing file.
    #[must_use]
    pub fn above(mut self, base: usize) -> Self {
        self.base = base;
        self
    }

    /// What cannot be read is zero, and told to `lost` with the reason: sector by sector where the
    /// medium fails, in larger parts where tables are damaged or lie behind the end of a file that was
    /// cut off. Any thread may tell, in any order.
    #[must_use]
    pub fn salvaging(mut self, lost: &'a (dyn Fn(GuestRange, &Error) + Sync)) -> Self {
        self.salvage = Some(Salvage(lost));
        for (_, disk) in &mut self.disks {
            *disk = disk.unpadded();
        }
        self
    }

    /// The disk, if there is just one.
    pub(crate) fn only(&self) -> Option<&Disk> {
        match self.disks.as_slice() {
            [(_, disk)] => Some(disk),
            _ => None,
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The content at the start of `range`, and for how many bytes.
    pub(crate) fn content(
        &self,
        range: GuestRange,
        shortcuts: &Shortcuts<'_>,
    ) -> Result<(Content, u64)> {
        let Some((disk, part)) = self.part(range) else { return Ok((Content::Zero, range.len())) };
        let found = match disk.status(part).map_err(Error::reading(range)) {
            Ok(found) => found,
            Err(error) => {
                let lost = range.first(unmapped(disk, part, unit_of(disk)).len());
                self.lose(lost, error)?;
                return Ok((Content::Zero, lost.len()));
            }
        };
        let content = match found.extent.source {
            _ if found.layer >= self.base => Content::Below,
            Source::Zero { .. } => Content::Zero,
            Source::Absent { .. } => self.of_absent(found.layer, disk.layers().len()),
            _ => shortcuts.of(range, part, &found.extent),
        };
        Ok((content, found.extent.len))
    }

    /// Nothing in the layers down to `lowest`: zero, unless the chain goes on below what is copied.
    /// Where a layer above the base is shorter than the base, the base is not seen.
    fn of_absent(&self, lowest: usize, layers: usize) -> Content {
        let is_cut = lowest < self.base && self.base < layers;
        if self.base == usize::MAX || is_cut { Content::Zero } else { Content::Below }
    }

    /// Reads `range`, which lies in the source.
    pub(crate) fn read(&self, mut range: GuestRange, mut buf: &mut [u8]) -> Result<()> {
        while !range.is_empty() {
            let Some((disk, part)) = self.part(range) else {
                buf.fill(0);
                return Ok(());
            };
            let len = bytes_in(part).min(buf.len());
            let (head, rest) = buf.split_at_mut(len);
            self.read_part(disk, range.first(part.len()), part, head)?;
            range = range.skip(part.len());
            buf = rest;
        }
        Ok(())
    }

    /// Reads `unit`; also as it is packed, if it is packed by itself and nothing else is.
    pub(crate) fn read_packed(&self, unit: GuestRange, out: &mut [u8]) -> Result<Option<Vec<u8>>> {
        let part = self.part(unit).filter(|_| self.salvage.is_none());
        if let Some((disk, part)) = part {
            let found = disk.map(part).map_err(Error::reading(unit))?;
            if let Source::Encoded(encoded) = &found.extent.source
                && encoded.unit == part
            {
                let packed = packed_in(disk, encoded, out);
                return packed.map_err(Error::reading(unit));
            }
        }
        self.read(unit, out)?;
        Ok(None)
    }

    /// Copies `range`, which lies in the source, to `at` of a store, without reading it where the
    /// store can take it by itself. Returns the bytes it took.
    pub(crate) fn hand_over(
        &self,
        mut range: GuestRange,
        store: &dyn Storage,
        at: HostOffset,
        offload: Offload,
    ) -> Result<u64> {
        let (start, mut taken) = (range.start(), 0);
        while !range.is_empty() {
            let to = at.saturating_add(GuestRange::between(start, range.start()).len());
            let (part, done) = self.hand_over_start(range, store, to, offload)?;
            let rest = part.skip(done);
            let mut bytes = vec![0; bytes_in(rest)];
            self.read(rest, &mut bytes)?;
            let write = Error::writing(rest);
            store.write_at(to.saturating_add(done), &bytes).map_err(|error| write(error.into()))?;
            taken += done;
            range = range.skip(part.len());
        }
        Ok(taken)
    }

    /// The part of the range that lies in one piece, and how much of it the store took.
    fn hand_over_start(
        &self,
        range: GuestRange,
        store: &dyn Storage,
        to: HostOffset,
        offload: Offload,
    ) -> Result<(GuestRange, u64)> {
        let small = range.first(BY_HAND);
        let Some((disk, inside)) = self.part(range).filter(|_| self.salvage.is_none()) else {
            return Ok((small, 0));
        };
        let found = disk.map(inside).map_err(Error::reading(range))?;
        let part = range.first(found.extent.len);
        let (Source::Data { store: source, at, .. }, Some(copier)) =
            (&found.extent.source, store.copier())
        else {
            return Ok((part.first(BY_HAND), 0));
        };
        let take = || {
            // What an image names behind the end of its file is zero, and there is nothing to take.
            let held = part.len().min(source.len()?.saturating_sub(at.get()));
            match offload {
                Offload::Kernel => {
                    Ok(copier.copy_from(&**source, *at, to, held)?.map_or(0, |_| held))
                }
                _ => copier.share_from(&**source, *at, to, held),
            }
        };
        let taken = take().map_err(|error: anydisk_storage::Error| Error::Write {
            at: range.start().get(),
            source: error.into(),
        })?;
        Ok((part.first(taken.saturating_add(BY_HAND)), taken))
    }

    /// Reads a part of one disk, which is `range` of the whole.
    fn read_part(
        &self,
        disk: &Disk,
        range: GuestRange,
        part: GuestRange,
        buf: &mut [u8],
    ) -> Result<()> {
        let read = disk.read(part.start(), buf).map_err(Error::reading(range));
        let Err(error) = read else { return Ok(()) };
        if self.salvage.is_none() || range.len() <= SECTOR || is_packed(disk, part) {
            buf.fill(0);
            return self.lose(range, error);
        }
        let [head, tail] = halves(range);
        let (of_head, of_tail) = buf.split_at_mut(bytes_in(head));
        self.read_part(disk, head, part.first(head.len()), of_head)?;
        if tail.is_empty() {
            return Ok(());
        }
        self.read_part(disk, tail, part.skip(head.len()), of_tail)
    }

    /// Tells that a range cannot be read, or fails.
    fn lose(&self, range: GuestRange, error: Error) -> Result<()> {
        match self.salvage {
            Some(Salvage(tell)) => {
                tell(range, &error);
                Ok(())
            }
            None => Err(error),
        }
    }

    /// The disk that holds the start of `range`, and the part of the range in it, as it counts.
    fn part(&self, range: GuestRange) -> Option<(&Disk, GuestRange)> {
        let index = self.disks.partition_point(|(start, _)| *start <= range.start().get());
        let (start, disk) = self.disks.get(index.checked_sub(1)?)?;
        let inside = GuestOffset(range.start().get() - start);
        let part = GuestRange::new(inside, range.len())?.before(GuestOffset(disk.size()));
        (!part.is_empty()).then_some((disk, part))
    }
}

/// Whether all of `part` is of one packed unit, so that no half of it can be read either.
fn is_packed(disk: &Disk, part: GuestRange) -> bool {
    disk.map(part).is_ok_and(|found| {
        matches!(found.extent.source, Source::Encoded(_)) && found.extent.len >= part.len()
    })
}

/// The unit decoded, and its packed bytes if they end with it.
fn packed_in(
    disk: &Disk,
    encoded: &Encoded<'_>,
    out: &mut [u8],
) -> anydisk_core::Result<Option<Vec<u8>>> {
    let mut packed = vec![0; encoded.len];
    encoded.store.read_padded_at(encoded.at, &mut packed)?;
    let decoded = disk.decode(encoded, &packed, out)?;
    Ok(decoded.used.map(|used| {
        packed.truncate(used);
        packed
    }))
}
