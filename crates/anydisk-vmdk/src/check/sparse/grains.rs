//! What the entries of tables name.

use anydisk_core::{Error, Finding, GuestRange, HostOffset, Result, Severity, StorageExt};

use super::super::table::Entries;
use super::super::{guest, sector};
use super::tables::Pair;
use super::{Belief, SparseCheck, Walk};
use crate::check::unpack;
use crate::extent::Packed;
use crate::image::marker;
use crate::layout::SECTOR;
use crate::limits;
use crate::table::Grain;

/// Bytes of a grain that are copied at once.
const COPY: u64 = 1 << 20;

/// An entry names no place that a grain can have.
#[derive(Debug)]
pub(super) struct Nowhere;

impl SparseCheck<'_> {
    pub(super) fn check_entry(
        &mut self,
        walk: &mut Walk<'_, '_, '_>,
        index: usize,
        pair: &mut Pair,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let entry = pair.first.get(index);
        let copy = pair.second.as_ref().map(|second| second.get(index));
        if entry == 0 && copy.unwrap_or(0) == 0 {
            return Ok(());
        }
        let from_start = self.bytes_before(pair.number, index);
        if from_start >= self.sparse.geometry().capacity() {
            self.check_behind_end(walk, &mut pair.first, index, findings);
            return Ok(());
        }
        let at = pair.first.place(index);
        // Which of the two counts is known when all places are that are beyond doubt.
        let other = copy.filter(|copy| *copy != entry && self.grain_of(*copy).is_ok());
        if other.is_some() != walk.of_others {
            self.has_others |= other.is_some();
            self.states[usize::try_from(pair.number).expect("limited by the header")].has_others |=
                other.is_some();
            return Ok(());
        }
        let copy = other.filter(|copy| self.takes_copy(walk, entry, *copy));
        let cost = guest(self.part, from_start, self.sparse.geometry().grain());
        let place = match copy {
            Some(copy) => self.take_copy(walk, pair, index, copy, findings),
            None => match self.judge(entry, at) {
                Ok(place) => place,
                Err(error) => {
                    self.drop_entry(walk, pair, index, (error, cost), findings);
                    None
                }
            },
        };
        let Some(place) = place else { return Ok(()) };
        if walk.first {
            *walk.teller.report.allocated_clusters.get_or_insert(0) += 1;
        }
        if self.sparse.packed != Packed::No {
            return self.check_packed(walk, place, from_start, cost, findings);
        }
        self.check_cut(walk, place, (at, from_start), findings)?;
        let Some(met) = self.mark(walk, place, self.sparse.geometry().grain()) else {
            return Ok(());
        };
        self.keeps_leaks = true;
        let mut finding = self.used_twice(place, met, at).costing(cost);
        if self.mends()
            && let Some(copy) = self.copy_grain(place)?
        {
            pair.first.set(index, sector(copy));
            finding.repaired = true;
        }
        findings.push(finding);
        Ok(())
    }

    /// Whether the entry of the second table is taken instead of that of the first, which is another. One
    /// that names a grain in a place of its own is never given up for nothing, nor for a place that
    /// somebody else has or that the second set names twice, whichever set is believed.
    fn takes_copy(&self, walk: &Walk<'_, '_, '_>, entry: u64, copy: u64) -> bool {
        let believed = self.belief == Belief::Second;
        let is_free = |place: HostOffset| {
            let end = place.saturating_add(self.stored_len());
            !walk.occupied.meets(sector(place)..end.get().div_ceil(SECTOR))
        };
        match (self.grain_of(entry), self.grain_of(copy)) {
            (_, Err(_)) => false,
            (Err(_), Ok(None)) => true,
            (Err(_), Ok(Some(place))) => self.can_be_taken(place, is_free(place)),
            (Ok(None), Ok(None)) => believed,
            // An entry of the first that says zeroes is one.
            (Ok(None), Ok(Some(place))) => {
                (entry == 0 || believed) && self.can_be_taken(place, is_free(place))
            }
            (Ok(Some(place)), Ok(None)) => believed && !is_free(place),
            (Ok(Some(one)), Ok(Some(other))) => match (is_free(one), is_free(other)) {
                (true, false) => false,
                (false, true) => true,
                _ => self.is_better_place(one, other),
            },
        }
    }

    /// Whether a grain that the second set names is one where the first names none, as readers see it:
    /// if no first table names it. Where several entries of the second do, each gets it.
    fn can_be_taken(&self, place: HostOffset, is_free: bool) -> bool {
        let Some((first, second)) = &self.named else { return is_free };
        match first.has(place) {
            true => is_free && self.belief == Belief::Second,
            false => is_free || second.has_twice(place),
        }
    }

    /// Of two places that are as free, whether that of the second set counts.
    fn is_better_place(&self, one: HostOffset, other: HostOffset) -> bool {
        let believed = self.belief == Belief::Second;
        let Some((first, second)) = &self.named else { return believed };
        match (first.has_twice(one), second.has_twice(other)) {
            (false, true) => false,
            (true, false) => true,
            _ => believed,
        }
    }

    /// Tells that the entry of the second table counts: where the grain is.
    fn take_copy(
        &mut self,
        walk: &Walk<'_, '_, '_>,
        pair: &mut Pair,
        index: usize,
        copy: u64,
        findings: &mut Vec<Finding>,
    ) -> Option<HostOffset> {
        let (entry, at) = (pair.first.get(index), pair.first.place(index));
        if walk.first {
            let text = match self.judge(entry, at) {
                Err(error) => error.to_string(),
                Ok(_) => format!("the entry is {entry:#x}, that of the second table {copy:#x}"),
            };
            // What a crash between the writes of the two may leave is no damage.
            let is_crash = self.sparse.unclean && entry == 0;
            let severity = if is_crash { Severity::Note } else { Severity::Corruption };
            let finding = Finding::new(severity, "table-entry", at, text);
            let mut finding = finding.mended_by("the entry of the second table");
            finding.repaired = self.mends();
            findings.push(finding);
        }
        self.keeps_leaks = true;
        if self.mends() {
            pair.first.set(index, copy);
        }
        self.grain_of(copy).ok().flatten()
    }

    /// The file must not end in a grain, as far as that is on the disk.
    fn check_cut(
        &mut self,
        walk: &Walk<'_, '_, '_>,
        place: HostOffset,
        (at, from_start): (HostOffset, u64),
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let len = self.sparse.grain_len(from_start);
        let (end, grain_end) = (self.sparse.end(), place.saturating_add(len));
        if !walk.first || grain_end <= end {
            return Ok(());
        }
        self.keeps_leaks = true;
        let there = end.checked_since(place).unwrap_or(0);
        let text = format!("the file ends in the grain at {place}, at {end}");
        let finding = Finding::new(Severity::Corruption, "grain-cut", at, text);
        let lost = guest(self.part, from_start + there, len - there);
        let mut finding = finding.costing(lost).mended_by("the file is filled up with zeroes");
        if self.mends() {
            self.store.set_len(grain_end.get())?;
            self.store.flush()?;
            self.end = self.end.max(grain_end.get());
            self.sparse.grow_to(grain_end);
            finding.repaired = true;
        }
        findings.push(finding);
        Ok(())
    }

    /// Tells of an entry that names no grain there can be, and that no second table knows better.
    fn drop_entry(
        &mut self,
        walk: &Walk<'_, '_, '_>,
        pair: &mut Pair,
        index: usize,
        (error, cost): (Error, GuestRange),
        findings: &mut Vec<Finding>,
    ) {
        self.keeps_leaks = true;
        if !walk.first {
            return;
        }
        let at = pair.first.place(index);
        let is_kept = self.is_free_place(walk, pair.first.get(index));
        let kind = if is_kept { "first-grain" } else { "table-entry" };
        let finding = Finding::new(Severity::Corruption, kind, at, error.to_string());
        let mut finding = finding.costing(cost);
        if !is_kept {
            finding = finding.mended_by("there is no grain any more");
            if self.mends() {
                pair.first.set(index, 0);
                finding.repaired = true;
            }
        }
        findings.push(finding);
    }

    /// Whether a refused entry names a place in the file where nothing else lies: then what the header
    /// says of the place of the first grain may as well be wrong, and the entry is kept.
    fn is_free_place(&self, walk: &Walk<'_, '_, '_>, entry: u64) -> bool {
        let Grain::Sector(first) = self.sparse.decode(entry) else { return false };
        let stored = self.stored_len() / SECTOR;
        let end = if self.ends_well == Some(true) { self.sparse.end() } else { self.file_end };
        let end = end.get() / SECTOR;
        let is_inside = first.checked_add(stored).is_some_and(|last| last <= end);
        is_inside && !walk.occupied.meets(first..first + stored)
    }

    /// Whether the file had this place before it grew by what is mended. What is appended is named by no
    /// other entry, or nothing is.
    fn was_there(&self, place: HostOffset) -> bool {
        self.ends_well == Some(true) || place < self.file_end
    }

    /// Where the grain is that an entry names, if it names one.
    pub(super) fn grain_of(&self, entry: u64) -> Result<Option<HostOffset>, Nowhere> {
        match self.sparse.decode(entry) {
            Grain::Sector(sector) => {
                let place = self.sparse.grain_place(sector, 1).filter(|at| self.was_there(*at));
                place.map(Some).ok_or(Nowhere)
            }
            Grain::Broken(_) => Err(Nowhere),
            Grain::Absent | Grain::Zero => Ok(None),
        }
    }

    /// As [`grain_of`](Self::grain_of) of the entry at `at`.
    ///
    /// # Errors
    /// What is wrong with the entry.
    fn judge(&self, entry: u64, at: HostOffset) -> Result<Option<HostOffset>> {
        match self.sparse.decode(entry) {
            Grain::Sector(sector) => match self.sparse.grain_at(sector, 1, at)? {
                place if self.was_there(place) => Ok(Some(place)),
                _ => Err(self.sparse.outside("grain table entry", at, sector).into()),
            },
            Grain::Broken(entry) => Err(self.sparse.broken(at, entry)),
            Grain::Absent | Grain::Zero => Ok(None),
        }
    }

    /// What is named behind the end of the disk is kept until the entry is cleared: the end may be
    /// wrong.
    fn check_behind_end(
        &mut self,
        walk: &mut Walk<'_, '_, '_>,
        first: &mut Entries,
        index: usize,
        findings: &mut Vec<Finding>,
    ) {
        if first.get(index) == 0 || walk.of_others {
            return;
        }
        self.keeps_leaks = true;
        if !walk.first {
            return;
        }
        let text = format!("the entry {:#x} is for a grain behind the end", first.get(index));
        let mut finding =
            Finding::new(Severity::Note, "entry-behind-end", first.place(index), text);
        // Where the descriptor has more bytes, it is the header that is in doubt.
        if self.told > self.sparse.geometry().capacity() {
            findings.push(finding);
            return;
        }
        finding = finding.mended_by("it is cleared");
        if self.mends() {
            first.set(index, 0);
            finding.repaired = true;
        }
        findings.push(finding);
    }

    fn used_twice(&self, place: HostOffset, met: u64, at: HostOffset) -> Finding {
        let met = HostOffset(met * SECTOR);
        let text = format!("the grain at {place} shares {met} with another grain or with metadata");
        Finding::new(Severity::Corruption, "grain-used-twice", at, text)
            .mended_by("a copy of the grain")
    }

    /// Appends a copy of a grain, flushed; `None` where sector numbers do not reach, or where another entry
    /// could name the place by chance.
    fn copy_grain(&mut self, from: HostOffset) -> Result<Option<HostOffset>> {
        let grain = self.sparse.geometry().grain();
        let to = HostOffset(self.end.next_multiple_of(grain));
        let end = to.saturating_add(grain);
        let can_be_named = self.sparse.has_sector_entries() && end.get() <= limits::FILE;
        if !can_be_named || !self.ends_well()? {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(grain.min(COPY)).expect("a small number")];
        let mut done = 0;
        while done < grain {
            self.store.read_padded_at(from.saturating_add(done), &mut bytes)?;
            self.store.write_at(to.saturating_add(done), &bytes)?;
            done += bytes.len() as u64;
        }
        self.store.flush()?;
        self.end = end.get();
        self.sparse.grow_to(end);
        Ok(Some(to))
    }

    /// A packed grain must be the one meant, and unpack to its length.
    fn check_packed(
        &mut self,
        walk: &mut Walk<'_, '_, '_>,
        at: HostOffset,
        from_start: u64,
        cost: GuestRange,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let head = self.sparse.packed.head();
        let mut bytes = [0; 12];
        let head_bytes = &mut bytes[..usize::try_from(head).expect("4 or 12")];
        self.store.read_padded_at(at, head_bytes)?;
        let [lba, size] = marker(head_bytes);
        let len = self.sparse.check_marker(at, from_start, lba, size);
        let wrong = match len {
            Ok(len) => {
                if let Some(met) = self.mark(walk, at, head + len as u64) {
                    findings.push(self.used_twice(at, met, at).costing(cost));
                }
                let grain = self.sparse.geometry().grain();
                let rest = (self.sparse.geometry().capacity() - from_start).min(grain);
                let data = (at.saturating_add(head), len);
                let check = walk.first.then(|| unpack(self.store, data, rest, grain));
                check.transpose()?.flatten()
            }
            Err(error) => walk.first.then(|| error.to_string()),
        };
        if walk.first {
            *walk.teller.report.compressed_clusters.get_or_insert(0) += 1;
        }
        if let Some(text) = wrong {
            findings
                .push(Finding::new(Severity::Corruption, "packed-grain", at, text).costing(cost));
        }
        Ok(())
    }
}
