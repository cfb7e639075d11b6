//! The refcounts built anew from what is named, behind the end of the file.
//!
//! ```text
//!   ... the file | blocks of what is in use | blocks of the new part | refcount table |
//! ```
//!
//! The new blocks count what is named, and themselves, but not the old ones: when the header names
//! the new table, what the old structure took is free. Until then the old one is untouched.

use anydisk_core::{Error, HostOffset, Result, Storage};

use super::counts::Blocks;
use super::progress::Progress;
use super::references::{PAGE, References};
use super::subject::Subject;
use super::{Named, REFERENCES, Settings};
use crate::alloc::bytes_of;
use crate::guard::Clusters;
use crate::refcount::Width;
use crate::{Header, NAME, limits};

/// Refcounts of 16 bits, which every version has.
const USUAL_ORDER: u32 = 4;

/// Builds the refcounts anew; where their table is, and its clusters. Nothing names it yet.
pub(super) fn rebuild(
    subject: &Subject,
    settings: Settings,
    progress: &Progress<'_>,
) -> Result<(HostOffset, u32)> {
    let image = Named::find_surely(subject, settings)?;
    let mut builder = Builder::new(subject);
    image.windows(settings, |window| {
        window.count_surely(settings.threads, progress)?;
        builder.take(&window.references)
    })?;
    builder.finish()
}

/// Whether refcounts can have more bits than they have.
pub(super) fn can_widen(header: &Header) -> bool {
    header.version >= 3 && header.refcount_order < limits::REFCOUNT_ORDER
}

/// As [`rebuild`], with as many bits for each refcount as the usual sixteen, or what is named, needs;
/// and the binary logarithm of their number.
pub(super) fn rebuild_wider(
    subject: &Subject,
    settings: Settings,
    progress: &Progress<'_>,
) -> Result<(u32, (HostOffset, u32))> {
    let mut order = (subject.header.refcount_order + 1).max(USUAL_ORDER);
    let mut subject = subject.again()?;
    loop {
        subject.width = Width::of_order(order);
        match rebuild(&subject, settings, progress) {
            Err(Error::Limit { what, .. })
                if what == REFERENCES && order < limits::REFCOUNT_ORDER =>
            {
                order += 1;
            }
            built => return built.map(|table| (order, table)),
        }
    }
}

struct Builder<'a> {
    subject: &'a Subject,
    /// The first cluster of the new structure.
    start: u64,
    /// Entries of the refcount table whose blocks have been written, one behind the other.
    written: Vec<u64>,
    /// The block that is being filled.
    number: u64,
    bytes: Vec<u8>,
}

impl<'a> Builder<'a> {
    fn new(subject: &'a Subject) -> Self {
        let bytes = vec![0; usize::try_from(subject.cluster_size()).unwrap_or(0)];
        Self { subject, start: subject.end(), written: Vec::new(), number: 0, bytes }
    }

    fn per_block(&self) -> u64 {
        Blocks::per_block(self.subject)
    }

    /// Takes the counts of a window.
    fn take(&mut self, references: &References) -> Result<()> {
        let (window, mut page) = (references.window(), Vec::new());
        let size = self.per_block().min(PAGE);
        let end = window.end.min(self.start);
        for first in (window.start..end).step_by(usize::try_from(PAGE).unwrap_or(1)) {
            let Some(counts) = references.page_counts(first, &mut page) else { continue };
            for (index, counts) in (0..).zip(counts.chunks(usize::try_from(size).unwrap_or(1))) {
                self.put(first + index * size, counts)?;
            }
        }
        Ok(())
    }

    /// Takes the counts of clusters of one block.
    fn put(&mut self, first: u64, counts: &[u64]) -> Result<()> {
        if counts.iter().all(|count| *count == 0) {
            return Ok(());
        }
        let (found, limit) = (counts.iter().copied().max().unwrap_or(0), self.subject.width.max());
        if found > limit {
            return Err(Error::Limit { format: NAME, what: REFERENCES.into(), found, limit });
        }
        let number = first / self.per_block();
        if number != self.number {
            self.write_block()?;
            self.number = number;
        }
        self.encode(first, counts);
        Ok(())
    }

