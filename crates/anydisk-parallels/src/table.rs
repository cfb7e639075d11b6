//! The entries of the block table. Pure: no I/O, no locks.

use anydisk_core::{Block, BlockEntries, Error, HostOffset, Invalid, Value};

use crate::NAME;
use crate::header::{Header, limit};

/// What an entry says, by the sizes of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries {
    /// Bytes that a number counts: a sector or a cluster.
    multiplier: u64,
}

impl Entries {
    pub(crate) fn of(header: &Header) -> Self {
        Self { multiplier: header.multiplier() }
    }

    /// The place that an entry names.
    pub(crate) fn place(self, entry: u32) -> Option<HostOffset> {
        (entry != 0).then(|| HostOffset(u64::from(entry) * self.multiplier))
    }
}

impl BlockEntries for Entries {
    const NAME: &'static str = NAME;
    const LEN: usize = size_of::<u32>();

    fn load(&self, bytes: &[u8]) -> u64 {
        bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)).into()
    }

    fn save(&self, entry: u64, bytes: &mut Vec<u8>) {
        bytes.extend(u32::try_from(entry).unwrap_or(0).to_le_bytes());
    }

    fn decode(&self, entry: u64, _: HostOffset) -> Block {
        match self.place(u32::try_from(entry).unwrap_or(0)) {
            Some(at) => Block::At(at),
            None => Block::Absent,
        }
    }

    fn encode(&self, block: Block, _: HostOffset) -> Option<u64> {
        match block {
            Block::Absent => Some(0),
            // There is no entry that says so.
            Block::Zero => None,
            Block::At(at) => {
                let number = at.get() / self.multiplier;
                Some(number).filter(|number| u32::try_from(*number).is_ok())
            }
        }
    }

    fn invalid(&self, at: HostOffset, entry: u64) -> Error {
        Invalid {
            format: NAME,
            field: "entry of the block table".into(),
            at,
            found: Value::Hex(entry),
            expected: "0, or a place of the file where clusters are".into(),
        }
        .into()
    }

    fn full(&self, at: HostOffset) -> Error {
        let (number, most) = (at.get() / self.multiplier, u64::from(u32::MAX));
        let limited = limit("place of a cluster in the file", number, most);
        limited.err().unwrap_or_else(|| self.invalid(at, number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_is_what_it_was_made_of(entry in any::<u32>(), sectors in 1_u64..5000) {
            let entries = Entries { multiplier: sectors * 512 };
            let block = entries.decode(entry.into(), HostOffset::ZERO);
            prop_assert_eq!(entries.encode(block, HostOffset::ZERO), Some(entry.into()));
            match block {
                Block::At(at) => prop_assert_eq!(at.get(), u64::from(entry) * sectors * 512),
                other => prop_assert_eq!((other, entry), (Block::Absent, 0)),
            }
        }
    }
}
