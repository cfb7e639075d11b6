//! The tables of a file of grains, made to cover more or less of the disk.
//!
//! Where more tables are needed, new directories are written behind everything, with the new tables
//! beside them, and the header then names them instead of the old ones, whose place is lost:
//!
//! ```text
//!   header | rgd | tables | gd | tables | grains ...                          the old ones
//!   header | ... | tables | ... | tables | grains ... | rgd | tables | gd | tables
//! ```

use anydisk_core::{HostOffset, Image, Result, Storage, Updated};

use super::super::{SparseWriter, read_only};
use crate::extent::{Part, Sparse};
use crate::guard;
use crate::header::{limit, unsupported};
use crate::image::{Table, VmdkImage, key};
use crate::layout::{CowdHeader, SECTOR, SparseHeader};
use crate::limits;
use crate::table::{Geometry, Grain, SLICE, SliceAt, sector_at, sector_of};

/// Whether so many bytes can be in the extent.
pub(super) fn check_len(sparse: &Sparse, len: u64) -> Result<()> {
    let most = if sparse.is_cowd() { u64::from(u32::MAX) * SECTOR } else { limits::FILE };
    limit("size of a sparse extent in bytes", len, most)?;
    let directory = sparse.geometry().with_capacity(len).directory_len();
    limit(
        "size of a grain directory to be written, in bytes",
        directory,
        limits::WRITABLE_DIRECTORY,
    )
}

/// Writes how many bytes are in the extent into its header, durably.
pub(super) fn tell_capacity(sparse: &Sparse, store: &dyn Storage, len: u64) -> Result<()> {
    let sectors = len / SECTOR;
    if sparse.is_cowd() {
        let at = HostOffset(std::mem::offset_of!(CowdHeader, numSectors) as u64);
        let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
        store.write_at(at, &sectors.to_le_bytes())?;
    } else {
        let at = HostOffset(std::mem::offset_of!(SparseHeader, capacity) as u64);
        store.write_at(at, &sectors.to_le_bytes())?;
    }
    Ok(store.flush()?)
}

/// The directories of a longer extent: where they are, and how far they and their tables reach.
struct NewSet {
    /// Bytes of a directory, in whole sectors.
    directory_len: u64,
    /// Tables that are made with it.
    added: u64,
    /// Bytes of each of them, in whole sectors.
    table_len: u64,
}

impl NewSet {
    /// For an extent that is divided as `old` and gets as many tables as `new`.
    fn of(sparse: &Sparse, old: &Geometry, new: &Geometry) -> Self {
        Self {
            directory_len: new.directory_len().next_multiple_of(SECTOR),
            // A redo log gets its tables when they are needed.
            added: if sparse.is_cowd() { 0 } else { new.tables() - old.tables() },
            table_len: new.table_len().next_multiple_of(SECTOR),
        }
    }

    /// Bytes of the directory and its new tables.
    fn len(&self) -> u64 {
        self.directory_len.saturating_add(self.added.saturating_mul(self.table_len))
    }

    /// Sectors of the new tables of the directory at `start`.
    fn tables(&self, start: HostOffset) -> Result<Vec<u32>> {
        let table = |number| start.saturating_add(self.directory_len + number * self.table_len);
        let sector = |at| sector_of(at).and_then(|sector| u32::try_from(sector).ok());
        let sectors = (0..self.added).map(|number| sector(table(number)));
        sectors.collect::<Option<_>>().ok_or_else(|| read_only("its file is full"))
    }
}

