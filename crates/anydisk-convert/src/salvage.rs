//! Reading what can be read of a disk that is damaged, and telling what is lost.

use std::io::ErrorKind;
use std::path::Path;

use anydisk_core::{Disk, GuestOffset, GuestRange, Source};

use crate::copy::bytes_in;
use crate::file::{NewImage, begins_as_zero, write_file};
use crate::{Error, Result, Settings, Watch};

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;
/// Smallest part of the data that is given up, where the medium cannot be read.
pub(crate) const SECTOR: u64 = 512;
/// Part of the disk that is given up where its tables are damaged, if the image has no units.
const UNIT: u64 = 64 << 10;

/// A part of a disk that could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lost {
    /// Where.
    pub range: GuestRange,
    /// Why its first part could not be read.
    pub why: anydisk_core::Error,
}

/// What came of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// Virtual size in bytes.
    pub size: u64,
    /// Bytes that were read.
    pub data: u64,
    /// Bytes that are said to be zero.
    pub zero: u64,
    /// Bytes that could not be read.
    pub lost: u64,
}

/// Copies everything of `source` that can be read to `target`, which reads as zero and is at least as
/// long. What cannot be read is told to `lost`, in order, and stays zero.
///
/// Where tables are damaged, units of the image are given up, one by one; where the medium cannot
/// be read, or the file was cut off, sectors are; packed units as a whole, and so what lies in a file
/// that [could not be had](anydisk_core::BearingLoss). What tables behind the end
/// of a file stood for is lost, though other programs read it as zeroes. Memory does not grow with the
/// damage.
///
/// # Errors
/// Those of writing; [`Error::TargetTooSmall`]; [`Error::Cancelled`]. Never those of reading.
pub fn salvage(
    source: &Disk,
    target: &Disk,
    lost: &mut dyn FnMut(Lost),
    watch: &dyn Watch,
) -> Result<Salvaged> {
    let (source_size, target_size) = (source.size(), target.size());
    if target_size < source_size {
        return Err(Error::TargetTooSmall { source_size, target_size });
    }
    let (unit, source) = (unit_of(source), &source.unpadded());
    let told = Salvaged { size: source_size, ..Salvaged::default() };
    let mut job = Job { source, target, unit, lost, pending: None, told, buffer: Vec::new() };
    let mut rest = GuestRange::whole(source_size);
    while !rest.is_empty() {
        let done = job.next(rest)?;
        rest = rest.skip(done);
        if watch.progress(rest.start().get(), source_size).is_break() {
            return Err(Error::Cancelled);
        }
    }
    job.tell_pending();
    target.flush()?;
    Ok(job.told)
}

/// As [`salvage`], into a new image at `path`, or on the block device there. A file gets its name
/// when it is whole.
///
/// # Errors
/// As [`salvage`], and what making the image says.
pub fn salvage_to_file(
    source: &Disk,
    path: &Path,
    image: &NewImage<'_>,
    lost: &mut dyn FnMut(Lost),
    watch: &dyn Watch,
) -> Result<Salvaged> {
    write_file(path, &Settings::default(), |new| {
        let is_empty = begins_as_zero(&*new.store, image.format);
        let disk = image.create_with(new.store, new.location, new.companions)?;
        if !is_empty {
            let whole = GuestRange::whole(disk.size());
            disk.zero(whole, false).map_err(|source| Error::Write { at: 0, source })?;
        }
        salvage(source, &disk, lost, watch)
    })
}

/// The part of a disk that one entry of its tables stands for, as far as it is known.
pub(crate) fn unit_of(disk: &Disk) -> u64 {
    disk.top().info().cluster_size.unwrap_or(UNIT).max(SECTOR)
}

