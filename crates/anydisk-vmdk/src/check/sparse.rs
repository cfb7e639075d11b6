//! Checking an extent of grains.

use std::ops::Range;

use anydisk_core::{
    CheckRequest, Codec, Finding, GuestRange, HostOffset, Repair, Result, Severity, Storage,
    StorageExt,
};

use super::occupied::Occupied;
use super::table::Entries;
use super::{Progress, Teller, guest, sector};
use crate::codec::SHORT_OR_WHOLE;
use crate::extent::{Packed, Part, Sparse};
use crate::image::marker;
use crate::layout::{SECTOR, SparseHeader, flags};
use crate::limits;
use crate::open::Assembly;
use crate::table::Grain;

/// Entries of the directory that are looked at together.
const DIRECTORY_STEP: u64 = 512;

/// Bytes of a grain that are copied at once.
const COPY: u64 = 1 << 20;

/// The check of one extent.
pub(super) struct SparseCheck<'a> {
    request: &'a CheckRequest<'a>,
    part: &'a Part,
    sparse: &'a Sparse,
    store: &'a dyn Storage,
    /// Where the descriptor is, if it is in this file.
    descriptor: Option<(HostOffset, u64)>,
    /// Where the file ends, or what was added to it.
    end: u64,
    /// Something is wrong, so that what nothing names may be missed by someone.
    keeps_leaks: bool,
    /// The second directory, unless it lies on other metadata.
    second: Option<HostOffset>,
    /// The directory lies on other metadata: nothing may be written.
    entangled: bool,
    /// Of each table, whether it or its second copy lies on other metadata.
    on_others: Vec<OnOthers>,
    windows: Windows,
}

/// The parts of a file that are looked at one by one.
struct Windows {
    /// Sectors of the file.
    sectors: u64,
    /// Sectors of a window.
    each: u64,
    /// Whether a grain or a table lies in it.
    touched: Vec<bool>,
}

/// Which of a table and its second copy lie on other metadata, and must not be written.
#[derive(Clone, Copy, Debug, Default)]
struct OnOthers {
    first: bool,
    second: bool,
}

/// One walk over the tables, with what is in use in one window.
struct Walk<'a, 't, 'p> {
    /// Everything is judged in the first walk; later ones look only for what is used twice.
    first: bool,
    occupied: Occupied,
    teller: &'a mut Teller<'t>,
    progress: &'a mut Progress<'p>,
}

/// A table and its second copy, as far as they are in the file.
#[derive(Clone, Copy)]
struct Tables {
    number: u64,
    first: HostOffset,
    second: Option<HostOffset>,
}

impl<'a> SparseCheck<'a> {
    pub(super) fn new(
        request: &'a CheckRequest<'a>,
        assembly: &'a Assembly,
        part: &'a Part,
        sparse: &'a Sparse,
    ) -> Self {
        let room = assembly.room.filter(|_| sparse.file == 0);
        let tables = usize::try_from(sparse.geometry().tables()).expect("limited by the header");
        Self {
            request,
            part,
            sparse,
            store: &*assembly.files[sparse.file].store,
            descriptor: room.map(|room| (assembly.descriptor.at(), room)),
            end: sparse.end().get(),
            keeps_leaks: false,
            second: sparse.redundant(),
            entangled: false,
            on_others: vec![OnOthers::default(); tables],
            windows: Windows::new(sparse.end(), request.open.limits.table_cache),
        }
    }

    /// Bytes of tables to be looked at.
    pub(super) fn work(part: &Part) -> u64 {
        match &part.body {
            crate::extent::Body::Sparse(sparse) => {
                sparse.geometry().tables().saturating_mul(sparse.geometry().table_len())
            }
            _ => 0,
        }
    }

    pub(super) fn run(
        mut self,
        teller: &mut Teller<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let grains = self.sparse.geometry().capacity().div_ceil(self.sparse.geometry().grain());
        *teller.report.total_clusters.get_or_insert(0) += grains;
        self.check_header(teller)?;
        self.check_pieces(teller);
        for number in 0..self.windows.count() {
            let occupied = self.windows.occupied(number);
            let mut walk = Walk { first: number == 0, occupied, teller, progress };
            self.find_tables(&mut walk)?;
        }
        for number in 0..self.windows.count() {
            let occupied = self.windows.occupied(number);
            let mut walk = Walk { first: number == 0, occupied, teller, progress };
            if number == 0 || self.windows.touched[number] {
                self.walk(&mut walk)?;
            }
            let Walk { occupied, .. } = walk;
            let is_last = number + 1 == self.windows.count();
            self.check_leaks(&occupied, is_last, teller)?;
        }
        let end = HostOffset(self.end);
        teller.report.image_end = teller.report.image_end.max(Some(end));
        self.clear_unclean(teller)
    }

