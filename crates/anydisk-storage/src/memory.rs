//! A store in memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Error, Holes, HostOffset, Identity, Result, Run, Space, Storage};

/// Bytes of a chunk: the unit in which memory is taken and given back.
const CHUNK: usize = 64 << 10;
const CHUNK_LEN: u64 = CHUNK as u64;

/// Sparse bytes in memory.
///
/// Only what was written takes memory, in chunks of 64 KiB: a store of 64 TiB that holds one byte
/// costs one chunk. Grows as it is written, up to the largest offset.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    /// Behind a pointer, so that the [`Identity`] stays when the store moves.
    state: Arc<RwLock<Sparse>>,
}

impl MemoryStorage {
    /// A store that holds `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let mut sparse = Sparse::default();
        sparse.write(0, &bytes);
        Self { state: Arc::new(RwLock::new(sparse)) }
    }

    /// A copy of all bytes, holes included: for stores that fit in memory as a whole.
    ///
    /// # Panics
    /// If the store is longer than the address space.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let sparse = self.shared();
        let len = usize::try_from(sparse.len).expect("only small stores are taken out whole");
        let mut bytes = vec![0; len];
        sparse.read(0, &mut bytes);
        bytes
    }

    fn shared(&self) -> RwLockReadGuard<'_, Sparse> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Sparse> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a range ends that must be possible to hold.
    fn end_of(&self, at: HostOffset, len: u64) -> Result<u64> {
        at.checked_add(len).map(HostOffset::get).ok_or_else(|| Error::OutOfRange {
            store: self.name().into(),
            at,
            len,
            end: u64::MAX,
        })
    }
}

/// The bytes: chunks by number, and the length of it all. A chunk that is not there is a hole;
/// bytes of the last chunk behind the length are zero, so that growing shows zeroes.
#[derive(Debug, Default)]
struct Sparse {
    chunks: BTreeMap<u64, Box<[u8]>>,
    len: u64,
}

/// The part of a range that lies in one chunk.
struct Part {
    chunk: u64,
    /// Where in the chunk.
    within: usize,
    len: usize,
}

impl Part {
    /// The first part of the `len` bytes at `at`.
    fn first(at: u64, len: u64) -> Self {
        let within = usize::try_from(at % CHUNK_LEN).expect("less than a chunk");
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK - within);
        Self { chunk: at / CHUNK_LEN, within, len }
    }

    fn of<'a>(&self, chunk: &'a mut [u8]) -> &'a mut [u8] {
        &mut chunk[self.within..][..self.len]
    }
}

impl Sparse {
    /// How many of `len` bytes at `at` lie inside the store.
    fn inside(&self, at: u64, len: u64) -> u64 {
        len.min(self.len.saturating_sub(at))
    }

    fn read(&self, mut at: u64, buf: &mut [u8]) -> usize {
        let count = usize::try_from(self.inside(at, buf.len() as u64)).unwrap_or(buf.len());
        let mut rest = &mut buf[..count];
        while !rest.is_empty() {
            let part = Part::first(at, rest.len() as u64);
            let (place, after) = rest.split_at_mut(part.len);
            match self.chunks.get(&part.chunk) {
                Some(chunk) => place.copy_from_slice(&chunk[part.within..][..part.len]),
                None => place.fill(0),
            }
            at += part.len as u64;
            rest = after;
        }
        count
    }

    /// The caller has checked that the range ends within `u64`.
    fn write(&mut self, at: u64, data: &[u8]) {
        let mut place = at;
        let mut rest = data;
        while !rest.is_empty() {
            let part = Part::first(place, rest.len() as u64);
            let chunk = self.chunks.entry(part.chunk).or_insert_with(zero_chunk);
            let (now, after) = rest.split_at(part.len);
            part.of(chunk).copy_from_slice(now);
            place += part.len as u64;
            rest = after;
        }
        if !data.is_empty() {
            self.len = self.len.max(place);
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.clear(len, self.len - len);
        }
        self.len = len;
    }

    /// Makes the range a hole: chunks that lie wholly inside go, the edges become zero. Costs
    /// what the store holds there, not what the range is long.
    fn clear(&mut self, at: u64, len: u64) {
        let Some(chunks) = chunks_of(at, len) else { return };
        let held: Vec<u64> = self.chunks.range(chunks).map(|(&number, _)| number).collect();
        for number in held {
            let start = number * CHUNK_LEN;
            let from = at.max(start);
            let part = Part::first(from, at + len - from);
            let reach = from + part.len as u64;
            if from == start && reach >= start.saturating_add(CHUNK_LEN).min(self.len) {
                self.chunks.remove(&number);
            } else if let Some(chunk) = self.chunks.get_mut(&number) {
                part.of(chunk).fill(0);
            }
        }
    }

    /// Zeroes what is held in the range, keeping its memory.
    fn fill_zero(&mut self, at: u64, len: u64) {
        let Some(chunks) = chunks_of(at, len) else { return };
        for (&number, chunk) in self.chunks.range_mut(chunks) {
            let from = at.max(number * CHUNK_LEN);
            Part::first(from, at + len - from).of(chunk).fill(0);
        }
    }

