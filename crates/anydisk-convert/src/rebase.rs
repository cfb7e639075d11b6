//! Rebasing: an overlay is put over another image and shows what it showed before.

use anydisk_core::{
    Below, Disk, Error as CoreError, GuestOffset, GuestRange, Handled, ImageWrite, Limits,
    Placement, Source, Zeroing,
};
use anydisk_storage::is_zero;

use crate::copy::bytes_in;
use crate::place::Place;
use crate::{Error, Report, Result, Settings, Watch};

/// Bytes that are compared at once.
const WINDOW: u64 = 2 << 20;

/// Copies into the top image of `disk` all that it shows of the images below it and would not show
/// if it lay over `new` (or over nothing). Bytes that are the same in both are left alone.
///
/// When it returns the copies are durable, and the [link](anydisk_core::BackingLink) can be
/// changed; before that nothing of the disk has changed, and if it is cut short it can be done
/// again. With `settings.compress` what is copied is packed.
///
/// # Errors
/// [`Error::Cancelled`] if the watcher stopped it, else the first error met.
pub fn rebase(
    disk: &Disk,
    new: Option<&Disk>,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    let below = disk.layers().get(1..).filter(|layers| !layers.is_empty());
    let old = below.map(|layers| Disk::from_layers(layers.to_vec(), &Limits::default()));
    // What a file that was cut off has lost is no zeroes.
    let [old, new] = [old.as_ref(), new].map(|disk| disk.map(Disk::unpadded_but_for_last_unit));
    let Some(writer) = disk.top().writer() else {
        return Err(CoreError::ReadOnly { why: "it was opened for reading".into() }.into());
    };
    let packing = writer.packing().filter(|_| settings.compress);
    let unit = packing.as_ref().map_or(writer.unit(), |packing| packing.unit);
    let report = Report { size: disk.size(), ..Report::default() };
    let mut job = Job { disk, writer, old: old.as_ref(), new: new.as_ref(), unit, packing, report };
    let mut rest = GuestRange::whole(disk.size());
    while !rest.is_empty() {
        let len = job.step(rest)?;
        rest = rest.skip(len);
        if watch.progress(rest.start().get(), disk.size()).is_break() {
            return Err(Error::Cancelled);
        }
    }
    disk.flush()?;
    Ok(job.report)
}

struct Job<'a> {
    disk: &'a Disk,
    writer: &'a dyn ImageWrite,
    old: Option<&'a Disk>,
    new: Option<&'a Disk>,
    /// Bytes that are compared, and copied, together.
    unit: u64,
    packing: Option<anydisk_core::Packing>,
    report: Report,
}

