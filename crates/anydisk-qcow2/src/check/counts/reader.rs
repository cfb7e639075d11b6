//! Refcounts read block by block, a piece of clusters at a time.

use anydisk_core::Result;

use super::{Blocks, State};
use crate::check::references::{PAGE, References};
use crate::check::subject::Subject;
use crate::guard::Clusters;

/// Refcounts that are read block by block.
pub(in crate::check) struct Reader<'a> {
    subject: &'a Subject,
    blocks: &'a Blocks,
    block: Vec<u8>,
    /// The block that is in memory.
    held: Option<usize>,
    counts: Vec<u64>,
}

impl<'a> Reader<'a> {
    pub(in crate::check) fn new(subject: &'a Subject, blocks: &'a Blocks) -> Self {
        Self { subject, blocks, block: Vec::new(), held: None, counts: Vec::new() }
    }

    /// The refcounts of clusters of one block; `None`: all are 0.
    pub(in crate::check) fn read(&mut self, unit: Clusters) -> Result<Option<&[u64]>> {
        let per_block = Blocks::per_block(self.subject);
        let number = usize::try_from(unit.first / per_block).unwrap_or(usize::MAX);
        let state = self.blocks.states.get(number).copied().unwrap_or(State::Absent);
        if !matches!(state, State::Good | State::Reserved) {
            return Ok(None);
        }
        if self.held != Some(number) {
            self.load(number)?;
        }
        if self.block.is_empty() {
            return Ok(None);
        }
        let bytes = |clusters: u64| {
            usize::try_from(clusters * u64::from(self.subject.width.bits()) / 8).unwrap_or(0)
        };
        let (from, len) = (bytes(unit.first % per_block), bytes(unit.count));
        self.subject.width.decode(&self.block[from..from + len], &mut self.counts);
        Ok(Some(&self.counts))
    }

    /// As [`read`](Self::read), with zeroes for what is a hole in the file.
    pub(in crate::check) fn read_or_zero(&mut self, unit: Clusters) -> Result<Option<&[u64]>> {
        if self.read(unit)?.is_none() {
            let good = self.blocks.state(self.subject, unit.first) == State::Good;
            self.counts.clear();
            self.counts.resize(usize::try_from(unit.count).unwrap_or(0), 0);
            return Ok(good.then_some(&self.counts));
        }
        Ok(Some(&self.counts))
    }

    /// Reads a block; one that is a hole is kept as no bytes.
    fn load(&mut self, number: usize) -> Result<()> {
        let (at, len) = (self.blocks.entries[number], self.subject.cluster_size());
        self.held = None;
        self.block.clear();
        if !self.subject.is_hole(at, len) {
            self.block.resize(usize::try_from(len).unwrap_or(0), 0);
            self.subject.read(at, &mut self.block)?;
        }
        self.held = Some(number);
        Ok(())
    }
}

/// The clusters of a window in pieces that lie in one block and in one page of references.
pub(super) struct Units {
    next: u64,
    end: u64,
    size: u64,
}

impl Units {
    pub(super) fn of(subject: &Subject, references: &References) -> Self {
        let window = references.window();
        let size = Blocks::per_block(subject).min(PAGE);
        Self { next: window.start, end: window.end.min(subject.end()), size }
    }
}

impl Iterator for Units {
    type Item = Clusters;

    fn next(&mut self) -> Option<Clusters> {
        if self.next >= self.end {
            return None;
        }
        let unit = Clusters::new(self.next, self.size);
        self.next += self.size;
        Some(unit)
    }
}
