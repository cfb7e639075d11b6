//! Incremental backups: what changed since some moment, as a stream or as an overlay.
//!
//! What changed is told by [`Changes`]: a dirty bitmap of the image, or two states of a volume. The
//! disk must not be written meanwhile, or be one that shows a state that does not change (a snapshot),
//! else a piece may be newer than the moment that the backup stands for.

use std::ops::ControlFlow;
use std::path::Path;

use anydisk_core::{Changes, Disk, GuestOffset, GuestRange, Layer, Source};
use anydisk_storage::is_zero;

use crate::copy::bytes_in;
use crate::file::{New, over, write_file};
use crate::{Error, NewImage, Report, Result, Settings, Watch};

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// A piece of the disk that may have changed, and what it holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It holds these bytes.
    Data {
        /// The piece.
        range: GuestRange,
        /// As many bytes.
        bytes: &'a [u8],
    },
    /// It is zero. Such pieces may be of any length.
    Zero {
        /// The piece.
        range: GuestRange,
    },
}

impl Change<'_> {
    /// The piece.
    #[must_use]
    pub fn range(&self) -> GuestRange {
        match self {
            Self::Data { range, .. } | Self::Zero { range } => *range,
        }
    }
}

/// Shows each changed piece of `disk` to `visit`, in rising order, at most 1 MiB of data at once.
///
/// The disk must not be written meanwhile, or be one that shows a state that does not change (a
/// snapshot): else a piece may be newer than the moment that the changes end with.
///
/// # Errors
/// What telling the changes and reading the disk say, and what `visit` does.
pub fn visit_changes(
    disk: &Disk,
    changes: &mut dyn Changes,
    visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<()> {
    visit_units(disk, changes, 1, &mut |change| visit(change))
}

/// The same in whole units of `unit` bytes (a power of two), of which each is shown once, as data or
/// as zeroes. The last unit of the disk may be a part.
fn visit_units(
    disk: &Disk,
    changes: &mut dyn Changes,
    unit: u64,
    visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<()> {
    // What a file that was cut off has lost is no zeroes.
    let disk = &disk.unpadded_but_for_last_unit();
    let (mut from, end) = (GuestOffset(0), GuestOffset(disk.size()));
    let mut buffer = Vec::new();
    while let Some(changed) = changes.next(from)? {
        let whole = changed.grown_to(unit).before(end);
        let mut rest = GuestRange::between(whole.start().max(from), whole.end());
        from = changed.end().max(rest.end());
        while !rest.is_empty() {
            let shown = show_piece(disk, rest, unit, &mut buffer, visit)?;
            rest = rest.skip(shown);
        }
    }
    Ok(())
}

/// Shows the start of `rest`, whole units of it; how many bytes.
fn show_piece(
    disk: &Disk,
    rest: GuestRange,
    unit: u64,
    buffer: &mut Vec<u8>,
    visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<u64> {
    let read = Error::reading(rest);
    let found = disk.status(rest).map_err(read)?;
    let run = rest.first(found.extent.len);
    let is_zero_run = matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
    drop(found);
    // A run that ends inside a unit ends with the unit before; what `rest` ends with is whole.
    let units = if run.len() == rest.len() { run } else { run.first(run.len() / unit * unit) };
    if is_zero_run && !units.is_empty() {
        visit(Change::Zero { range: units })?;
        return Ok(units.len());
    }
    let range = rest.first(run.grown_to(unit).len().min(PIECE.max(unit)));
    buffer.resize(bytes_in(range), 0);
    disk.read(range.start(), buffer).map_err(read)?;
    visit(match is_zero(buffer) {
        true => Change::Zero { range },
        false => Change::Data { range, bytes: buffer },
    })?;
    Ok(range.len())
}

/// Units larger than this are not copied whole: the target fills them from the copy below.
const LARGEST_UNIT: u64 = 4 << 20;

/// The unit that changes are copied in.
fn unit_of(target: &Disk) -> u64 {
    let unit = target.top().writer().map_or(1, |writer| writer.unit());
    if unit <= LARGEST_UNIT { unit } else { 1 }
}

/// Copies what changed from `source` to `target`: an older copy, or a new image over one. Zeroes are
/// zeroes in the target, also over a backing file that holds something there. As with
/// [`visit_changes`], the source must show one moment.
///
/// The target is written in whole units of it (its clusters), if they have at most 4 MiB, so that
/// nothing below it is read: what surrounds a change is copied from the source as well. Durable after the target's flush, which is
/// left to the caller.
///
/// # Errors
/// [`Error::TargetTooSmall`], [`Error::Cancelled`] if `watch` says so, what telling the changes and
/// reading say, and [`Error::Write`].
pub fn copy_changes(
    source: &Disk,
    changes: &mut dyn Changes,
    target: &Disk,
    watch: &dyn Watch,
) -> Result<Report> {
    let (source_size, target_size) = (source.size(), target.size());
    if target_size < source_size {
        return Err(Error::TargetTooSmall { source_size, target_size });
    }
    let unit = unit_of(target);
    let mut report = Report { size: source_size, ..Report::default() };
    visit_units(source, changes, unit, &mut |change| {
        let range = change.range();
        let write = Error::writing(range);
        match change {
            Change::Data { bytes, .. } => {
                target.write(range.start(), bytes).map_err(write)?;
                report.data += range.len();
            }
            Change::Zero { .. } => {
                target.zero(range, true).map_err(write)?;
                report.zero += range.len();
            }
        }
        match watch.progress(range.end().get(), source_size) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    })?;
    report.left = source_size - report.data - report.zero;
    Ok(report)
}

/// As [`copy_changes`], into a new image at `path`, which is to lie over the older backup that
/// `image.backing` names. `below` is that backup, opened, the next image first.
///
/// The file gets its name when it is whole. That the changes begin with the moment of that backup is
/// the caller's to know: nothing in the files tells.
///
/// # Errors
/// As [`copy_changes`], and what the format and the file system say.
pub fn copy_changes_to_overlay(
    source: &Disk,
    changes: &mut dyn Changes,
    path: &Path,
    image: &NewImage<'_>,
    below: &[Layer],
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    write_file(path, settings, |new| {
        let New { store, location, companions } = new;
        let disk = over(image.create_with(store, location, companions)?, below);
        let report = copy_changes(source, changes, &disk, watch)?;
        disk.flush()?;
        Ok(report)
    })
}
