//! Space that nothing names.

use std::ops::Range;

use anydisk_core::{Finding, HostOffset, Repair, Result, Severity, StorageExt};

use super::super::occupied::Occupied;
use super::super::{Teller, sector};
use super::SparseCheck;
use crate::extent::Packed;
use crate::layout::SECTOR;

/// What file systems make holes of.
const BLOCK: u64 = 4096;

impl SparseCheck<'_> {
    /// Space that nothing names. Holes of the file are none.
    pub(super) fn check_leaks(
        &mut self,
        occupied: &Occupied,
        last: bool,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        if self.sparse.packed != Packed::No || !self.sparse.has_sector_entries() {
            return Ok(());
        }
        let grain = self.sparse.grain_sectors();
        let end = self.sparse.end().get().div_ceil(SECTOR);
        for run in occupied.free_runs(sector(self.sparse.overhead)) {
            let stored = self.stored(&run)?;
            if run.end - run.start < grain || stored == 0 {
                continue;
            }
            let units = stored.div_ceil(self.sparse.geometry().grain());
            let at = HostOffset(run.start * SECTOR);
            let text = format!("{units} grains from here on are named by no table");
            let bytes = (run.end - run.start) * SECTOR;
            let why = match self.keeps_leaks {
                // What is damaged may have named them, so nobody knows that they are without use.
                true => " that is whole",
                // Tables that were wiped on both sides look as those of a disk that was never written.
                false if !self.store.is_zero_at(at, bytes)? => ", and hold data: they are kept",
                false => {
                    self.tell_leak(&run, last && run.end == end, units, text, teller)?;
                    continue;
                }
            };
            teller.tell(Finding::new(Severity::Note, "unnamed", at, text + why));
        }
        Ok(())
    }

    /// Tells of space without name and data, and gives it back. `is_last`: the tables name nothing
    /// behind it.
    fn tell_leak(
        &mut self,
        run: &Range<u64>,
        is_last: bool,
        units: u64,
        text: String,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        let cut = is_last && self.end.div_ceil(SECTOR) == run.end;
        let remedy = if cut { "the file is cut" } else { "a hole is punched" };
        let at = HostOffset(run.start * SECTOR);
        let mut finding = Finding::new(Severity::Leak, "leak", at, text).mended_by(remedy);
        if self.request.repair >= Repair::Leaks {
            finding.repaired = self.give_back(run, cut)?;
        }
        let report = &mut teller.report;
        let sum = if finding.repaired { &mut report.leaks_fixed } else { &mut report.leaks };
        *sum += units - 1;
        teller.tell(finding);
        Ok(())
    }

    /// Bytes of a run that are no holes, and could be.
    fn stored(&self, run: &Range<u64>) -> Result<u64> {
        let end = (run.end * SECTOR).min(self.end);
        let len = end.saturating_sub(run.start * SECTOR);
        let Some(holes) = self.store.holes() else { return Ok(len) };
        // Of grains smaller than that the first and last ones lie beside others in one block.
        let small = self.sparse.geometry().grain() < BLOCK;
        let start =
            if small { (run.start * SECTOR).next_multiple_of(BLOCK) } else { run.start * SECTOR };
        let end = if small && end < self.end { end / BLOCK * BLOCK } else { end };
        let (mut at, mut stored) = (start, 0);
        while at < end {
            let found = holes.run_at(HostOffset(at), end - at)?;
            stored += if found.hole { 0 } else { found.len };
            at += found.len.max(1);
        }
        Ok(stored)
    }

    /// Gives a run back to the file system. Says whether that could be done.
    fn give_back(&mut self, run: &Range<u64>, cut: bool) -> Result<bool> {
        let at = HostOffset(run.start * SECTOR);
        if cut {
            self.store.set_len(at.get())?;
            self.end = at.get();
            return Ok(true);
        }
        let len = (run.end - run.start) * SECTOR;
        let Some(space) = self.store.space() else { return Ok(false) };
        match space.zero(at, len, true) {
            Ok(()) => Ok(self.stored(run)? == 0),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
