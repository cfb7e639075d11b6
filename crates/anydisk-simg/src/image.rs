//! The image: where is this block (memory), answer (pure).

use std::sync::Arc;

use anydisk_core::{
    Encoded, Extent, GuestOffset, GuestRange, HostOffset, Image, ImageInfo, Lease, Limits, Lookup,
    Need, Result, Source, Storage, Supplied,
};

use crate::fill::{self, FILL};
use crate::map::ChunkMap;
use crate::{Chunk, Content, Header, NAME};

/// Bytes that a pattern is unpacked to in one piece.
const UNIT: u64 = 1 << 20;

/// An open Android sparse image.
#[derive(Debug)]
pub struct SimgImage {
    store: Arc<dyn Storage>,
    header: Header,
    map: ChunkMap,
}

impl SimgImage {
    /// Opens the image in `store` for reading. Reads the headers of all chunks.
    ///
    /// # Errors
    /// As [`Header::parse`] and [`ChunkMap::read`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*store)?;
        let map = ChunkMap::read(&*store, &header, limits)?;
        Ok(Self { store, header, map })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn range_of(&self, chunk: &Chunk) -> GuestRange {
        let size = u64::from(self.header.block_size);
        let at = |block: u64| GuestOffset(block * size);
        let start = u64::from(chunk.block);
        GuestRange::between(at(start), at(start + u64::from(chunk.blocks)))
    }

    /// The part of the chunk that `range` begins in.
    fn extent(&self, chunk: &Chunk, range: GuestRange) -> Extent<'_> {
        let whole = self.range_of(chunk);
        let within = range.start().get() - whole.start().get();
        let (end, source) = match chunk.content {
            Content::Raw(at) => {
                let at = at.saturating_add(within);
                (whole.end(), Source::Data { store: &self.store, at, shared: false })
            }
            Content::Fill(at, pattern) if pattern != [0; 4] => self.filled(at, whole, within),
            Content::Fill(..) => (whole.end(), Source::Zero { reserved: None }),
            _ => (whole.end(), Source::Absent { reserved: None }),
        };
        // Nothing is freed while an image is only read.
        Extent { len: range.before(end).len(), source, lease: Lease::eternal() }
    }

    /// A pattern, in units of which each is unpacked by itself; the end of the one that is meant.
    fn filled(&self, at: HostOffset, whole: GuestRange, within: u64) -> (GuestOffset, Source<'_>) {
        let unit = whole.skip(within - within % UNIT).first(UNIT);
        let (store, len, codec) = (&self.store, fill::LEN, FILL);
        (unit.end(), Source::Encoded(Encoded { store, at, len, codec, unit }))
    }
}

impl Image for SimgImage {
    fn size(&self) -> u64 {
        self.header.size()
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let block = range.start().get() / u64::from(self.header.block_size);
        Ok(Lookup::Found(match self.map.look(block) {
            Some(chunk) => self.extent(chunk, range),
            None => Extent::without_data(range.len(), Source::Absent { reserved: None }),
        }))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken) // All is in memory: nothing is ever needed.
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new(NAME)
    }
}
