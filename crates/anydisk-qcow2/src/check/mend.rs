//! Changes in place: refcounts raised or lowered, flags and entries set right.

use std::ops::Range;

use anydisk_core::{HostOffset, Result, Storage};

use super::counts::Reader;
use super::judge::{Named, Rules};
use super::subject::Subject;
use super::trouble::Trouble;
use super::{Window, tables::L2Table};
use crate::alloc::{bytes_of, words_of};
use crate::entry::{L1Entry, L2Entry};
use crate::guard::Clusters;
use crate::layout::entry::{COPIED, ZERO};

/// Which flags are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// Those that say "not shared" of what is.
    Clear,
    /// Those that say "shared" of what is not.
    Set,
}

/// Bytes of a table that are written at once, at most.
const WRITE: usize = 4096;

/// Changes in one window, which has been counted.
pub(super) struct Mend<'a> {
    window: &'a Window<'a>,
    subject: &'a Subject,
    rules: Rules,
}

impl<'a> Mend<'a> {
    pub(super) fn of(window: &'a Window<'a>) -> Self {
        let subject = window.image.subject;
        Self { window, subject, rules: Rules::new(&subject.header) }
    }

    /// Raises refcounts that are too low, where there is a block for them.
    pub(super) fn raise_counts(&self) -> Result<()> {
        self.change_counts(|count, named| count.max(named))
    }

    /// Lowers refcounts that are too high; those of clusters behind the end of the file too.
    pub(super) fn lower_counts(&self) -> Result<()> {
        self.change_counts(|count, named| count.min(named))?;
        if !self.window.first {
            return Ok(());
        }
        let mut reader = Reader::new(self.subject, &self.window.image.blocks);
        for unit in self.window.image.blocks.units_past_end(self.subject) {
            let end = self.subject.end();
            let change = |cluster: u64, count: u64| if cluster < end { count } else { 0 };
            self.write_counts(&mut reader, unit, change)?;
        }
        Ok(())
    }

    fn change_counts(&self, change: impl Fn(u64, u64) -> u64) -> Result<()> {
        let (blocks, references) = (&self.window.image.blocks, &self.window.references);
        let most = self.subject.width.max();
        // Of two that claim one cluster nobody knows which is right: it only must not look free.
        let right = |cluster: u64, count: u64| match references.overlaps(cluster) {
            true => count.max(1),
            false => change(count, references.get(cluster)).min(most),
        };
        let mut reader = Reader::new(self.subject, blocks);
        for unit in blocks.good_units(self.subject, references) {
            let end = self.subject.end();
            let change = |cluster: u64, count: u64| match cluster < end {
                true => right(cluster, count),
                false => count,
            };
            self.write_counts(&mut reader, unit, change)?;
        }
        Ok(())
    }

    /// Writes the refcounts of some clusters of one block, if they change.
    fn write_counts(
        &self,
        reader: &mut Reader<'_>,
        unit: Clusters,
        change: impl Fn(u64, u64) -> u64,
    ) -> Result<()> {
        let Some(counts) = reader.read_or_zero(unit)? else { return Ok(()) };
        let changed: Vec<u64> =
            (unit.first..).zip(counts).map(|(cluster, count)| change(cluster, *count)).collect();
        if changed == counts {
            return Ok(());
        }
        let mut bytes = Vec::new();
        self.subject.width.encode(&changed, &mut bytes);
        let Some(at) = self.window.image.blocks.place(self.subject, unit.first) else {
            return Ok(());
        };
        Ok(self.subject.store.write_at(at, &bytes)?)
    }

    /// Makes zero entries that name a place where no cluster begins name nothing.
    pub(super) fn make_entries_plain(&self) -> Result<()> {
        if !self.window.first {
            return Ok(());
        }
        let extended = self.subject.geometry.is_extended();
        for table in &self.window.image.tables {
            self.change_table(table, |_, entry| {
                let (_, troubles) = self.rules.judge(entry, None);
                if !troubles.holds(Trouble::ZeroUnaligned) {
                    return entry;
                }
                L2Entry { word: if extended { 0 } else { ZERO }, ..entry }
            })?;
        }
        Ok(())
    }

