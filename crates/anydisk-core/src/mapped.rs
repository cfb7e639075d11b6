//! A store for reading, put together from pieces of other stores: volumes over several disks, files
//! in chunks. Whoever knows where the pieces are says so; here is the one loop that reads.

use std::fmt::Debug;
use std::sync::Arc;

#[cfg(unix)]
use anydisk_storage::RawFile;
use anydisk_storage::{Error as StorageError, Holes, HostOffset, Run, Storage, StorageExt};

use crate::{Error, Result};

type StorageResult<T> = anydisk_storage::Result<T>;

/// One run of bytes with one answer.
#[derive(Debug)]
pub struct MappedPiece<'a> {
    /// Bytes from the place asked for; at least 1.
    pub len: u64,
    /// Where they are.
    pub from: MappedFrom<'a>,
}

/// Where the bytes of a run are.
#[derive(Debug)]
pub enum MappedFrom<'a> {
    /// In a store, from this place on.
    Store(&'a Arc<dyn Storage>, HostOffset),
    /// Nowhere: they are zero.
    Zero,
    /// Nowhere: they have to be [computed](Mapping::compute).
    Computed,
}

/// How the bytes of a store, or of a part of one, are found.
pub trait Mapping: Send + Sync + Debug {
    /// The run that begins at byte `at`, at most `limit` bytes long. The caller keeps inside what is
    /// mapped, and `limit` is not 0.
    ///
    /// # Errors
    /// What finding it says. A read of these bytes fails with it.
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>>;

    /// Computes the bytes of a run that [`locate`](Self::locate) called [`MappedFrom::Computed`].
    /// Most mappings have no such runs.
    ///
    /// # Errors
    /// What computing them says.
    fn compute(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let _ = (at, buf);
        Err(Error::Unsupported { format: "mapping", feature: "computing what is stored".into() })
    }
}

/// A store for reading whose bytes are where a [`Mapping`] says.
#[derive(Debug)]
pub struct MappedStorage {
    name: String,
    size: u64,
    mapping: Box<dyn Mapping>,
}

impl MappedStorage {
    /// A store of `size` bytes; `name` is what it is called in messages.
    #[must_use]
    pub fn new(name: String, size: u64, mapping: Box<dyn Mapping>) -> Self {
        Self { name, size, mapping }
    }

    fn read_piece(&self, at: u64, buf: &mut [u8]) -> Result<usize> {
        let piece = self.mapping.locate(at, buf.len() as u64)?;
        let len = usize::try_from(piece.len).unwrap_or(usize::MAX).min(buf.len());
        let part = &mut buf[..len];
        match piece.from {
            MappedFrom::Store(store, place) => store.read_exact_at(place, part)?,
            MappedFrom::Zero => part.fill(0),
            MappedFrom::Computed => self.mapping.compute(at, part)?,
        }
        Ok(len)
    }

    /// Bytes of the store from `at` on, at most `len`.
    fn room(&self, at: HostOffset, len: u64) -> u64 {
        self.size.saturating_sub(at.get()).min(len)
    }

    fn failed(&self, what: &'static str, at: u64, len: u64) -> impl FnOnce(Error) -> StorageError {
        move |error| error.of_store(what, &self.name, HostOffset(at), len)
    }

    fn read_only(&self) -> StorageError {
        StorageError::ReadOnly { store: self.name.as_str().into() }
    }
}

