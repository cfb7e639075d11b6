//! Classic snapshots: the exception store on a copy-on-write volume.

use anydisk_core::{Error, HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value};
use anydisk_storage::is_zero;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::layout::SECTOR;
use crate::run_map::{RunMap, RunMapBuilder};
use crate::{NAME, limits};

/// The first bytes of a store that is in use.
const MAGIC: [u8; 4] = *b"SnAp";

/// Largest chunk, in bytes. LVM makes up to 512 KiB.
const CHUNK: u64 = 16 << 20;

/// The start of the first chunk.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoreHeader {
    magic: [u8; 4],
    /// 0 once the store ran full or failed.
    valid: U32,
    version: U32,
    /// In sectors.
    chunk_size: U32,
}

/// Chunk `old` of the origin is chunk `new` of the store. `new` 0: the end of the list.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Exception {
    old: U64,
    new: U64,
}

/// What a store holds.
#[derive(Clone, Debug)]
pub(crate) struct Exceptions {
    /// Bytes of a chunk.
    pub(crate) chunk: u64,
    /// Chunks of the origin to chunks of the store.
    pub(crate) map: RunMap,
}

impl Exceptions {
    /// Reads the list of a store whose origin has `origin` bytes. A store that was never used is
    /// empty; the text's chunk, `said` bytes, then counts. `None`: the store ran full or failed, and
    /// the snapshot was lost.
    ///
    /// # Errors
    /// [`Invalid`] for a list that breaks a rule, [`Error::Limit`] for one that is too long.
    pub(crate) fn read(
        store: &dyn Storage,
        origin: u64,
        said: u64,
        limits: &Limits,
    ) -> Result<Option<Self>> {
        let chunk = match State::read(store)? {
            State::Unused => return Ok(Some(Self { chunk: said, map: RunMap::default() })),
            State::Lost => return Ok(None),
            State::InUse { chunk } => chunk,
        };
        let mut list = List { store, chunk, origin, len: store.len()? };
        let mut builder = RunMapBuilder::new("exceptions of a snapshot", limits::table(limits));
        let mut area = 0;
        while list.read_area(area, &mut builder)? {
            area += 1;
        }
        let map = builder.finish().map_err(|old| {
            invalid("old chunk of an exception", HostOffset::ZERO, old.into(), "no other like it")
        })?;
        Ok(Some(Self { chunk, map }))
    }
}

/// What a store is to its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing was copied yet.
    Unused,
    /// It ran full or failed.
    Lost,
    /// With chunks of so many bytes.
    InUse { chunk: u64 },
}

impl State {
    /// The state of a store, by its first bytes.
    ///
    /// # Errors
    /// [`Invalid`], [`Error::Unsupported`] for another version, [`Error::Limit`].
    pub(crate) fn read(store: &dyn Storage) -> Result<Self> {
        let mut head = [0; size_of::<StoreHeader>()];
        store.read_exact_at(HostOffset::ZERO, &mut head)?;
        if is_zero(&head) { Ok(Self::Unused) } else { state(&head) }
    }
}

/// The state of a store that was used. Pure.
fn state(head: &[u8; size_of::<StoreHeader>()]) -> Result<State> {
    let missing = || invalid("header", HostOffset::ZERO, Value::Missing, "16 bytes");
    let header = StoreHeader::read_from_bytes(head).map_err(|_| missing())?;
    if header.magic != MAGIC {
        let found = Value::from(&header.magic[..]);
        return Err(invalid("magic", HostOffset::ZERO, found, "\"SnAp\"").into());
    }
    if header.valid.get() == 0 {
        return Ok(State::Lost);
    }
    if header.version.get() != 1 {
        let feature = format!("version {} of a snapshot's store", header.version);
        return Err(Error::Unsupported { format: NAME, feature: feature.into() });
    }
    let sectors = u64::from(header.chunk_size.get());
    let chunk = sectors.saturating_mul(SECTOR);
    limits::check("chunk of a snapshot in bytes", chunk, CHUNK)?;
    if !sectors.is_power_of_two() {
        let at = HostOffset(12);
        return Err(invalid("chunk_size", at, sectors.into(), "a power of two").into());
    }
    Ok(State::InUse { chunk })
}

struct List<'a> {
    store: &'a dyn Storage,
    chunk: u64,
    /// Bytes of the origin and of the store.
    origin: u64,
    len: u64,
}

