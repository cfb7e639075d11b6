//! All chunks of a disk, in memory.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Invalid, Limits, Result, Storage, Value, check_limit};

use crate::{Chunk, Chunks, Content, Header, NAME};

/// Bytes that chunks of a pattern may stand for, all together. A few bytes of the file can stand for
/// terabytes.
const FILLED: u64 = 256 << 30;

/// The chunks of a disk that have blocks, rising and without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMap(Vec<Chunk>);

impl ChunkMap {
    /// Reads the chunks of the image in `store`.
    ///
    /// # Errors
    /// What is wrong with them; [`Error::Limit`](anydisk_core::Error::Limit) for more than may be
    /// kept; those of the store.
    pub fn read(store: &dyn Storage, header: &Header, limits: &Limits) -> Result<Self> {
        let most = limits.table_cache.div_ceil(size_of::<Chunk>()) as u64;
        let mut all: Vec<Chunk> = Vec::new();
        let mut filled = 0_u64;
        for chunk in Chunks::new(store, header)? {
            let chunk = chunk?;
            match chunk.content {
                Content::Crc32(_) => continue,
                Content::Fill(_, pattern) if pattern != [0; 4] => {
                    let len = u64::from(chunk.blocks).saturating_mul(header.block_size.into());
                    filled = filled.saturating_add(len);
                    check_limit(NAME, "bytes of fill chunks", filled, FILLED)?;
                }
                _ => {}
            }
            if chunk.blocks > 0 && !joins(&mut all, &chunk) {
                all.push(chunk);
                check_limit(NAME, "chunks", all.len() as u64, most)?;
            }
        }
        if all.is_empty() && header.blocks > 0 {
            let (found, expected) = (Value::Number(0), "chunks for the blocks of the disk".into());
            let (field, at) = ("total_chunks".into(), header.chunks_at);
            return Err(Invalid { format: NAME, field, at, found, expected }.into());
        }
        all.shrink_to_fit();
        Ok(Self(all))
    }

    /// The chunk of a block of the disk.
    pub(crate) fn look(&self, block: u64) -> Option<&Chunk> {
        let behind = self.0.partition_point(|chunk| u64::from(chunk.block) <= block);
        self.0.get(behind.checked_sub(1)?)
    }
}

/// Makes the chunk part of the last one, if it has the same of nothing: writers that know no end of
/// their stream leave many.
fn joins(all: &mut [Chunk], next: &Chunk) -> bool {
    let Some(last) = all.last_mut() else { return false };
    let joins = match (last.content, next.content) {
        (Content::DontCare, Content::DontCare) => true,
        (Content::Fill(_, one), Content::Fill(_, other)) => one == other,
        _ => false,
    };
    if joins {
        last.blocks = last.blocks.saturating_add(next.blocks);
    }
    joins
}
