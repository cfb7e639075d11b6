//! The movers: threads that take steps of the plan, read, pack, and write.
//!
//! ```text
//!   plan (one at a time) -> read, find zeroes, pack (all at once)
//!                        -> take places, in guest order (one at a time)
//!                        -> write, commit (all at once)
//! ```
//!
//! Places are taken in guest order, so the target is the same for any number of threads.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anydisk_core::{Disk, GuestOffset, GuestRange, Piece, Sink, on_threads};

use crate::bitmaps::{copy_bitmaps_of, no_bitmaps};
use crate::plan::{Planner, Step};
use crate::prepare::{Prepared, Preparer};
use crate::shortcut::Shortcuts;
use crate::target::DiskTarget;
use crate::telling::Telling;
use crate::turn::{StopInPanic, Turns};
use crate::{CopyBitmaps, Error, Report, Result, Settings, Sources, Watch};

/// Bytes of the disk that a worker deals with at once, at least.
const WINDOW: u64 = 2 << 20;

/// The longest wait without asking whether to stop.
const NAP: Duration = Duration::from_millis(100);

/// Copies the source to a disk that is open for writing.
///
/// The disk may be larger than the source; the rest stays as it is. Nothing is flushed unless
/// `settings.durable` says so.
///
/// # Errors
/// [`Error::Cancelled`] if the watcher stopped it, else the first error met. The target then holds
/// part of the copy.
pub fn copy_to_disk(
    source: &Sources<'_>,
    target: &Disk,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    if target.size() < source.size() {
        return Err(Error::TargetTooSmall {
            source_size: source.size(),
            target_size: target.size(),
        });
    }
    let target = DiskTarget::new(target, settings)?;
    let shortcuts = Shortcuts::new(target.store(), target.packing().as_ref(), settings);
    let mut preparer = Preparer::new(source, target.unit(), target.packing(), settings);
    if !settings.target_is_zero {
        preparer = preparer.keeping(target.disk().size());
    }
    let job = Job::new(source, shortcuts, preparer, settings, watch);
    let report = job.run(settings.thread_count(), |number, prepared| {
        let (places, taken) = job.turns.take(number, || target.place(prepared, source))?;
        Ok(taken + target.fill(places, prepared, source)?)
    })?;
    // Behind the data, which they do not record.
    copy_bitmaps_of(source, target.disk(), settings.bitmaps)?;
    if settings.durable {
        target.flush()?;
    }
    Ok(report)
}

/// Copies the source to a stream and finishes it.
///
/// # Errors
/// As [`copy_to_disk`]. The stream is then a torso.
pub fn copy_to_sink(
    source: &Sources<'_>,
    sink: Box<dyn Sink>,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    if sink.size() < source.size() {
        return Err(Error::TargetTooSmall { source_size: source.size(), target_size: sink.size() });
    }
    if settings.bitmaps != CopyBitmaps::No {
        return Err(no_bitmaps("a format that is written in one pass").into());
    }
    let shortcuts = Shortcuts::new(None, sink.packing().as_ref(), settings);
    let preparer = Preparer::new(source, sink.unit(), sink.packing(), settings);
    let job = Job::new(source, shortcuts, preparer, settings, watch);
    let sink = Mutex::new(sink);
    let report = job.run(settings.thread_count(), |number, prepared| {
        job.turns.take(number, || {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            prepared.pieces().try_for_each(|(at, piece)| put(&mut **sink, at, piece))?;
            Ok(0)
        })
    })?;
    let sink = sink.into_inner().unwrap_or_else(PoisonError::into_inner);
    sink.finish()?;
    Ok(report)
}

fn put(sink: &mut dyn Sink, at: GuestOffset, piece: Piece<'_>) -> Result<()> {
    sink.put(at, piece).map_err(|source| Error::Write { at: at.get(), source })
}

/// One copy under way.
struct Job<'a> {
    planner: Mutex<(u64, Planner<'a>)>,
    preparer: Preparer<'a>,
    turns: Turns,
    report: Mutex<Report>,
    told: Telling<'a>,
    total: u64,
    rate: u64,
    begun: Instant,
}

impl<'a> Job<'a> {
    fn new(
        source: &'a Sources<'a>,
        shortcuts: Shortcuts<'a>,
        preparer: Preparer<'a>,
        settings: &Settings,
        watch: &'a dyn Watch,
    ) -> Self {
        let window = WINDOW.next_multiple_of(preparer.unit());
        let full = settings.zero_run == 0;
        Self {
            planner: Mutex::new((0, Planner::new(source, shortcuts, window, full))),
            preparer,
            turns: Turns::default(),
            report: Mutex::default(),
            told: Telling::new(watch, source.size()),
            total: source.size(),
            rate: settings.rate,
            begun: Instant::now(),
        }
    }

    /// Runs all steps on `threads` threads; `deliver` gets each with its number, and tells how many
    /// bytes did not pass through this process.
    fn run(
        &self,
        threads: usize,
        deliver: impl Fn(u64, &Prepared) -> Result<u64> + Sync,
    ) -> Result<Report> {
        self.told.add(0)?;
        let first_error = Mutex::new(None);
        on_threads(threads, &|| {
            let _guard = StopInPanic(&self.turns);
            if let Err(error) = self.work(&deliver) {
                self.turns.stop();
                let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                // The error that stopped the others, not one of theirs.
                if first.is_none() || matches!(*first, Some(Error::Stopped)) {
                    *first = Some(error);
                }
            }
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                let mut report = *self.report.lock().unwrap_or_else(PoisonError::into_inner);
                report.size = self.total;
                Ok(report)
            }
        }
    }

    fn work(&self, deliver: &(impl Fn(u64, &Prepared) -> Result<u64> + Sync)) -> Result<()> {
        while let Some((number, step)) = self.next_step()? {
            let range = step.range();
            let prepared = self.preparer.prepare(step)?;
            let offloaded = deliver(number, &prepared)?;
            let written = self.count(&Report { offloaded, ..prepared.report() });
            self.preparer.recycle(prepared);
            self.told.add(range.len())?;
            self.slow_down(written)?;
        }
        Ok(())
    }

    fn next_step(&self) -> Result<Option<(u64, Step)>> {
        let mut planner = self.planner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turns.is_stopped() {
            return Err(Error::Stopped);
        }
        let number = planner.0;
        let step = planner.1.next()?;
        planner.0 += 1;
        Ok(step.map(|step| (number, step)))
    }

    /// Adds a part to the report; how much data there is so far.
    fn count(&self, part: &Report) -> u64 {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.data += part.data;
        report.packed += part.packed;
        report.passed += part.passed;
        report.offloaded += part.offloaded;
        report.zero += part.zero;
        report.left += part.left;
        report.data
    }

    /// Waits until `written` bytes are no more than the rate allows.
    fn slow_down(&self, written: u64) -> Result<()> {
        if self.rate == 0 {
            return Ok(());
        }
        let nanos = u128::from(written) * 1_000_000_000 / u128::from(self.rate);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        while let Some(rest) = due.checked_sub(self.begun.elapsed()).filter(|rest| !rest.is_zero())
        {
            // Whoever watches may stop the job meanwhile.
            std::thread::sleep(rest.min(NAP));
            self.told.add(0)?;
        }
        Ok(())
    }
}

/// The length of a range that was read into memory.
pub(crate) fn bytes_in(range: GuestRange) -> usize {
    usize::try_from(range.len()).expect("a window fits in memory")
}
