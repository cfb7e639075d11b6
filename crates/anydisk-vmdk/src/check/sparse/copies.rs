//! The two sets of a directory and its tables: whether they say the same, and which to believe where
//! they do not.
//!
//! Where the sets differ, each is looked at by itself. A set that is damaged names places outside of the
//! file, one place twice, or one where grains do not begin, or it names less than the other one. So the
//! second is believed if it names more grains in places of their own, or as many and has fewer faults.
//! Otherwise both are: an entry of the first counts, and where it names nothing, the second's does. A
//! crash between the writes of the two leaves either as it may be, whoever writes first: what was not
//! flushed is there or not.

use anydisk_core::{Finding, HostOffset, Owners, Result, Severity};

use super::super::occupied::Occupied;
use super::super::table::Entries;
use super::super::{Teller, sector};
use super::grains::Nowhere;
use super::{Belief, SparseCheck};
use crate::extent::Packed;
use crate::layout::SECTOR;

/// Entries of the directory that are looked at together.
const DIRECTORY_STEP: u64 = 512;

/// Which places a set names, and which of them more than once.
#[derive(Debug)]
pub(super) struct Named {
    all: Owners,
    twice: Owners,
}

impl Named {
    fn new(sectors: u64) -> Self {
        Self { all: Owners::new(sectors), twice: Owners::new(sectors) }
    }

    fn insert(&mut self, place: HostOffset) {
        if !self.all.insert(sector(place)) {
            self.twice.insert(sector(place));
        }
    }

    /// Whether the set names what lies at a place.
    pub(super) fn has(&self, place: HostOffset) -> bool {
        self.all.meets(sector(place))
    }

    /// Whether it does so for more than one part of the disk.
    pub(super) fn has_twice(&self, place: HostOffset) -> bool {
        self.twice.meets(sector(place))
    }
}

/// What is wrong with one set by itself.
#[derive(Debug)]
struct Survey {
    named: Named,
    /// Tables that lie on something else.
    misplaced: u64,
    /// Tables that are not in the file; grains that are not, or lie on something else.
    others: u64,
    /// Where the first grain is, from a multiple of a grain on, and how many are there and elsewhere.
    within: Option<u64>,
    grains: (u64, u64),
    /// Grains in the file that lie on nothing else.
    good: u64,
    /// The other set's metadata lies on what this one names.
    crossed: bool,
}

impl Survey {
    /// Nothing was looked at. `sectors`: those of a grain in the file at least.
    fn new(sectors: u64) -> Self {
        Self {
            named: Named::new(sectors),
            misplaced: 0,
            others: 0,
            within: None,
            grains: (0, 0),
            good: 0,
            crossed: false,
        }
    }

    /// All writers put their grains a whole number of grains apart: the few that are not are faults.
    fn faults(&self) -> u64 {
        self.misplaced + self.others + self.grains.0.min(self.grains.1)
    }

    /// Whether this set is believed rather than the other one, which is looked at first.
    fn is_better_than(&self, other: &Self) -> bool {
        self.good > other.good || self.good == other.good && self.faults() < other.faults()
    }

    /// Notes where a grain is, from a multiple of a grain on.
    fn grain_at(&mut self, within: u64) {
        match *self.within.get_or_insert(within) == within {
            true => self.grains.0 += 1,
            false => self.grains.1 += 1,
        }
    }
}

