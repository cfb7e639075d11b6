//! The tables and their second copies.

use anydisk_core::{Finding, Result, Severity};

use super::super::table::Entries;
use super::{SparseCheck, Tables, Walk};

/// A table as it is looked at, and its second copy where the two may differ.
pub(super) struct Pair {
    pub(super) number: u64,
    pub(super) first: Entries,
    pub(super) second: Option<Entries>,
}

impl SparseCheck<'_> {
    /// Looks at all grains of a window: first those of entries that stand by themselves, then those
    /// that only a second table names, where nobody else has the place.
    pub(super) fn walk(&mut self, walk: &mut Walk<'_, '_, '_>) -> Result<()> {
        for (at, len) in self.pieces() {
            self.mark(walk, at, len);
        }
        let len = self.sparse.geometry().table_len();
        self.each_table(|this, tables| {
            for at in [tables.first, tables.second].into_iter().flatten() {
                this.mark(walk, at, len);
            }
            Ok(())
        })?;
        self.each_table(|this, tables| {
            this.check_table(walk, tables)?;
            walk.progress.step(len)
        })?;
        if std::mem::take(&mut self.has_others) {
            walk.of_others = true;
            self.each_table(|this, tables| {
                let number = usize::try_from(tables.number).expect("limited by the header");
                match std::mem::take(&mut this.states[number].has_others) {
                    true => this.check_table(walk, tables),
                    false => Ok(()),
                }
            })?;
        }
        Ok(())
    }

    fn check_table(&mut self, walk: &mut Walk<'_, '_, '_>, tables: Tables) -> Result<()> {
        let Some(at) = tables.first.or(tables.second) else { return Ok(()) };
        let copy = tables.second.filter(|second| self.differ && *second != at);
        let mut pair = Pair {
            number: tables.number,
            first: self.table_at(at)?,
            second: copy.map(|at| self.table_at(at)).transpose()?,
        };
        if pair.first.is_empty() && pair.second.as_ref().is_none_or(Entries::is_empty) {
            return Ok(());
        }
        let mut findings = Vec::new();
        for index in 0..pair.first.len() {
            self.check_entry(walk, index, &mut pair, &mut findings)?;
        }
        let number = usize::try_from(tables.number).expect("limited by the header");
        if walk.first && !self.states[number].has_others {
            self.check_copy(&mut pair, &mut findings);
        }
        self.write_back(tables, pair)?;
        findings.into_iter().for_each(|finding| walk.teller.tell(finding));
        Ok(())
    }

    /// Writes what was changed, the second table first. Copies of grains are on the medium.
    fn write_back(&self, tables: Tables, pair: Pair) -> Result<()> {
        let Pair { mut first, mut second, .. } = pair;
        if first.is_changed() && second.is_none() && tables.first.is_some() {
            second = tables.second.map(|at| self.table_at(at)).transpose()?;
            second.iter_mut().for_each(|second| second.copy_from(&first));
        }
        let mut changed =
            second.as_mut().map_or(Ok(false), |second| second.write_back(self.store))?;
        changed |= first.write_back(self.store)?;
        if changed {
            self.store.flush()?;
        }
        Ok(())
    }

    /// The second copy of a table must say what the first says.
    fn check_copy(&mut self, pair: &mut Pair, findings: &mut Vec<Finding>) {
        let Pair { first, second: Some(second), .. } = pair else { return };
        let differ = (0..first.len()).filter(|index| first.get(*index) != second.get(*index));
        let (count, at) = (differ.count(), second.place(0));
        if count == 0 {
            return;
        }
        self.keeps_leaks = true;
        let text =
            format!("{count} entries differ from those of the first table at {}", first.place(0));
        let finding = Finding::new(Severity::Note, "copies-differ", at, text);
        let mut finding = finding.mended_by("the first is copied over the second");
        if self.mends() {
            second.copy_from(first);
            finding.repaired = true;
        }
        findings.push(finding);
    }
}
