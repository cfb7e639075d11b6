//! dm-cache and dm-writecache: the chunks of an origin whose newest content is on a faster volume.

use anydisk_core::{Error, HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::NAME;
use crate::blocks::{Blocks, array, invalid, kind};
use crate::layout::SECTOR;
use crate::limits;
use crate::run_map::{RunMap, RunMapBuilder};

/// The magic of the superblock of dm-cache.
const MAGIC: u64 = 0o6_142_003;

/// A mapping is in use.
const VALID: u64 = 1;

/// Bits of a mapping below the number of the origin's chunk.
const FLAG_BITS: u32 = 16;

/// The first block of a cache's metadata, as far as it is looked at.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Superblock {
    csum: U32,
    flags: U32,
    blocknr: U64,
    uuid: [u8; 16],
    magic: U64,
    version: U32,
    policy_name: [u8; 16],
    policy_hint_size: U32,
    metadata_space_map_root: [u8; 128],
    mapping_root: U64,
    hint_root: U64,
    discard_root: U64,
    discard_block_size: U64,
    discard_nr_blocks: U64,
    /// In sectors.
    data_block_size: U32,
    metadata_block_size: U32,
    cache_blocks: U32,
    compat_flags: U32,
    compat_ro_flags: U32,
    incompat_flags: U32,
}

const _: () = assert!(size_of::<Superblock>() == 256);

/// Chunks of the origin to chunks of the cache, whose chunk is `chunk` bytes as the text says and
/// whose data has `data` bytes. Dirty or not does not matter: what is cached is as new as the
/// origin, or newer.
///
/// # Errors
/// [`Invalid`], [`Error::Unsupported`] for features from the future, [`Error::Limit`] for a cache
/// that is too scattered.
pub(crate) fn cached_chunks(
    metadata: std::sync::Arc<dyn Storage>,
    data: u64,
    chunk: u64,
    limits: &Limits,
) -> Result<RunMap> {
    let blocks = Blocks::new(metadata, limits)?;
    let bytes = blocks.read(0, kind::CACHE_SUPERBLOCK, 8)?;
    let (root, count) = parse(&bytes[..], chunk)?;
    if count > data / chunk {
        let expected = format!("at most the {} chunks of the cache", data / chunk);
        return Err(invalid("cache_blocks", HostOffset(240), count.into(), expected).into());
    }
    let mut builder = RunMapBuilder::new("scattered chunks of a cache", limits::table(limits));
    array::for_each(&blocks, root, count, |index, value| match value & VALID {
        0 => Ok(()),
        _ => builder.push(value >> FLAG_BITS, index),
    })?;
    builder.finish().map_err(|chunk| twice(chunk).into())
}

/// The root of the mappings and their number. Pure.
fn parse(bytes: &[u8], chunk: u64) -> Result<(u64, u64)> {
    let Ok((block, _)) = Superblock::read_from_prefix(bytes) else {
        let at = HostOffset::ZERO;
        return Err(invalid("superblock", at, Value::Missing, "4096 bytes").into());
    };
    if block.magic.get() != MAGIC {
        let found = block.magic.get().into();
        return Err(invalid("magic of a cache", HostOffset(32), found, "1623043").into());
    }
    if !(1..=2).contains(&block.version.get()) || block.incompat_flags.get() != 0 {
        let (version, flags) = (block.version, block.incompat_flags);
        let feature = format!("a cache of version {version} with features {flags:#x}");
        return Err(Error::Unsupported { format: NAME, feature: feature.into() });
    }
    let found = u64::from(block.data_block_size.get());
    if found.checked_mul(SECTOR) != Some(chunk) {
        let expected = format!("{}, as the text says", chunk / SECTOR);
        return Err(invalid("data_block_size", HostOffset(232), found.into(), expected).into());
    }
    Ok((block.mapping_root.get(), block.cache_blocks.get().into()))
}

/// The first bytes of a write cache.
const WRITE_MAGIC: u32 = 0x2348_9321;

