//! Looking into the second copies, where the first ones name nothing, or a place that cannot be.
//!
//! A table that was zeroed looks as one of a disk that was never written, so zeroes are believed only
//! if both copies say so. That costs a look at a second table where nothing is, and nothing where data
//! is. Both ends of a crash are true: what was not flushed may be there or not. Where something is
//! written, opening compared the copies, and both are written together from then on.

use anydisk_core::{HostOffset, Need, Result};

use crate::VmdkImage;
use crate::extent::Sparse;
use crate::image::{Table, key};
use crate::table::{Grain, Place, run};

/// What both tables say of grains in a row.
pub(crate) enum Twice<'a> {
    /// Metadata is missing.
    Need(Need<'a>),
    /// The answer, and for how many grains it holds.
    Run(Grain, u32),
}

impl VmdkImage {
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
        Ok(match (said, nameless, other) {
            (_, 0, _) => Twice::Run(other, len),
            (Grain::Absent, ..) => Twice::Run(said, nameless),
            (_, _, Grain::Absent | Grain::Zero) => Twice::Run(other, 1),
            _ => Twice::Run(said, count),
        })
    }
}
