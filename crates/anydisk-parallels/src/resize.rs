//! Changing the virtual size.
//!
//! The block table grows into the gap before the first cluster. Where that is too small, the first
//! clusters of the file move behind all others:
//!
//! ```text
//!   header | table | cluster | cluster | cluster | ...
//!   header | table, longer ........... | cluster | ... | moved | moved
//! ```
//!
//! Places are counted from the start of the file, so the others stay where they are. The switch is the
//! header, in one sector: the number of entries and data_off first, then the size.

use std::cmp::Ordering;

use anydisk_core::{
    Block, GuestOffset, GuestRange, HostOffset, Image, ImageWrite, NewSize, Preallocation, Resize,
    Result, Still, Storage, StorageExt, TableShape, for_each_written_entry, give_space, narrow,
};

use crate::copy::copy_cluster;
use crate::create::cylinders;
use crate::header::{Kind, TABLE, limit, table_end, unsupported};
use crate::image::ParallelsImage;
use crate::layout::{ENTRY, RawHeader, SECTOR};
use crate::limits;
use crate::table::Entries;

/// Clusters that are freed between two flushes.
const AT_ONCE: usize = 1 << 16;

impl Resize for ParallelsImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        limit("size of the disk in bytes", new.size, limits::DISK)?;
        let size = new.size.next_multiple_of(SECTOR);
        limit("number of clusters", size.div_ceil(self.header.cluster), limits::ENTRIES)?;
        if self.header.kind == Kind::Old {
            limit("sectors of a disk of the older kind", size / SECTOR, u32::MAX.into())?;
        }
        self.begin()?;
        match size.cmp(&self.size()) {
            Ordering::Equal => Ok(()),
            Ordering::Less => self.shrink(size, new),
            Ordering::Greater => self.grow(size, new),
        }
    }
}

impl ParallelsImage {
    fn grow(&self, size: u64, new: &NewSize<'_>) -> Result<()> {
        let old = self.table.shape();
        self.make_room(size)?;
        let grown = self.fill_new(old.size, size, new).and_then(|()| self.put_size(size));
        if grown.is_err() {
            // The header still tells the old size, so the disk keeps it. The table may stay longer.
            self.table.reshape(TableShape { size: old.size, ..self.table.shape() });
        }
        grown
    }

    /// Makes the table long enough for `size` bytes, and the disk in memory that long.
    fn make_room(&self, size: u64) -> Result<()> {
        let still = self.table.hold_still()?;
        self.flush()?;
        let shape = self.table.shape();
        let needed = size.div_ceil(self.header.cluster);
        // Entries that the disk did not need yet may say anything.
        let used = shape.size.div_ceil(self.header.cluster);
        self.free_entries(&still, used, shape.entries)?;
        if needed > shape.entries {
            self.lengthen(&still, needed)?;
        }
        self.table.reshape(TableShape { size, ..self.table.shape() });
        Ok(())
    }

    /// Makes the table `entries` long, all of which is durable before the header counts them.
    fn lengthen(&self, still: &Still<'_>, entries: u64) -> Result<()> {
        let (shape, store) = (self.table.shape(), &**self.table.store());
        let behind = table_end(entries).get().saturating_sub(shape.first.get());
        let clusters = behind.div_ceil(self.header.cluster);
        let first = shape.first.saturating_add(clusters * self.header.cluster);
        limit("place of the first cluster in sectors", first.get() / SECTOR, u32::MAX.into())?;
        if clusters > 0 {
            self.vacate(still, first)?;
        }
        let old_end = table_end(shape.entries);
        store.write_zeroes_at(old_end, table_end(entries).get() - old_end.get())?;
        store.flush()?;
        self.edit_header(|raw| {
            raw.nb_bat_entries = narrow(entries).into();
            raw.data_off = narrow(first.get() / SECTOR).into();
        })?;
        self.table.forget(still, shape.entries..entries);
        self.table.reshape(TableShape { entries, first, ..shape });
        Ok(())
    }

