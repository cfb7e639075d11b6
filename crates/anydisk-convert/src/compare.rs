//! Do two disks hold the same bytes?

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use anydisk_core::{Disk, GuestOffset, GuestRange, Source, on_threads};

use crate::copy::bytes_in;
use crate::telling::Telling;
use crate::{Error, Result, Settings, Watch};

/// Bytes that are compared at once.
const WINDOW: u64 = 1 << 20;

/// What must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strictness {
    /// The bytes; a shorter disk counts as filled up with zeroes.
    #[default]
    Content,
    /// Also the sizes, and which parts are allocated.
    Allocation,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Comparison {
    /// They are the same. `sizes_differ`: all bytes behind the end of the shorter one are zero.
    Identical {
        /// Whether the virtual sizes differ.
        sizes_differ: bool,
    },
    /// The first byte that differs.
    ContentDiffers(GuestOffset),
    /// The sizes differ, which [`Strictness::Allocation`] does not allow.
    SizeDiffers,
    /// The first place that is allocated in one and not in the other.
    AllocationDiffers(GuestOffset),
}

/// Compares two disks, from the maps where they tell enough, else byte by byte, on all cores.
///
/// # Errors
/// [`Error::Cancelled`] if the watcher stopped it, or what reading says.
pub fn compare(
    first: &Disk,
    second: &Disk,
    strictness: Strictness,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Comparison> {
    let sizes_differ = first.size() != second.size();
    if sizes_differ && strictness == Strictness::Allocation {
        return Ok(Comparison::SizeDiffers);
    }
    let total = first.size().max(second.size());
    let job = Job {
        disks: [first, second],
        strictness,
        rest: Mutex::new(GuestRange::whole(total)),
        found: AtomicU64::new(u64::MAX),
        allocation: AtomicU64::new(u64::MAX),
        told: Telling::new(watch, total),
    };
    job.run(settings.thread_count())?;
    let (content, allocation) = (job.found.into_inner(), job.allocation.into_inner());
    Ok(match content.min(allocation) {
        u64::MAX => Comparison::Identical { sizes_differ },
        at if at == allocation => Comparison::AllocationDiffers(GuestOffset(at)),
        at => Comparison::ContentDiffers(GuestOffset(at)),
    })
}

struct Job<'a> {
    disks: [&'a Disk; 2],
    strictness: Strictness,
    rest: Mutex<GuestRange>,
    /// Lowest offset at which the bytes are known to differ.
    found: AtomicU64,
    /// Lowest offset at which the allocation is known to differ.
    allocation: AtomicU64,
    told: Telling<'a>,
}

impl Job<'_> {
    fn run(&self, threads: usize) -> Result<()> {
        let error = Mutex::new(None);
        on_threads(threads, &|| {
            if let Err(failure) = self.work() {
                *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = GuestRange::whole(0);
                error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
        });
        error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn work(&self) -> Result<()> {
        let mut buffers = [Vec::new(), Vec::new()];
        while let Some((range, compare)) = self.next()? {
            if compare {
                self.compare_range(range, &mut buffers)?;
            }
            self.told.add(range.len())?;
        }
        Ok(())
    }

    /// The next range to deal with, and whether its bytes must be compared.
    fn next(&self) -> Result<Option<(GuestRange, bool)>> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.found.load(Relaxed).min(self.allocation.load(Relaxed));
        let open = rest.before(GuestOffset(known));
        if open.is_empty() {
            return Ok(None);
        }
        let (range, data) = self.run_at(open)?;
        let range = if data.contains(&true) { range.first(WINDOW) } else { range };
        if self.strictness == Strictness::Allocation && data[0] != data[1] {
            self.allocation.fetch_min(range.start().get(), Relaxed);
        }
        *rest = rest.skip(range.len());
        Ok(Some((range, data.contains(&true))))
    }

    /// The start of `range` for as long as both maps stay with one answer; for each whether it
    /// holds data.
    fn run_at(&self, range: GuestRange) -> Result<(GuestRange, [bool; 2])> {
        let mut range = range;
        let mut data = [false; 2];
        for (disk, data) in self.disks.iter().zip(&mut data) {
            let inside = range.before(GuestOffset(disk.size()));
            if inside.is_empty() {
                continue;
            }
            let found = disk.status(inside).map_err(Error::reading(inside))?;
            range = inside.first(found.extent.len);
            *data = !matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
        }
        Ok((range, data))
    }

    fn compare_range(&self, range: GuestRange, buffers: &mut [Vec<u8>; 2]) -> Result<()> {
        for (disk, buffer) in self.disks.iter().zip(buffers.iter_mut()) {
            buffer.clear();
            buffer.resize(bytes_in(range), 0);
            let inside = range.before(GuestOffset(disk.size()));
            if !inside.is_empty() {
                disk.read(inside.start(), &mut buffer[..bytes_in(inside)])
                    .map_err(Error::reading(inside))?;
            }
        }
        let [first, second] = &*buffers;
        if let Some(index) = first_difference(first, second) {
            self.found.fetch_min(range.start().get() + index as u64, Relaxed);
        }
        Ok(())
    }
}

/// Index of the first byte that differs; the slices are equally long.
fn first_difference(first: &[u8], second: &[u8]) -> Option<usize> {
    if first == second {
        return None;
    }
    first.iter().zip(second).position(|(one, other)| one != other)
}
