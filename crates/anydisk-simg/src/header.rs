//! The header of the file: bytes to checked values. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Error, HostOffset, Invalid, Result, Storage, Value, invalid_field};
use zerocopy::FromBytes;

use crate::NAME;
use crate::layout::{MAGIC, RawChunk, RawHeader};

/// Bytes of a header.
pub(crate) const LEN: usize = size_of::<RawHeader>();

/// A header that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the first chunk is.
    pub chunks_at: HostOffset,
    /// Bytes of the header of a chunk, at least 12.
    pub chunk_header: u16,
    /// Bytes of a block, a multiple of 4.
    pub block_size: u32,
    /// Blocks of the disk.
    pub blocks: u32,
    /// Chunks in the file.
    pub chunks: u32,
    /// CRC-32 of the disk; 0: none.
    pub checksum: u32,
}

impl Header {
    /// Reads the header from the first bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field; [`Error::Unsupported`] for other versions.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| Invalid {
            format: NAME,
            field: "header".into(),
            at: HostOffset(bytes.len() as u64),
            found: Value::Missing,
            expected: "28 bytes".into(),
        })?;
        check_kind(raw)?;
        check_sizes(raw)?;
        let header = Self {
            chunks_at: HostOffset(raw.file_hdr_sz.get().into()),
            chunk_header: raw.chunk_hdr_sz.get(),
            block_size: raw.blk_sz.get(),
            blocks: raw.total_blks.get(),
            chunks: raw.total_chunks.get(),
            checksum: raw.image_checksum.get(),
        };
        header.check_counts(file_len)?;
        Ok(header)
    }

    /// Reads the header of the image in `store`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of the store.
    pub fn read(store: &dyn Storage) -> Result<Self> {
        let mut bytes = [0; LEN];
        let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
        Self::parse(bytes.get(..count).unwrap_or_default(), store.len()?)
    }

    /// Virtual size in bytes, below 2^63.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.block_size).saturating_mul(self.blocks.into())
    }

    fn check_counts(&self, file_len: u64) -> Result<()> {
        if self.size() > i64::MAX.unsigned_abs() {
            let (found, expected) = (self.blocks, "blocks of together less than 2^63 bytes");
            return Err(invalid_field!(NAME, RawHeader, total_blks, found, "{expected}").into());
        }
        // Each has a header of its own.
        let room = file_len.saturating_sub(self.chunks_at.get());
        let least = u64::from(self.chunks).saturating_mul(self.chunk_header.into());
        if least > room {
            let (found, expected) = (self.chunks, "chunks inside the file");
            return Err(invalid_field!(NAME, RawHeader, total_chunks, found, "{expected}").into());
        }
        Ok(())
    }
}

fn check_kind(raw: &RawHeader) -> Result<()> {
    let (magic, major) = (raw.magic.get(), raw.major_version.get());
    if magic != MAGIC {
        let found = Value::Hex(magic.into());
        return Err(invalid_field!(NAME, RawHeader, magic, found, "0xed26ff3a").into());
    }
    if major != 1 {
        let feature = format!("version {major}").into();
        return Err(Error::Unsupported { format: NAME, feature });
    }
    Ok(())
}

fn check_sizes(raw: &RawHeader) -> Result<()> {
    let (file, chunk, block) = (raw.file_hdr_sz.get(), raw.chunk_hdr_sz.get(), raw.blk_sz.get());
    if usize::from(file) < LEN {
        let found = u32::from(file);
        return Err(invalid_field!(NAME, RawHeader, file_hdr_sz, found, "at least 28").into());
    }
    if usize::from(chunk) < size_of::<RawChunk>() {
        let found = u32::from(chunk);
        return Err(invalid_field!(NAME, RawHeader, chunk_hdr_sz, found, "at least 12").into());
    }
    if block == 0 || !block.is_multiple_of(4) {
        return Err(invalid_field!(NAME, RawHeader, blk_sz, block, "a multiple of 4").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn header(change: impl FnOnce(&mut RawHeader)) -> Result<Header> {
        let mut raw = RawHeader::new_zeroed();
        (raw.magic, raw.major_version) = (MAGIC.into(), 1.into());
        (raw.file_hdr_sz, raw.chunk_hdr_sz) = (32.into(), 16.into());
        (raw.blk_sz, raw.total_blks, raw.total_chunks) = (4096.into(), 100.into(), 3.into());
        change(&mut raw);
        Header::parse(raw.as_bytes(), 80)
    }

    #[test]
    fn a_good_header_is_read() {
        let header = header(|raw| raw.minor_version = 7.into()).expect("it is good");
        assert_eq!((header.size(), header.chunks_at), (409_600, HostOffset(32)));
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        let refusal = |change: fn(&mut RawHeader)| header(change).unwrap_err().to_string();
        for (error, expected) in [
            (refusal(|raw| raw.magic = 1.into()), "simg: magic at 0x0 is 0x1, expected 0xed26ff3a"),
            (refusal(|raw| raw.major_version = 2.into()), "simg: version 2 is not supported"),
            (
                refusal(|raw| raw.file_hdr_sz = 27.into()),
                "simg: file_hdr_sz at 0x8 is 27, expected at least 28",
            ),
            (
                refusal(|raw| raw.chunk_hdr_sz = 11.into()),
                "simg: chunk_hdr_sz at 0xa is 11, expected at least 12",
            ),
            (
                refusal(|raw| raw.blk_sz = 0.into()),
                "simg: blk_sz at 0xc is 0, expected a multiple of 4",
            ),
            (
                refusal(|raw| raw.blk_sz = 1022.into()),
                "simg: blk_sz at 0xc is 1022, expected a multiple of 4",
            ),
            (
                refusal(|raw| {
                    (raw.blk_sz, raw.total_blks) = ((u32::MAX - 3).into(), u32::MAX.into());
                }),
                "simg: total_blks at 0x10 is 4294967295, expected blocks of together less than 2^63 bytes",
            ),
            (
                refusal(|raw| raw.total_chunks = 4.into()),
                "simg: total_chunks at 0x14 is 4, expected chunks inside the file",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }
}
