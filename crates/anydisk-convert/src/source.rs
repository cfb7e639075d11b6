//! What is read: one disk, or several laid end to end.

use anydisk_core::{Disk, GuestOffset, GuestRange, Source};

use crate::{Error, Result};

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
    pub(crate) fn content(&self, range: GuestRange) -> Result<(Content, u64)> {
        let Some((disk, part)) = self.part(range) else { return Ok((Content::Zero, range.len())) };
        let found = disk.status(part).map_err(|source| read_error(range, source))?;
        let content = match found.extent.source {
            _ if found.layer >= self.base => Content::Below,
            Source::Zero { .. } => Content::Zero,
            Source::Absent { .. } => self.of_absent(found.layer, disk.layers().len()),
            _ => Content::Data,
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
            let len = usize::try_from(part.len()).unwrap_or(usize::MAX).min(buf.len());
            let (head, rest) = buf.split_at_mut(len);
            disk.read(part.start(), head).map_err(|source| read_error(range, source))?;
            range = range.skip(part.len());
            buf = rest;
        }
        Ok(())
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

fn read_error(range: GuestRange, source: anydisk_core::Error) -> Error {
    Error::Read { at: range.start().get(), source }
}
