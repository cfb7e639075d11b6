//! What is read: one disk, or several laid end to end.

use anydisk_core::{Disk, Encoded, GuestOffset, GuestRange, HostOffset, Source, Storage};
use anydisk_storage::StorageExt;

use crate::copy::bytes_in;
use crate::shortcut::Shortcuts;
use crate::{Error, Offload, Result};

/// Bytes that are copied by hand at once, where a store does not take them by itself.
const BY_HAND: u64 = 1 << 20;

/// One disk, or several end to end, as one guest range from 0.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// Each disk with the offset of its first byte.
    disks: Vec<(u64, &'a Disk)>,
    size: u64,
    /// Layers of the (only) disk from this index on are left out: the target lies over them.
    base: usize,
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
    pub fn one(disk: &'a Disk) -> Self {
        Self { disks: vec![(0, disk)], size: disk.size(), base: usize::MAX }
    }

    /// Several disks end to end.
    #[must_use]
    pub fn concatenated(disks: impl IntoIterator<Item = &'a Disk>) -> Self {
        let mut size = 0;
        let disks = disks
            .into_iter()
            .map(|disk| {
                let start = size;
                size += disk.size();
                (start, disk)
            })
            .collect();
        Self { disks, size, base: usize::MAX }
    }

    /// Leaves out what comes from layer `base` of the disk or from below it, because the target
    /// has the same image as its backing file.
    #[must_use]
    pub fn above(mut self, base: usize) -> Self {
        self.base = base;
        self
    }

    /// The disk, if there is just one.
    pub(crate) fn only(&self) -> Option<&'a Disk> {
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
        let found = disk.status(part).map_err(|source| read_error(range, source))?;
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
            disk.read(part.start(), head).map_err(|source| read_error(range, source))?;
            range = range.skip(part.len());
            buf = rest;
        }
        Ok(())
    }

    /// Reads `unit`; also as it is packed, if it is packed by itself and nothing else is.
    pub(crate) fn read_packed(&self, unit: GuestRange, out: &mut [u8]) -> Result<Option<Vec<u8>>> {
        if let Some((disk, part)) = self.part(unit) {
            let found = disk.map(part).map_err(|source| read_error(unit, source))?;
            if let Source::Encoded(encoded) = &found.extent.source
                && encoded.unit == part
            {
                let packed = packed_in(disk, encoded, out);
                return packed.map_err(|source| read_error(unit, source));
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
            let write = |source| Error::Write { at: rest.start().get(), source };
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
        let Some((disk, inside)) = self.part(range) else { return Ok((small, 0)) };
        let found = disk.map(inside).map_err(|source| read_error(range, source))?;
        let part = range.first(found.extent.len);
        let (Source::Data { store: source, at, .. }, Some(copier)) =
            (&found.extent.source, store.copier())
        else {
            return Ok((part.first(BY_HAND), 0));
        };
        let taken = match offload {
            Offload::Kernel => copier
                .copy_from(&**source, *at, to, part.len())
                .map(|copied| copied.map_or(0, |_| part.len())),
            _ => copier.share_from(&**source, *at, to, part.len()),
        };
        let taken = taken
            .map_err(|error| Error::Write { at: range.start().get(), source: error.into() })?;
        Ok((part.first(taken.saturating_add(BY_HAND)), taken))
    }

    /// The disk that holds the start of `range`, and the part of the range in it, as it counts.
    fn part(&self, range: GuestRange) -> Option<(&'a Disk, GuestRange)> {
        let index = self.disks.partition_point(|(start, _)| *start <= range.start().get());
        let (start, disk) = self.disks.get(index.checked_sub(1)?)?;
        let inside = GuestOffset(range.start().get() - start);
        let part = GuestRange::new(inside, range.len())?.before(GuestOffset(disk.size()));
        (!part.is_empty()).then_some((*disk, part))
    }
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

fn read_error(range: GuestRange, source: anydisk_core::Error) -> Error {
    Error::Read { at: range.start().get(), source }
}
