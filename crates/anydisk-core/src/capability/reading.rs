//! A check by reading: for formats that are only read, and keep no counts to compare.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_storage::HostOffset;

use super::check::{CheckReport, CheckRequest, Finding, Severity};
use crate::{Disk, Error, GuestOffset, GuestRange, Image, Result, Source, on_threads};

/// Units that are unpacked before the map is asked for more.
const WINDOW: usize = 256;

/// Checks an image of which its map and what is packed are all that can be wrong: asks for the whole
/// map, and unpacks every unit, on all threads of the request. Tables and data behind the end of a
/// file that was cut off are damage. Where the map is broken, it is asked again at the next multiple
/// of `unit` bytes of the disk.
///
/// # Errors
/// [`Error::Unsupported`] for a repair, [`Error::Cancelled`].
pub fn check_by_reading(
    image: Arc<dyn Image>,
    unit: u64,
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    request.without_repair(image.info().format)?;
    let disk = Disk::new(image).unpadded();
    let mut check = Check { disk, unit, request, report: CheckReport::default(), found };
    let mut rest = GuestRange::whole(check.disk.size());
    while !rest.is_empty() {
        rest = check.window(rest);
        check.tell(rest)?;
    }
    Ok(check.report)
}

/// A packed unit, or what the disk has of it, and where it is.
type Unit = (GuestRange, HostOffset);

struct Check<'a> {
    disk: Disk,
    unit: u64,
    request: &'a CheckRequest<'a>,
    report: CheckReport,
    found: &'a mut dyn FnMut(Finding),
}

impl Check<'_> {
    /// Looks at the start of `rest`, and returns what remains.
    fn window(&mut self, mut rest: GuestRange) -> GuestRange {
        let mut units: Vec<Unit> = Vec::new();
        for _ in 0..WINDOW {
            if rest.is_empty() {
                break;
            }
            let mut broken = None;
            let len = match self.disk.map(rest) {
                Ok(found) => {
                    if let Source::Encoded(encoded) = &found.extent.source {
                        units.push((rest.first(found.extent.len), encoded.at));
                    }
                    found.extent.len
                }
                Err(error) => {
                    let next = rest.start().get() - rest.start().get() % self.unit;
                    let part = rest.before(GuestOffset(next.saturating_add(self.unit)));
                    broken = Some((part, error));
                    part.len()
                }
            };
            if let Some((part, error)) = broken {
                self.tell_broken("map-broken", part, HostOffset::ZERO, &error);
            }
            rest = rest.skip(len);
        }
        for ((range, at), error) in unpack(&self.disk, self.request.threads, &units) {
            self.tell_broken("unit-broken", range, at, &error);
        }
        rest
    }

    #[cold]
    fn tell_broken(&mut self, kind: &'static str, part: GuestRange, at: HostOffset, error: &Error) {
        let severity = match error {
            Error::Storage(_) => Severity::Unreadable,
            _ => Severity::Corruption,
        };
        let at = match error {
            Error::Invalid(invalid) => invalid.at,
            _ => at,
        };
        let finding = Finding::new(severity, kind, at, error.to_string()).costing(part);
        self.report.count(&finding);
        (self.found)(finding);
    }

    fn tell(&self, rest: GuestRange) -> Result<()> {
        let all = self.disk.size();
        let goes_on = self.request.progress.is_none_or(|tell| tell(all - rest.len(), all));
        if goes_on { Ok(()) } else { Err(Error::Cancelled) }
    }
}

/// Unpacks these units; returns those that are broken, in their order.
fn unpack(disk: &Disk, threads: usize, units: &[Unit]) -> Vec<(Unit, Error)> {
    let next = AtomicUsize::new(0);
    let broken = Mutex::new(Vec::new());
    on_threads(threads.min(units.len()), &|| {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = read(disk, unit.0) {
                broken.lock().unwrap_or_else(PoisonError::into_inner).push((*unit, error));
            }
        }
    });
    let mut broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.sort_by_key(|((range, _), _)| range.start());
    broken
}

fn read(disk: &Disk, range: GuestRange) -> Result<()> {
    let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or(usize::MAX)];
    disk.read(range.start(), &mut bytes)
}
