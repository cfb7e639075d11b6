//! Files laid end to end as one store.

use std::sync::Arc;

use anydisk_storage::{Error, Holes, HostOffset, Result, Run, Storage};

/// Stores laid end to end, for reading.
#[derive(Debug)]
pub(crate) struct Chunks {
    name: String,
    /// Where each begins, and the store.
    parts: Vec<(u64, Arc<dyn Storage>)>,
    len: u64,
}

impl Chunks {
    /// # Errors
    /// Of asking for the lengths.
    pub(crate) fn new(name: &str, stores: Vec<Arc<dyn Storage>>) -> Result<Self> {
        let mut parts = Vec::with_capacity(stores.len());
        let mut len = 0_u64;
        for store in stores {
            let own = store.len()?;
            parts.push((len, store));
            // Each is a file, so that the sum of a few thousand is far below 2^64 for all that
            // exist; a store that lies about its length is cut here.
            len = len.saturating_add(own);
        }
        Ok(Self { name: name.to_owned(), parts, len })
    }

    /// The store at `at`, the place in it, and where the next one begins.
    fn part(&self, at: u64) -> Option<(&Arc<dyn Storage>, u64, u64)> {
        let next = self.parts.partition_point(|(start, _)| *start <= at);
        let (start, store) = self.parts.get(next.checked_sub(1)?)?;
        let end = self.parts.get(next).map_or(self.len, |(start, _)| *start);
        Some((store, at - start, end))
    }

    fn read_only(&self) -> Error {
        Error::ReadOnly { store: self.name.as_str().into() }
    }
}

impl Storage for Chunks {
    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let place = at.saturating_add(done as u64).get();
            let Some((store, within, end)) = self.part(place).filter(|_| place < self.len) else {
                break;
            };
            let room = usize::try_from(end - place).unwrap_or(usize::MAX).min(buf.len() - done);
            let count = store.read_at(HostOffset(within), &mut buf[done..done + room])?;
            done += count;
            if count < room {
                break;
            }
        }
        Ok(done)
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> Result<()> {
        Err(self.read_only())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if len == self.len { Ok(()) } else { Err(self.read_only()) }
    }

    fn flush(&self) -> Result<()> {
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
}

impl Holes for Chunks {
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run> {
        match self.part(at.get()).filter(|_| at.get() < self.len) {
            None => Ok(Run { len: limit, hole: true }),
            Some((store, within, end)) => {
                let limit = limit.min(end - at.get());
                match store.holes() {
                    Some(holes) => holes.run_at(HostOffset(within), limit),
                    None => Ok(Run { len: limit, hole: false }),
                }
            }
        }
    }

    fn allocated(&self) -> Result<u64> {
        let parts = self.parts.iter().map(|(_, store)| match store.holes() {
            Some(holes) => holes.allocated(),
            None => store.len(),
        });
        parts.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;

    #[test]
    fn reading_goes_on_from_one_part_to_the_next() {
        let part = |bytes: &[u8]| Arc::new(MemoryStorage::new(bytes.to_vec())) as Arc<dyn Storage>;
        let parts = vec![part(b"abc"), part(b""), part(b"defg")];
        let chunks = Chunks::new("chunks", parts).unwrap();
        assert_eq!(chunks.len().unwrap(), 7);
        for at in 0..9_usize {
            for len in 0..9 {
                let mut buf = vec![b'.'; len];
                let count = chunks.read_at(HostOffset(at as u64), &mut buf).unwrap();
                let expected = &b"abcdefg"[at.min(7)..(at + len).min(7).max(at.min(7))];
                assert_eq!(&buf[..count], expected, "{len} at {at}");
            }
        }
    }
}
