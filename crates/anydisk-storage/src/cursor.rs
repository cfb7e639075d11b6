//! A store as the standard library has streams.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::ops::Deref;

use crate::{HostOffset, Storage};

/// A store, or a disk, as [`Read`], [`Write`] and [`Seek`], for those who know nothing of positions: a
/// file system, an archive. Each cursor has a place of its own.
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
/// use anydisk_storage::{MemoryStorage, StorageCursor};
///
/// let store = MemoryStorage::new(b"begin, end".to_vec());
/// let mut cursor = StorageCursor::new(&store);
/// cursor.seek(SeekFrom::End(-3))?;
/// let mut text = String::new();
/// cursor.read_to_string(&mut text)?;
/// assert_eq!(text, "end");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StorageCursor<S> {
    store: S,
    at: u64,
}

impl<S: Deref<Target: Storage>> StorageCursor<S> {
    /// A cursor at the first byte: of a reference, an `Arc` or a `Box`.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store, at: 0 }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    fn step(&mut self, count: usize) -> usize {
        self.at = self.at.saturating_add(count as u64);
        count
    }
}

impl<S: Deref<Target: Storage>> Read for StorageCursor<S> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let count = self.store.read_at(HostOffset(self.at), buf)?;
        Ok(self.step(count))
    }
}

impl<S: Deref<Target: Storage>> Write for StorageCursor<S> {
    /// Writes all of it; what cannot grow refuses what reaches behind its end.
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        self.store.write_at(HostOffset(self.at), data)?;
        Ok(self.step(data.len()))
    }

    /// Returns when all that was written is on stable storage.
    fn flush(&mut self) -> Result<()> {
        Ok(self.store.flush()?)
    }
}

impl<S: Deref<Target: Storage>> Seek for StorageCursor<S> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.store.len()?.checked_add_signed(by),
        };
        let before = || Error::new(ErrorKind::InvalidInput, "a place before the first byte");
        self.at = place.ok_or_else(before)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use super::*;
    use crate::MemoryStorage;

    #[test]
    fn a_cursor_does_what_that_of_the_standard_library_does() {
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(vec![1; 100]));
        let (mut ours, mut theirs) = (StorageCursor::new(store), Cursor::new(vec![1; 100]));
        for (to, data) in [
            (SeekFrom::Start(10), &b"ten"[..]),
            (SeekFrom::Current(5), b"eighteen"),
            (SeekFrom::End(-2), b"behind the end"),
            (SeekFrom::End(20), b"far behind"),
        ] {
            assert_eq!(ours.seek(to).unwrap(), theirs.seek(to).unwrap());
            assert_eq!(ours.write(data).unwrap(), theirs.write(data).unwrap());
        }
        for cursor in [&mut ours as &mut dyn Seek, &mut theirs] {
            assert!(cursor.seek(SeekFrom::Current(-1000)).is_err());
            cursor.rewind().unwrap();
        }
        let [mut mine, mut expected] = [Vec::new(), Vec::new()];
        ours.read_to_end(&mut mine).unwrap();
        theirs.read_to_end(&mut expected).unwrap();
        assert_eq!(mine, expected);
        ours.flush().unwrap();
    }

    #[test]
    fn a_kind_of_error_of_the_system_is_still_that_kind() {
        let cause = Error::from(ErrorKind::StorageFull);
        assert_eq!(
            Error::from(crate::Error::whole("write", "disk", cause)).kind(),
            ErrorKind::StorageFull
        );
    }
}
