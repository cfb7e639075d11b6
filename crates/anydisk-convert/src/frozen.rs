//! Committing into an image parts of which cannot be written (a VMDK's extents that are marked read-only).
//!
//! A unit of the image above may reach into such a part, with the bytes that are there: those need not be
//! written. So exactly what lies outside is written, in no larger units, by one thread; such images are rare.

use anydisk_core::{Disk, Error as CoreError, GuestOffset, GuestRange};
use anydisk_storage::is_zero;

use crate::copy::bytes_in;
use crate::{Error, Report, Result, Watch};

/// Bytes that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// The parts of a disk that cannot be written, rising, each with the reason.
pub(crate) struct Frozen(Vec<(GuestRange, &'static str)>);

impl Frozen {
    pub(crate) fn of(disk: &Disk) -> Self {
        let mut parts = Vec::new();
        let mut rest = GuestRange::whole(disk.size());
        while let Some((part, why)) = disk.top().writer().and_then(|it| it.frozen_part(rest)) {
            parts.push((part, why));
            rest = GuestRange::between(part.end(), rest.end());
        }
        Self(parts)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the first `above` layers of `chain` say of these parts must be what `base` holds there.
    ///
    /// # Errors
    /// [`ReadOnly`](CoreError::ReadOnly), at the first part that would have to be written.
    pub(crate) fn check(&self, chain: &Disk, above: usize, base: &Disk) -> Result<()> {
        for (part, why) in &self.0 {
            let part = part.before(GuestOffset(chain.size()));
            each_piece(chain, above, part, &mut |piece| {
                let [new, old] = [read(chain, piece)?, read(base, piece)?];
                match new == old {
                    true => Ok(()),
                    false => {
                        let why = format!("{why}, and an image above holds other data for it");
                        Err(Error::writing(piece)(CoreError::ReadOnly { why: why.into() }))
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Writes what the first `above` layers of `chain` hold outside of these parts into `base`, durable.
    pub(crate) fn write_others(
        &self,
        chain: &Disk,
        above: usize,
        base: &Disk,
        watch: &dyn Watch,
    ) -> Result<Report> {
        let mut report = Report { size: chain.size(), ..Report::default() };
        for part in self.others(chain.size()) {
            each_piece(chain, above, part, &mut |piece| {
                write(&read(chain, piece)?, piece, base, &mut report)?;
                match watch.progress(piece.end().get(), chain.size()).is_break() {
                    true => Err(Error::Cancelled),
                    false => Ok(()),
                }
            })?;
        }
        base.flush()?;
        Ok(report)
    }

    /// What lies between these parts, up to the end of a disk of `size` bytes.
    fn others(&self, size: u64) -> Vec<GuestRange> {
        let ends = self.0.iter().map(|(part, _)| part.end());
        let starts = self.0.iter().map(|(part, _)| part.start());
        let starts = starts.chain([GuestOffset(size)]).map(|start| start.min(GuestOffset(size)));
        let parts = [GuestOffset::ZERO].into_iter().chain(ends).zip(starts);
        parts.map(|(start, end)| GuestRange::between(start.min(end), end)).collect()
    }
}

/// Calls `each` for all pieces of a part that the first `above` layers of a chain say something of.
fn each_piece(
    chain: &Disk,
    above: usize,
    part: GuestRange,
    each: &mut dyn FnMut(GuestRange) -> Result<()>,
) -> Result<()> {
    let mut rest = part;
    while !rest.is_empty() {
        let found = chain.status(rest).map_err(Error::reading(rest))?;
        let is_below = found.layer >= above;
        let len = if is_below { found.extent.len } else { found.extent.len.min(AT_ONCE) };
        drop(found);
        if !is_below {
            each(rest.first(len))?;
        }
        rest = rest.skip(len);
    }
    Ok(())
}

fn read(disk: &Disk, piece: GuestRange) -> Result<Vec<u8>> {
    let mut bytes = vec![0; bytes_in(piece)];
    let inside = bytes_in(piece.before(GuestOffset(disk.size())));
    disk.read(piece.start(), &mut bytes[..inside]).map_err(Error::reading(piece))?;
    Ok(bytes)
}

fn write(bytes: &[u8], piece: GuestRange, base: &Disk, report: &mut Report) -> Result<()> {
    if is_zero(bytes) {
        report.zero += piece.len();
        return base.zero(piece, true).map_err(Error::writing(piece));
    }
    report.data += piece.len();
    base.write(piece.start(), bytes).map_err(Error::writing(piece))
}
