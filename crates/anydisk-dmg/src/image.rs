//! The image: where is this sector (memory), answer (pure).

use std::sync::Arc;

use anydisk_core::{
    Encoded, Extent, GuestRange, Image, ImageInfo, Lease, Limits, Lookup, Need, Result, Source,
    Storage, Supplied,
};

use crate::layout::SECTOR;
use crate::map::ChunkMap;
use crate::table::{Chunk, ChunkKind, Table};
use crate::{NAME, Trailer, tables};

/// An open UDIF image.
#[derive(Debug)]
pub struct DmgImage {
    store: Arc<dyn Storage>,
    trailer: Trailer,
    sectors: u64,
    map: ChunkMap,
}

impl DmgImage {
    /// Opens the image in `store` for reading. Reads all tables.
    ///
    /// # Errors
    /// As [`Trailer::read`] and [`Table::parse`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let trailer = Trailer::read(&*store)?;
        let tables = tables::read(&*store, &trailer, limits)?;
        Self::of_tables(store, trailer, &tables)
    }

    pub(crate) fn of_tables(
        store: Arc<dyn Storage>,
        trailer: Trailer,
        tables: &[Table],
    ) -> Result<Self> {
        let last = tables.iter().map(|table| table.end).max().unwrap_or(0);
        let sectors = trailer.sectors.unwrap_or(last);
        Ok(Self { store, trailer, sectors, map: ChunkMap::of(tables)? })
    }

    /// The trailer.
    #[must_use]
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// The part of the chunk that `range` begins in.
    fn extent(&self, chunk: &Chunk, range: GuestRange) -> Extent<'_> {
        let unit = chunk.range();
        let within = range.start().get() - unit.start().get();
        let source = match (chunk.kind, chunk.kind.codec()) {
            (_, Some(codec)) => {
                let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
                Source::Encoded(Encoded { store: &self.store, at: chunk.at, len, codec, unit })
            }
            (ChunkKind::Raw, None) => {
                let at = chunk.at.saturating_add(within);
                Source::Data { store: &self.store, at, shared: false }
            }
            (ChunkKind::Free, None) => Source::Absent { reserved: None },
            (_, None) => Source::Zero { reserved: None },
        };
        // Nothing is freed while an image is only read.
        Extent { len: range.before(unit.end()).len(), source, lease: Lease::eternal() }
    }
}

impl Image for DmgImage {
    fn size(&self) -> u64 {
        self.sectors * SECTOR
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        Ok(Lookup::Found(match self.map.look(range) {
            Ok(chunk) => self.extent(chunk, range),
            Err(len) => Extent::without_data(len, Source::Absent { reserved: None }),
        }))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken) // All is in memory: nothing is ever needed.
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new(NAME)
    }
}