/// Bytes in front of the entries.
const WRITE_HEADER: u64 = 64;

/// The start of a write cache.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WriteHeader {
    magic: U32,
    version: U32,
    block_size: U32,
    pad: U32,
    n_blocks: U64,
    /// Entries with this sequence number or a higher one were not committed.
    seq_count: U64,
}

/// Where a block of the write cache belongs.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WriteEntry {
    /// All ones: the block is free.
    original_sector: U64,
    seq_count: U64,
}

/// What a write cache holds.
#[derive(Debug)]
pub(crate) struct WriteCache {
    /// Where block 0 begins, in bytes.
    pub(crate) start: u64,
    /// Bytes of a block.
    pub(crate) block: u64,
    /// Blocks of the origin to blocks of the cache.
    pub(crate) map: RunMap,
}

impl WriteCache {
    /// Reads the entries of a write cache.
    ///
    /// # Errors
    /// [`Invalid`], [`Error::Unsupported`] for another version, [`Error::Limit`] for too many.
    pub(crate) fn read(store: &dyn Storage, limits: &Limits) -> Result<Self> {
        let mut head = [0; size_of::<WriteHeader>()];
        store.read_exact_at(HostOffset::ZERO, &mut head)?;
        let (block, count, committed) = write_header(&head, store.len()?)?;
        let most = limits::table(limits) / size_of::<(u64, u64, u64)>();
        let mut newest = Vec::new();
        let mut bytes = vec![0; 64 << 10];
        let mut index = 0;
        while index < count {
            let part = usize::try_from((count - index).min(4096)).unwrap_or(0);
            let part = &mut bytes[..part * size_of::<WriteEntry>()];
            store.read_exact_at(HostOffset(WRITE_HEADER + 16 * index), part)?;
            for entry in part.chunks_exact(size_of::<WriteEntry>()) {
                if let Ok(entry) = WriteEntry::read_from_bytes(entry)
                    && entry.seq_count.get() < committed
                    && entry.original_sector.get() != u64::MAX
                {
                    let number = block_number(entry.original_sector.get(), block, index)?;
                    newest.push((number, u64::MAX - entry.seq_count.get(), index));
                    limits::check("blocks of a write cache", newest.len() as u64, most as u64)?;
                }
                index += 1;
            }
        }
        // Of several blocks for one place the one with the highest number is the newest.
        newest.sort_unstable();
        newest.dedup_by_key(|(number, ..)| *number);
        let map = RunMap::of(newest.into_iter().map(|(number, _, index)| (number, index)));
        let start = data_start(count, block);
        Ok(Self { start, block, map: map.map_err(twice)? })
    }
}

/// Bytes in front of block 0.
fn data_start(count: u64, block: u64) -> u64 {
    // The number of blocks was held against the length of the store.
    (WRITE_HEADER + 16 * count).next_multiple_of(block)
}

/// Bytes of a block, number of blocks, and the number of the first change not committed. Pure.
fn write_header(head: &[u8; size_of::<WriteHeader>()], len: u64) -> Result<(u64, u64, u64)> {
    let at = HostOffset::ZERO;
    let Ok(header) = WriteHeader::read_from_bytes(head) else {
        return Err(invalid("header of a write cache", at, Value::Missing, "64 bytes").into());
    };
    if header.magic.get() != WRITE_MAGIC {
        let found = Value::Hex(header.magic.get().into());
        return Err(invalid("magic of a write cache", at, found, "0x23489321").into());
    }
    if header.version.get() != 1 {
        let feature = format!("version {} of a write cache", header.version);
        return Err(Error::Unsupported { format: NAME, feature: feature.into() });
    }
    let (block, count) = (u64::from(header.block_size.get()), header.n_blocks.get());
    if !block.is_power_of_two() || !(512..=1 << 16).contains(&block) {
        let expected = "a power of two from 512 to 65536";
        return Err(invalid("block_size", HostOffset(8), block.into(), expected).into());
    }
    let room = len / 16;
    let fits = count <= room
        && count
            .checked_mul(block)
            .and_then(|n| n.checked_add(data_start(count, block)))
            .is_some_and(|end| end <= len);
    if !fits {
        let expected = format!("as many as fit into {len} bytes");
        return Err(invalid("n_blocks", HostOffset(16), count.into(), expected).into());
    }
    Ok((block, count, header.seq_count.get()))
}

