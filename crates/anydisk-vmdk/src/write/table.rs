//! New grain tables, in extents that have only those they need.

use std::sync::PoisonError;

use anydisk_core::{HostOffset, Inserted, Need, Result, Updated};

use super::SparseWriter;
use crate::extent::Sparse;
use crate::image::{Table, VmdkImage, key};
use crate::layout::SECTOR;
use crate::table::SLICE;

/// What became of a table that was to be added.
pub(super) enum Added<'a> {
    /// It is there.
    Done,
    /// First this must be read.
    Need(Need<'a>),
    /// Too many tables are changed.
    Full,
}

impl VmdkImage {
    /// Adds an empty table, all of it in memory: it is written before the directory that names it.
    pub(super) fn add_table<'a>(
        &'a self,
        sparse: &'a Sparse,
        writer: &SparseWriter,
        number: u64,
    ) -> Result<Added<'a>> {
        let _adding = writer.adding.lock().unwrap_or_else(PoisonError::into_inner);
        match self.table(sparse, number)? {
            Table::Need(need) => return Ok(Added::Need(need)),
            Table::At(_) => return Ok(Added::Done),
            Table::Absent(_) => {}
        }
        let len = sparse.geometry().table_len();
        let space = writer.take_table(len)?;
        let table = space.at;
        let slices = || (0..sparse.geometry().entries()).step_by(SLICE as usize);
        let place = |entry| key(sparse.file, sparse.geometry().table_slice(table, entry).at);
        let made = slices().all(|entry| self.tables.create(place(entry), []) == Inserted::Yes);
        // Whoever sees the entry must find the table in the file.
        sparse.grow_to(table.saturating_add(len));
        let named = if made { self.name_table(sparse, number, table) } else { Updated::Full };
        if let Updated::Done(()) = named {
            return Ok(Added::Done);
        }
        slices().for_each(|entry| self.tables.remove(place(entry)));
        writer.space.give_back(space.at, space.len);
        Ok(match named {
            Updated::Missing => {
                let slice = sparse.directory_slice(sparse.directory(), number);
                Added::Need(self.need_table(sparse, slice))
            }
            _ => Added::Full,
        })
    }

    fn name_table(&self, sparse: &Sparse, number: u64, table: HostOffset) -> Updated<()> {
        let slice = sparse.directory_slice(sparse.directory(), number);
        self.forget_unwritten(sparse, slice);
        self.tables.update(key(sparse.file, slice.at), |entries| {
            entries.set(slice.index as usize, table.get() / SECTOR);
        })
    }
}
