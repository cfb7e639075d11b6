//! Writing back: data before the tables that name it, second tables before the first.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};

use anydisk_core::{DirtySlice, HostOffset, Result, Storage};

use super::{SparseWriter, Writer};
use crate::extent::{Body, Sparse};
use crate::image::{VmdkImage, unkey};
use crate::layout::SECTOR;
use crate::table::SLICE;

impl VmdkImage {
    /// Makes everything that was done before durable.
    pub(super) fn write_back(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let _round = self.lock_round(writer);
        let sealed: Vec<_> = self.sparse_writers().map(|(_, writer)| writer.space.seal()).collect();
        let mut pictures = self.tables.dirty();
        pictures.sort_unstable_by_key(|picture| picture.at);
        let result = self.write_round(&pictures);
        for ((_, writer), sealed) in self.sparse_writers().zip(sealed) {
            writer.space.settle(sealed, result.is_ok());
        }
        result?;
        pictures.iter().for_each(|picture| self.tables.settle(picture));
        self.sparse_writers().try_for_each(|(sparse, writer)| {
            writer.space.punch_freed(&*self.files[sparse.file].store)
        })
    }

    /// The sparse extents that can be written.
    fn sparse_writers(&self) -> impl Iterator<Item = (&Sparse, &SparseWriter)> {
        self.parts.iter().filter_map(|part| match &part.body {
            Body::Sparse(sparse) => Some((sparse, &**sparse.writer.get()?)),
            _ => None,
        })
    }

    /// Gives space that no table names any more back to the host.
    pub(super) fn give_back(&self) -> Result<()> {
        for (sparse, writer) in self.sparse_writers() {
            let store = &*self.files[sparse.file].store;
            writer.space.trim(store)?;
            write_free_sector(store, sparse, writer)?;
        }
        self.flush_files()
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
                writer.space.cover(&*file.store)?;
                if !pictures.is_empty() {
                    write_free_sector(&*file.store, sparse, writer)?;
                }
            }
        }
        self.flush_files()?;
        if !pictures.is_empty() {
            self.write_tables(pictures)?;
            self.write_directories(pictures)?;
            self.flush_files()?;
        }
        // On the medium with whatever is flushed next: until then the extent looks as one that was not
        // closed, which it may.
        for (sparse, writer) in self.sparse_writers() {
            writer.unmark(sparse, &*self.files[sparse.file].store)?;
        }
        Ok(())
    }

    /// The pictures of grain tables, second copies first.
    fn write_tables(&self, pictures: &[DirtySlice]) -> Result<()> {
        for (sparse, writer) in self.sparse_writers() {
            let store = &*self.files[sparse.file].store;
            let count = sparse.geometry().entries().min(SLICE) as usize;
            let tables = || of_file(sparse, pictures).filter(|(at, _)| !sparse.is_directory(*at));
            for (at, picture) in tables() {
                if let Some(second) = writer.mirror.second(at) {
                    write_slice(store, second, picture, count)?;
                }
            }
            for (at, picture) in tables() {
                write_slice(store, at, picture, count)?;
            }
        }
        Ok(())
    }

    /// The pictures of directories, when the new tables that they name are on the medium.
    fn write_directories(&self, pictures: &[DirtySlice]) -> Result<()> {
        let is_new =
            |sparse: &Sparse| of_file(sparse, pictures).any(|(at, _)| sparse.is_directory(at));
        if !self.sparse_writers().any(|(sparse, _)| is_new(sparse)) {
            return Ok(());
        }
        self.flush_files()?;
        for (sparse, _) in self.sparse_writers() {
            let store = &*self.files[sparse.file].store;
            for (at, picture) in
                of_file(sparse, pictures).filter(|(at, _)| sparse.is_directory(*at))
            {
                let before = at.checked_since(sparse.directory()).unwrap_or(0);
                let rest =
                    (sparse.geometry().directory_len() - before) / sparse.geometry().entry_len();
                let count = usize::try_from(rest.min(SLICE.into())).unwrap_or(SLICE as usize);
                write_slice(store, at, picture, count)?;
            }
        }
        Ok(())
    }

    fn lock_round<'a>(&self, writer: &'a Writer) -> MutexGuard<'a, ()> {
        writer.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pictures that belong in the file of an extent, with their places there: some in a row of those
/// that are sorted by their keys.
fn of_file<'a>(
    sparse: &Sparse,
    pictures: &'a [DirtySlice],
) -> impl Iterator<Item = (HostOffset, &'a DirtySlice)> + use<'a> {
    let file = |picture: &DirtySlice| unkey(picture.at).0;
    let start = pictures.partition_point(|picture| file(picture) < sparse.file);
    let rest = pictures.get(start..).unwrap_or_default();
    let count = rest.partition_point(|picture| file(picture) == sparse.file);
    rest.iter().take(count).map(|picture| (unkey(picture.at).1, picture))
}

/// Writes the first `count` entries of a picture.
fn write_slice(
    store: &dyn Storage,
    at: HostOffset,
    picture: &DirtySlice,
    count: usize,
) -> Result<()> {
    let entry = |entry: &u64| u32::try_from(*entry).unwrap_or_default().to_le_bytes();
    let bytes: Vec<u8> = picture.entries.iter().take(count).flat_map(entry).collect();
    Ok(store.write_at(at, &bytes)?)
}

/// Where the header names the next free sector, it does so before a table names what lies before
/// it: else another program would use that again.
fn write_free_sector(store: &dyn Storage, sparse: &Sparse, writer: &SparseWriter) -> Result<()> {
    let Some(at) = sparse.free_sector_at else { return Ok(()) };
    let sector = u32::try_from(writer.space.end().get() / SECTOR).unwrap_or(u32::MAX);
    Ok(store.write_at(at, &sector.to_le_bytes())?)
}
