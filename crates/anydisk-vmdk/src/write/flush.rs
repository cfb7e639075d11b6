//! Writing back: data before the tables that name it, second tables before the first.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};

use anydisk_core::{DirtySlice, HostOffset, Result, Sealed, Storage};

use super::{SparseWriter, Writer};
use crate::extent::{Body, Sparse};
use crate::image::{VmdkImage, unkey};
use crate::table::SLICE;

impl VmdkImage {
    /// Makes everything that was done before durable.
    pub(super) fn write_back(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let _round = self.lock_round(writer);
        let sealed: Vec<Sealed<HostOffset>> =
            self.sparse_writers().map(|(_, writer)| writer.grains.seal()).collect();
        let pictures = self.tables.dirty();
        let result = self.write_round(&pictures);
        for ((_, writer), sealed) in self.sparse_writers().zip(sealed) {
            writer.grains.settle(sealed, result.is_ok(), &self.leases);
        }
        result?;
        pictures.iter().for_each(|picture| self.tables.settle(picture));
        Ok(())
    }

    /// The sparse extents that can be written.
    fn sparse_writers(&self) -> impl Iterator<Item = (&Sparse, &SparseWriter)> {
        let writers = self.writer.iter().flat_map(|writer| &writer.extents);
        self.parts.iter().zip(writers).filter_map(|(part, writer)| match &part.body {
            Body::Sparse(sparse) => Some((sparse, writer.as_ref()?)),
            _ => None,
        })
    }

    fn flush_files(&self) -> Result<()> {
        let mut used = self.files.iter().filter(|file| file.used.load(Relaxed));
        used.try_for_each(|file| Ok(file.store.flush()?))
    }

    /// Data, then the tables that name it, each on the medium before the next.
    fn write_round(&self, pictures: &[DirtySlice]) -> Result<()> {
        for (sparse, writer) in self.sparse_writers() {
            let file = &self.files[sparse.file];
            if file.used.load(Relaxed) {
                writer.grains.cover(&*file.store)?;
            }
        }
        self.flush_files()?;
        let marked = self.sparse_writers().any(|(_, writer)| writer.marked.load(Relaxed));
        if pictures.is_empty() && !marked {
            return Ok(());
        }
        for (sparse, writer) in self.sparse_writers() {
            let store = &*self.files[sparse.file].store;
            write_tables(store, sparse, pictures, |table| writer.mirror.second(table))?;
            write_tables(store, sparse, pictures, Some)?;
            writer.unmark(store)?;
        }
        self.flush_files()
    }

    fn lock_round<'a>(&self, writer: &'a Writer) -> MutexGuard<'a, ()> {
        writer.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the pictures of an extent's tables to where `place` says that they go.
fn write_tables(
    store: &dyn Storage,
    sparse: &Sparse,
    pictures: &[DirtySlice],
    place: impl Fn(HostOffset) -> Option<HostOffset>,
) -> Result<()> {
    // A table to be written is never longer than a slice.
    let count = sparse.geometry.entries().min(SLICE) as usize;
    for picture in pictures {
        let (file, table) = unkey(picture.at);
        let Some(at) = place(table).filter(|_| file == sparse.file) else { continue };
        let entries = picture.entries.iter().take(count);
        let entry = |entry: &u64| u32::try_from(*entry).unwrap_or_default().to_le_bytes();
        let bytes: Vec<u8> = entries.flat_map(entry).collect();
        store.write_at(at, &bytes)?;
    }
    Ok(())
}
