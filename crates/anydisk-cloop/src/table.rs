//! The table of offsets: arithmetic and entries. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Codec, HostOffset};

use crate::layout::codec;
use crate::{Header, Version};

/// Blocks of a slice of the table that is cached as one; it has an entry more, where the last ends.
pub(crate) const SLICE: u64 = 512;

/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 8;

/// The part of an entry that is an offset, in version 4.
const OFFSET: u64 = (1 << 60) - 1;

/// A block in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where its first byte is.
    pub at: HostOffset,
    /// How many bytes it has there.
    pub len: u32,
    /// How they are packed.
    pub packed: Packed,
}

/// How the bytes of a block are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// Not at all.
    Plain,
    /// As a zlib stream.
    Zlib,
    /// As an .xz stream.
    Xz,
    /// As a block of LZ4.
    Lz4,
    /// By LZO1X.
    Lzo,
}

impl Packed {
    /// The codec; `None` for what is not packed.
    #[must_use]
    pub fn codec(self) -> Option<Codec> {
        match self {
            Self::Plain => None,
            Self::Zlib => Some(Codec::Zlib),
            Self::Xz => Some(Codec::Xz),
            Self::Lz4 => Some(Codec::Lz4),
            Self::Lzo => Some(Codec::Lzo),
        }
    }
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEntry {
    /// It and the next one are no place in the file.
    Place,
    /// A block has not so many bytes.
    Length,
    /// It is packed in this way, which is not read.
    Codec(u64),
}

/// The slice of the table with the entries of a block: where it is in the file, how many entries it
/// has, and which of them is that of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceAt {
    pub(crate) at: HostOffset,
    pub(crate) entries: u64,
    pub(crate) index: u64,
}

impl Header {
    /// The slice with the entries of block number `block`, which the disk has.
    pub(crate) fn slice_of(&self, block: u64) -> SliceAt {
        let index = block % SLICE;
        let first = block.saturating_sub(index);
        let behind = u64::from(self.blocks).saturating_sub(first).min(SLICE);
        let at = self.table.saturating_add(first.saturating_mul(ENTRY));
        SliceAt { at, entries: behind.saturating_add(1), index }
    }

    /// The block whose entry is `entry`, followed by `next`, in a file of `file_len` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn block(&self, entry: u64, next: u64, file_len: u64) -> Result<Block, BadEntry> {
        let (start, end, kind) = match self.version {
            Version::V2 => (entry, next, codec::ZLIB),
            Version::V4 => (entry & OFFSET, next & OFFSET, entry >> 60),
        };
        let len = end.checked_sub(start).filter(|_| end <= file_len).ok_or(BadEntry::Place)?;
        let packed = match kind {
            codec::ZLIB => Packed::Zlib,
            codec::NONE => Packed::Plain,
            codec::XZ => Packed::Xz,
            codec::LZ4 => Packed::Lz4,
            codec::LZO => Packed::Lzo,
            other => return Err(BadEntry::Codec(other)),
        };
        // No codec makes more of what cannot be packed.
        let most = u64::from(self.block_size).saturating_mul(2).saturating_add(4096);
        let fits = match packed {
            Packed::Plain => len == u64::from(self.block_size),
            _ => len <= most,
        };
        let len = u32::try_from(len).ok().filter(|_| fits).ok_or(BadEntry::Length)?;
        Ok(Block { at: HostOffset(start), len, packed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: Version, blocks: u32) -> Header {
        Header { version, block_size: 4096, blocks, table: HostOffset(136) }
    }

    #[test]
    fn entries_are_decoded_by_their_version() {
        let (old, new) = (header(Version::V2, 9), header(Version::V4, 9));
        let block = |at, len, packed| Ok(Block { at: HostOffset(at), len, packed });
        assert_eq!(old.block(200, 300, 300), block(200, 100, Packed::Zlib));
        assert_eq!(new.block(200, 300, 300), block(200, 100, Packed::Zlib));
        let kind = |number: u64, at: u64| number << 60 | at;
        assert_eq!(new.block(kind(2, 200), kind(9, 300), 300), block(200, 100, Packed::Xz));
        assert_eq!(new.block(kind(3, 200), 200, 300), block(200, 0, Packed::Lz4));
        assert_eq!(new.block(kind(1, 4), kind(4, 4100), 4100), block(4, 4096, Packed::Plain));
    }

    #[test]
    fn entries_that_break_the_rules_are_told_apart() {
        let (old, new) = (header(Version::V2, 9), header(Version::V4, 9));
        assert_eq!(old.block(200, 199, 300), Err(BadEntry::Place));
        assert_eq!(old.block(200, 301, 300), Err(BadEntry::Place));
        assert_eq!(old.block(1 << 60 | 200, 300, 300), Err(BadEntry::Place));
        assert_eq!(old.block(0, 12_289, 20_000), Err(BadEntry::Length));
        assert_eq!(new.block(1 << 60, 4095, 20_000), Err(BadEntry::Length));
        assert_eq!(new.block(5 << 60, 4095, 20_000), Err(BadEntry::Codec(5)));
    }

    #[test]
    fn a_slice_holds_the_entry_of_each_of_its_blocks_and_the_one_behind() {
        let header = header(Version::V2, 1300);
        for block in 0..1300 {
            let slice = header.slice_of(block);
            assert!(slice.index + 1 < slice.entries);
            let entry = slice.at.get() + slice.index * ENTRY;
            assert_eq!(entry, 136 + block * ENTRY);
            assert!(slice.at.get() + slice.entries * ENTRY <= 136 + 1301 * ENTRY);
        }
    }
}