/// What is given up where the tables for the start of `rest` are damaged: up to the end of its unit, or of
/// what the image knows to be lost with it.
pub(crate) fn unmapped(disk: &Disk, rest: GuestRange, unit: u64) -> GuestRange {
    let known = disk.top().lost_around(rest.start()).map(|lost| rest.before(lost.end()));
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        return known;
    }
    let end = (rest.start().get() / unit).saturating_add(1).saturating_mul(unit);
    rest.before(GuestOffset(end))
}

/// The halves of a range that cannot be read as a whole, in sectors; the second may be empty.
pub(crate) fn halves(range: GuestRange) -> [GuestRange; 2] {
    let half = (range.len() / 2).next_multiple_of(SECTOR).min(range.len());
    [range.first(half), range.skip(half)]
}

/// Whether a file is missing as a whole.
fn is_missing(why: &anydisk_core::Error) -> bool {
    why.io_kind() == Some(ErrorKind::NotFound)
}

/// Whether two losses in a row are told as one: damage has many reasons, each with its place, and a
/// missing file has one.
fn is_same(one: &anydisk_core::Error, other: &anydisk_core::Error) -> bool {
    match (is_missing(one), is_missing(other)) {
        (false, false) => true,
        (true, true) => one.to_string() == other.to_string(),
        _ => false,
    }
}

struct Job<'a> {
    source: &'a Disk,
    target: &'a Disk,
    unit: u64,
    lost: &'a mut dyn FnMut(Lost),
    /// Lost, and perhaps not all of it.
    pending: Option<Lost>,
    told: Salvaged,
    buffer: Vec<u8>,
}

impl Job<'_> {
    /// Deals with the start of `rest`; with how many bytes.
    fn next(&mut self, rest: GuestRange) -> Result<u64> {
        let extent = match self.source.map(rest) {
            Ok(found) => found.extent,
            Err(why) => {
                let range = unmapped(self.source, rest, self.unit);
                self.lose(range, why);
                return Ok(range.len());
            }
        };
        let is_packed = matches!(extent.source, Source::Encoded(_));
        let is_data = is_packed || matches!(extent.source, Source::Data { .. });
        let len = if is_data { extent.len.min(PIECE) } else { extent.len };
        let all = rest.first(extent.len);
        drop(extent);
        let range = rest.first(len);
        if !is_data {
            self.told.zero += range.len();
            return Ok(range.len());
        }
        let lost = self.copy(range, if is_packed { range.len() } else { SECTOR })?;
        let Some(why) = lost else { return Ok(range.len()) };
        self.lose(all, why);
        Ok(all.len())
    }

    /// Copies a range; if it cannot be read, its halves, down to `least` bytes. Why nothing of it can
    /// be, if it lies in a file that could not be had: then nothing was done.
    fn copy(&mut self, range: GuestRange, least: u64) -> Result<Option<anydisk_core::Error>> {
        self.buffer.resize(bytes_in(range), 0);
        let why = match self.source.read(range.start(), &mut self.buffer) {
            Ok(()) => {
                self.told.data += range.len();
                let written = self.target.write(range.start(), &self.buffer);
                return written.map(|()| None).map_err(Error::writing(range));
            }
            Err(why) if is_missing(&why) => return Ok(Some(why)),
            Err(why) => why,
        };
        if range.len() <= least {
            self.lose(range, why);
            return Ok(None);
        }
        for half in halves(range).into_iter().filter(|half| !half.is_empty()) {
            self.copy(half, least)?;
        }
        Ok(None)
    }

    fn lose(&mut self, range: GuestRange, why: anydisk_core::Error) {
        self.told.lost += range.len();
        match &mut self.pending {
            Some(pending)
                if pending.range.end() == range.start() && is_same(&pending.why, &why) =>
            {
                pending.range = GuestRange::between(pending.range.start(), range.end());
            }
            _ => {
                self.tell_pending();
                self.pending = Some(Lost { range, why });
            }
        }
    }

    fn tell_pending(&mut self) {
        if let Some(pending) = self.pending.take() {
            (self.lost)(pending);
        }
    }
}