    fn mends(&self) -> bool {
        self.request.repair == Repair::All && !self.entangled
    }

    fn check_header(&mut self, teller: &mut Teller<'_>) -> Result<()> {
        let (capacity, len) = (self.sparse.geometry().capacity(), self.part.range().len());
        if capacity > len {
            let text = format!("the header speaks of {capacity} bytes, the descriptor of {len}");
            teller.tell(Finding::new(Severity::Note, "extent-size", HostOffset(12), text));
        }
        if !self.sparse.damaged {
            return Ok(());
        }
        let at = HostOffset(std::mem::offset_of!(SparseHeader, gdOffset) as u64);
        let text = "the first grain directory is not in the file".to_owned();
        let mut finding = Finding::new(Severity::Corruption, "directory-lost", at, text)
            .mended_by("the second takes its place");
        if self.mends() {
            self.promote_second()?;
            finding.repaired = true;
        }
        teller.tell(finding);
        Ok(())
    }

    /// The metadata that is no table: where, and how long.
    fn pieces(&self) -> Vec<(HostOffset, u64)> {
        let directory_len = self.sparse.geometry().directory_len();
        let mut pieces = vec![(HostOffset::ZERO, self.sparse.header_len)];
        pieces.extend(self.descriptor);
        pieces.push((self.sparse.directory(), directory_len));
        pieces.extend(self.second.map(|at| (at, directory_len)));
        pieces
    }

    /// No two of these pieces may share a byte, else none can be mended without harm.
    fn check_pieces(&mut self, teller: &mut Teller<'_>) {
        let mut pieces = self.pieces();
        pieces.sort_unstable();
        for pair in pieces.windows(2) {
            let ((at, len), (next, _)) = (pair[0], pair[1]);
            if at.saturating_add(len) <= next {
                continue;
            }
            teller.tell(overlap(next, sector(next)));
            self.keeps_leaks = true;
            match self.second {
                Some(second) if [at, next].contains(&second) => self.second = None,
                _ => self.entangled = true,
            }
        }
    }

    /// Makes the second directory the first, and the only one: one sector is written.
    fn promote_second(&self) -> Result<()> {
        let mut bytes = [0; 512];
        self.store.read_exact_at(HostOffset::ZERO, &mut bytes)?;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let directory = sector(self.sparse.directory()).to_le_bytes();
        put(std::mem::offset_of!(SparseHeader, gdOffset), &directory);
        put(std::mem::offset_of!(SparseHeader, rgdOffset), &[0; 8]);
        let at = std::mem::offset_of!(SparseHeader, flags);
        bytes[at] &= !u8::try_from(flags::REDUNDANT).expect("a low bit");
        self.store.write_at(HostOffset::ZERO, &bytes)?;
        Ok(self.store.flush()?)
    }

    fn clear_unclean(&self, teller: &mut Teller<'_>) -> Result<()> {
        if !self.sparse.unclean {
            return Ok(());
        }
        let at = self.sparse.unclean_at;
        let text = "the extent was not closed by its last writer".to_owned();
        let mut finding =
            Finding::new(Severity::Note, "unclean", at, text).mended_by("the flag is cleared");
        if self.mends() {
            self.store.write_at(at, &[0])?;
            self.store.flush()?;
            finding.repaired = true;
        }
        teller.tell(finding);
        Ok(())
    }

