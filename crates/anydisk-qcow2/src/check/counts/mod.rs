//! The refcounts in the file: where they are, and whether they can be read. `reader` reads them,
//! `compare` tells whether they agree with what is named.

mod compare;
mod reader;

use std::collections::HashSet;

use anydisk_core::{HostOffset, Result, Storage};

pub(super) use self::reader::Reader;
use self::reader::Units;
use super::references::{PAGE, References};
use super::roots::tell_unreadable;
use super::subject::Subject;
use super::trouble::{Teller, Trouble};
use super::windows::Touched;
use crate::guard::Clusters;

/// Place of a refcount block in an entry of the refcount table.
const OFFSET: u64 = !0x1ff;

/// What an entry of the refcount table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no block: all its refcounts are 0.
    Absent,
    /// A block.
    Good,
    /// A block past the end of the file: it reads as zeroes.
    PastEnd,
    /// A block, though reserved bits are set.
    Reserved,
    /// The block of another entry.
    Again,
    /// The block is not where a cluster begins.
    Unaligned,
}

/// The refcount table.
pub(super) struct Blocks {
    entries: Vec<u64>,
    states: Vec<State>,
}

impl Blocks {
    /// Reads the refcount table, and tells what is wrong with it.
    pub(super) fn read(subject: &Subject, teller: &mut Teller<'_>) -> Result<Self> {
        let header = &subject.header;
        let start = header.refcount_table_offset.get();
        let len = u64::from(header.refcount_table_clusters) << subject.bits();
        let count = usize::try_from(len / 8).unwrap_or(0);
        let mut blocks = Self { entries: vec![0; count], states: vec![State::Absent; count] };
        let (mut seen, mut lost) = (HashSet::new(), Vec::new());
        let visit = |number: u64, entry: u64| {
            let state = state_of(subject, entry, &mut seen);
            tell_state(teller, HostOffset(start + number * 8), entry, state);
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            blocks.entries[number] = entry & OFFSET;
            blocks.states[number] = state;
            Ok(())
        };
        subject.words(start, len, visit, |at, error| lost.push((at, error)))?;
        lost.iter().for_each(|(at, error)| tell_unreadable(teller, HostOffset(*at), error));
        Ok(blocks)
    }

    /// Clusters that one block counts.
    pub(super) fn per_block(subject: &Subject) -> u64 {
        1 << (subject.bits() + 3 - subject.width.bits().trailing_zeros())
    }

    /// The state of the block that counts a cluster.
    pub(super) fn state(&self, subject: &Subject, cluster: u64) -> State {
        let number = usize::try_from(cluster / Self::per_block(subject)).ok();
        number.and_then(|number| self.states.get(number)).copied().unwrap_or(State::Absent)
    }

    /// Whether the refcount of a cluster cannot be told.
    pub(super) fn is_unknown(&self, subject: &Subject, cluster: u64) -> bool {
        !self.state(subject, cluster).is_readable()
    }

    /// The blocks that are counted themselves, with their place.
    pub(super) fn placed(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let placed = |state: &State| matches!(state, State::Good | State::Again);
        let all = self.states.iter().zip(&self.entries).enumerate();
        all.filter(move |(_, (state, _))| placed(state)).map(|(number, (_, at))| (number, *at))
    }

    /// Notes where blocks are, and what they count.
    pub(super) fn touch(&self, subject: &Subject, touched: &Touched) {
        for (number, at) in self.placed() {
            touched.note(at >> subject.bits());
            let per_block = Self::per_block(subject);
            let first = (number as u64).saturating_mul(per_block);
            if first < subject.end() {
                touched.note_run(Clusters::new(first, per_block.min(subject.end() - first)));
            }
        }
    }

    /// Notes that the blocks are metadata.
    pub(super) fn claim(&self, subject: &Subject, references: &References) {
        for (_, at) in self.placed() {
            references.claim(Clusters::new(at >> subject.bits(), 1));
        }
    }

    /// Counts the blocks, when everything else has been counted.
    pub(super) fn count(
        &self,
        subject: &Subject,
        references: &References,
        teller: &mut Teller<'_>,
    ) {
        for (number, at) in self.placed() {
            let cluster = at >> subject.bits();
            if !references.window().contains(&cluster) {
                continue;
            }
            references.add(Clusters::new(cluster, 1), 1);
            let count = references.get(cluster);
            if count != 1 {
                teller.tell(Trouble::BlockShared, HostOffset(at), || {
                    format!("refcount block {number} is named {count} times, expected once")
                });
            }
        }
    }

