//! What the two sets of tables say together, looked at once before anything is mended.
//!
//! Whatever is written rests on two witnesses. An entry that both sets have alike names a grain beyond
//! doubt; a table that agrees with its second copy is **proven**, and so is one that lies before all
//! grains, apart from everything. A table that lies on what is somebody else's beyond doubt is
//! **misplaced**; where neither of two that share a place is beyond doubt, both are **doubted**, and
//! nothing is written to them.

use std::collections::BTreeSet;

use anydisk_core::{HostOffset, Owners, Result};

use super::super::sector;
use super::super::table::Entries;
use super::directories::Remedy;
use super::{Site, SparseCheck};
use crate::extent::Packed;
use crate::layout::SECTOR;
use crate::table::{Grain, sector_at};

/// How far a table is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trust {
    /// There is none in the file.
    #[default]
    Nothing,
    /// It shares no byte with anything. `proven`: it can be written to.
    Apart { proven: bool },
    /// It shares a byte with something, and nobody knows whose it is.
    Doubted,
    /// It lies on what is somebody else's.
    Misplaced,
    /// It lies where no writer puts it, and names no grain, where its second copy does.
    Hollow,
}

/// A table of one of the sets in the file.
#[derive(Clone, Copy, Debug)]
struct TableAt {
    sector: u64,
    number: usize,
    set: usize,
}

/// Which places a set names, and which of them more than once.
#[derive(Debug)]
struct Named {
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

    fn meets(&self, place: HostOffset) -> bool {
        self.meets_part(sector(place), self.all.unit())
    }

    /// Whether the set names any of `len` sectors.
    fn meets_part(&self, start: u64, len: u64) -> bool {
        self.all.meets_part(start, len) || self.twice.meets_part(start, len)
    }
}

/// Which entries name what lies behind the end of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beyond {
    /// Tables, and grains that begin there.
    pub(super) whole: u64,
    /// Grains that the end cuts.
    pub(super) cut: u64,
}

impl Beyond {
    pub(super) fn is_none(self) -> bool {
        self.whole + self.cut == 0
    }
}

/// What is known of an extent.
#[derive(Debug)]
pub(super) struct Facts {
    /// The sectors of each table and of its second copy, as far as they are in the file; else 0.
    pub(super) places: Vec<[u64; 2]>,
    pub(super) trust: Vec<[Trust; 2]>,
    /// Whether a directory entry leads out of the file.
    pub(super) outside: Vec<[bool; 2]>,
    /// Whether each table agrees with its second copy.
    proven: Vec<bool>,
    /// The tables by their places.
    sorted: Vec<TableAt>,
    /// Sectors of a table.
    table: u64,
    /// What readers see first, and where the second says anything else.
    first: Named,
    second: Named,
    /// What both sets name for the same part of the disk.
    agreed: Owners,
    /// Where these begin, from a multiple of a grain on: all writers put grains a whole number of them apart.
    within: BTreeSet<u64>,
    /// The sets say different things.
    pub(super) differ: bool,
    /// All tables can be written to.
    is_orderly: bool,
    /// A table lies on a directory, and stays there: what is written to that would change what it says.
    pub(super) is_held: [bool; 2],
    /// A directory shares a byte with a table or a grain that may be the one that is right.
    pub(super) entangled: bool,
    /// What stays when the directories are mended.
    pub(super) beyond: Beyond,
}

impl Facts {
    /// Nothing was looked at. `sectors`: those of a grain in the file at least; `table`: of a table.
    pub(super) fn new(tables: usize, sectors: u64, table: u64) -> Self {
        Self {
            places: vec![[0; 2]; tables],
            trust: vec![[Trust::Nothing; 2]; tables],
            outside: vec![[false; 2]; tables],
            proven: vec![false; tables],
            sorted: Vec::new(),
            table,
            first: Named::new(sectors),
            second: Named::new(sectors),
            agreed: Owners::new(sectors),
            within: BTreeSet::new(),
            differ: false,
            is_orderly: false,
            is_held: [false; 2],
            entangled: false,
            beyond: Beyond::default(),
        }
    }