impl SparseCheck<'_> {
    /// Whether the two sets say anything different.
    pub(super) fn copies_differ(&self) -> Result<bool> {
        let Some(second) = self.second else { return Ok(false) };
        let mut start = 0;
        while start < self.sparse.geometry().tables() {
            let first = self.directory_part(self.sparse.directory(), start)?;
            let second = self.directory_part(second, start)?;
            for index in 0..first.len() {
                let (one, other) = (first.get(index), second.get(index));
                let tables = (self.sparse.table_inside(one), self.sparse.table_inside(other));
                let same = match tables {
                    _ if one == 0 || other == 0 => one == other,
                    (Some(one), Some(other)) => {
                        one == other || self.table_at(one)?.says_the_same(&self.table_at(other)?)
                    }
                    _ => false,
                };
                if !same {
                    return Ok(true);
                }
            }
            start += DIRECTORY_STEP;
        }
        Ok(false)
    }

    /// Decides which set is believed. One that cannot be in its place is left out altogether: its
    /// places are somebody else's, so that nothing may be written there.
    pub(super) fn judge_sets(&mut self, teller: &mut Teller<'_>) -> Result<()> {
        let (first, Some(second)) = (self.sparse.directory(), self.second) else { return Ok(()) };
        let of_first = self.survey(first, second)?;
        let of_second = self.survey(second, first)?;
        self.keeps_leaks = true;
        let crossed = of_first.crossed || of_second.crossed;
        if of_second.is_better_than(&of_first) {
            self.belief = Belief::Second;
            if of_first.misplaced > 0 || crossed {
                let text = format!(
                    "the first grain directory and its tables name {} grains in places of their own and \
                     contradict themselves in {} places, the second ones {} and {}",
                    of_first.good,
                    of_first.faults(),
                    of_second.good,
                    of_second.faults()
                );
                self.keep_only(second, "the second takes its place", text, teller)?;
            }
        } else if crossed {
            let text = "one of the two sets of grain tables lies on what the other one names, and the \
                        second one is not the better one";
            self.keep_only(first, "there is only the first one then", text.to_owned(), teller)?;
        }
        self.named = Some((of_first.named, of_second.named));
        Ok(())
    }

    fn survey(&self, set: HostOffset, other: HostOffset) -> Result<Survey> {
        let mut survey = Survey::new(self.stored_len() / SECTOR);
        for number in 0..self.windows.count() {
            let mut occupied = self.windows.occupied(number);
            self.survey_window(&mut occupied, number == 0, (set, other), &mut survey)?;
        }
        Ok(survey)
    }

    fn survey_window(
        &self,
        occupied: &mut Occupied,
        is_first: bool,
        (set, other): (HostOffset, HostOffset),
        survey: &mut Survey,
    ) -> Result<()> {
        let geometry = self.sparse.geometry();
        let directory = (set, geometry.directory_len());
        for (at, len) in self.fixed_pieces().into_iter().chain([directory]) {
            occupied.mark(sectors(at, len));
        }
        self.each_of(set, |_, table| {
            match table {
                Some(at) => {
                    let met = occupied.mark(sectors(at, geometry.table_len()));
                    survey.misplaced += u64::from(met.is_some());
                }
                None => survey.others += u64::from(is_first),
            }
            Ok(())
        })?;
        self.each_of(set, |number, table| {
            let Some(at) = table else { return Ok(()) };
            let entries = self.table_at(at)?;
            for index in (0..entries.len()).filter(|index| entries.get(*index) != 0) {
                if self.bytes_before(number, index) >= geometry.capacity() {
                    break;
                }
                match self.grain_of(entries.get(index)) {
                    Ok(None) => {}
                    Ok(Some(at)) => {
                        if is_first && self.sparse.packed == Packed::No {
                            survey.grain_at(at.get() % geometry.grain());
                        }
                        if is_first {
                            survey.named.insert(at);
                        }
                        let met = occupied.mark(sectors(at, self.stored_len()));
                        survey.others += u64::from(met.is_some());
                        survey.good += u64::from(is_first && met.is_none());
                    }
                    Err(Nowhere) => survey.others += u64::from(is_first),
                }
            }
            Ok(())
        })?;
        survey.crossed |= occupied.meets(sectors(other, geometry.directory_len()));
        self.each_of(other, |_, table| {
            if let Some(at) = table {
                survey.crossed |= occupied.meets(sectors(at, geometry.table_len()));
            }
            Ok(())
        })
    }

    /// Bytes that a grain has in the file at least.
    pub(super) fn stored_len(&self) -> u64 {
        match self.sparse.packed {
            Packed::No => self.sparse.geometry().grain(),
            _ => SECTOR,
        }
    }

    /// Bytes of the extent before the grain of an entry of table `number`.
    pub(super) fn bytes_before(&self, number: u64, index: usize) -> u64 {
        let geometry = self.sparse.geometry();
        number.saturating_mul(geometry.coverage()).saturating_add(index as u64 * geometry.grain())
    }

    /// Calls `each` with the number of every table that the directory at `set` names, and with its
    /// place, if that is in the file.
    fn each_of(
        &self,
        set: HostOffset,
        mut each: impl FnMut(u64, Option<HostOffset>) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        while start < self.sparse.geometry().tables() {
            let entries = self.directory_part(set, start)?;
            for index in (0..entries.len()).filter(|index| entries.get(*index) != 0) {
                each(start + index as u64, self.sparse.table_inside(entries.get(index)))?;
            }
            start += DIRECTORY_STEP;
        }
        Ok(())
    }

    /// The entries of a directory from number `start` on that are looked at together.
    pub(super) fn directory_part(&self, directory: HostOffset, start: u64) -> Result<Entries> {
        let geometry = self.sparse.geometry();
        let at = directory.saturating_add(start * geometry.entry_len());
        let count = DIRECTORY_STEP.min(geometry.tables() - start);
        Entries::read(self.store, at, count, geometry.entry_len())
    }

    /// The table that an entry of a directory names.
    pub(super) fn table_of(&self, entries: &Entries, index: usize) -> Result<Option<HostOffset>> {
        self.sparse.table_at(entries.get(index), entries.place(index))
    }

    /// The table at a place.
    pub(super) fn table_at(&self, at: HostOffset) -> Result<Entries> {
        let geometry = self.sparse.geometry();
        Entries::read(self.store, at, geometry.entries().into(), geometry.entry_len())
    }

    /// Tells that one directory is lost, and goes on with the one at `directory` as the only one.
    pub(super) fn keep_only(
        &mut self,
        directory: HostOffset,
        remedy: &'static str,
        text: String,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        let at = HostOffset(std::mem::offset_of!(crate::layout::SparseHeader, gdOffset) as u64);
        let finding = Finding::new(Severity::Corruption, "directory-lost", at, text);
        let mut finding = finding.mended_by(remedy);
        self.keeps_leaks = true;
        self.sparse.move_directories(directory, None);
        self.second = None;
        if self.mends() {
            self.name_only(sector(directory))?;
            finding.repaired = true;
        }
        teller.tell(finding);
        Ok(())
    }
}

/// The sectors of `len` bytes at a place.
fn sectors(at: HostOffset, len: u64) -> std::ops::Range<u64> {
    sector(at)..at.saturating_add(len).get().div_ceil(SECTOR)
}