impl VmdkImage {
    /// Gives the extent a table for each part of its first `len` bytes. Durable; the header names
    /// no other size yet.
    pub(super) fn add_tables(&self, sparse: &Sparse, len: u64) -> Result<()> {
        let (old, new) = (sparse.geometry(), sparse.geometry().with_capacity(len));
        if new.tables() <= old.tables() {
            return Ok(());
        }
        let (writer, store) = (sparse.writer()?, &*self.files[sparse.file].store);
        let set = NewSet::of(sparse, &old, &new);
        let copies = 1 + u64::from(sparse.redundant().is_some());
        let space = writer.take_zeroed(set.len() * copies)?;
        let moved = self.write_set(sparse, &set, space.at, copies);
        let (first, second) = moved.inspect_err(|_| writer.space.give_back(space.at, space.len))?;
        sparse.grow_to(space.end());
        let places = (first.at, second.as_ref().map(|it| it.at));
        let doubt =
            &self.writer.as_ref().ok_or_else(|| read_only("it was opened for reading"))?.doubt;
        doubt.during(|| name_directories(sparse, writer, store, &new, places))?;
        if let Some(second) = &second {
            writer.mirror.extend(first.tables.iter().copied().zip(second.tables.iter().copied()));
        }
        sparse.set_capacity(len);
        sparse.move_directories(first.at, second.map(|second| second.at));
        Ok(())
    }

    /// Writes the new directories at `start`: the second one and its tables, then the first, as in
    /// a new extent. Durable.
    fn write_set(
        &self,
        sparse: &Sparse,
        set: &NewSet,
        start: HostOffset,
        copies: u64,
    ) -> Result<(Written, Option<Written>)> {
        let store = &*self.files[sparse.file].store;
        sparse.writer()?.space.cover(store)?;
        let old = [sparse.redundant(), Some(sparse.directory())];
        let mut written = Vec::new();
        let from = |copy: u64| start.saturating_add(copy * set.len());
        for (old, copy) in old.into_iter().flatten().zip(0..copies) {
            let mut entries = guard::directory(sparse, store, old)?;
            let at = from(copy);
            let tables = set.tables(at)?;
            entries.extend(&tables);
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            store.write_at(at, &bytes)?;
            written.push(Written { at, tables });
        }
        store.flush()?;
        let first = written.pop().ok_or_else(|| read_only("it has no grain directory"))?;
        Ok((first, written.pop()))
    }

    /// Empties the entries of all grains behind the first `from` bytes. The grains of the part, but
    /// not what else entries may name, are given back, also to the file system: the disk ends before
    /// them on the medium, so nobody finds them any more, whatever a power failure leaves of the
    /// entries.
    pub(super) fn clear_behind(&self, part: &Part, sparse: &Sparse, from: u64) -> Result<()> {
        let geometry = sparse.geometry();
        let entries = u64::from(geometry.entries());
        let grain = |len: u64| len.div_ceil(geometry.grain());
        let (first, end) = (grain(from), grain(part.range().len()));
        let mut number = first / entries;
        while number < geometry.tables() {
            let start = number * entries;
            let in_table = |grain: u64| {
                u32::try_from(grain.saturating_sub(start).min(entries)).unwrap_or(u32::MAX)
            };
            if let Some(table) = self.table_now(sparse, number)? {
                self.clear_table(sparse, table, in_table(first), in_table(end))?;
            }
            number += 1;
        }
        Ok(())
    }

    /// Empties the entries of a table from `from` on; what those before `end` name is given back.
    fn clear_table(&self, sparse: &Sparse, table: HostOffset, from: u32, end: u32) -> Result<()> {
        let geometry = sparse.geometry();
        let first = from / SLICE * SLICE;
        for entry in (first..geometry.entries()).step_by(SLICE as usize) {
            let slice = geometry.table_slice(table, entry);
            if self.unwritten.run_end(key(sparse.file, slice.at)).is_some() {
                continue;
            }
            let at = |number: u32| number.saturating_sub(entry).min(slice.count);
            self.clear_slice(sparse, slice, at(from), at(end))?;
        }
        Ok(())
    }