    /// Looks for the tables of a window that lie on other metadata. In the first walk also at all
    /// entries of the directories.
    fn find_tables(&mut self, walk: &mut Walk<'_, '_, '_>) -> Result<()> {
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
    fn walk(&mut self, walk: &mut Walk<'_, '_, '_>) -> Result<()> {
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

    /// Marks bytes as in use; the first sector that was already.
    fn mark(&mut self, walk: &mut Walk<'_, '_, '_>, at: HostOffset, len: u64) -> Option<u64> {
        let sectors = sector(at)..at.saturating_add(len).get().div_ceil(SECTOR);
        self.windows.touch(&sectors);
        walk.occupied.mark(sectors)
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

    fn check_entry(
        &mut self,
        walk: &mut Walk<'_, '_, '_>,
        (number, index): (u64, usize),
        first: &mut Entries,
        second: Option<&Entries>,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let geometry = self.sparse.geometry();
        let (value, at) = (first.get(index), first.place(index));
        if value == 0 {
            return Ok(());
        }
        let from_start = number
            .saturating_mul(geometry.coverage())
            .saturating_add(index as u64 * geometry.grain());
        if from_start >= geometry.capacity() {
            self.check_behind_end(walk, first, index, findings);
            return Ok(());
        }
        let judged = |value: u64| match self.sparse.decode(value) {
            Grain::Sector(sector) => self.sparse.grain_at(sector, 1, at).map(Some),
            Grain::Broken(entry) => Err(self.sparse.broken(at, entry)),
            Grain::Absent | Grain::Zero => Ok(None),
        };
        let cost = guest(self.part, from_start, geometry.grain());
        let place = match judged(value) {
            Ok(place) => place,
            Err(_) if !walk.first => return Ok(()),
            Err(error) => {
                let copy = second.map(|second| second.get(index)).filter(|copy| *copy != 0);
                let copy = copy.filter(|copy| matches!(judged(*copy), Ok(Some(_))));
                let kind = "table-entry";
                let finding = Finding::new(Severity::Corruption, kind, at, error.to_string());
                let mut finding = match copy {
                    Some(_) => finding.mended_by("the entry of the second table"),
                    None => finding.costing(cost).mended_by("there is no grain any more"),
                };
                if self.mends() {
                    first.set(index, copy.unwrap_or(0));
                    finding.repaired = true;
                } else {
                    self.keeps_leaks = true;
                }
                findings.push(finding);
                match copy.map(judged) {
                    Some(Ok(place)) => place,
                    _ => None,
                }
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
        let mut finding = self.used_twice(place, met, at).costing(cost);
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
                let check =
                    walk.first.then(|| self.unpack(at.saturating_add(head), len, from_start));
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

    /// What is wrong with a packed grain.
    fn unpack(&self, at: HostOffset, len: usize, from_start: u64) -> Result<Option<String>> {
        let mut packed = vec![0; len];
        self.store.read_padded_at(at, &mut packed)?;
        let grain = self.sparse.geometry().grain();
        let rest = (self.sparse.geometry().capacity() - from_start).min(grain);
        let codec = if rest == grain { Codec::Zlib } else { SHORT_OR_WHOLE };
        let mut out = vec![0; usize::try_from(rest).expect("the limit of a unit")];
        Ok(codec.decode(&packed, &mut out).err().map(|error| error.to_string()))
    }

    /// Space that nothing names. Holes of the file are none.
    fn check_leaks(
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
            let cut = last && run.end == end && self.end.div_ceil(SECTOR) == end;
            let remedy = if cut { "the file is cut" } else { "a hole is punched" };
            let mut finding = Finding::new(Severity::Leak, "leak", at, text).mended_by(remedy);
            if self.request.repair >= Repair::Leaks && !self.keeps_leaks {
                finding.repaired = self.give_back(&run, cut)?;
            }
            let report = &mut teller.report;
            let sum = if finding.repaired { &mut report.leaks_fixed } else { &mut report.leaks };
            *sum += units - 1;
            teller.tell(finding);
        }
        Ok(())
    }

    /// Bytes of a run that are no holes.
    fn stored(&self, run: &Range<u64>) -> Result<u64> {
        let end = (run.end * SECTOR).min(self.end);
        let len = end.saturating_sub(run.start * SECTOR);
        let Some(holes) = self.store.holes() else { return Ok(len) };
        let (mut at, mut stored) = (run.start * SECTOR, 0);
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

impl Windows {
    /// Windows of a file that ends at `end`, whose bits take `memory` bytes at most.
    fn new(end: HostOffset, memory: usize) -> Self {
        let sectors = end.get().div_ceil(SECTOR);
        let each = (memory as u64 * 8).max(1 << 20);
        let count = usize::try_from(sectors.div_ceil(each).max(1)).unwrap_or(usize::MAX);
        Self { sectors, each, touched: vec![false; count] }
    }

    fn count(&self) -> usize {
        self.touched.len()
    }

    /// A window in which nothing is in use.
    fn occupied(&self, number: usize) -> Occupied {
        let start = number as u64 * self.each;
        Occupied::new(start..self.sectors.min(start + self.each))
    }

    /// Something lies in these sectors.
    fn touch(&mut self, sectors: &Range<u64>) {
        let windows = sectors.start / self.each..sectors.end.div_ceil(self.each);
        for window in windows.take(self.touched.len()) {
            let window = usize::try_from(window).unwrap_or(usize::MAX);
            if let Some(touched) = self.touched.get_mut(window) {
                *touched = true;
            }
        }
    }
}

/// A piece of metadata at `at` shares the sector `met` with another one.
fn overlap(at: HostOffset, met: u64) -> Finding {
    let text = format!("metadata at {at} lies on other metadata");
    let met = HostOffset(met * SECTOR);
    Finding::new(Severity::Corruption, "metadata-overlap", met, text)
}
