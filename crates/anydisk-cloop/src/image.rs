//! The image: find the entry (memory), answer (pure).

use std::sync::Arc;

use anydisk_core::{
    Encoded, Error, Extent, GuestOffset, GuestRange, Image, ImageInfo, Invalid, Lease, Limits,
    Lookup, Need, Result, Source, Storage, Supplied, TableCache, Value,
};

use crate::table::{BadEntry, Block, ENTRY, SLICE, SliceAt};
use crate::{Header, NAME};

/// An open cloop image.
#[derive(Debug)]
pub struct CloopImage {
    store: Arc<dyn Storage>,
    header: Header,
    file_len: u64,
    table: TableCache,
}

impl CloopImage {
    /// Opens the image in `store` for reading.
    ///
    /// # Errors
    /// As [`Header::parse`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*store, limits)?;
        let entries = usize::try_from(SLICE + 1).unwrap_or(usize::MAX);
        // As large as allowed, or with twice the room that the table takes, so that few slices meet.
        let most = usize::try_from(u64::from(header.blocks) * 16).unwrap_or(usize::MAX);
        let table = TableCache::new(entries, limits.table_cache.min(most));
        Ok(Self { file_len: store.len()?, store, header, table })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The part of the block that `range` begins in.
    fn extent(&self, unit: GuestRange, block: Block, range: GuestRange) -> Extent<'_> {
        let source = match block.packed.codec() {
            Some(codec) => {
                let len = usize::try_from(block.len).unwrap_or(usize::MAX);
                Source::Encoded(Encoded { store: &self.store, at: block.at, len, codec, unit })
            }
            None => {
                let at = block.at.saturating_add(range.start().get() - unit.start().get());
                Source::Data { store: &self.store, at, shared: false }
            }
        };
        // Nothing is freed while an image is only read.
        Extent { len: range.before(unit.end()).len(), source, lease: Lease::eternal() }
    }
}

#[cold]
fn broken(slice: SliceAt, entry: u64, bad: BadEntry) -> Error {
    let expected = match bad {
        BadEntry::Codec(kind) => {
            let feature = format!("a block packed in way {kind}").into();
            return Error::Unsupported { format: NAME, feature };
        }
        BadEntry::Place => "a place in the file, and none behind the next one",
        BadEntry::Length => "that of a block, little longer than its content",
    };
    let at = slice.at.saturating_add(slice.index * ENTRY);
    let (field, found) = ("offset of a block".into(), Value::Hex(entry));
    Invalid { format: NAME, field, at, found, expected: expected.into() }.into()
}

impl Image for CloopImage {
    fn size(&self) -> u64 {
        self.header.size()
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let size = u64::from(self.header.block_size);
        let block = range.start().get() / size;
        let slice = self.header.slice_of(block);
        let seen = self.table.read(slice.at, |entries| {
            let entry = |index: u64| entries.get(usize::try_from(index).unwrap_or(usize::MAX));
            (entry(slice.index), entry(slice.index + 1))
        });
        let Some((entry, next)) = seen else {
            let len = usize::try_from(slice.entries * ENTRY).unwrap_or(usize::MAX);
            return Ok(Lookup::Need(self.table.need(&self.store, slice.at, len)));
        };
        let start = GuestOffset(block * size);
        let unit = GuestRange::between(start, GuestOffset(start.get() + size));
        let block = self.header.block(entry, next, self.file_len);
        let block = block.map_err(|bad| broken(slice, entry, bad))?;
        Ok(Lookup::Found(self.extent(unit, block, range)))
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let (words, _) = bytes.as_chunks();
        Ok(self.table.supply(need, words.iter().map(|word| u64::from_be_bytes(*word))))
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new(NAME)
    }
}