    /// Makes COPIED flags of the active tables agree with the references.
    pub(super) fn set_flags(&self, flags: Flags) -> Result<()> {
        self.set_l1_flags(flags)?;
        for table in self.window.image.tables.iter().filter(|table| table.active.is_some()) {
            self.change_table(table, |_, entry| {
                let (Named::Cluster(at), _) = self.rules.judge(entry, None) else { return entry };
                L2Entry { word: self.with_flag(entry.word, at, flags), ..entry }
            })?;
        }
        Ok(())
    }

    fn set_l1_flags(&self, flags: Flags) -> Result<()> {
        let start = self.subject.header.l1_table_offset.get();
        if self.overlaps(start, u64::from(self.subject.header.l1_size) * 8) {
            return Ok(());
        }
        let mut wrong = Vec::new();
        let visit = |number: u64, word: u64| {
            if let Some(at) = L1Entry(word).table() {
                let right = self.with_flag(word, at.get(), flags);
                wrong.extend((right != word).then_some((start + number * 8, right)));
            }
            Ok(())
        };
        let len = u64::from(self.subject.header.l1_size) * 8;
        self.subject.words(start, len, visit, |_, _| {})?;
        for (at, word) in wrong {
            self.subject.store.write_at(HostOffset(at), &word.to_be_bytes())?;
        }
        Ok(())
    }

    /// The word of an entry with the flag as it is to be, for a cluster of this window.
    fn with_flag(&self, word: u64, at: u64, flags: Flags) -> u64 {
        let cluster = at >> self.subject.bits();
        let counted = self.subject.region(at, self.subject.cluster_size()).is_ok();
        let references = &self.window.references;
        let counted = counted && references.window().contains(&cluster);
        // Where the count cannot say how often it is shared, a flag that says that it is would
        // contradict it, and whoever believes both frees what is still named.
        let is_told = references.get(cluster) <= self.subject.width.max();
        if !counted || !is_told || references.overlaps(cluster) {
            return word;
        }
        match (references.get(cluster) == 1, flags) {
            (true, Flags::Set) => word | COPIED,
            (false, Flags::Clear) => word & !COPIED,
            _ => word,
        }
    }

    /// Whether something else lies in the clusters of a table: then nothing is changed there.
    fn overlaps(&self, at: u64, len: u64) -> bool {
        let run = Clusters::touched(at, len, self.subject.bits());
        (run.first..run.end()).any(|cluster| self.window.references.overlaps(cluster))
    }

    /// Changes entries of a table, and writes what changed.
    fn change_table(
        &self,
        table: &L2Table,
        change: impl Fn(usize, L2Entry) -> L2Entry,
    ) -> Result<()> {
        let (at, len) = (table.at, self.subject.cluster_size());
        let aligned = HostOffset(at).is_aligned(len);
        if !aligned || self.subject.is_hole(at, len) || self.overlaps(at, len) {
            return Ok(());
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.subject.read(at, &mut bytes)?;
        let old = words_of(&bytes);
        let mut new = old.clone();
        let step = self.subject.geometry.entry_words();
        for (index, words) in new.chunks_mut(step).enumerate() {
            let entry = L2Entry { word: words[0], bitmap: words.get(1).copied().unwrap_or(0) };
            words[0] = change(index, entry).word;
        }
        write_changed(self.subject, at, &old, &new)
    }
}

/// Writes what changed of a table at `at`.
pub(super) fn write_changed(subject: &Subject, at: u64, old: &[u64], new: &[u64]) -> Result<()> {
    for part in changed(old, new) {
        let place = HostOffset(at).saturating_add(part.start as u64 * 8);
        subject.store.write_at(place, &bytes_of(&new[part]))?;
    }
    Ok(())
}

/// The words that changed, in pieces that lie in one slice each.
fn changed(old: &[u64], new: &[u64]) -> Vec<Range<usize>> {
    let slices = old.chunks(WRITE / 8).zip(new.chunks(WRITE / 8)).enumerate();
    let differ = |(number, (old, new)): (usize, (&[u64], &[u64]))| {
        let first = old.iter().zip(new).position(|(old, new)| old != new)?;
        let last = old.iter().zip(new).rposition(|(old, new)| old != new)?;
        let base = number * (WRITE / 8);
        Some(base + first..base + last + 1)
    };
    slices.filter_map(differ).collect()
}
