//! Thin pools and their volumes.

use std::sync::Arc;

use anydisk_core::{
    Error, HostOffset, Invalid, Limits, MappedFrom, MappedPiece, Mapping, Result, Storage, Value,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::NAME;
use crate::blocks::tree::Tree;
use crate::blocks::{Blocks, invalid, kind};
use crate::layout::SECTOR;
use crate::plain::Part;

/// The magic of the superblock.
const MAGIC: u64 = 27_022_010;

/// Bits of a mapping that say when it was made; above them is the chunk of data.
pub(crate) const TIME_BITS: u32 = 24;

/// Bytes of a mapping, and of a root in the tree above.
pub(crate) const VALUE: usize = 8;

/// The first block of a pool's metadata, as far as it is looked at.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Superblock {
    csum: U32,
    flags: U32,
    blocknr: U64,
    uuid: [u8; 16],
    magic: U64,
    version: U32,
    time: U32,
    trans_id: U64,
    held_root: U64,
    data_space_map_root: [u8; 128],
    metadata_space_map_root: [u8; 128],
    data_mapping_root: U64,
    device_details_root: U64,
    /// In sectors.
    data_block_size: U32,
    metadata_block_size: U32,
    metadata_nr_blocks: U64,
    compat_flags: U32,
    compat_ro_flags: U32,
    incompat_flags: U32,
}

const _: () = assert!(size_of::<Superblock>() == 364);

/// A thin pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) blocks: Arc<Blocks>,
    /// The root of the tree that has the roots of all volumes.
    mapping_root: u64,
    /// The number of the last change that it was told of.
    pub(crate) transaction: u64,
    /// Names of the volumes that it has still to make.
    pub(crate) creates: Vec<String>,
    data: Arc<dyn Storage>,
    /// Bytes of a chunk.
    pub(crate) chunk: u64,
    /// Chunks that the data volume has room for.
    chunks: u64,
}

impl Pool {
    /// The pool on these two volumes, whose chunk is `chunk` bytes as the text says.
    ///
    /// # Errors
    /// [`Invalid`], [`Error::Unsupported`] for features from the future.
    pub(crate) fn open(
        metadata: Arc<dyn Storage>,
        data: Arc<dyn Storage>,
        chunk: u64,
        limits: &Limits,
    ) -> Result<Self> {
        let blocks = Blocks::new(metadata, limits)?;
        let bytes = blocks.read(0, kind::THIN_SUPERBLOCK, 8)?;
        let (mapping_root, transaction) = parse(&bytes[..], chunk)?;
        let chunks = data.len()? / chunk;
        let (blocks, creates) = (Arc::new(blocks), Vec::new());
        Ok(Self { blocks, mapping_root, transaction, creates, data, chunk, chunks })
    }

    /// The root of a volume's mappings; `None` if the pool does not know it.
    pub(crate) fn root_of(&self, device: u64) -> Result<Option<u64>> {
        Tree { blocks: &self.blocks, root: self.mapping_root, value_size: VALUE }.get(device)
    }

    /// Where a chunk of data begins, for a run of `len` chunks.
    fn place(&self, chunk: u64, len: u64) -> Result<u64, Invalid> {
        match chunk.checked_add(len) {
            Some(end) if end <= self.chunks => Ok(chunk * self.chunk),
            _ => {
                let expected = format!("a chunk of the {} of the pool", self.chunks);
                Err(invalid("chunk of data", HostOffset::ZERO, chunk.into(), expected))
            }
        }
    }
}

/// The root of the mappings, and the number of the last change. Pure.
fn parse(bytes: &[u8], chunk: u64) -> Result<(u64, u64)> {
    let field = |field, at, found, expected: &str| {
        Err(invalid(field, HostOffset(at), found, expected.to_owned()).into())
    };
    let Ok((block, _)) = Superblock::read_from_prefix(bytes) else {
        return field("superblock", 0, Value::Missing, "4096 bytes");
    };
    if block.magic.get() != MAGIC {
        return field("magic of a thin pool", 32, block.magic.get().into(), "27022010");
    }
    if !(1..=2).contains(&block.version.get()) || block.incompat_flags.get() != 0 {
        let (version, flags) = (block.version, block.incompat_flags);
        let feature = format!("a thin pool of version {version} with features {flags:#x}");
        return Err(Error::Unsupported { format: NAME, feature: feature.into() });
    }
    let found = u64::from(block.data_block_size.get());
    if found.checked_mul(SECTOR) != Some(chunk) {
        let expected = format!("{}, as the text says", chunk / SECTOR);
        return field("data_block_size", 336, found.into(), &expected);
    }
    Ok((block.data_mapping_root.get(), block.trans_id.get()))
}

/// A thin volume.
#[derive(Debug)]
pub(crate) struct Thin {
    pub(crate) pool: Arc<Pool>,
    /// `None`: nothing is mapped.
    pub(crate) root: Option<u64>,
    /// The volume outside of the pool that shows through, with its length in bytes.
    pub(crate) external: Option<(Part, u64)>,
}

impl Thin {
    /// A run of `limit` bytes without mappings.
    fn unmapped(&self, at: u64, limit: u64) -> MappedPiece<'_> {
        match &self.external {
            Some((part, len)) if at < *len => {
                MappedPiece { len: limit.min(len - at), from: part.place(at) }
            }
            _ => MappedPiece { len: limit, from: MappedFrom::Zero },
        }
    }
}

impl Mapping for Thin {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        let Some(root) = self.root else { return Ok(self.unmapped(at, limit)) };
        let chunk = self.pool.chunk;
        let (number, within) = (at / chunk, at % chunk);
        let tree = Tree { blocks: &self.pool.blocks, root, value_size: VALUE };
        let Some(found) = tree.at_or_after(number)? else { return Ok(self.unmapped(at, limit)) };
        if found.key() != number {
            let room = (found.key() - number).saturating_mul(chunk) - within;
            return Ok(self.unmapped(at, limit.min(room)));
        }
        // The time is in the lower bits: neighbours of one run have the same.
        let run = found.run(1 << TIME_BITS);
        let place = self.pool.place(found.value() >> TIME_BITS, run)?;
        let len = limit.min(run * chunk - within);
        Ok(MappedPiece {
            len,
            from: MappedFrom::Store(&self.pool.data, HostOffset(place + within)),
        })
    }
}
