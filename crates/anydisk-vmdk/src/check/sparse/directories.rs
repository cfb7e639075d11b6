//! The entries of the directories, and the places of the tables.

use anydisk_core::{Finding, HostOffset, Result, Severity};

use super::super::table::Entries;
use super::super::{Teller, guest, sector};
use super::{SparseCheck, Tables, Walk};
use crate::extent::Packed;
use crate::layout::SECTOR;
use crate::table::{Grain, sector_at};

/// What an entry of a directory comes to.
enum Named {
    Nothing,
    /// A table in its place.
    At(HostOffset),
    /// A table that is not in the file.
    Outside(String),
    /// A table that lies on other metadata.
    OnOthers(String),
}

impl Named {
    /// What is wrong with it; `nothing` if it names no table.
    fn fault(self, nothing: String) -> String {
        match self {
            Self::Outside(text) | Self::OnOthers(text) => text,
            Self::Nothing | Self::At(_) => nothing,
        }
    }

    fn is_on_others(&self) -> bool {
        matches!(self, Self::OnOthers(_))
    }
}

impl SparseCheck<'_> {
    /// Looks for the tables of a window that lie on other metadata.
    pub(super) fn find_tables(&mut self, walk: &mut Walk<'_, '_, '_>) -> Result<()> {
        for (at, len) in self.pieces() {
            self.mark(walk, at, len);
        }
        let len = self.sparse.geometry().table_len();
        self.each_table(|this, tables| {
            let number = usize::try_from(tables.number).expect("limited by the header");
            if let Some(at) = tables.first
                && this.mark(walk, at, len).is_some()
            {
                this.states[number].first_on_others = true;
            }
            if let Some(at) = tables.second
                && this.mark(walk, at, len).is_some()
            {
                this.states[number].second_on_others = true;
            }
            Ok(())
        })
    }

    /// Calls `look` for each table that is in the file, or whose second copy is, as far as they are
    /// known to lie on nothing else.
    pub(super) fn each_table(
        &mut self,
        mut look: impl FnMut(&mut Self, Tables) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        while start < self.sparse.geometry().tables() {
            let first = self.directory_part(self.sparse.directory(), start)?;
            let second = self.second.map(|at| self.directory_part(at, start)).transpose()?;
            for index in 0..first.len() {
                let number = start + index as u64;
                let state = self.states[usize::try_from(number).expect("limited by the header")];
                let valid = |entries: &Entries| match entries.get(index) {
                    0 => None,
                    entry => self.sparse.table_inside(entry),
                };
                let first = valid(&first).filter(|_| !state.first_on_others);
                let second = second.as_ref().and_then(valid).filter(|_| !state.second_on_others);
                if first.is_some() || second.is_some() {
                    look(self, Tables { number, first, second })?;
                }
            }
            start += first.len() as u64;
        }
        Ok(())
    }

    /// Looks at all entries of the directories, and mends what can be.
    pub(super) fn check_directories(&mut self, teller: &mut Teller<'_>) -> Result<()> {
        let mut start = 0;
        while start < self.sparse.geometry().tables() {
            let mut first = self.directory_part(self.sparse.directory(), start)?;
            let mut second = self.second.map(|at| self.directory_part(at, start)).transpose()?;
            for index in 0..first.len() {
                self.check_directory_entry(start, index, &mut first, second.as_mut(), teller)?;
            }
            // The tables that they name are on the medium.
            let mut changed = first.write_back(self.store)?;
            if let Some(second) = &mut second {
                changed |= second.write_back(self.store)?;
            }
            if changed {
                self.store.flush()?;
            }
            start += first.len() as u64;
        }
        Ok(())
    }

    fn named(&self, entries: &Entries, index: usize, is_on_others: bool) -> Named {
        match self.table_of(entries, index) {
            Ok(None) => Named::Nothing,
            Ok(Some(at)) if is_on_others => Named::OnOthers(overlap(at)),
            Ok(Some(at)) => Named::At(at),
            Err(error) => Named::Outside(error.to_string()),
        }
    }

    fn check_directory_entry(
        &mut self,
        start: u64,
        index: usize,
        first: &mut Entries,
        second: Option<&mut Entries>,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        if first.get(index) == 0 && second.as_ref().is_none_or(|second| second.get(index) == 0) {
            return Ok(());
        }
        let number = start + index as u64;
        let at_state = usize::try_from(number).expect("limited by the header");
        let state = self.states[at_state];
        let one = self.named(first, index, state.first_on_others);
        let other = second.as_ref().map(|it| self.named(it, index, state.second_on_others));
        let finding = match (one, other, second) {
            (Named::Nothing, None | Some(Named::Nothing), _)
            | (Named::At(_), None | Some(Named::At(_)), _) => return Ok(()),
            (Named::At(table), Some(fault), Some(second)) => {
                self.renew_second(at_state, (table, fault), (second, index))?
            }
            (fault, Some(Named::At(table)), _) => {
                self.renew_first(at_state, (table, fault), (first, index))?
            }
            (Named::OnOthers(text), ..) | (_, Some(Named::OnOthers(text)), _) => {
                Finding::new(Severity::Corruption, "metadata-overlap", first.place(index), text)
            }
            (Named::Nothing, Some(fault), Some(second)) => self.drop_second(fault, second, index),
            (fault, _, second) => self.drop_both(number, fault, (first, second), index),
        };
        self.keeps_leaks = true;
        teller.tell(finding);
        Ok(())
    }

    /// The first table is in its place, the second is not: it gets a copy.
    fn renew_second(
        &mut self,
        at_state: usize,
        (table, fault): (HostOffset, Named),
        (second, index): (&mut Entries, usize),
    ) -> Result<Finding> {
        let severity = if fault.is_on_others() { Severity::Corruption } else { Severity::Note };
        let text = fault.fault(format!("no table, where the first one is at {table}"));
        let text = format!("of the second directory: {text}");
        let finding = Finding::new(severity, "directory-copy", second.place(index), text);
        let mut finding = finding.mended_by("a copy of the first table");
        finding.repaired = self.copy_table(table, second, index)?;
        self.states[at_state].second_on_others &= !finding.repaired;
        Ok(finding)
    }

    /// The second table is in its place, the first is not: it gets a copy.
    fn renew_first(
        &mut self,
        at_state: usize,
        (table, fault): (HostOffset, Named),
        (first, index): (&mut Entries, usize),
    ) -> Result<Finding> {
        let text = fault.fault(format!("the entry is 0, and the second directory's is {table}"));
        let at = first.place(index);
        let finding = Finding::new(Severity::Corruption, "directory-entry", at, text);
        let mut finding = finding.mended_by("a copy of the second table");
        finding.repaired = self.copy_table(table, first, index)?;
        self.states[at_state].first_on_others &= !finding.repaired;
        Ok(finding)
    }

    /// The first directory names no table, the second one that is not there.
    fn drop_second(&self, fault: Named, second: &mut Entries, index: usize) -> Finding {
        if self.mends() {
            second.set(index, 0);
        }
        let (at, text) = (second.place(index), fault.fault(String::new()));
        let finding = Finding::new(Severity::Note, "directory-copy", at, text);
        let mut finding = finding.mended_by("the entry of the first directory");
        finding.repaired = self.mends();
        finding
    }

    /// Neither directory names a table that is there.
    fn drop_both(
        &self,
        number: u64,
        fault: Named,
        (first, second): (&mut Entries, Option<&mut Entries>),
        index: usize,
    ) -> Finding {
        let coverage = self.sparse.geometry().coverage();
        let cost = guest(self.part, number.saturating_mul(coverage), coverage);
        let (at, text) = (first.place(index), fault.fault(String::new()));
        let finding = Finding::new(Severity::Corruption, "directory-entry", at, text);
        let mut finding = finding.costing(cost).mended_by("there is no table any more");
        finding.repaired = self.mends();
        if finding.repaired {
            first.set(index, 0);
            second.into_iter().for_each(|second| second.set(index, 0));
        }
        finding
    }

    /// Appends a copy of a table and names it in a directory: whether that is to be and can be done.
    /// The copy is on the medium before anything names it.
    fn copy_table(
        &mut self,
        from: HostOffset,
        directory: &mut Entries,
        index: usize,
    ) -> Result<bool> {
        if !self.mends() || !self.sparse.has_sector_entries() || !self.ends_well()? {
            return Ok(false);
        }
        let table = self.table_at(from)?;
        let at = HostOffset(self.end.next_multiple_of(SECTOR));
        self.store.write_at(at, &table.bytes())?;
        self.store.flush()?;
        self.end = at.saturating_add(self.sparse.geometry().table_len()).get();
        self.sparse.grow_to(HostOffset(self.end));
        directory.set(index, sector(at));
        Ok(true)
    }

    /// Whether all grains that are named end in the file. Else what is appended could be taken for a grain:
    /// those entries are mended first, and the rest by another run.
    pub(super) fn ends_well(&mut self) -> Result<bool> {
        if let Some(known) = self.ends_well {
            return Ok(known);
        }
        let (end, packed) = (self.file_end, self.sparse.packed != Packed::No);
        let mut ends_well = true;
        self.each_table(|this, tables| {
            for at in [tables.first, tables.second].into_iter().flatten() {
                let table = this.table_at(at)?;
                ends_well &= (0..table.len()).all(|index| {
                    let Grain::Sector(first) = this.sparse.decode(table.get(index)) else {
                        return true;
                    };
                    let from_start = this.bytes_before(tables.number, index);
                    let len = if packed { SECTOR } else { this.sparse.grain_len(from_start) };
                    sector_at(first).saturating_add(len) <= end
                });
            }
            Ok(())
        })?;
        self.ends_well = Some(ends_well);
        Ok(ends_well)
    }
}

fn overlap(at: HostOffset) -> String {
    format!("metadata at {at} lies on other metadata")
}

/// A finding of a piece of metadata at `at` that shares a sector with another one.
pub(super) fn overlapping(at: HostOffset) -> Finding {
    Finding::new(Severity::Corruption, "metadata-overlap", at, overlap(at))
}