impl List<'_> {
    /// Exceptions in an area, which is one chunk; as many chunks of data follow it.
    fn per_area(&self) -> u64 {
        self.chunk / size_of::<Exception>() as u64
    }

    /// Reads one area. Whether another follows: this one is full.
    fn read_area(&mut self, area: u64, builder: &mut RunMapBuilder) -> Result<bool> {
        let number = (self.per_area() + 1).checked_mul(area).and_then(|n| n.checked_add(1));
        let at = number.and_then(|number| number.checked_mul(self.chunk));
        let Some(at) = at.filter(|at| self.len.checked_sub(*at).is_some_and(|n| n >= self.chunk))
        else {
            let expected = format!("an area inside the {} bytes of the store", self.len);
            let at = HostOffset(at.unwrap_or(u64::MAX));
            return Err(invalid("list of exceptions", at, Value::Missing, expected).into());
        };
        let mut bytes = vec![0; usize::try_from(self.chunk).unwrap_or(0)];
        self.store.read_exact_at(HostOffset(at), &mut bytes)?;
        for (index, entry) in bytes.chunks_exact(size_of::<Exception>()).enumerate() {
            let Ok(entry) = Exception::read_from_bytes(entry) else { return Ok(false) };
            if entry.new.get() == 0 {
                return Ok(false);
            }
            let place = at + (index * size_of::<Exception>()) as u64;
            self.check(entry, HostOffset(place))?;
            builder.push(entry.old.get(), entry.new.get())?;
        }
        Ok(true)
    }

    fn check(&self, entry: Exception, at: HostOffset) -> Result<()> {
        let (old, new) = (entry.old.get(), entry.new.get());
        if old >= self.origin.div_ceil(self.chunk) {
            let expected = format!("a chunk of the origin's {} bytes", self.origin);
            return Err(invalid("old chunk of an exception", at, old.into(), expected).into());
        }
        let chunks = self.len / self.chunk;
        if new >= chunks || new % (self.per_area() + 1) == 1 {
            let expected = format!("a chunk of data among the store's {chunks}");
            return Err(invalid("new chunk of an exception", at, new.into(), expected).into());
        }
        Ok(())
    }
}

fn invalid(
    field: &'static str,
    at: HostOffset,
    found: Value,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Invalid {
    let field = format!("snapshot store: {field}").into();
    Invalid { format: NAME, field, at, found, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_map::Looked;
    use anydisk_storage::MemoryStorage;

    const ORIGIN: u64 = 100 * 512;

    /// A store of chunks of one sector, 32 exceptions in an area, with these exceptions in order.
    fn store(exceptions: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 512 * 200];
        bytes[..4].copy_from_slice(b"SnAp");
        bytes[4] = 1;
        bytes[8] = 1;
        bytes[12] = 1;
        for (index, (old, new)) in exceptions.iter().enumerate() {
            let at = 512 * (1 + index / 32 * 33) + index % 32 * 16;
            bytes[at..at + 8].copy_from_slice(&old.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
        }
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<Option<Exceptions>> {
        Exceptions::read(&MemoryStorage::new(bytes), ORIGIN, 4096, &Limits::default())
    }

    /// The `index`th chunk of data of a store.
    fn data(index: u64) -> u64 {
        2 + index / 32 * 33 + index % 32
    }

    #[test]
    fn exceptions_of_several_areas_are_found() {
        let all: Vec<_> = (0..70).map(|index| (99 - index, data(index))).collect();
        let read = read(store(&all)).unwrap().unwrap();
        assert_eq!(read.chunk, 512);
        for (old, new) in all {
            assert_eq!(read.map.look(old).to, Some(new), "{old}");
        }
        assert_eq!(read.map.look(0), Looked { to: None, len: 30 });
    }

    #[test]
    fn a_store_that_was_never_used_is_empty() {
        let read = read(vec![0; 4096]).unwrap().unwrap();
        assert_eq!((read.chunk, read.map), (4096, RunMap::default()));
    }

    #[test]
    fn a_snapshot_that_was_lost_has_no_exceptions() {
        let mut lost = store(&[]);
        lost[4] = 0;
        assert!(read(lost).unwrap().is_none());
    }

    #[test]
    fn exceptions_that_point_nowhere_or_at_a_list_are_refused() {
        for (exceptions, complaint) in [
            (&[(100, 2)][..], "old chunk of an exception at 0x200 is 100"),
            (&[(5, 200)], "new chunk of an exception at 0x200 is 200"),
            (&[(5, 34)], "new chunk of an exception at 0x200 is 34"),
            (&[(5, u64::MAX)], "new chunk"),
            (&[(5, 2), (5, 3)], "old chunk of an exception at 0x0 is 5, expected no other"),
        ] {
            let error = read(store(exceptions)).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_full_list_that_would_go_on_behind_the_store_is_refused() {
        let all: Vec<_> = (0..32).map(|index| (index, data(index))).collect();
        let mut short = store(&all);
        short.truncate(512 * 34);
        assert!(read(short).unwrap_err().to_string().contains("expected an area inside"));
    }
}
