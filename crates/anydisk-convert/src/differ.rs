//! Which parts of two disks differ.

use anydisk_core::{Disk, GuestOffset, GuestRange};

use crate::copy::bytes_in;
use crate::place::Place;
use crate::{Error, Result, Watch};

/// Bytes that are compared at once.
const PIECE: u64 = 1 << 20;
/// Differences are told in units of this many bytes.
const SECTOR: u64 = 512;

/// Tells `found` in which ranges two disks hold different bytes: in order, to the sector, each as
/// long as it can be. Returns the sum of their lengths. The shorter disk counts as filled up with
/// zeroes.
///
/// What both have at the same place of the same file (snapshots of one image, disks over one base)
/// is known to be the same and not read.
///
/// # Errors
/// [`Error::Cancelled`] if `watch` says so, or what reading says.
pub fn differences(
    first: &Disk,
    second: &Disk,
    found: &mut dyn FnMut(GuestRange),
    watch: &dyn Watch,
) -> Result<u64> {
    let total = first.size().max(second.size());
    let mut rest = GuestRange::whole(total);
    let mut told = Told { found, pending: None, sum: 0 };
    let mut buffers = [Vec::new(), Vec::new()];
    while !rest.is_empty() {
        let (one, one_len) = look(first, rest)?;
        let (other, other_len) = look(second, rest)?;
        let mut run = rest.first(one_len.min(other_len));
        if !one.is_same(&other) {
            run = run.first(PIECE);
            compare([first, second], run, &mut buffers, &mut told)?;
        }
        rest = rest.skip(run.len());
        if watch.progress(rest.start().get(), total).is_break() {
            return Err(Error::Cancelled);
        }
    }
    told.flush();
    Ok(told.sum)
}

/// The place of the start of `range`, and for how many bytes.
fn look(disk: &Disk, range: GuestRange) -> Result<(Place, u64)> {
    let part = range.before(GuestOffset(disk.size()));
    if part.is_empty() {
        return Ok((Place::Zero, range.len()));
    }
    let found = disk.map(part).map_err(Error::reading(range))?;
    Ok((Place::of(&found.extent), found.extent.len))
}

/// Compares the bytes of a range.
fn compare(
    disks: [&Disk; 2],
    range: GuestRange,
    buffers: &mut [Vec<u8>; 2],
    told: &mut Told<'_>,
) -> Result<()> {
    for (disk, buffer) in disks.into_iter().zip(buffers.iter_mut()) {
        buffer.clear();
        buffer.resize(bytes_in(range), 0);
        let part = range.before(GuestOffset(disk.size()));
        let bytes = &mut buffer[..bytes_in(part)];
        disk.read(range.start(), bytes).map_err(Error::reading(range))?;
    }
    let [mut one, mut other] = buffers.each_ref().map(Vec::as_slice);
    let mut rest = range;
    while !rest.is_empty() {
        let sector = rest.first(SECTOR - rest.start().get() % SECTOR);
        let (this, behind) = one.split_at(bytes_in(sector));
        let (that, other_behind) = other.split_at(bytes_in(sector));
        if this != that {
            told.add(sector);
        }
        (one, other) = (behind, other_behind);
        rest = rest.skip(sector.len());
    }
    Ok(())
}

/// Joins what lies side by side.
struct Told<'a> {
    found: &'a mut dyn FnMut(GuestRange),
    pending: Option<GuestRange>,
    sum: u64,
}

impl Told<'_> {
    fn add(&mut self, range: GuestRange) {
        self.sum += range.len();
        match self.pending {
            Some(pending) if pending.end() == range.start() => {
                self.pending = Some(GuestRange::between(pending.start(), range.end()));
            }
            _ => {
                self.flush();
                self.pending = Some(range);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(pending) = self.pending.take() {
            (self.found)(pending);
        }
    }
}