    fn clear_slice(&self, sparse: &Sparse, slice: SliceAt, from: u32, end: u32) -> Result<()> {
        let place = key(sparse.file, slice.at);
        let mut freed = Vec::new();
        loop {
            let filled = self.tables.read(place, |entries| {
                (from..slice.count).any(|index| entries.get(index as usize) != 0)
            });
            match filled {
                None => self.satisfy(&self.need_table(sparse, slice))?,
                Some(false) => return Ok(()),
                Some(true) => {
                    self.forget_unwritten(sparse, slice);
                    let update = self.tables.update(place, |entries| {
                        for index in from..slice.count {
                            let entry = sparse.decode(entries.get(index as usize));
                            if let (Grain::Sector(sector), true) = (entry, index < end) {
                                freed.push(sector);
                            }
                            entries.set(index as usize, 0);
                        }
                    });
                    match update {
                        Updated::Missing => {}
                        Updated::Full => self.relieve()?,
                        Updated::Done(()) => break,
                    }
                }
            }
        }
        let (writer, grain) = (sparse.writer()?, sparse.geometry().grain());
        freed.iter().for_each(|sector| writer.space.retire(sector_at(*sector), grain));
        punch(&*self.files[sparse.file].store, &mut freed, grain)
    }

    /// Where a table is, reading its directory as needed.
    fn table_now(&self, sparse: &Sparse, number: u64) -> Result<Option<HostOffset>> {
        loop {
            match self.table(sparse, number)? {
                Table::Need(need) => self.satisfy(&need)?,
                Table::Absent(_) => return Ok(None),
                Table::At(table) => return Ok(Some(table)),
            }
        }
    }
}

/// A directory that was written, and its new tables.
struct Written {
    at: HostOffset,
    tables: Vec<u32>,
}

/// Has the header name other directories, durably: a few fields side by side.
fn name_directories(
    sparse: &Sparse,
    writer: &SparseWriter,
    store: &dyn Storage,
    geometry: &Geometry,
    (first, second): (HostOffset, Option<HostOffset>),
) -> Result<()> {
    if sparse.is_cowd() {
        let at = HostOffset(std::mem::offset_of!(CowdHeader, gdOffset) as u64);
        // gdOffset, numGDEntries, freeSector
        let numbers = [first.get() / SECTOR, geometry.tables(), writer.space.end().get() / SECTOR];
        let numbers = numbers.map(|number| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        store.write_at(at, numbers.as_flattened())?;
        return Ok(store.flush()?);
    }
    let second = second.map(|at| at.get() / SECTOR);
    let fields = [second.unwrap_or(0), first.get() / SECTOR].map(u64::to_le_bytes);
    // Without a second directory its field keeps what it has.
    let (skipped, field) = match second {
        Some(_) => (0, std::mem::offset_of!(SparseHeader, rgdOffset)),
        None => (8, std::mem::offset_of!(SparseHeader, gdOffset)),
    };
    store.write_at(HostOffset(field as u64), &fields.as_flattened()[skipped..])?;
    Ok(store.flush()?)
}

/// Makes holes of grains, where the file can have some.
fn punch(store: &dyn Storage, sectors: &mut [u64], grain: u64) -> Result<()> {
    let Some(space) = store.space() else { return Ok(()) };
    sectors.sort_unstable();
    let step = grain / SECTOR;
    for run in sectors.chunk_by(|a, b| a + step == *b) {
        let at = run.first().map_or(HostOffset::ZERO, |sector| sector_at(*sector));
        match space.zero(at, run.len() as u64 * grain, true) {
            Ok(()) => {}
            Err(anydisk_storage::Error::Unsupported { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether the header itself, and no footer, says where the directories are.
pub(super) fn check_header(sparse: &Sparse, store: &dyn Storage) -> Result<()> {
    let mut entry = [0; 8];
    if !sparse.is_cowd() {
        let field = std::mem::offset_of!(SparseHeader, gdOffset);
        store.read_at(HostOffset(field as u64), &mut entry)?;
        if u64::from_le_bytes(entry) != sparse.directory().get() / SECTOR {
            return Err(unsupported("resizing an extent whose directory a footer names"));
        }
    }
    Ok(())
}
