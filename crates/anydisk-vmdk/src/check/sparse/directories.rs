//! The entries of the directories, and the places of the tables.

use anydisk_core::{Finding, HostOffset, Result, Severity};

use super::super::table::Entries;
use super::super::{Teller, guest, sector};
use super::facts::{Facts, Trust};
use super::{SparseCheck, Tables};
use crate::layout::SECTOR;
use crate::limits;
use crate::table::sector_at;

/// Entries of the directory that are looked at together.
const DIRECTORY_STEP: u64 = 512;

/// What is done about a table that one of the directories does not name, or not rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: all is well, or nobody knows.
    None,
    /// A copy of the second table for the first directory.
    RenewFirst,
    /// A copy of the first table for the second directory.
    RenewSecond,
    /// The first directory names none, and the second one that is not there.
    DropSecond,
    /// Neither names one that is there.
    DropBoth,
}

/// Copies of tables that are to be made: number and set, from where to where.
type Copies = Vec<((usize, usize), HostOffset, HostOffset)>;

impl SparseCheck<'_> {
    /// What can be done about table `number`.
    pub(super) fn remedy(&self, facts: &Facts, number: usize) -> Remedy {
        let [one, other] = facts.trust[number];
        let [first_out, second_out] = facts.outside[number];
        let is_front = |at: HostOffset| {
            at.saturating_add(self.sparse.geometry().directory_len()) <= self.sparse.overhead
        };
        let (first, second) = (self.sparse.directory(), self.second);
        if !self.sparse.has_sector_entries() || !is_front(first) || facts.is_held[0] {
            return Remedy::None;
        }
        let can_renew = second.is_some_and(is_front) && !facts.is_held[1];
        match (one, other) {
            (Trust::Apart { .. }, Trust::Nothing | Trust::Misplaced) if can_renew => {
                Remedy::RenewSecond
            }
            (Trust::Nothing, Trust::Apart { .. })
            | (Trust::Misplaced | Trust::Hollow, Trust::Apart { proven: true }) => {
                Remedy::RenewFirst
            }
            (Trust::Nothing, Trust::Nothing) if second_out && !first_out && can_renew => {
                Remedy::DropSecond
            }
            (Trust::Nothing, Trust::Nothing) if first_out && (second.is_none() || can_renew) => {
                // Where there is a disk below, its data would show.
                match self.has_below && (second_out || second.is_none()) {
                    true => Remedy::None,
                    false => Remedy::DropBoth,
                }
            }
            _ => Remedy::None,
        }
    }

    /// Calls `look` for each table that is in the file, or whose second copy is, unless it lies on what is
    /// somebody else's.
    pub(super) fn each_table(
        &mut self,
        mut look: impl FnMut(&mut Self, Tables) -> Result<()>,
    ) -> Result<()> {
        for number in 0..self.facts.places.len() {
            let (places, trust) = (self.facts.places[number], self.facts.trust[number]);
            let place = |set: usize| {
                let is_there = matches!(trust[set], Trust::Apart { .. } | Trust::Doubted);
                is_there.then(|| sector_at(places[set]))
            };
            let (first, second) = (place(0), place(1));
            let is_proven = |trust| matches!(trust, Trust::Nothing | Trust::Apart { proven: true });
            let len = self.sparse.geometry().table_len();
            let mut both = [first, second].into_iter().flatten();
            let is_front = both.all(|at| at.saturating_add(len) <= self.sparse.overhead);
            let is_proven = self.can_mend() && trust.into_iter().all(is_proven);
            if first.is_some() || second.is_some() {
                look(self, Tables { number: number as u64, first, second, is_proven, is_front })?;
            }
        }
        Ok(())
    }

    /// Looks at all entries of the directories, and mends what can be: entries that lead nowhere are gone
    /// before a copy of a table is appended, so that none of them can show it, and the copy is on the medium
    /// before it is named.
    pub(super) fn check_directories(&mut self, teller: &mut Teller<'_>) -> Result<()> {
        let (mut start, mut copies) = (0, Copies::new());
        while start < self.facts.places.len() {
            let mut first = self.directory_part(self.sparse.directory(), start as u64)?;
            let mut second =
                self.second.map(|at| self.directory_part(at, start as u64)).transpose()?;
            for index in 0..first.len() {
                let (number, both) = (start + index, (&mut first, second.as_mut()));
                self.check_directory_entry(number, index, both, &mut copies, teller)?;
            }
            start += first.len();
            let mut changed = first.write_back(self.store)?;
            if let Some(second) = &mut second {
                changed |= second.write_back(self.store)?;
            }
            if changed {
                self.store.flush()?;
            }
        }
        self.append_tables(&copies)
    }

    fn check_directory_entry(
        &mut self,
        number: usize,
        index: usize,
        (first, mut second): (&mut Entries, Option<&mut Entries>),
        copies: &mut Copies,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        let trust = self.facts.trust[number];
        let remedy = self.remedy(&self.facts, number);
        let fault = |set: usize, entries: &Entries| match self.facts.is_at_fault(number, set) {
            true if trust[set] == Trust::Hollow => {
                let at = sector_at(entries.get(index));
                Some(format!("what is at {at} names no grain, where the second table does"))
            }
            true => Some(overlap(sector_at(entries.get(index)))),
            false => self.table_of(entries, index).err().map(|error| error.to_string()),
        };
        let faults = (fault(0, first), second.as_deref().and_then(|second| fault(1, second)));
        let is_overlap = [0, 1].into_iter().any(|set| self.facts.is_at_fault(number, set));
        let finding = match (remedy, faults) {
            (Remedy::None, (None, None)) => return Ok(()),
            (Remedy::None, (Some(text), _)) => {
                let kind = if is_overlap { "metadata-overlap" } else { "directory-entry" };
                Finding::new(Severity::Corruption, kind, first.place(index), text)
            }
            (Remedy::None, (None, Some(text))) => {
                let kind = if is_overlap { "metadata-overlap" } else { "directory-copy" };
                let at = second.as_deref().map_or(first.place(index), |it| it.place(index));
                Finding::new(Severity::Corruption, kind, at, text)
            }
            (Remedy::RenewFirst, (fault, _)) => {
                let table = sector_at(self.facts.places[number][1]);
                let text = fault.unwrap_or_else(|| {
                    format!("the entry is 0, and the second directory's is {table}")
                });
                let at = first.place(index);
                let finding = Finding::new(Severity::Corruption, "directory-entry", at, text);
                self.renew((number, 0), (first, index), finding, copies)
            }
            (Remedy::RenewSecond, (_, fault)) => {
                let Some(second) = second else { return Ok(()) };
                let table = sector_at(self.facts.places[number][0]);
                let is_overlap = trust[1] == Trust::Misplaced;
                let severity = if is_overlap { Severity::Corruption } else { Severity::Note };
                let text =
                    fault.unwrap_or_else(|| format!("no table, where the first one is at {table}"));
                let text = format!("of the second directory: {text}");
                let finding = Finding::new(severity, "directory-copy", second.place(index), text);
                self.renew((number, 1), (second, index), finding, copies)
            }
            (Remedy::DropSecond | Remedy::DropBoth, (one, other)) => {
                let (kind, severity) = match one.is_some() {
                    true => ("directory-entry", Severity::Corruption),
                    false => ("directory-copy", Severity::Note),
                };
                let at = match (one.is_some(), &second) {
                    (false, Some(second)) => second.place(index),
                    _ => first.place(index),
                };
                let text = one.or(other).unwrap_or_default();
                let mut finding = Finding::new(severity, kind, at, text);
                if remedy == Remedy::DropBoth {
                    let coverage = self.sparse.geometry().coverage();
                    let from_start = (number as u64).saturating_mul(coverage);
                    finding = finding.costing(guest(self.part, from_start, coverage));
                }
                if self.can_mend() {
                    finding = finding.mended_by("there is no table any more");
                }
                if self.mends() {
                    finding.repaired = true;
                    first.set(index, 0);
                    second.iter_mut().for_each(|second| second.set(index, 0));
                }
                finding
            }
        };
        self.keeps_leaks = true;
        teller.tell(finding);
        Ok(())
    }

    /// Whether something can be appended: no entry that stays names a place behind the end of the file,
    /// and no footer must be last.
    pub(super) fn can_append(&self) -> bool {
        let is_last = self.has_footer || self.sparse.is_cowd();
        self.can_mend() && !is_last && self.facts.beyond.is_none()
    }

    /// A place for `len` bytes at the end of the file, at a multiple of `align`.
    pub(super) fn append(&mut self, len: u64, align: u64) -> Option<HostOffset> {
        let at = HostOffset(self.end.next_multiple_of(align));
        let end = at.saturating_add(len).get();
        if !self.mends() || !self.can_append() || end > limits::FILE {
            return None;
        }
        self.end = end;
        Some(at)
    }

    /// Finds a place for a copy of the other set's table, and empties the entry that is to name it, if that
    /// can be done. The finding, with what becomes of it.
    fn renew(
        &mut self,
        (number, set): (usize, usize),
        (entries, index): (&mut Entries, usize),
        finding: Finding,
        copies: &mut Copies,
    ) -> Finding {
        if !self.can_append() {
            return finding;
        }
        let other =
            if set == 0 { "a copy of the second table" } else { "a copy of the first table" };
        let mut finding = finding.mended_by(other);
        if let Some(to) = self.append(self.sparse.geometry().table_len(), SECTOR) {
            let from = sector_at(self.facts.places[number][1 - set]);
            copies.push(((number, set), from, to));
            entries.set(index, 0);
            finding.repaired = true;
        }
        finding
    }

    /// Makes the copies, then names them.
    fn append_tables(&mut self, copies: &Copies) -> Result<()> {
        for (_, from, to) in copies {
            let table = self.table_at(*from)?;
            self.store.write_at(*to, &table.bytes())?;
        }
        if copies.is_empty() {
            return Ok(());
        }
        self.store.flush()?;
        for ((number, set), _, to) in copies {
            let directory = match set {
                0 => self.sparse.directory(),
                _ => self.second.unwrap_or_default(),
            };
            let entry_len = self.sparse.geometry().entry_len();
            let at = directory.saturating_add(*number as u64 * entry_len);
            let entry = u32::try_from(sector(*to)).expect("a file that 32 bits can name");
            self.store.write_at(at, &entry.to_le_bytes())?;
            self.sparse.grow_to(to.saturating_add(self.sparse.geometry().table_len()));
            self.facts.put(*number, *set, Some(*to));
        }
        Ok(self.store.flush()?)
    }

    /// The entries of a directory from number `start` on that are looked at together.
    pub(super) fn directory_part(&self, directory: HostOffset, start: u64) -> Result<Entries> {
        let geometry = self.sparse.geometry();
        let at = directory.saturating_add(start * geometry.entry_len());
        let count = DIRECTORY_STEP.min(geometry.tables() - start);
        Entries::read(self.store, at, count, geometry.entry_len())
    }

    /// The table that an entry of a directory names.
    fn table_of(&self, entries: &Entries, index: usize) -> Result<Option<HostOffset>> {
        self.sparse.table_at(entries.get(index), entries.place(index))
    }
}

fn overlap(at: HostOffset) -> String {
    format!("metadata at {at} lies on other metadata, or on a grain")
}

/// A finding of a piece of metadata at `at` that shares a sector with another one, or with a grain.
pub(super) fn overlapping(at: HostOffset) -> Finding {
    Finding::new(Severity::Corruption, "metadata-overlap", at, overlap(at))
}
