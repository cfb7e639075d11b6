//! The tables and their second copies.

use anydisk_core::{Finding, HostOffset, Result, Severity};

use super::super::table::Entries;
use super::{SparseCheck, Tables, Walk};

/// A table as it is looked at, and its second copy where the two may differ.
pub(super) struct Pair {
    pub(super) number: u64,
    pub(super) first: Entries,
    pub(super) second: Option<Entries>,
    /// Entries of both may be changed.
    pub(super) is_proven: bool,
    /// And emptied.
    pub(super) is_front: bool,
    /// There is an entry of which nobody knows whether the first or the second is right.
    pub(super) in_doubt: bool,
}

impl SparseCheck<'_> {
    /// Looks at all grains of a window.
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
        })
    }

    fn check_table(&mut self, walk: &mut Walk<'_, '_, '_>, tables: Tables) -> Result<()> {
        let Some(at) = tables.first.or(tables.second) else { return Ok(()) };
        let copy = tables.second.filter(|second| self.facts.differ && *second != at);
        let mut pair = Pair {
            number: tables.number,
            first: self.table_at(at)?,
            second: copy.map(|at| self.table_at(at)).transpose()?,
            is_proven: tables.is_proven,
            is_front: tables.is_front,
            in_doubt: false,
        };
        if pair.first.is_empty() && pair.second.as_ref().is_none_or(Entries::is_empty) {
            return Ok(());
        }
        let mut findings = Vec::new();
        for index in 0..pair.first.len() {
            self.check_entry(walk, index, &mut pair, &mut findings)?;
        }
        if walk.first {
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
        let mut finding = Finding::new(Severity::Note, "copies-differ", at, text);
        if pair.is_proven && !pair.in_doubt {
            finding = finding.mended_by("the first is copied over the second");
            if self.mends() {
                second.copy_from(first);
                finding.repaired = true;
            }
        }
        findings.push(finding);
    }

    /// The table at a place.
    pub(super) fn table_at(&self, at: HostOffset) -> Result<Entries> {
        let geometry = self.sparse.geometry();
        Entries::read(self.store, at, geometry.entries().into(), geometry.entry_len())
    }

    /// Bytes of the extent before the grain of an entry of table `number`.
    pub(super) fn bytes_before(&self, number: u64, index: usize) -> u64 {
        let geometry = self.sparse.geometry();
        number.saturating_mul(geometry.coverage()).saturating_add(index as u64 * geometry.grain())
    }
}