    /// Moves the clusters that lie before `first` behind all others.
    fn vacate(&self, still: &Still<'_>, first: HostOffset) -> Result<()> {
        if self.state.extension().is_some_and(|at| at < first) {
            return Err(unsupported("growing a block table over the format extension"));
        }
        let moves = self.clusters_before(first)?;
        let space = self.table.space();
        let mut to = space.used_end().max(first);
        let mut moved = Vec::with_capacity(moves.len());
        for (guest, from) in moves {
            copy_cluster(&**self.table.store(), from, to, self.header.cluster)?;
            moved.push((guest, to));
            to = to.saturating_add(self.header.cluster);
        }
        limit(
            "place of a cluster in the file",
            to.get() / self.header.multiplier(),
            u32::MAX.into(),
        )?;
        self.reset_space(to);
        self.table.store().flush()?;
        for (guest, to) in moved {
            self.name(still, guest, Block::At(to))?;
        }
        self.flush()?;
        // Readers of what was moved must be gone before the table is written there.
        still.drain()?;
        self.reset_space(to);
        Ok(())
    }

    /// All before `end` is in use, and nothing behind it.
    pub(crate) fn reset_space(&self, end: HostOffset) {
        let _round = self.lock_round();
        self.table.space().reset(end);
    }

    /// The clusters of the disk that lie before `first`, and where, by the table on the medium.
    fn clusters_before(&self, first: HostOffset) -> Result<Vec<(u64, HostOffset)>> {
        let mut found = Vec::new();
        self.for_each_cluster(0, |guest, place| {
            if place < first {
                found.push((guest, place));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `each` with every cluster of the disk from number `from` on that has a place, and that,
    /// by the table on the medium.
    pub(crate) fn for_each_cluster(
        &self,
        from: u64,
        mut each: impl FnMut(u64, HostOffset) -> Result<()>,
    ) -> Result<()> {
        let (shape, entries) = (self.table.shape(), Entries::of(&self.header));
        let (at, count) = (TABLE.saturating_add(from * ENTRY), shape.entries.saturating_sub(from));
        for_each_written_entry(at, count, &**self.table.store(), |at, bytes| {
            match entries.place(u32::from_le_bytes(bytes)) {
                Some(place) => each((at.get() - TABLE.get()) / ENTRY, place),
                None => Ok(()),
            }
        })
    }

    /// Makes what is new read as zero, and gives it space if it is to have some.
    fn fill_new(&self, old: u64, size: u64, new: &NewSize<'_>) -> Result<()> {
        let unit_end = old.next_multiple_of(self.header.cluster);
        // The rest of the unit with the old end, and what would show of a longer disk below.
        let end = unit_end.max(new.below).min(size);
        if end > old {
            (new.zero)(GuestRange::between(GuestOffset(old), GuestOffset(end)))?;
        }
        if new.preallocation != Preallocation::Off {
            let range = GuestRange::between(GuestOffset(old), GuestOffset(size));
            give_space(self, range, new.preallocation, |at| self.table.unit_at(at))?;
        }
        self.flush()
    }

    fn shrink(&self, size: u64, new: &NewSize<'_>) -> Result<()> {
        let unit_end = size.next_multiple_of(self.header.cluster).min(self.size());
        if unit_end > size {
            (new.zero)(GuestRange::between(GuestOffset(size), GuestOffset(unit_end)))?;
        }
        let still = self.table.hold_still()?;
        self.flush()?;
        let shape = self.table.shape();
        self.put_size(size)?;
        self.table.reshape(TableShape { size, ..shape });
        // Now that the disk ends before them, nothing shows when these entries say nothing.
        self.free_entries(&still, size.div_ceil(self.header.cluster), shape.entries)
    }

    /// Frees what these entries name, which are not needed by the disk.
    fn free_entries(&self, still: &Still<'_>, from: u64, to: u64) -> Result<()> {
        loop {
            let named = if from < to { self.named_from(from)? } else { Vec::new() };
            if named.is_empty() {
                return Ok(());
            }
            for guest in named {
                self.name(still, guest, Block::Absent)?;
            }
            self.flush()?;
        }
    }

    /// Clusters of the disk from number `from` on that have a place, the first of them.
    fn named_from(&self, from: u64) -> Result<Vec<u64>> {
        let mut named = Vec::new();
        self.for_each_cluster(from, |guest, _| {
            if named.len() < AT_ONCE {
                named.push(guest);
            }
            Ok(())
        })?;
        Ok(named)
    }

    /// Writes the size into the header.
    fn put_size(&self, size: u64) -> Result<()> {
        self.edit_header(|raw| {
            raw.nb_sectors = (size / SECTOR).into();
            raw.cylinders = cylinders(size).into();
        })
    }

    /// Changes what the header says of the disk: durable.
    fn edit_header(&self, change: impl FnOnce(&mut RawHeader)) -> Result<()> {
        let store = &**self.table.store();
        self.state.doubt.during(|| {
            self.state.edit(store, change)?;
            Ok(store.flush()?)
        })
    }
}