/// The block of the origin that a sector begins.
fn block_number(sector: u64, block: u64, index: u64) -> Result<u64, Invalid> {
    let sectors = block / SECTOR;
    if sector.is_multiple_of(sectors) {
        return Ok(sector / sectors);
    }
    let at = HostOffset(WRITE_HEADER + 16 * index);
    Err(invalid("original_sector", at, sector.into(), format!("a multiple of {sectors}")))
}

fn twice(chunk: u64) -> Invalid {
    let expected = "cached in one place";
    invalid("chunk of an origin", HostOffset::ZERO, chunk.into(), expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_map::Looked;
    use anydisk_storage::MemoryStorage;

    /// A write cache of blocks of 512 bytes, 1000 of them, up to change 10.
    fn write_cache(entries: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 600_000];
        let head = [0x2348_9321_u32, 1, 512, 0].map(u32::to_le_bytes).concat();
        bytes[..16].copy_from_slice(&head);
        bytes[16..32].copy_from_slice(&[1000_u64, 10].map(u64::to_le_bytes).concat());
        bytes[64..64 + 16_000].fill(0xFF);
        for (index, (sector, sequence)) in entries.iter().enumerate() {
            let entry = [*sector, *sequence].map(u64::to_le_bytes).concat();
            bytes[64 + 16 * index..][..16].copy_from_slice(&entry);
        }
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<WriteCache> {
        WriteCache::read(&MemoryStorage::new(bytes), &Limits::default())
    }

    #[test]
    fn of_several_blocks_for_one_place_the_newest_committed_one_counts() {
        let cache = read(write_cache(&[(7, 3), (7, 9), (7, 5), (8, 10), (9, 1)])).unwrap();
        assert_eq!((cache.start, cache.block), (16_384, 512));
        assert_eq!(cache.map.look(7), Looked { to: Some(1), len: 1 });
        assert_eq!(cache.map.look(8).to, None);
        assert_eq!(cache.map.look(9).to, Some(4));
    }

    // A write cache of 6 GiB was refused for its size.
    #[test]
    fn a_million_and_a_half_of_scattered_blocks_are_held() {
        let count = 1_500_000_u64;
        let mut bytes = vec![0; usize::try_from((64 + 16 * count).next_multiple_of(512)).unwrap()];
        bytes[..16].copy_from_slice(&[0x2348_9321_u32, 1, 512, 0].map(u32::to_le_bytes).concat());
        bytes[16..32].copy_from_slice(&[count, 10].map(u64::to_le_bytes).concat());
        for (index, entry) in (0..count).zip(bytes[64..].chunks_exact_mut(16)) {
            entry[..8].copy_from_slice(&(index * 16).to_le_bytes());
        }
        let store = MemoryStorage::new(bytes);
        store.set_len(800 << 20).unwrap();
        let cache = WriteCache::read(&store, &Limits::default()).unwrap();
        assert_eq!(cache.map.look(16 * 1_234_567), Looked { to: Some(1_234_567), len: 1 });
        let error = WriteCache::read(&store, &Limits::strict()).unwrap_err();
        assert!(error.to_string().contains("blocks of a write cache"), "{error}");
    }

    #[test]
    fn a_write_cache_with_numbers_that_do_not_fit_is_refused() {
        for (at, byte, field) in [(0, 0, "magic"), (8, 3, "block_size"), (23, 1, "n_blocks")] {
            let mut bytes = write_cache(&[]);
            bytes[at] = byte;
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