impl Job<'_> {
    /// Deals with the start of `rest`; for how many bytes.
    fn step(&mut self, rest: GuestRange) -> Result<u64> {
        let read = Error::reading(rest);
        let extent = self.disk.top().map(rest).map_err(read)?;
        if !matches!(extent.source, Source::Absent { .. }) {
            return Ok(extent.len);
        }
        let part = rest.first(extent.len);
        drop(extent);
        let (known, len) = self.known(part)?;
        let told = part.first(len);
        let whole = told.before(GuestOffset(told.end().get() / self.unit * self.unit));
        match known {
            true if told == part => return Ok(len),
            true if !whole.is_empty() => return Ok(whole.len()),
            // What is told of a part of a unit is no help: the image holds all of a unit, or none.
            _ => {}
        }
        let end = told.end().get().div_ceil(self.unit) * self.unit;
        let window = (part.start().get() / WINDOW + 1) * WINDOW;
        let part = part.before(GuestOffset(end.min(window)));
        self.compare(part)?;
        Ok(part.len())
    }

    /// Whether the maps tell that the start of `part` is the same in both, and for how far they
    /// tell.
    fn known(&self, part: GuestRange) -> Result<(bool, u64)> {
        let (old, old_len) = place(self.old, part)?;
        let (new, new_len) = place(self.new, part)?;
        Ok((old.is_same(&new), old_len.min(new_len)))
    }

    /// Copies what differs in `part`, which the top image has nothing of.
    fn compare(&mut self, part: GuestRange) -> Result<()> {
        let (old, new) = (read_below(self.old, part)?, read_below(self.new, part)?);
        let mut rest = part;
        while !rest.is_empty() {
            let end = (rest.start().get() / self.unit + 1) * self.unit;
            let piece = rest.before(GuestOffset(end));
            let at = bytes_in(GuestRange::between(part.start(), piece.start()));
            let bytes = at..at + bytes_in(piece);
            if old[bytes.clone()] != new[bytes.clone()] {
                self.copy(piece, &old[bytes]).map_err(Error::writing(piece))?;
            }
            rest = rest.skip(piece.len());
        }
        Ok(())
    }

    fn copy(&mut self, piece: GuestRange, old: &[u8]) -> anydisk_core::Result<()> {
        if is_zero(old) {
            self.report.zero += piece.len();
            return self.zero(piece, old);
        }
        self.report.data += piece.len();
        if self.write_packed(piece)? {
            self.report.packed += piece.len();
            return Ok(());
        }
        self.disk.write(piece.start(), old)
    }

    /// Makes a piece zero, whatever will lie below: that nothing does now is no reason to store
    /// nothing. `zeroes` are as long.
    fn zero(&self, mut piece: GuestRange, zeroes: &[u8]) -> anydisk_core::Result<()> {
        let how = Zeroing { unmap: true, below: Below::Image };
        while !piece.is_empty() {
            let len = match self.writer.zero(piece, how)? {
                Handled::Done(len) => len,
                Handled::ByData(len) => {
                    let part = piece.first(len);
                    self.disk.write(part.start(), &zeroes[..bytes_in(part)])?;
                    len
                }
            };
            piece = piece.skip(len);
        }
        Ok(())
    }

    /// Writes the unit that `piece` lies in packed, if that is wanted and makes it smaller.
    fn write_packed(&self, piece: GuestRange) -> anydisk_core::Result<bool> {
        let Some(packing) = &self.packing else { return Ok(false) };
        let unit = piece.grown_to(packing.unit).before(GuestOffset(self.disk.size()));
        let mut bytes = vec![0; bytes_in(piece.grown_to(packing.unit))];
        let (inside, _) = bytes.split_at_mut(bytes_in(unit));
        self.disk.read(unit.start(), inside)?;
        let mut packed = Vec::new();
        let limit = bytes.len().saturating_sub(1);
        let encoded = packing.encoder.encode(&bytes, limit, &mut packed);
        if !encoded.map_err(|error| unsupported(self.disk, &error.to_string()))? {
            return Ok(false);
        }
        match self.writer.place_encoded(unit, packed.len())? {
            Placement::Fresh(reservation) => {
                reservation.store().write_at(reservation.at(), &packed)?;
                reservation.commit()?;
                Ok(true)
            }
            Placement::InPlace { .. } => Ok(false),
        }
    }
}

fn unsupported(disk: &Disk, why: &str) -> CoreError {
    CoreError::Unsupported { format: disk.top().info().format, feature: why.to_owned().into() }
}

/// Where the start of `part` is, and for how far.
fn place(disk: Option<&Disk>, part: GuestRange) -> Result<(Place, u64)> {
    let Some((disk, inside)) = disk.and_then(|disk| Some((disk, inside(disk, part)?))) else {
        return Ok((Place::Zero, part.len()));
    };
    let found = disk.status(inside).map_err(Error::reading(part))?;
    Ok((Place::of(&found.extent), found.extent.len))
}

/// The part of a range that lies on a disk, if its start does.
fn inside(disk: &Disk, part: GuestRange) -> Option<GuestRange> {
    let inside = part.before(GuestOffset(disk.size()));
    (!inside.is_empty()).then_some(inside)
}

/// What a disk, or none, shows at `part`; zeroes behind its end.
fn read_below(disk: Option<&Disk>, part: GuestRange) -> Result<Vec<u8>> {
    let mut bytes = vec![0; bytes_in(part)];
    if let Some(disk) = disk
        && let Some(inside) = inside(disk, part)
    {
        let read = Error::reading(part);
        disk.read(inside.start(), &mut bytes[..bytes_in(inside)]).map_err(read)?;
    }
    Ok(bytes)
}
