//! Checking an extent of grains.
//!
//! What is read right before a repair is so after it, and nothing of one grain is shown in another. So
//! all tables are looked at first ([`Facts`]), and written to is only what is proven by two witnesses.
//! What is in doubt stays as it is, and is told without a remedy.

mod directories;
mod facts;
mod grains;
mod leaks;
mod tables;
mod windows;

use anydisk_core::{
    CheckRequest, Finding, GuestOffset, GuestRange, HostOffset, Repair, Result, Severity, Storage,
    StorageExt,
};

use self::directories::overlapping;
use self::facts::Facts;
use self::grains::Site;
use self::windows::Windows;
use super::occupied::Occupied;
use super::{Progress, Teller, sector};
use crate::extent::{Part, Sparse};
use crate::layout::{GD_AT_END, SECTOR, SparseHeader, flags};
use crate::open::Assembly;

/// The check of one extent.
pub(super) struct SparseCheck<'a> {
    request: &'a CheckRequest<'a>,
    part: &'a Part,
    sparse: &'a Sparse,
    store: &'a dyn Storage,
    /// Bytes that the descriptor says it has.
    told: u64,
    /// Where the descriptor is, if it is in this file.
    descriptor: Option<(HostOffset, u64)>,
    /// Where the file ends, or what was added to it.
    end: u64,
    /// Where the file ended before anything was mended.
    file_end: HostOffset,
    /// Something is wrong, or was, so that what nothing names may be missed by someone.
    keeps_leaks: bool,
    /// The second directory, unless it lies on other metadata.
    second: Option<HostOffset>,
    /// The directory lies on other metadata: nothing may be written.
    entangled: bool,
    /// There is a disk below, or nobody knows: what is lost here must not show what is there.
    has_below: bool,
    /// A footer must stay the last of the file.
    has_footer: bool,
    facts: Facts,
    windows: Windows,
}

/// One walk over the tables, with what is in use in one window.
struct Walk<'a, 't, 'p> {
    /// Everything is judged in the first walk; later ones look only for what is used twice.
    first: bool,
    occupied: Occupied,
    teller: &'a mut Teller<'t>,
    progress: &'a mut Progress<'p>,
}

/// A table and its second copy, as far as they are in their places in the file.
#[derive(Clone, Copy)]
struct Tables {
    number: u64,
    first: Option<HostOffset>,
    second: Option<HostOffset>,
    /// Both can be written to, if that is asked for.
    is_proven: bool,
    /// They lie before all grains.
    is_front: bool,
}