    fn encode(&mut self, first: u64, counts: &[u64]) {
        let bits = u64::from(self.subject.width.bits());
        let from = usize::try_from(first % self.per_block() * bits / 8).unwrap_or(0);
        let mut bytes = Vec::new();
        self.subject.width.encode(counts, &mut bytes);
        self.bytes[from..from + bytes.len()].copy_from_slice(&bytes);
    }

    /// Writes the block that is being filled, unless the new structure itself is counted there too.
    fn write_block(&mut self) -> Result<()> {
        if self.number >= self.start / self.per_block() || self.bytes.iter().all(|byte| *byte == 0)
        {
            return Ok(());
        }
        let at = self.subject.offset(self.start + self.written.len() as u64);
        self.subject.store.write_at(at, &self.bytes)?;
        self.written.push(self.number);
        self.bytes.fill(0);
        Ok(())
    }

    /// Writes the blocks that count the new structure, and the table.
    fn finish(mut self) -> Result<(HostOffset, u32)> {
        self.write_block()?;
        let (tail, table) = self.sizes()?;
        let first_tail = self.start / self.per_block();
        let before = self.written.len() as u64;
        let end = self.start + before + tail + table;
        for number in 0..tail {
            let first = (first_tail + number) * self.per_block();
            let own = first.max(self.start)..(first + self.per_block()).min(end);
            let at = self.subject.offset(self.start + before + number);
            self.write_tail(at, own)?;
            self.written.push(first_tail + number);
        }
        let at = self.subject.offset(self.start + before + tail);
        self.write_table(at, table)?;
        Ok((at, u32::try_from(table).expect("a refcount table has at most 8 MiB")))
    }

    /// Blocks that count the new structure, and clusters of the table: each adds to the other.
    fn sizes(&self) -> Result<(u64, u64)> {
        let (per_block, before) = (self.per_block(), self.written.len() as u64);
        let (mut tail, mut table) = (1, 1);
        loop {
            let last = (self.start + before + tail + table - 1) / per_block;
            let wanted = (
                last - self.start / per_block + 1,
                ((last + 1) * 8).div_ceil(self.subject.cluster_size()),
            );
            let (found, limit) = (wanted.1 << self.subject.bits(), limits::REFCOUNT_TABLE);
            if found > limit {
                let what = "refcount table, in bytes".into();
                return Err(Error::Limit { format: NAME, what, found, limit });
            }
            if wanted == (tail, table) {
                return Ok(wanted);
            }
            (tail, table) = (wanted.0.max(tail), wanted.1.max(table));
        }
    }

    /// Writes a block whose clusters `own` are of the new structure.
    fn write_tail(&mut self, at: HostOffset, own: std::ops::Range<u64>) -> Result<()> {
        let size = self.per_block().min(PAGE);
        let mut counts = Vec::new();
        for first in
            (own.start - own.start % size..own.end).step_by(usize::try_from(size).unwrap_or(1))
        {
            let bits = u64::from(self.subject.width.bits());
            let from = usize::try_from(first % self.per_block() * bits / 8).unwrap_or(0);
            let len = usize::try_from(size * bits / 8).unwrap_or(0);
            self.subject.width.decode(&self.bytes[from..from + len], &mut counts);
            let unit = Clusters::new(first, size);
            for (cluster, count) in (unit.first..unit.end()).zip(&mut counts) {
                *count = if own.contains(&cluster) { 1 } else { *count };
            }
            let counts = std::mem::take(&mut counts);
            self.encode(first, &counts);
        }
        self.subject.store.write_at(at, &self.bytes)?;
        self.bytes.fill(0);
        Ok(())
    }

    fn write_table(&self, at: HostOffset, clusters: u64) -> Result<()> {
        let len = usize::try_from(clusters << (self.subject.bits() - 3)).unwrap_or(0);
        let mut entries = vec![0; len];
        for (index, number) in (0..).zip(&self.written) {
            let number = usize::try_from(*number).unwrap_or(usize::MAX);
            entries[number] = self.subject.offset(self.start + index).get();
        }
        Ok(self.subject.store.write_at(at, &bytes_of(&entries))?)
    }
}
