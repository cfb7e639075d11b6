//! Directories, tables and their second copies.

use anydisk_core::{Finding, HostOffset, Result, Severity};

use super::super::table::Entries;
use super::super::{guest, sector};
use super::{SparseCheck, Tables, Walk};
use crate::layout::SECTOR;

/// Entries of the directory that are looked at together.
const DIRECTORY_STEP: u64 = 512;

impl SparseCheck<'_> {
    /// Looks for the tables of a window that lie on other metadata. In the first walk also at all
    /// entries of the directories.
    pub(super) fn find_tables(&mut self, walk: &mut Walk<'_, '_, '_>) -> Result<()> {
        for (at, len) in self.pieces() {
            self.mark(walk, at, len);
        }
        self.each_table(walk, |this, walk, tables| {
            let len = this.sparse.geometry().table_len();
            let number = usize::try_from(tables.number).expect("limited by the header");
            if let Some(met) = this.mark(walk, tables.first, len) {
                this.on_others[number].first = true;
                this.keeps_leaks = true;
                walk.teller.tell(overlap(tables.first, met));
            }
            if let Some((second, met)) =
                tables.second.and_then(|at| Some((at, this.mark(walk, at, len)?)))
            {
                this.on_others[number].second = true;
                this.keeps_leaks = true;
                walk.teller.tell(overlap(second, met));
            }
            Ok(())
        })
    }

    /// Looks at all grains.
    pub(super) fn walk(&mut self, walk: &mut Walk<'_, '_, '_>) -> Result<()> {
        for (at, len) in self.pieces() {
            self.mark(walk, at, len);
        }
        let len = self.sparse.geometry().table_len();
        let judged = std::mem::replace(&mut walk.first, false);
        self.each_table(walk, |this, walk, tables| {
            for at in [Some(tables.first), tables.second].into_iter().flatten() {
                this.mark(walk, at, len);
            }
            Ok(())
        })?;
        self.each_table(walk, |this, walk, tables| {
            walk.first = judged;
            this.check_table(walk, tables)?;
            walk.first = false;
            walk.progress.step(len)
        })
    }

    /// Calls `look` for each table that is in the file.
    fn each_table(
        &mut self,
        walk: &mut Walk<'_, '_, '_>,
        mut look: impl FnMut(&mut Self, &mut Walk<'_, '_, '_>, Tables) -> Result<()>,
    ) -> Result<()> {
        let geometry = self.sparse.geometry();
        let tables = geometry.tables();
        let mut start = 0;
        while start < tables {
            let count = DIRECTORY_STEP.min(tables - start);
            let read = |directory: HostOffset| {
                let at = directory.saturating_add(start * geometry.entry_len());
                Entries::read(self.store, at, count, geometry.entry_len())
            };
            let mut first = read(self.sparse.directory())?;
            let mut second = self.second.map(read).transpose()?;
            for index in 0..first.len() {
                let found = self.tables(walk, start, index, &mut first, second.as_mut())?;
                if let Some(tables) = found {
                    look(self, walk, tables)?;
                }
            }
            self.write_directory(&mut first, second.as_mut())?;
            start += count;
        }
        Ok(())
    }

    /// Changed entries of the directories, behind the tables they name.
    fn write_directory(&self, first: &mut Entries, second: Option<&mut Entries>) -> Result<()> {
        let mut changed = first.write_back(self.store)?;
        if let Some(second) = second {
            changed |= second.write_back(self.store)?;
        }
        if changed {
            self.store.flush()?;
        }
        Ok(())
    }

    /// Where table number `start + index` is.
    fn tables(
        &mut self,
        walk: &mut Walk<'_, '_, '_>,
        start: u64,
        index: usize,
        first: &mut Entries,
        second: Option<&mut Entries>,
    ) -> Result<Option<Tables>> {
        let number = start + index as u64;
        let valid =
            |entries: &Entries| self.sparse.table_at(entries.get(index), entries.place(index));
        let copy = second.as_deref().and_then(|second| valid(second).ok().flatten());
        match valid(first) {
            Ok(None) => Ok(None),
            Ok(Some(at)) => Ok(Some(Tables { number, first: at, second: copy })),
            // Told in the first walk; there is nothing to be marked.
            Err(_) if !walk.first => Ok(copy.map(|first| Tables { number, first, second: None })),
            Err(error) => {
                let coverage = self.sparse.geometry().coverage();
                let cost = guest(self.part, number.saturating_mul(coverage), coverage);
                let (kind, at) = ("directory-entry", first.place(index));
                let mut finding = Finding::new(Severity::Corruption, kind, at, error.to_string());
                finding = match copy {
                    Some(_) => finding.mended_by("a copy of the second table"),
                    None => finding.costing(cost).mended_by("there is no table any more"),
                };
                let mut answer = copy.map(|first| Tables { number, first, second: None });
                if self.mends() && copy.is_none_or(|_| self.sparse.has_sector_entries()) {
                    let made = copy.map(|copy| self.copy_table(copy)).transpose()?;
                    first.set(index, made.map_or(0, sector));
                    if let (None, Some(second)) = (made, second) {
                        second.set(index, 0);
                    }
                    answer = made.map(|first| Tables { number, first, second: copy });
                    finding.repaired = true;
                } else {
                    self.keeps_leaks = true;
                }
                walk.teller.tell(finding);
                Ok(answer)
            }
        }
    }

    /// Appends a copy of a table, which is on the medium before anything names it.
    fn copy_table(&mut self, from: HostOffset) -> Result<HostOffset> {
        let geometry = self.sparse.geometry();
        let count = u64::from(geometry.entries());
        let table = Entries::read(self.store, from, count, geometry.entry_len())?;
        let at = HostOffset(self.end.next_multiple_of(SECTOR));
        self.store.write_at(at, &table.bytes())?;
        self.store.flush()?;
        self.end = at.saturating_add(geometry.table_len()).get();
        self.sparse.grow_to(HostOffset(self.end));
        Ok(at)
    }

    fn check_table(&mut self, walk: &mut Walk<'_, '_, '_>, tables: Tables) -> Result<()> {
        let geometry = self.sparse.geometry();
        let number = usize::try_from(tables.number).expect("limited by the header");
        let on_others = self.on_others[number];
        if on_others.first {
            return Ok(()); // What it names is looked at elsewhere, or it is no table.
        }
        let count = u64::from(geometry.entries());
        let read = |at| Entries::read(self.store, at, count, geometry.entry_len());
        let mut first = read(tables.first)?;
        let second = tables.second.filter(|_| walk.first && !on_others.second);
        let mut second = second.map(read).transpose()?;
        if first.is_empty() && second.as_ref().is_none_or(Entries::is_empty) {
            return Ok(());
        }
        let mut findings = Vec::new();
        for index in 0..first.len() {
            let entry = (tables.number, index);
            self.check_entry(walk, entry, &mut first, second.as_ref(), &mut findings)?;
        }
        if let Some(second) = &mut second {
            self.check_copy(&tables, &first, second, &mut findings);
        }
        // Copies of grains are in the file; now the entries that name them.
        let mut changed =
            second.as_mut().map_or(Ok(false), |second| second.write_back(self.store))?;
        changed |= first.write_back(self.store)?;
        if changed {
            self.store.flush()?;
        }
        findings.into_iter().for_each(|finding| walk.teller.tell(finding));
        Ok(())
    }

    /// The second copy of a table must say what the first says.
    fn check_copy(
        &mut self,
        tables: &Tables,
        first: &Entries,
        second: &mut Entries,
        findings: &mut Vec<Finding>,
    ) {
        let differ = (0..first.len()).filter(|index| first.get(*index) != second.get(*index));
        let (count, at) = (differ.count(), second.place(0));
        if count == 0 {
            return;
        }
        let text =
            format!("{count} entries differ from those of the first table at {}", tables.first);
        let finding = Finding::new(Severity::Note, "copies-differ", at, text);
        let mut finding = finding.mended_by("the first is copied over the second");
        if self.mends() {
            second.copy_from(first);
            finding.repaired = true;
        } else {
            self.keeps_leaks = true;
        }
        findings.push(finding);
    }
}

/// A piece of metadata at `at` shares the sector `met` with another one.
pub(super) fn overlap(at: HostOffset, met: u64) -> Finding {
    let text = format!("metadata at {at} lies on other metadata");
    let met = HostOffset(met * SECTOR);
    Finding::new(Severity::Corruption, "metadata-overlap", met, text)
}
