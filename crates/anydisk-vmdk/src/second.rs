//! Looking into the second copies, where the first ones name nothing, or a place that cannot be.
//!
//! A table that was zeroed looks as one of a disk that was never written, so zeroes are believed only
//! if both copies say so. That costs a look at a second table where nothing is, and nothing where data
//! is. Both ends of a crash are true: what was not flushed may be there or not. Where something is
//! written, opening compared the copies, and both are written together from then on.
//!
//! A second copy can be damaged too: a grain that only it names must be nobody else's. Where there is such
//! a grain, all first tables are looked at, once.

use std::sync::{Mutex, OnceLock, PoisonError};

use anydisk_core::{HostOffset, Need, Owners, Result};

use crate::VmdkImage;
use crate::extent::{Packed, Sparse};
use crate::image::{Table, key};
use crate::table::{Grain, Place, run};

/// What both tables say of grains in a row.
pub(crate) enum Twice<'a> {
    /// Metadata is missing.
    Need(Need<'a>),
    /// The answer, and for how many grains it holds.
    Run(Grain, u32),
}

/// Which grains the first tables name, as far as they were looked at.
#[derive(Debug, Default)]
pub(crate) struct Survey(OnceLock<Box<Mutex<State>>>);

#[derive(Debug, Default)]
struct State {
    /// Tables before this one were looked at.
    next: u64,
    owners: Option<Owners>,
}

/// How many grains in a row are nobody's.
enum Free<'a> {
    Need(Need<'a>),
    Count(u32),
}

impl VmdkImage {
    /// Of `count` grains in a row from a sector on, how many no first table names.
    fn free_grains<'a>(&'a self, sparse: &'a Sparse, first: u64, count: u32) -> Result<Free<'a>> {
        let state = sparse.survey.0.get_or_init(Box::default);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        // Packed grains lie closer together.
        let step = if sparse.packed == Packed::No { sparse.grain_sectors() } else { 1 };
        let owners = state.owners.get_or_insert_with(|| Owners::new(step));
        while state.next < sparse.geometry().tables() {
            state.next += match self.table(sparse, state.next) {
                Ok(Table::Need(need)) => return Ok(Free::Need(need)),
                Ok(Table::Absent(count)) => count.max(1),
                Ok(Table::At(table)) => match self.note_grains(sparse, (state.next, table), owners)
                {
                    Some(need) => return Ok(Free::Need(need)),
                    None => 1,
                },
                // A table that is not there names nothing.
                Err(_) => 1,
            };
        }
        let is_taken = |index: &u32| owners.meets(first + u64::from(*index) * step);
        Ok(Free::Count((0..count).find(is_taken).unwrap_or(count)))
    }

    /// Notes the grains that a table names, by its number and place; or what must be read first.
    fn note_grains<'a>(
        &'a self,
        sparse: &'a Sparse,
        (number, table): (u64, HostOffset),
        owners: &mut Owners,
    ) -> Option<Need<'a>> {
        let geometry = sparse.geometry();
        let slice = geometry.table_slice(table, 0);
        let place = key(sparse.file, slice.at);
        let is_hole = |end: HostOffset| end >= place.saturating_add(slice.len());
        if self.unwritten.run_end(place).is_some_and(is_hole) {
            return None;
        }
        // Entries behind the end of the disk mean nothing.
        let grains = geometry.capacity().div_ceil(geometry.grain());
        let rest = grains.saturating_sub(number.saturating_mul(geometry.entries().into()));
        let count = u64::from(slice.count).min(rest);
        let named = self.tables.read(place, |entries| {
            let indices = 0..usize::try_from(count).unwrap_or(usize::MAX);
            let sectors = indices.filter_map(|index| match sparse.decode(entries.get(index)) {
                Grain::Sector(sector) => Some(sector),
                _ => None,
            });
            sectors.collect::<Vec<_>>()
        });
        let Some(named) = named else { return Some(self.need_table(sparse, slice)) };
        for sector in named {
            owners.insert(sector);
        }
        None
    }

    /// Whether the second copy is to be asked about what the first one says.
    #[inline]
    pub(crate) fn is_doubted(&self, sparse: &Sparse, answer: Grain) -> bool {
        let is_doubtful = match answer {
            Grain::Absent => true,
            Grain::Sector(sector) => sparse.grain_place(sector, 1).is_none(),
            Grain::Zero | Grain::Broken(_) => false,
        };
        is_doubtful && self.has_second(sparse)
    }

    /// Whether there is a second copy that may know more.
    pub(crate) fn has_second(&self, sparse: &Sparse) -> bool {
        self.writer.is_none() && sparse.redundant().is_some()
    }

    /// What the tables for `place` say together, where the one at `table` says `first`, of so many grains.
    #[cold]
    pub(crate) fn look_twice<'a>(
        &'a self,
        sparse: &'a Sparse,
        place: Place,
        table: HostOffset,
        first: (Grain, u32),
    ) -> Result<Twice<'a>> {
        let (said, count) = first;
        let second = match self.second_table(sparse, place.table) {
            Ok(Table::Need(need)) => return Ok(Twice::Need(need)),
            Ok(Table::At(second)) if second != table => second,
            _ => return Ok(Twice::Run(said, count)),
        };
        // Behind an entry that is wrong there may be a good one.
        let count = if said == Grain::Absent { count } else { 1 };
        let slice = sparse.geometry().table_slice(second, place.entry);
        let end = slice.index.saturating_add(count).min(slice.count);
        let seen = self.tables.read(key(sparse.file, slice.at), |entries| {
            let entry = |index: u32| sparse.decode(entries.get(index as usize));
            let names = |index: &u32| {
                matches!(entry(*index), Grain::Sector(at) if sparse.grain_place(at, 1).is_some())
            };
            let named = (slice.index..end).find(names).unwrap_or(end);
            (run(entry, slice.index, end, sparse.grain_sectors()), named - slice.index)
        });
        let Some(((other, len), nameless)) = seen else {
            return Ok(Twice::Need(self.need_table(sparse, slice)));
        };
        if let (0, Grain::Sector(sector)) = (nameless, other) {
            return Ok(match self.free_grains(sparse, sector, len)? {
                Free::Need(need) => Twice::Need(need),
                Free::Count(0) => Twice::Run(said, 1),
                Free::Count(count) => Twice::Run(other, count),
            });
        }
        Ok(match (said, nameless, other) {
            (Grain::Absent, ..) => Twice::Run(said, nameless),
            (_, _, Grain::Absent | Grain::Zero) => Twice::Run(other, 1),
            _ => Twice::Run(said, count),
        })
    }
}
