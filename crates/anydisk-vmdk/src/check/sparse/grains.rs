//! What the entries of tables name.

use anydisk_core::{Finding, GuestRange, HostOffset, Result, Severity, StorageExt};

use super::super::{guest, sector};
use super::tables::Pair;
use super::{SparseCheck, Walk};
use crate::check::unpack;
use crate::extent::Packed;
use crate::image::marker;
use crate::layout::SECTOR;
use crate::table::Grain;

/// Bytes of a grain that are copied at once.
const COPY: u64 = 1 << 20;

/// What an entry of a table leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// No grain here, or one of zeroes.
    Nothing,
    /// A place that no grain can have.
    Nowhere,
    /// A place where one can be.
    At(HostOffset),
}

/// Which of an entry and its second copy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The first.
    First,
    /// The second, which is this.
    Second(u64),
    /// Neither can be right.
    Neither,
    /// Nobody knows.
    Doubt,
}

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
            self.check_behind_end(walk, pair, index, findings);
            return Ok(());
        }
        let at = pair.first.place(index);
        let cost = guest(self.part, from_start, self.sparse.geometry().grain());
        let place = match self.verdict(entry, copy, from_start)? {
            Verdict::First => self.judge(entry, at).ok().flatten(),
            Verdict::Second(copy) => self.take_copy(walk, pair, index, copy, findings),
            Verdict::Neither => {
                self.drop_entry(walk, pair, index, cost, findings);
                None
            }
            Verdict::Doubt => {
                self.leave_in_doubt(walk, pair, index, cost, findings);
                None
            }
        };
        let Some(place) = place else { return Ok(()) };
        if walk.first {
            *walk.teller.report.allocated_clusters.get_or_insert(0) += 1;
        }
        if self.sparse.packed != Packed::No {
            return self.check_packed(walk, place, from_start, cost, findings);
        }
        self.check_cut(walk, place, (at, from_start), findings)?;
        let grain = self.sparse.geometry().grain();
        let Some(met) = self.mark(walk, place, grain) else { return Ok(()) };
        self.keeps_leaks = true;
        let mut finding = used_twice(place, met, at).costing(cost);
        // Of what lies on a table, nobody knows whether it is a grain at all.
        if pair.is_proven && self.can_append() && !self.is_on_metadata(place) {
            finding = finding.mended_by("a copy of the grain");
            if self.mends()
                && let Some(copy) = self.copy_grain(place)?
            {
                pair.first.set(index, sector(copy));
                finding.repaired = true;
            }
        }
        findings.push(finding);
        Ok(())
    }

    /// Which entry counts: that of the first table wherever it can, as readers see it. One that names a
    /// grain is only given up where another entry has its place beyond doubt.
    fn verdict(&self, entry: u64, copy: Option<u64>, from_start: u64) -> Result<Verdict> {
        let site = self.site(entry);
        let Some(copy) = copy.filter(|copy| *copy != entry) else {
            return Ok(if site == Site::Nowhere { Verdict::Neither } else { Verdict::First });
        };
        let second = Verdict::Second(copy);
        let unless = |is_right: bool| if is_right { second } else { Verdict::Doubt };
        Ok(match (site, self.site(copy)) {
            (Site::Nowhere, Site::Nowhere) => Verdict::Neither,
            (Site::Nowhere, Site::Nothing) => second,
            (Site::Nowhere, Site::At(other)) if self.sparse.packed == Packed::No => {
                unless(self.facts.can_be_taken(other) && !self.is_on_metadata(other))
            }
            (Site::Nowhere, Site::At(other)) => match self.is_marked(other, from_start)? {
                true => second,
                false => Verdict::Neither,
            },
            (Site::Nothing, Site::At(other)) if self.sparse.decode(entry) == Grain::Absent => {
                match self.sparse.packed {
                    _ if self.facts.is_named(other) => Verdict::First,
                    Packed::No => {
                        unless(self.facts.can_be_taken(other) && !self.is_on_metadata(other))
                    }
                    _ if self.is_marked(other, from_start)? => second,
                    _ if self.has_below => Verdict::Doubt,
                    _ => Verdict::First,
                }
            }
            (Site::At(one), Site::Nothing) if self.sparse.packed == Packed::No => {
                if self.is_others(one) && !self.has_below { second } else { Verdict::First }
            }
            (Site::Nothing, _) | (Site::At(_), Site::Nothing | Site::Nowhere) => Verdict::First,
            (Site::At(one), Site::At(other)) => {
                let is_second = match self.sparse.packed {
                    Packed::No => {
                        let len = self.sparse.geometry().grain();
                        let is_askew = self.facts.is_aligned(one) == Some(false)
                            && self.facts.is_aligned(other) == Some(true);
                        (self.is_others(one) || is_askew)
                            && self.facts.is_sole_beside(other, one)
                            && !self.is_on_metadata(other)
                            && other.saturating_add(len) <= self.file_end
                    }
                    _ => !self.is_marked(one, from_start)? && self.is_marked(other, from_start)?,
                };
                if is_second { second } else { Verdict::First }
            }
        })
    }

    /// Where an entry leads to.
    pub(super) fn site(&self, entry: u64) -> Site {
        match self.sparse.decode(entry) {
            Grain::Absent | Grain::Zero => Site::Nothing,
            Grain::Broken(_) => Site::Nowhere,
            Grain::Sector(sector) => {
                let place = self.sparse.grain_place(sector, 1).filter(|at| self.was_there(*at));
                place.map_or(Site::Nowhere, Site::At)
            }
        }
    }

    /// Whether a place, which one set names, is somebody else's beyond doubt.
    fn is_others(&self, place: HostOffset) -> bool {
        let len = self.sparse.geometry().grain();
        self.facts.is_agreed(place)
            || self.is_on_piece(place, len)
            || self.facts.on_tables(place, len) == Some(true)
    }

    fn is_on_metadata(&self, place: HostOffset) -> bool {
        let grain = self.sparse.geometry().grain();
        self.facts.on_tables(place, grain).is_some() || self.is_on_piece(place, grain)
    }

    /// Whether `len` bytes at a place share one with metadata that is no table.
    fn is_on_piece(&self, place: HostOffset, len: u64) -> bool {
        let end = place.saturating_add(len);
        self.pieces().into_iter().any(|(at, len)| at < end && place < at.saturating_add(len))
    }

    /// Packed bytes at a place, if what stands before them says that they are the grain meant.
    pub(super) fn marked_len(&self, place: HostOffset, from_start: u64) -> Result<Option<usize>> {
        let head = usize::try_from(self.sparse.packed.head()).expect("4 or 12");
        let mut bytes = [0; 12];
        self.store.read_padded_at(place, &mut bytes[..head])?;
        let [lba, size] = marker(&bytes[..head]);
        Ok(self.sparse.check_marker(place, from_start, lba, size).ok())
    }

    fn is_marked(&self, place: HostOffset, from_start: u64) -> Result<bool> {
        Ok(self.marked_len(place, from_start)?.is_some())
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
            let mut finding = Finding::new(severity, "table-entry", at, text);
            if pair.is_proven {
                finding = finding.mended_by("the entry of the second table");
                finding.repaired = self.mends();
            }
            findings.push(finding);
        }
        self.keeps_leaks = true;
        if pair.is_proven && self.mends() {
            pair.first.set(index, copy);
        }
        match self.site(copy) {
            Site::At(place) => Some(place),
            Site::Nothing | Site::Nowhere => None,
        }
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
        let mut finding = finding.costing(lost);
        // Else what is named behind the end would show the zeroes, or a table be made of them; and who of
        // two that have the grain can read its last sector, nobody knows.
        let is_fillable = self.facts.beyond.whole == 0
            && !self.facts.is_named_twice(place)
            && self.can_mend()
            && !self.has_footer;
        if is_fillable {
            finding = finding.mended_by("the file is filled up with zeroes");
        }
        if self.mends() && is_fillable {
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
        cost: GuestRange,
        findings: &mut Vec<Finding>,
    ) {
        self.keeps_leaks = true;
        if !walk.first {
            return;
        }
        let (entry, at) = (pair.first.get(index), pair.first.place(index));
        let is_kept = self.is_free_place(walk, entry);
        let kind = if is_kept { "first-grain" } else { "table-entry" };
        let text = self.judge(entry, at).err().map_or_else(String::new, |error| error.to_string());
        let mut finding = Finding::new(Severity::Corruption, kind, at, text).costing(cost);
        match self.emptied().filter(|_| pair.is_proven && pair.is_front && !is_kept) {
            None => pair.in_doubt = true,
            Some(emptied) => {
                finding = finding.mended_by("there is no grain any more");
                if self.mends() {
                    pair.first.set(index, emptied);
                    finding.repaired = true;
                }
            }
        }
        findings.push(finding);
    }

    /// The entry of a grain that is lost: where there is a disk below, its data must not show.
    fn emptied(&self) -> Option<u64> {
        match self.has_below {
            _ if !self.sparse.has_sector_entries() => None,
            false => Some(0),
            true => self.sparse.has_zero_entries().then_some(1),
        }
    }

    /// Tells that nobody knows which of two entries is right.
    fn leave_in_doubt(
        &mut self,
        walk: &Walk<'_, '_, '_>,
        pair: &mut Pair,
        index: usize,
        cost: GuestRange,
        findings: &mut Vec<Finding>,
    ) {
        self.keeps_leaks = true;
        pair.in_doubt = true;
        if !walk.first {
            return;
        }
        let (entry, at) = (pair.first.get(index), pair.first.place(index));
        let copy = pair.second.as_ref().map_or(0, |second| second.get(index));
        let text = match self.judge(entry, at) {
            Err(error) => error.to_string(),
            Ok(_) => format!("the entry is {entry:#x}"),
        };
        let text = format!("{text}; that of the second table, {copy:#x}, names what others have");
        let finding = Finding::new(Severity::Corruption, "table-entry", at, text);
        findings.push(finding.costing(cost));
    }

    /// Whether a refused entry names a place in the file where nothing else lies: then what the header
    /// says of the place of the first grain may as well be wrong, and the entry is kept.
    fn is_free_place(&self, walk: &Walk<'_, '_, '_>, entry: u64) -> bool {
        let Grain::Sector(first) = self.sparse.decode(entry) else { return false };
        let stored = match self.sparse.packed {
            Packed::No => self.sparse.grain_sectors(),
            _ => 1,
        };
        let end = self.file_end.get() / SECTOR;
        let is_inside = first.checked_add(stored).is_some_and(|last| last <= end);
        is_inside && !walk.occupied.meets(first..first + stored)
    }

    /// Whether the file had this place before it grew by what is mended. What is appended is named by no
    /// other entry, or nothing is.
    fn was_there(&self, place: HostOffset) -> bool {
        place < self.file_end || self.facts.beyond.is_none()
    }

    /// Where the grain is that the entry at `at` names, if it names one.
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
        walk: &Walk<'_, '_, '_>,
        pair: &mut Pair,
        index: usize,
        findings: &mut Vec<Finding>,
    ) {
        let first = &mut pair.first;
        if first.get(index) == 0 {
            return;
        }
        self.keeps_leaks = true;
        if !walk.first {
            return;
        }
        let text = format!("the entry {:#x} is for a grain behind the end", first.get(index));
        let mut finding =
            Finding::new(Severity::Note, "entry-behind-end", first.place(index), text);
        // Where the descriptor says something else, it is the header that is in doubt.
        if !pair.is_proven || !pair.is_front {
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

    /// Appends a copy of a grain, flushed; `None` where nothing may be appended.
    fn copy_grain(&mut self, from: HostOffset) -> Result<Option<HostOffset>> {
        let grain = self.sparse.geometry().grain();
        let Some(to) = self.append(grain, grain) else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(grain.min(COPY)).expect("a small number")];
        let mut done = 0;
        while done < grain {
            self.store.read_padded_at(from.saturating_add(done), &mut bytes)?;
            self.store.write_at(to.saturating_add(done), &bytes)?;
            done += bytes.len() as u64;
        }
        self.store.flush()?;
        self.sparse.grow_to(to.saturating_add(grain));
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
                    findings.push(used_twice(at, met, at).costing(cost));
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

fn used_twice(place: HostOffset, met: u64, at: HostOffset) -> Finding {
    let met = HostOffset(met * SECTOR);
    let text = format!("the grain at {place} shares {met} with another grain or with metadata");
    Finding::new(Severity::Corruption, "grain-used-twice", at, text)
}
