//! What the entries of tables name.

use anydisk_core::{Error, Finding, GuestRange, HostOffset, Result, Severity, StorageExt};

use super::super::table::Entries;
use super::super::{guest, sector};
use super::{SparseCheck, Walk};
use crate::check::unpack;
use crate::extent::Packed;
use crate::image::marker;
use crate::layout::SECTOR;
use crate::limits;
use crate::table::Grain;

/// Bytes of a grain that are copied at once.
const COPY: u64 = 1 << 20;

impl SparseCheck<'_> {
    pub(super) fn check_entry(
        &mut self,
        walk: &mut Walk<'_, '_, '_>,
        (number, index): (u64, usize),
        first: &mut Entries,
        second: Option<&Entries>,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let geometry = self.sparse.geometry();
        if first.get(index) == 0 {
            return Ok(());
        }
        let from_start = number
            .saturating_mul(geometry.coverage())
            .saturating_add(index as u64 * geometry.grain());
        if from_start >= geometry.capacity() {
            self.check_behind_end(walk, first, index, findings);
            return Ok(());
        }
        let cost = guest(self.part, from_start, geometry.grain());
        let place = match self.judge(first.get(index), first.place(index)) {
            Ok(place) => place,
            Err(_) if !walk.first => return Ok(()),
            Err(error) => {
                let copy = second.map(|second| second.get(index));
                self.mend_entry(first, index, (copy, cost), &error, findings)
            }
        };
        let Some(place) = place else { return Ok(()) };
        if walk.first {
            *walk.teller.report.allocated_clusters.get_or_insert(0) += 1;
        }
        if self.sparse.packed != Packed::No {
            return self.check_packed(walk, place, from_start, cost, findings);
        }
        let Some(met) = self.mark(walk, place, geometry.grain()) else { return Ok(()) };
        let mut finding = self.used_twice(place, met, first.place(index)).costing(cost);
        if self.mends()
            && let Some(copy) = self.copy_grain(place)?
        {
            first.set(index, sector(copy));
            finding.repaired = true;
        } else {
            self.keeps_leaks = true;
        }
        findings.push(finding);
        Ok(())
    }

    /// Where the grain is that the entry at `at` names, if it names one.
    ///
    /// # Errors
    /// What is wrong with the entry.
    fn judge(&self, entry: u64, at: HostOffset) -> Result<Option<HostOffset>> {
        match self.sparse.decode(entry) {
            Grain::Sector(sector) => self.sparse.grain_at(sector, 1, at).map(Some),
            Grain::Broken(entry) => Err(self.sparse.broken(at, entry)),
            Grain::Absent | Grain::Zero => Ok(None),
        }
    }

    /// Tells of an entry that names no grain there can be. Where the grain is after all, by the
    /// second table's entry `copy`.
    fn mend_entry(
        &mut self,
        first: &mut Entries,
        index: usize,
        (copy, cost): (Option<u64>, GuestRange),
        error: &Error,
        findings: &mut Vec<Finding>,
    ) -> Option<HostOffset> {
        let at = first.place(index);
        let known = |copy: u64| Some((copy, self.judge(copy, at).ok().flatten()?));
        let copy = copy.and_then(known);
        let finding = Finding::new(Severity::Corruption, "table-entry", at, error.to_string());
        let mut finding = match copy {
            Some(_) => finding.mended_by("the entry of the second table"),
            None => finding.costing(cost).mended_by("there is no grain any more"),
        };
        if self.mends() {
            first.set(index, copy.map_or(0, |(entry, _)| entry));
            finding.repaired = true;
        } else {
            self.keeps_leaks = true;
        }
        findings.push(finding);
        copy.map(|(_, place)| place)
    }

    fn check_behind_end(
        &self,
        walk: &Walk<'_, '_, '_>,
        first: &mut Entries,
        index: usize,
        findings: &mut Vec<Finding>,
    ) {
        if !walk.first {
            return;
        }
        let text = format!("the entry {:#x} is for a grain behind the end", first.get(index));
        let finding = Finding::new(Severity::Note, "entry-behind-end", first.place(index), text);
        let mut finding = finding.mended_by("it is cleared");
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

    /// Appends a copy of a grain, flushed; `None` where sector numbers do not reach.
    fn copy_grain(&mut self, from: HostOffset) -> Result<Option<HostOffset>> {
        let grain = self.sparse.geometry().grain();
        let to = HostOffset(self.end.next_multiple_of(grain));
        let end = to.saturating_add(grain);
        if !self.sparse.has_sector_entries() || end.get() > limits::FILE {
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