    /// The clusters of good blocks that reach behind the end of the file, in units.
    pub(super) fn units_past_end(&self, subject: &Subject) -> impl Iterator<Item = Clusters> + '_ {
        let first = usize::try_from(subject.end() / Self::per_block(subject));
        let end = subject.end();
        self.good_units_from(subject, first.unwrap_or(usize::MAX))
            .filter(move |unit| unit.end() > end)
    }

    /// The clusters of all good blocks, in units.
    pub(super) fn all_good_units(&self, subject: &Subject) -> impl Iterator<Item = Clusters> + '_ {
        self.good_units_from(subject, 0)
    }

    fn good_units_from(
        &self,
        subject: &Subject,
        first: usize,
    ) -> impl Iterator<Item = Clusters> + '_ {
        let per_block = Self::per_block(subject);
        let size = per_block.min(PAGE);
        let good = |number: &usize| self.states[*number] == State::Good;
        (first..self.entries.len()).filter(good).flat_map(move |number| {
            let start = number as u64 * per_block;
            (0..per_block / size).map(move |part| Clusters::new(start + part * size, size))
        })
    }

    /// The clusters of a window that good blocks count, in units.
    pub(super) fn good_units<'a>(
        &'a self,
        subject: &'a Subject,
        references: &References,
    ) -> impl Iterator<Item = Clusters> + 'a {
        Units::of(subject, references)
            .filter(move |unit| self.state(subject, unit.first) == State::Good)
    }

    /// Sets refcounts of clusters that have blocks, given by rising clusters.
    pub(super) fn set(&self, subject: &Subject, mut counts: &[(u64, u64)]) -> Result<()> {
        let mut reader = Reader::new(subject, self);
        for unit in self.all_good_units(subject) {
            let before = |end: u64| counts.partition_point(|(cluster, _)| *cluster < end);
            let (skipped, end) = (before(unit.first), before(unit.end()));
            let changed = &counts[skipped..end];
            counts = &counts[end..];
            if changed.is_empty() {
                continue;
            }
            let Some(old) = reader.read_or_zero(unit)? else { continue };
            let mut new = old.to_vec();
            for (cluster, count) in changed {
                new[usize::try_from(cluster - unit.first).unwrap_or(0)] = *count;
            }
            let mut bytes = Vec::new();
            subject.width.encode(&new, &mut bytes);
            let at = self.place(subject, unit.first).unwrap_or(HostOffset::ZERO);
            subject.store.write_at(at, &bytes)?;
        }
        Ok(())
    }

    /// Names the new places of blocks that have moved.
    pub(super) fn relink(
        &self,
        subject: &Subject,
        moved: impl Fn(u64) -> Option<u64>,
    ) -> Result<()> {
        let table = subject.header.refcount_table_offset;
        for (number, at) in self.placed() {
            if let Some(to) = moved(at >> subject.bits()) {
                let entry = subject.offset(to).get().to_be_bytes();
                subject.store.write_at(table.saturating_add(number as u64 * 8), &entry)?;
            }
        }
        Ok(())
    }

    /// Where the refcount of a cluster is, the first of its byte.
    pub(super) fn place(&self, subject: &Subject, cluster: u64) -> Option<HostOffset> {
        let per_block = Self::per_block(subject);
        let number = usize::try_from(cluster / per_block).ok()?;
        let block = self.entries.get(number).copied().filter(|block| *block != 0)?;
        let bits = cluster % per_block * u64::from(subject.width.bits());
        Some(HostOffset(block).saturating_add(bits / 8))
    }
}

fn state_of(subject: &Subject, entry: u64, seen: &mut HashSet<u64>) -> State {
    let at = entry & OFFSET;
    if !HostOffset(at).is_aligned(subject.cluster_size()) {
        return State::Unaligned;
    }
    if entry & !OFFSET != 0 {
        return State::Reserved;
    }
    if at >> subject.bits() >= subject.file_len.div_ceil(subject.cluster_size()) {
        return State::PastEnd;
    }
    if seen.insert(at) { State::Good } else { State::Again }
}

fn tell_state(teller: &mut Teller<'_>, place: HostOffset, entry: u64, state: State) {
    let (trouble, expected) = match state {
        State::Unaligned => {
            (Trouble::BlockUnaligned, "a refcount block at a multiple of the cluster size")
        }
        State::Reserved => (Trouble::BlockReserved, "no reserved bits"),
        State::PastEnd => (Trouble::BlockPastEnd, "a refcount block before the end of the file"),
        State::Absent | State::Good | State::Again => return,
    };
    teller.tell(trouble, place, || format!("refcount table entry {entry:#x}, expected {expected}"));
}

impl State {
    fn is_readable(self) -> bool {
        !matches!(self, Self::Unaligned | Self::Again)
    }
}