    /// Whether a table that readers look at first names what lies at a place, as far as they know: of two that
    /// share a part, they note one.
    pub(super) fn is_named(&self, place: HostOffset) -> bool {
        self.first.all.meets(sector(place))
    }

    /// Whether a table shares a byte with something, and it is not the other one that must be wrong.
    pub(super) fn is_at_fault(&self, number: usize, set: usize) -> bool {
        match self.trust[number][set] {
            Trust::Misplaced | Trust::Hollow => true,
            Trust::Doubted => !self.proven[number],
            Trust::Nothing | Trust::Apart { .. } => false,
        }
    }

    /// Whether what a second table names can be taken where the first names nothing: nobody else has it, or
    /// all who have it only from a second table get it.
    pub(super) fn can_be_taken(&self, place: HostOffset) -> bool {
        !self.is_named(place) && (self.is_orderly || self.is_sole(place))
    }

    /// Whether two of its entries do.
    pub(super) fn is_named_twice(&self, place: HostOffset) -> bool {
        self.first.twice.meets(sector(place))
    }

    /// Whether nobody but one entry of the second set names it.
    pub(super) fn is_sole(&self, place: HostOffset) -> bool {
        !self.first.meets(place) && !self.second.twice.meets(sector(place))
    }

    /// The same of the entry whose first one names a grain at `one`: what the two have in common does not
    /// count.
    pub(super) fn is_sole_beside(&self, place: HostOffset, one: HostOffset) -> bool {
        let (start, one, unit) = (sector(place), sector(one), self.first.all.unit());
        let (start, end) = match start.abs_diff(one) < unit {
            true if one > start => (start, one),
            true => (one + unit, start + unit),
            false => (start, start + unit),
        };
        !self.first.meets_part(start, end - start) && !self.second.twice.meets(sector(place))
    }

    /// Whether both sets name it, for the same part of the disk.
    pub(super) fn is_agreed(&self, place: HostOffset) -> bool {
        self.agreed.meets(sector(place))
    }

    /// Whether a grain begins where all do of which both sets say so; `None` if those do not agree.
    pub(super) fn is_aligned(&self, place: HostOffset) -> Option<bool> {
        let within = self.within.first().filter(|_| self.within.len() == 1)?;
        Some(sector(place) % self.agreed.unit() == *within)
    }

    /// The tables that share a sector with these.
    fn tables_on(&self, start: u64, end: u64) -> impl Iterator<Item = TableAt> + '_ {
        let before = self.sorted.partition_point(|table| table.sector < end);
        let near = self.sorted.get(..before).unwrap_or_default().iter().rev();
        near.take_while(move |table| table.sector + self.table > start).copied()
    }

    /// Whether tables share a byte with `len` bytes at a place; and whether a proven one does.
    pub(super) fn on_tables(&self, at: HostOffset, len: u64) -> Option<bool> {
        let on = self.tables_on(sector(at), end_sector(at, len));
        on.map(|table| self.proven[table.number]).reduce(|one, other| one | other)
    }

    /// A table is gone, or is at another place from now on.
    pub(super) fn put(&mut self, number: usize, set: usize, at: Option<HostOffset>) {
        self.places[number][set] = at.map_or(0, sector);
        self.trust[number][set] = match at {
            Some(_) => Trust::Apart { proven: true },
            None => Trust::Nothing,
        };
        self.outside[number][set] = false;
    }
}

/// The first sector behind `len` bytes at a place.
fn end_sector(at: HostOffset, len: u64) -> u64 {
    at.saturating_add(len).get().div_ceil(SECTOR)
}

/// What grains lie on a table: none, one that may be wrong, one beyond doubt.
type Hits = Vec<[u8; 2]>;

/// Where tables name what lies behind the end of the file.
type BeyondOf = Vec<(usize, usize, Beyond)>;

