//! The table of a disk without a parent, as the core's table of one level.

use anydisk_core::{Block, BlockEntries, Error, HostOffset, Value};

use crate::NAME;
use crate::header::{invalid, unsupported};
use crate::layout::MIB;
use crate::table::{Block as Found, FULL, ZERO, block_of};

/// What entries say, and where they are: behind each chunk lies the entry of a bitmap, which is not
/// used without a parent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries {
    /// Blocks of a chunk.
    pub(crate) ratio: u64,
}

impl BlockEntries for Entries {
    const NAME: &'static str = NAME;
    const LEN: usize = 8;

    #[inline]
    fn slot(&self, block: u64) -> (u64, u64) {
        // A power of two, as sectors and blocks are.
        let chunk = block >> self.ratio.trailing_zeros();
        (block + chunk, self.ratio - (block & (self.ratio - 1)))
    }

    fn load(&self, bytes: &[u8]) -> u64 {
        bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn save(&self, entry: u64, bytes: &mut Vec<u8>) {
        bytes.extend(entry.to_le_bytes());
    }

    fn decode(&self, entry: u64, _: HostOffset) -> Block {
        match block_of(entry) {
            Found::Absent => Block::Absent,
            Found::Zero => Block::Zero,
            Found::Full(at) => Block::At(at),
            // No block lies there, so it is refused as such.
            Found::Partial(_) | Found::Unknown => Block::At(HostOffset::ZERO),
        }
    }

    fn encode(&self, block: Block, _: HostOffset) -> Option<u64> {
        match block {
            Block::Absent => Some(0),
            Block::Zero => Some(ZERO),
            Block::At(at) => Some(at.get() | FULL).filter(|_| at.get().is_multiple_of(MIB)),
        }
    }

    fn full(&self, at: HostOffset) -> Error {
        unsupported(format!("a block at {at}"))
    }

    fn invalid(&self, at: HostOffset, entry: u64) -> Error {
        let expected = "a state that there is, and the place of a block in the file";
        invalid("BAT entry", at, Value::Hex(entry), expected)
    }
}