impl Storage for MappedStorage {
    fn len(&self) -> StorageResult<u64> {
        Ok(self.size)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> StorageResult<usize> {
        let room = self.room(at, buf.len() as u64);
        let len = usize::try_from(room).unwrap_or(usize::MAX);
        let mut done = 0;
        while done < len {
            let place = at.get() + done as u64;
            let left = (len - done) as u64;
            done += self
                .read_piece(place, &mut buf[done..len])
                .map_err(self.failed("read", place, left))?;
        }
        Ok(len)
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> StorageResult<()> {
        Err(self.read_only())
    }

    fn set_len(&self, len: u64) -> StorageResult<()> {
        if len == self.size { Ok(()) } else { Err(self.read_only()) }
    }

    fn flush(&self) -> StorageResult<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    /// The file, if all of the store is one run of it.
    #[cfg(unix)]
    fn fd(&self) -> Option<RawFile<'_>> {
        let piece = self.mapping.locate(0, self.size).ok()?;
        match piece.from {
            MappedFrom::Store(store, at) if piece.len == self.size => {
                store.fd()?.part(at.get(), Some(self.size))
            }
            _ => None,
        }
    }

    fn prefetch(&self, at: HostOffset, len: u64) {
        let len = self.room(at, len);
        if len == 0 {
            return;
        }
        if let Ok(MappedPiece { len, from: MappedFrom::Store(store, place) }) =
            self.mapping.locate(at.get(), len)
        {
            store.prefetch(place, len);
        }
    }
}

impl Holes for MappedStorage {
    fn run_at(&self, at: HostOffset, limit: u64) -> StorageResult<Run> {
        let room = self.room(at, limit);
        if room == 0 {
            return Ok(Run { len: limit, hole: true });
        }
        let piece =
            self.mapping.locate(at.get(), room).map_err(self.failed("map", at.get(), limit))?;
        match piece.from {
            MappedFrom::Zero => Ok(Run { len: piece.len, hole: true }),
            MappedFrom::Computed => Ok(Run { len: piece.len, hole: false }),
            MappedFrom::Store(store, place) => match store.holes() {
                Some(holes) => holes.run_at(place, piece.len),
                None => Ok(Run { len: piece.len, hole: false }),
            },
        }
    }

    fn allocated(&self) -> StorageResult<u64> {
        let (mut at, mut sum) = (0, 0);
        while at < self.size {
            let run = self.run_at(HostOffset(at), self.size - at)?;
            sum += if run.hole { 0 } else { run.len };
            at += run.len;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;

    /// Ten bytes of a store, ten zeroes, ten computed ones, and then an error.
    #[derive(Debug)]
    struct Sample(Arc<dyn Storage>);

    impl Mapping for Sample {
        fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
            let from = match at / 10 {
                0 => MappedFrom::Store(&self.0, HostOffset(at + 3)),
                1 => MappedFrom::Zero,
                2 => MappedFrom::Computed,
                _ => {
                    let feature = "what is there".into();
                    return Err(Error::Unsupported { format: "test", feature });
                }
            };
            Ok(MappedPiece { len: limit.min(10 - at % 10), from })
        }

        fn compute(&self, at: u64, buf: &mut [u8]) -> Result<()> {
            for (place, byte) in (at..).zip(buf) {
                *byte = u8::try_from(place).expect("a small place");
            }
            Ok(())
        }
    }

    fn sample(size: u64) -> MappedStorage {
        let below = Arc::new(MemoryStorage::new((100..120).collect()));
        MappedStorage::new("sample".to_owned(), size, Box::new(Sample(below)))
    }

    #[test]
    fn reading_goes_on_from_one_piece_to_the_next_wherever_it_begins_and_ends() {
        let expected: Vec<u8> = (103..113).chain([0; 10]).chain(20..28).collect();
        let store = sample(28);
        for at in 0..30_usize {
            for len in 0..30 {
                let mut buf = vec![b'.'; len];
                let count = store.read_at(HostOffset(at as u64), &mut buf).unwrap();
                assert_eq!(buf[..count], expected[at.min(28)..(at + len).min(28).max(at.min(28))]);
            }
        }
    }

    #[test]
    fn zeroes_are_holes_and_all_else_is_not() {
        let store = sample(28);
        let run = |at| store.run_at(HostOffset(at), 100).unwrap();
        assert_eq!(run(12), Run { len: 8, hole: true });
        assert_eq!(run(25), Run { len: 3, hole: false });
        assert_eq!(run(28), Run { len: 100, hole: true });
        assert_eq!(store.allocated().unwrap(), 18);
    }

    #[test]
    fn an_error_of_the_mapping_is_told_with_the_name_and_the_place() {
        let error = sample(40).read_at(HostOffset(28), &mut [0; 4]).unwrap_err().to_string();
        assert!(error.contains("sample") && error.contains("0x1e"), "{error}");
        assert!(error.contains("what is there is not supported"), "{error}");
    }

    #[test]
    fn writing_is_refused() {
        let store = sample(28);
        assert!(!store.is_writable());
        assert!(store.write_at(HostOffset(0), &[1]).is_err());
        assert!(store.set_len(28).is_ok() && store.set_len(5).is_err());
    }
}