impl SparseCheck<'_> {
    /// Looks at all tables.
    pub(super) fn look(&self) -> Result<Facts> {
        let geometry = self.sparse.geometry();
        let count = usize::try_from(geometry.tables()).expect("limited by the header");
        let unit = match self.sparse.packed {
            Packed::No => self.sparse.grain_sectors(),
            _ => 1,
        };
        let mut facts = Facts::new(count, unit, geometry.table_len().div_ceil(SECTOR));
        for (set, directory) in [Some(self.sparse.directory()), self.second].into_iter().enumerate()
        {
            let Some(directory) = directory else { continue };
            self.find_tables(directory, set, &mut facts)?;
        }
        facts.sorted.sort_unstable_by_key(|table| table.sector);
        let (mut hits, mut beyond) = (vec![[0; 2]; count], Vec::new());
        for number in 0..count {
            self.look_at_pair(number, &mut facts, &mut hits, &mut beyond)?;
        }
        self.judge_tables(&mut facts, &hits);
        self.judge_substitutes(&mut facts)?;
        self.judge_directories(&mut facts);
        self.hold_directories(&mut facts);
        for (number, set, found) in beyond {
            // What is in a table that is given up does not matter.
            let is_dropped = matches!(facts.trust[number][set], Trust::Misplaced | Trust::Hollow)
                && self.remedy(&facts, number) != Remedy::None;
            if !is_dropped {
                facts.beyond.whole += found.whole;
                facts.beyond.cut += found.cut;
            }
        }
        let stays = |number: &usize| {
            facts.outside[*number].contains(&true) && self.remedy(&facts, *number) == Remedy::None
        };
        facts.beyond.whole += (0..count).filter(stays).count() as u64;
        Ok(facts)
    }

    /// Notes the tables of a set that are in the file, and which numbers name one that is not.
    fn find_tables(&self, directory: HostOffset, set: usize, facts: &mut Facts) -> Result<()> {
        let mut number = 0;
        while number < facts.places.len() {
            let entries = self.directory_part(directory, number as u64)?;
            for index in 0..entries.len() {
                match entries.get(index) {
                    0 => {}
                    entry => match self.sparse.table_inside(entry) {
                        Some(at) => {
                            facts.places[number + index][set] = sector(at);
                            let (sector, number) = (sector(at), number + index);
                            facts.sorted.push(TableAt { sector, number, set });
                        }
                        None => {
                            facts.outside[number + index][set] = true;
                            facts.differ = true;
                        }
                    },
                }
            }
            number += entries.len();
        }
        Ok(())
    }

    /// Looks at a table beside its second copy.
    fn look_at_pair(
        &self,
        number: usize,
        facts: &mut Facts,
        hits: &mut Hits,
        beyond: &mut BeyondOf,
    ) -> Result<()> {
        let [one, other] = facts.places[number];
        let read = |at: u64| match at {
            0 => Ok(None),
            at => self.table_at(sector_at(at)).map(Some),
        };
        let (first, second) = (read(one)?, if other == one { None } else { read(other)? });
        let are_apart = one != 0 && other != 0 && one.abs_diff(other) >= facts.table;
        facts.differ |= self.second.is_some() && (one == 0) != (other == 0);
        let get = |entries: &Option<Entries>, index| entries.as_ref().map(|it| it.get(index));
        let is_misled = self.sparse.is_misled(number as u64) && second.is_some();
        let (mut alike, mut unlike, mut found) = (0_u64, 0_u64, [Beyond::default(); 2]);
        for index in 0..self.sparse.geometry().entries() as usize {
            let entries = [get(&first, index), get(&second, index)];
            if entries.into_iter().flatten().all(|entry| entry == 0) {
                continue;
            }
            let is_agreed = are_apart && entries[0] == entries[1];
            facts.differ |= entries[1].is_some() && entries[0] != entries[1] && one != 0;
            *if is_agreed { &mut alike } else { &mut unlike } += 1;
            for (set, entry) in [(0, entries[0]), (1, entries[1].filter(|_| !is_agreed))] {
                let Some(entry) = entry else { continue };
                let from_start = self.bytes_before(number as u64, index);
                self.note_beyond(entry, from_start, &mut found[set]);
                if from_start >= self.sparse.geometry().capacity() {
                    continue;
                }
                let Site::At(place) = self.site(entry) else { continue };
                self.note_grain(place, from_start, is_agreed, facts, hits)?;
                let is_used = if is_misled || one == 0 { set == 1 } else { set == 0 };
                if is_used || is_agreed {
                    facts.first.insert(place);
                } else if set == 1 {
                    facts.second.insert(place);
                }
            }
        }
        facts.proven[number] = alike > unlike;
        let names_beyond = |it: &Beyond| it.whole + it.cut > 0;
        let found = found.into_iter().enumerate().filter(|(_, it)| names_beyond(it));
        beyond.extend(found.map(|(set, it)| (number, set, it)));
        Ok(())
    }

    /// Notes whether an entry names what lies behind the end of the file.
    fn note_beyond(&self, entry: u64, from_start: u64, found: &mut Beyond) {
        let Grain::Sector(first) = self.sparse.decode(entry) else { return };
        let len = match self.sparse.packed {
            Packed::No => self.sparse.grain_len(from_start),
            _ => SECTOR,
        };
        let at = sector_at(first);
        if at >= self.file_end {
            found.whole += 1;
        } else if at.saturating_add(len) > self.file_end {
            found.cut += 1;
        }
    }

    /// Notes a grain at a place, and the tables it lies on.
    fn note_grain(
        &self,
        place: HostOffset,
        from_start: u64,
        is_agreed: bool,
        facts: &mut Facts,
        hits: &mut Hits,
    ) -> Result<()> {
        let len = self.stored_at(place, from_start)?;
        for TableAt { number, set, .. } in facts.tables_on(sector(place), end_sector(place, len)) {
            let hit = &mut hits[number][set];
            *hit = (*hit).max(1 + u8::from(is_agreed));
        }
        if is_agreed {
            facts.agreed.insert(sector(place));
            if facts.within.len() < 2 {
                facts.within.insert(sector(place) % facts.agreed.unit());
            }
        }
        let directories = [Some(self.sparse.directory()), self.second].into_iter().flatten();
        let directory_len = self.sparse.geometry().directory_len();
        let mut shared = directories.filter(|at| {
            *at < place.saturating_add(len) && place < at.saturating_add(directory_len)
        });
        facts.entangled |= shared.next().is_some();
        Ok(())
    }

    /// Which tables share a byte with something else, and whose it is.
    fn judge_tables(&self, facts: &mut Facts, hits: &Hits) {
        let pieces = self.pieces();
        let len = self.sparse.geometry().table_len();
        let Facts { sorted, trust, proven, table: sectors, .. } = facts;
        for group in groups(sorted, *sectors) {
            let has_proven = group.iter().any(|it| proven[it.number]);
            for it in group {
                let at = sector_at(it.sector);
                let (table_end, is_proven) = (at.saturating_add(len), proven[it.number]);
                let on_piece = pieces.iter().any(|(piece, len)| {
                    *piece < table_end && at < piece.saturating_add((*len).next_multiple_of(SECTOR))
                });
                let hit = hits[it.number][it.set];
                let on_sure = on_piece || hit == 2 || group.len() > 1 && has_proven;
                trust[it.number][it.set] = match () {
                    () if on_sure && !is_proven => Trust::Misplaced,
                    () if on_sure || hit == 1 || group.len() > 1 => Trust::Doubted,
                    () => {
                        let is_usual = self.usual_place(it.number, it.set) == Some(at);
                        Trust::Apart { proven: is_proven || is_usual }
                    }
                };
            }
        }
    }

    /// Where all writers put a table that lies before the grains: all behind their directory, in a row.
    fn usual_place(&self, number: usize, set: usize) -> Option<HostOffset> {
        let geometry = self.sparse.geometry();
        let directory = if set == 0 { self.sparse.directory() } else { self.second? };
        let first = directory.get().saturating_add(geometry.directory_len());
        let len = geometry.table_len().next_multiple_of(SECTOR);
        let before = (number as u64).saturating_mul(len);
        let at = HostOffset(first.next_multiple_of(SECTOR)).saturating_add(before);
        (at.saturating_add(len) <= self.sparse.overhead).then_some(at)
    }

    /// A table takes the place of the misplaced one of the other set if nothing is read that was not, and
    /// nothing refused that was read: readers asked both.
    fn judge_substitutes(&self, facts: &mut Facts) -> Result<()> {
        for number in 0..facts.trust.len() {
            let misplaced = match facts.trust[number] {
                [Trust::Misplaced, Trust::Apart { proven: true }] => 0,
                [Trust::Apart { proven: false }, Trust::Apart { proven: true }] => 0,
                [Trust::Apart { .. }, Trust::Misplaced] => 1,
                _ => continue,
            };
            let [first, second] = facts.places[number].map(|at| self.table_at(sector_at(at)));
            let (first, second) = (first?, second?);
            if let (0, Trust::Apart { .. }) = (misplaced, facts.trust[number][0]) {
                let names = |table: &Entries| {
                    (0..table.len()).any(|it| matches!(self.site(table.get(it)), Site::At(_)))
                };
                if names(&first) || !names(&second) {
                    continue;
                }
                facts.trust[number][0] = Trust::Hollow;
            }
            let is_harmed = |index: usize| {
                let sites = [&first, &second].map(|table| self.site(table.get(index)));
                match (misplaced, sites) {
                    // The second is the one that is read already.
                    (0, _) if self.sparse.is_misled(number as u64) => false,
                    (0, [_, Site::At(place)]) => !facts.is_sole(place),
                    (0, [Site::Nothing, Site::Nowhere]) => true,
                    (_, [Site::At(_), Site::Nothing]) => misplaced == 0 && self.has_below,
                    (_, [Site::Nothing, Site::At(_)]) => self.has_below,
                    (_, [Site::Nowhere, _]) => misplaced == 1,
                    _ => false,
                }
            };
            if (0..first.len()).any(is_harmed) {
                facts.trust[number][misplaced] = Trust::Doubted;
            }
        }
        let is_proven = |it: &Trust| matches!(it, Trust::Nothing | Trust::Apart { proven: true });
        facts.is_orderly = facts.trust.iter().flatten().all(is_proven);
        Ok(())
    }

    /// A directory on which a table lies is only beyond doubt if other tables that it names are.
    fn judge_directories(&self, facts: &mut Facts) {
        let len = self.sparse.geometry().directory_len();
        let is_any_proven = facts.proven.contains(&true);
        for at in [Some(self.sparse.directory()), self.second].into_iter().flatten() {
            match facts.on_tables(at, len) {
                None => {}
                Some(by_proven) => facts.entangled |= by_proven || !is_any_proven,
            }
        }
    }

    /// Nothing is written to a directory on which a table lies that stays there.
    fn hold_directories(&self, facts: &mut Facts) {
        let len = self.sparse.geometry().directory_len();
        let directories = [Some(self.sparse.directory()), self.second];
        // What is not written to one of them may keep a table on the other.
        for _ in directories {
            for (set, at) in directories.into_iter().enumerate() {
                let Some(at) = at else { continue };
                let mut on = facts.tables_on(sector(at), end_sector(at, len));
                let stays = |table: TableAt| self.remedy(facts, table.number) == Remedy::None;
                let is_held = on.any(stays);
                drop(on);
                facts.is_held[set] |= is_held;
            }
        }
    }

    /// Bytes that the grain at a place has in the file, of the part of the extent from `from_start` on.
    fn stored_at(&self, place: HostOffset, from_start: u64) -> Result<u64> {
        match self.sparse.packed {
            Packed::No => Ok(self.sparse.geometry().grain()),
            packed => {
                let len = self.marked_len(place, from_start)?;
                Ok(len.map_or(SECTOR, |len| packed.head() + len as u64))
            }
        }
    }
}

/// Tables that share sectors with each other, and those that do not by themselves.
fn groups(sorted: &[TableAt], sectors: u64) -> impl Iterator<Item = &[TableAt]> {
    sorted.chunk_by(move |one, next| one.sector + sectors > next.sector)
}