    /// The end of the run that begins at `at` inside the store, and whether it is a hole.
    fn run(&self, at: u64) -> (u64, bool) {
        let first = at / CHUNK_LEN;
        let mut expected = first;
        for (&number, _) in self.chunks.range(first..) {
            if number != expected {
                break;
            }
            expected += 1;
        }
        if expected > first {
            return (expected.saturating_mul(CHUNK_LEN).min(self.len), false);
        }
        let next = self.chunks.range(first..).next();
        (next.map_or(u64::MAX, |(number, _)| number * CHUNK_LEN), true)
    }
}

fn zero_chunk() -> Box<[u8]> {
    vec![0; CHUNK].into_boxed_slice()
}

/// Numbers of the chunks that the range touches.
fn chunks_of(at: u64, len: u64) -> Option<RangeInclusive<u64>> {
    let last = at.checked_add(len.checked_sub(1)?)?;
    Some(at / CHUNK_LEN..=last / CHUNK_LEN)
}

impl Storage for MemoryStorage {
    fn len(&self) -> Result<u64> {
        Ok(self.shared().len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        Ok(self.shared().read(at.get(), buf))
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        self.end_of(at, data.len() as u64)?;
        self.alone().write(at.get(), data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.alone().set_len(len);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "memory"
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    fn space(&self) -> Option<&dyn Space> {
        Some(self)
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::Memory(Arc::as_ptr(&self.state).addr()))
    }
}

impl Holes for MemoryStorage {
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run> {
        let sparse = self.shared();
        if at.get() >= sparse.len {
            return Ok(Run { len: limit, hole: true });
        }
        let (end, hole) = sparse.run(at.get());
        Ok(Run { len: limit.min(end - at.get()), hole })
    }

    fn allocated(&self) -> Result<u64> {
        Ok(self.shared().chunks.len() as u64 * CHUNK_LEN)
    }
}

impl Space for MemoryStorage {
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> Result<()> {
        let mut sparse = self.alone();
        let len = sparse.inside(at.get(), len);
        if unmap {
            sparse.clear(at.get(), len)
        } else {
            sparse.fill_zero(at.get(), len)
        }
        Ok(())
    }

    fn discard(&self, at: HostOffset, len: u64) -> Result<()> {
        self.zero(at, len, true)
    }

    /// Grows the store. Memory itself is not reserved: there is no place where running out of it
    /// could be told beforehand.
    fn allocate(&self, at: HostOffset, len: u64) -> Result<()> {
        let end = self.end_of(at, len)?;
        let mut sparse = self.alone();
        if len > 0 && end > sparse.len {
            sparse.set_len(end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorageExt;

    #[test]
    fn sixty_four_tebibytes_cost_nothing_until_they_are_written() {
        let store = MemoryStorage::default();
        store.set_len(64 << 40).unwrap();
        store.write_at(HostOffset(63 << 40), b"far").unwrap();
        assert_eq!(store.len().unwrap(), 64 << 40);
        assert_eq!(store.allocated().unwrap(), CHUNK_LEN);
        assert_eq!(
            store.run_at(HostOffset::ZERO, u64::MAX).unwrap(),
            Run { len: 63 << 40, hole: true }
        );
        store.zero(HostOffset::ZERO, 64 << 40, true).unwrap();
        assert_eq!(store.allocated().unwrap(), 0);
    }

    #[test]
    fn what_a_shorter_length_cut_off_reads_as_zero_when_it_grows_again() {
        let store = MemoryStorage::new(vec![7; CHUNK + 10]);
        store.set_len(5).unwrap();
        store.set_len(20).unwrap();
        let mut bytes = [1; 20];
        store.read_exact_at(HostOffset::ZERO, &mut bytes).unwrap();
        assert_eq!(bytes[..5], [7; 5]);
        assert_eq!(bytes[5..], [0; 15]);
    }

    #[test]
    fn zeroing_without_unmap_keeps_the_memory() {
        let store = MemoryStorage::new(vec![7; 2 * CHUNK]);
        store.zero(HostOffset::ZERO, CHUNK_LEN, false).unwrap();
        assert_eq!(store.allocated().unwrap(), 2 * CHUNK_LEN);
        assert_eq!(store.to_vec()[..CHUNK], vec![0; CHUNK]);
        assert_eq!(store.to_vec()[CHUNK..], vec![7; CHUNK]);
    }

    #[test]
    fn a_write_past_the_largest_offset_is_out_of_range() {
        let error = MemoryStorage::default().write_at(HostOffset(u64::MAX), b"ab").unwrap_err();
        assert!(matches!(error, Error::OutOfRange { len: 2, .. }), "{error}");
    }

    #[test]
    fn the_identity_stays_when_the_store_moves_and_differs_from_every_other() {
        let store = MemoryStorage::default();
        let before = store.identity();
        let moved = Box::new(store);
        assert_eq!(moved.identity(), before);
        assert_ne!(MemoryStorage::default().identity(), before);
    }
}
