//! Chunks: one after the other, from their headers.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Error, HostOffset, Invalid, Result, Storage, Value, invalid_field};
use zerocopy::FromBytes;

use crate::layout::{RawChunk, kind};
use crate::{Header, NAME};

/// Bytes that are read at a time: small chunks are found many in one.
const PIECE: usize = 4096;

/// A chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its first block on the disk.
    pub block: u32,
    /// Its blocks.
    pub blocks: u32,
    /// What they are.
    pub content: Content,
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its blocks, as they are, at this place of the file.
    Raw(HostOffset),
    /// Blocks of the four bytes that are at this place of the file.
    Fill(HostOffset, [u8; 4]),
    /// Blocks of any content: they read as zero.
    DontCare,
    /// No blocks, but the CRC-32 of those before.
    Crc32(u32),
}

/// The chunks of a file, in order. Ends after the first error.
#[derive(Debug)]
pub struct Chunks<'a> {
    store: &'a dyn Storage,
    header: &'a Header,
    file_len: u64,
    /// Where the next one is.
    at: HostOffset,
    /// How many there are from there on.
    left: u32,
    /// The block that it begins with.
    block: u32,
    window: Vec<u8>,
    window_at: HostOffset,
}

impl<'a> Chunks<'a> {
    /// The chunks of the image in `store`, whose header is `header`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn new(store: &'a dyn Storage, header: &'a Header) -> Result<Self> {
        Ok(Self {
            store,
            header,
            file_len: store.len()?,
            at: header.chunks_at,
            left: header.chunks,
            block: 0,
            window: Vec::new(),
            window_at: HostOffset::ZERO,
        })
    }

    /// Reads the next chunk and goes on to the one behind it.
    fn read(&mut self) -> Result<Chunk> {
        let at = self.at;
        let raw = *self.raw(at)?;
        let data = at.saturating_add(self.header.chunk_header.into());
        let end = at.saturating_add(raw.total_sz.get().into());
        if end.get() > self.file_len {
            let (found, expected) = (raw.total_sz.get(), "bytes inside the file");
            return Err(invalid_field!(NAME, at => RawChunk, total_sz, found, "{expected}").into());
        }
        let (blocks, content) = self.content(&raw, at, data)?;
        let left = self.header.blocks.saturating_sub(self.block);
        if blocks > left {
            let expected = format!("at most the {left} blocks that are left of the disk");
            return Err(invalid_field!(NAME, at => RawChunk, chunk_sz, blocks, "{expected}").into());
        }
        let chunk = Chunk { block: self.block, blocks, content };
        (self.at, self.block) = (end, self.block.saturating_add(blocks));
        Ok(chunk)
    }

    /// What the chunk is, whose length must be that of it.
    fn content(
        &mut self,
        raw: &RawChunk,
        at: HostOffset,
        data: HostOffset,
    ) -> Result<(u32, Content)> {
        let blocks = raw.chunk_sz.get();
        let size = u64::from(blocks).saturating_mul(self.header.block_size.into());
        let len = match raw.chunk_type.get() {
            kind::RAW => size,
            kind::FILL | kind::CRC32 => 4,
            kind::DONT_CARE => 0,
            other => {
                let feature = format!("a chunk of type {other:#06x}").into();
                return Err(Error::Unsupported { format: NAME, feature });
            }
        };
        let expected = len.saturating_add(self.header.chunk_header.into());
        let found = raw.total_sz.get();
        if u64::from(found) != expected {
            return Err(invalid_field!(NAME, at => RawChunk, total_sz, found, "{expected}").into());
        }
        Ok(match raw.chunk_type.get() {
            kind::RAW => (blocks, Content::Raw(data)),
            kind::FILL => (blocks, Content::Fill(data, self.word(data)?)),
            kind::CRC32 => (0, Content::Crc32(u32::from_le_bytes(self.word(data)?))),
            _ => (blocks, Content::DontCare),
        })
    }

    fn raw(&mut self, at: HostOffset) -> Result<&RawChunk> {
        let bytes = self.bytes(at, size_of::<RawChunk>())?;
        let raw = RawChunk::ref_from_prefix(bytes).map(|(raw, _)| raw);
        raw.map_err(|_| missing(at))
    }

    fn word(&mut self, at: HostOffset) -> Result<[u8; 4]> {
        let bytes = self.bytes(at, 4)?;
        bytes.first_chunk().copied().ok_or_else(|| missing(at))
    }

    /// `len` bytes of the file, fewer at its end.
    fn bytes(&mut self, at: HostOffset, len: usize) -> Result<&[u8]> {
        let within = |window: &[u8], start: HostOffset| {
            let skip = usize::try_from(at.get().checked_sub(start.get())?).ok()?;
            window.len().checked_sub(len)?.ge(&skip).then_some(skip)
        };
        let skip = match within(&self.window, self.window_at) {
            Some(skip) => skip,
            None => {
                self.window.resize(PIECE, 0);
                let count = self.store.read_at(at, &mut self.window)?;
                self.window.truncate(count);
                self.window_at = at;
                0
            }
        };
        Ok(self.window.get(skip..).unwrap_or_default())
    }
}

#[cold]
fn missing(at: HostOffset) -> Error {
    let (field, found) = ("chunk".into(), Value::Missing);
    Invalid { format: NAME, field, at, found, expected: "a chunk in the file".into() }.into()
}

impl Iterator for Chunks<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        let chunk = self.read();
        if chunk.is_err() {
            self.left = 0;
        } else if self.left == 0 && self.block < self.header.blocks {
            let (found, at) = (Value::Number(self.block.into()), self.at);
            let expected = format!("{} blocks, as the header says", self.header.blocks).into();
            let field = "blocks of all chunks".into();
            return Some(Err(Invalid { format: NAME, field, at, found, expected }.into()));
        }
        Some(chunk)
    }
}
