//! Checking an extent of grains.

mod grains;
mod leaks;
mod tables;
mod windows;

use anydisk_core::{
    CheckRequest, Finding, HostOffset, Repair, Result, Severity, Storage, StorageExt,
};

use self::tables::overlap;
use self::windows::Windows;
use super::occupied::Occupied;
use super::{Progress, Teller, sector};
use crate::extent::{Part, Sparse};
use crate::layout::{SECTOR, SparseHeader, flags};
use crate::open::Assembly;

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
