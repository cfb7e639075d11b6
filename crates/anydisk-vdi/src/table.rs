//! The entries of the block map. Pure: no I/O, no locks.

use anydisk_core::{Block, BlockEntries, Error, HostOffset, Invalid, Value};

use crate::NAME;
use crate::header::Header;
use crate::layout::{FREE, ZERO};

/// What an entry says, by the sizes of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries {
    /// Bytes of the file from one block to the next.
    stride: u64,
    /// Bytes before the data of a block.
    extra: u64,
}

impl Entries {
    pub(crate) fn of(header: &Header) -> Self {
        Self { stride: header.stride(), extra: header.extra }
    }
}

impl BlockEntries for Entries {
    const NAME: &'static str = NAME;
    const LEN: usize = size_of::<u32>();

    fn load(&self, bytes: &[u8]) -> u64 {
        number(bytes).into()
    }

    fn save(&self, entry: u64, bytes: &mut Vec<u8>) {
        bytes.extend(u32::try_from(entry).unwrap_or(FREE).to_le_bytes());
    }

    fn decode(&self, entry: u64, first: HostOffset) -> Block {
        match u32::try_from(entry).unwrap_or(FREE) {
            FREE => Block::Absent,
            ZERO => Block::Zero,
            block => {
                let from_first = u64::from(block).saturating_mul(self.stride);
                Block::At(first.saturating_add(from_first).saturating_add(self.extra))
            }
        }
    }

    fn encode(&self, block: Block, first: HostOffset) -> Option<u64> {
        match block {
            Block::Absent => Some(FREE.into()),
            Block::Zero => Some(ZERO.into()),
            Block::At(at) => {
                let from_first = at.get().checked_sub(first.get())?.checked_sub(self.extra)?;
                Some(from_first / self.stride).filter(|number| *number < ZERO.into())
            }
        }
    }

    fn invalid(&self, at: HostOffset, entry: u64) -> Error {
        Invalid {
            format: NAME,
            field: "block map entry".into(),
            at,
            found: Value::Number(entry),
            expected: "the number of a block in the file".into(),
        }
        .into()
    }

    fn full(&self, at: HostOffset) -> Error {
        crate::header::limit("number of blocks in the file", at.get() / self.stride, ZERO.into())
            .err()
            .unwrap_or_else(|| crate::header::unsupported("more blocks in the file"))
    }
}

/// The number in the first four bytes.
pub(crate) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(FREE, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_is_what_it_was_made_of(
            entry in prop_oneof![Just(FREE), Just(ZERO), 0..ZERO],
            bits in 9u32..27,
            extra in prop_oneof![Just(0u64), Just(512)],
            first in 420u64..1 << 32,
        ) {
            let entries = Entries { stride: (1 << bits) + extra, extra };
            let first = HostOffset(first);
            let block = entries.decode(entry.into(), first);
            prop_assert_eq!(entries.encode(block, first), Some(entry.into()));
            if let Block::At(at) = block {
                let place = first.get() + u64::from(entry) * ((1 << bits) + extra) + extra;
                prop_assert_eq!(at.get(), place);
            }
        }
    }
}