impl<'a> SparseCheck<'a> {
    pub(super) fn new(
        request: &'a CheckRequest<'a>,
        assembly: &'a Assembly,
        part: &'a Part,
        sparse: &'a Sparse,
    ) -> Self {
        let room = assembly.room.filter(|_| sparse.file == 0);
        // Whether there was a disk below, only the descriptor knows.
        let is_bare = sparse.file == 0 && assembly.room.is_none();
        Self {
            request,
            part,
            sparse,
            store: &*assembly.files[sparse.file].store,
            told: assembly.told_of_own().unwrap_or_else(|| part.range().len()),
            descriptor: room.map(|room| (assembly.descriptor.at(), room)),
            end: sparse.end().get(),
            file_end: sparse.end(),
            keeps_leaks: false,
            second: sparse.redundant(),
            entangled: false,
            has_below: is_bare || assembly.descriptor.parent.is_some(),
            has_footer: false,
            facts: Facts::new(0, 1, 1),
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
        self.check_pieces(teller)?;
        self.facts = self.look()?;
        if self.facts.entangled && !self.entangled {
            self.entangled = true;
            teller.tell(overlapping(self.sparse.directory()));
        }
        self.keeps_leaks |= self.entangled;
        self.check_directories(teller)?;
        for number in 0..self.windows.count() {
            let mut walk = self.window(number, teller, progress);
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

    /// Whether tables are mended, if that is asked for.
    fn can_mend(&self) -> bool {
        !self.entangled && self.sparse.has_sector_entries()
    }

    fn mends(&self) -> bool {
        self.request.repair == Repair::All && self.can_mend()
    }

    fn window<'w, 't, 'p>(
        &self,
        number: usize,
        teller: &'w mut Teller<'t>,
        progress: &'w mut Progress<'p>,
    ) -> Walk<'w, 't, 'p> {
        let occupied = self.windows.occupied(number);
        Walk { first: number == 0, occupied, teller, progress }
    }

    fn check_header(&mut self, teller: &mut Teller<'_>) -> Result<()> {
        let (capacity, told) = (self.sparse.geometry().capacity(), self.told);
        if capacity != told {
            // Growing puts the header first: it may say more for a moment, and never less.
            let is_lost = capacity < told;
            self.keeps_leaks |= is_lost;
            // Of one of them, a bit may be wrong: then what seems to be a table is something else.
            self.entangled = true;
            let severity = if is_lost { Severity::Corruption } else { Severity::Note };
            let text = format!("the header speaks of {capacity} bytes, the descriptor of {told}");
            let mut finding = Finding::new(severity, "extent-size", HostOffset(12), text);
            if let Some(lost) =
                GuestRange::new(GuestOffset(capacity), told.saturating_sub(capacity))
            {
                finding = finding.costing(lost);
            }
            teller.tell(finding);
        }
        if !self.sparse.is_cowd() {
            let mut field = [0; 8];
            let at = std::mem::offset_of!(SparseHeader, gdOffset) as u64;
            self.store.read_padded_at(HostOffset(at), &mut field)?;
            self.has_footer = u64::from_le_bytes(field) == GD_AT_END;
        }
        if self.sparse.damaged {
            let text = "the first grain directory is not in the file".to_owned();
            self.keep_only(self.sparse.directory(), "the second takes its place", text, teller)?;
        }
        let len = self.sparse.geometry().directory_len();
        let end = self.sparse.end();
        if let Some(second) = self.second.filter(|at| at.saturating_add(len) > end) {
            let text = "the second grain directory is not in the file".to_owned();
            // What is left of one that was cut off is still read.
            self.entangled |= second < end;
            let first = self.sparse.directory();
            self.keep_only(first, "there is only the first one then", text, teller)?;
        }
        Ok(())
    }

    /// The metadata that is neither directory nor table: where, and how long.
    fn fixed_pieces(&self) -> Vec<(HostOffset, u64)> {
        let mut pieces = vec![(HostOffset::ZERO, self.sparse.header_len)];
        pieces.extend(self.descriptor);
        pieces
    }

    /// The metadata that is no table: where, and how long.
    fn pieces(&self) -> Vec<(HostOffset, u64)> {
        let directory_len = self.sparse.geometry().directory_len();
        let mut pieces = self.fixed_pieces();
        pieces.push((self.sparse.directory(), directory_len));
        pieces.extend(self.second.map(|at| (at, directory_len)));
        pieces
    }

    /// No two of these pieces may share a byte, else none can be mended without harm.
    fn check_pieces(&mut self, teller: &mut Teller<'_>) -> Result<()> {
        let first = self.sparse.directory();
        let mut pieces = self.pieces();
        pieces.sort_unstable();
        let pairs = pieces.windows(2).map(|pair| (pair[0], pair[1].0));
        let touching = pairs.filter(|((at, len), next)| at.saturating_add(*len) > *next);
        let touching: Vec<_> = touching.map(|((at, _), next)| [at, next]).collect();
        let meets = |at: HostOffset| touching.iter().any(|pair| pair.contains(&at));
        for [_, next] in &touching {
            teller.tell(overlapping(*next));
            self.keeps_leaks = true;
        }
        match self.second.filter(|second| meets(*second)) {
            _ if touching.is_empty() => {}
            Some(second) if second == first => self.second = None,
            None if meets(first) && self.second.is_some() => {
                let text = "the first grain directory lies on other metadata".to_owned();
                let second = self.second.unwrap_or(first);
                self.keep_only(second, "the second takes its place", text, teller)?;
            }
            _ => self.entangled = true,
        }
        Ok(())
    }

    /// Tells that one directory is lost, and goes on with the one at `directory` as the only one.
    fn keep_only(
        &mut self,
        directory: HostOffset,
        remedy: &'static str,
        text: String,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        let at = HostOffset(std::mem::offset_of!(SparseHeader, gdOffset) as u64);
        let finding = Finding::new(Severity::Corruption, "directory-lost", at, text);
        let can_mend = self.can_mend() && !self.has_footer;
        let mut finding = if can_mend { finding.mended_by(remedy) } else { finding };
        self.keeps_leaks = true;
        self.sparse.move_directories(directory, None);
        self.second = None;
        if self.mends() && can_mend {
            self.name_only(sector(directory))?;
            finding.repaired = true;
        }
        teller.tell(finding);
        Ok(())
    }

    /// Makes the directory at a sector the first, and the only one: one sector is written.
    fn name_only(&self, directory: u64) -> Result<()> {
        let mut bytes = [0; 512];
        self.store.read_exact_at(HostOffset::ZERO, &mut bytes)?;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(std::mem::offset_of!(SparseHeader, gdOffset), &directory.to_le_bytes());
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
        let mut finding = Finding::new(Severity::Note, "unclean", at, text);
        if self.can_mend() {
            finding = finding.mended_by("the flag is cleared");
        }
        if self.mends() {
            self.sparse.tell_unclean(self.store, false)?;
            self.store.flush()?;
            finding.repaired = true;
        }
        teller.tell(finding);
        Ok(())
    }

    /// Marks bytes as in use; the first sector that was already.
    fn mark(&mut self, walk: &mut Walk<'_, '_, '_>, at: HostOffset, len: u64) -> Option<u64> {
        let sectors = sector(at)..at.saturating_add(len).get().div_ceil(SECTOR);
        self.windows.touch(&sectors);
        walk.occupied.mark(sectors)
    }
}
