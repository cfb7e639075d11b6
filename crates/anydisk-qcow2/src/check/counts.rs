//! The refcounts in the file: where they are, whether they can be read, and whether they agree with
//! what is named.

use std::collections::HashSet;

use anydisk_core::{HostOffset, Result, Storage};

use super::progress::Progress;
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

/// Refcounts that are read block by block.
pub(super) struct Reader<'a> {
    subject: &'a Subject,
    blocks: &'a Blocks,
    block: Vec<u8>,
    /// The block that is in memory.
    held: Option<usize>,
    counts: Vec<u64>,
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

    /// Notes which refcounts are exactly one.
    pub(super) fn note_ones(
        &self,
        subject: &Subject,
        references: &References,
        teller: &mut Teller<'_>,
        progress: &Progress<'_>,
    ) -> Result<()> {
        let mut reader = Reader::new(subject, self);
        for unit in Units::of(subject, references) {
            match reader.read(unit) {
                Ok(Some(counts)) => references.note_ones(unit.first, counts),
                Ok(None) => {}
                Err(error) => tell_unreadable(teller, subject.offset(unit.first), &error),
            }
            if unit.first % PAGE == 0 {
                progress.step(0)?;
            }
        }
        Ok(())
    }

    /// Compares refcounts with references. Returns the end of what is in use.
    pub(super) fn compare(
        &self,
        subject: &Subject,
        references: &References,
        teller: &mut Teller<'_>,
    ) -> u64 {
        let mut reader = Reader::new(subject, self);
        let (mut page, mut page_at, mut end) = (Vec::new(), None, 0);
        let mut named_in_page = false;
        for whole in Units::of(subject, references) {
            let unit = Clusters::new(whole.first, whole.count.min(subject.end() - whole.first));
            let first = unit.first - unit.first % PAGE;
            if page_at != Some(first) {
                named_in_page = references.page_counts(first, &mut page).is_some();
                page_at = Some(first);
            }
            let within = usize::try_from(unit.first - first).unwrap_or(0);
            let len = usize::try_from(unit.count).unwrap_or(0);
            let named = named_in_page.then(|| &page[within..within + len]);
            let state = self.state(subject, unit.first);
            // That a block cannot be read was told when its ones were noted.
            let counts = reader.read(whole).unwrap_or_default().map(|counts| &counts[..len]);
            let pairs = Pairs { unit, named, counts };
            end = end.max(pairs.end());
            if state.is_readable() && !pairs.are_equal() {
                pairs.tell(subject, references, state, teller);
            }
            if named.is_some() && references.page_overlaps(first) {
                tell_overlaps(subject, references, &pairs, teller);
            }
        }
        end
    }

    /// Tells of refcounts of clusters behind the end of the file.
    pub(super) fn tell_past_end(&self, subject: &Subject, teller: &mut Teller<'_>) {
        let mut reader = Reader::new(subject, self);
        for unit in self.units_past_end(subject) {
            let Ok(Some(counts)) = reader.read(unit) else { continue };
            let past = (unit.first..).zip(counts).filter(|(at, _)| *at >= subject.end());
            past.for_each(|(cluster, count)| tell_leak(subject, cluster, (*count, 0), teller));
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

    /// Whether a block counts a cluster.
    pub(super) fn is_counted(&self, subject: &Subject, cluster: u64) -> bool {
        self.state(subject, cluster) == State::Good
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

/// The clusters of a window in pieces that lie in one block and in one page of references.
struct Units {
    next: u64,
    end: u64,
    size: u64,
}

impl Units {
    fn of(subject: &Subject, references: &References) -> Self {
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

impl<'a> Reader<'a> {
    pub(super) fn new(subject: &'a Subject, blocks: &'a Blocks) -> Self {
        Self { subject, blocks, block: Vec::new(), held: None, counts: Vec::new() }
    }

    /// The refcounts of clusters of one block; `None`: all are 0.
    pub(super) fn read(&mut self, unit: Clusters) -> Result<Option<&[u64]>> {
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
    pub(super) fn read_or_zero(&mut self, unit: Clusters) -> Result<Option<&[u64]>> {
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

/// References and refcounts of some clusters; `None`: all 0.
struct Pairs<'a> {
    unit: Clusters,
    named: Option<&'a [u64]>,
    counts: Option<&'a [u64]>,
}

impl Pairs<'_> {
    fn get(&self, index: usize) -> (u64, u64) {
        let of = |all: Option<&[u64]>| all.map_or(0, |all| all[index]);
        (of(self.counts), of(self.named))
    }

    fn are_equal(&self) -> bool {
        let zero = |all: &[u64]| all.iter().all(|count| *count == 0);
        match (self.counts, self.named) {
            (Some(counts), Some(named)) => counts == named,
            (counts, named) => counts.is_none_or(zero) && named.is_none_or(zero),
        }
    }

    /// Behind the last cluster that is counted or named.
    fn end(&self) -> u64 {
        let last = |all: Option<&[u64]>| all?.iter().rposition(|count| *count != 0);
        let last = last(self.counts).max(last(self.named));
        last.map_or(0, |last| self.unit.first + last as u64 + 1)
    }

    fn tell(
        &self,
        subject: &Subject,
        references: &References,
        state: State,
        teller: &mut Teller<'_>,
    ) {
        let len = usize::try_from(self.unit.count).unwrap_or(0);
        for (cluster, index) in (self.unit.first..).zip(0..len) {
            let (count, named) = self.get(index);
            if count > named {
                tell_leak(subject, cluster, (count, named), teller);
            } else if count < named && !references.overlaps(cluster) {
                tell_low(subject, cluster, (count, named), state, teller);
            }
        }
    }
}

fn tell_leak(subject: &Subject, cluster: u64, (count, named): (u64, u64), teller: &mut Teller<'_>) {
    if count > named {
        teller.tell(Trouble::Leak, subject.offset(cluster), || {
            format!(
                "the refcount of cluster {cluster} is {count}, expected {named}: it is lost space"
            )
        });
    }
}

fn tell_low(
    subject: &Subject,
    cluster: u64,
    (count, named): (u64, u64),
    state: State,
    teller: &mut Teller<'_>,
) {
    let trouble = match state {
        _ if named > subject.width.max() => Trouble::RefcountOverflow,
        State::Good => Trouble::RefcountLow,
        _ => Trouble::RefcountMissing,
    };
    teller.tell(trouble, subject.offset(cluster), || {
        format!("the refcount of cluster {cluster} is {count}, expected {named}")
    });
}

fn tell_overlaps(
    subject: &Subject,
    references: &References,
    pairs: &Pairs<'_>,
    teller: &mut Teller<'_>,
) {
    let Some(named) = pairs.named else { return };
    for (index, (cluster, named)) in (pairs.unit.first..).zip(named).enumerate() {
        if *named > 1 && references.overlaps(cluster) {
            let (count, _) = pairs.get(index);
            teller.tell(Trouble::Overlap, subject.offset(cluster), || {
                format!("cluster {cluster} holds metadata and is named {named} times, as something else too; its refcount is {count}")
            });
        }
    }
}
