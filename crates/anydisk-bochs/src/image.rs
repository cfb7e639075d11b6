//! The image: locate (pure), find catalog and bitmap (memory), answer (pure).

use std::sync::Arc;

use anydisk_core::{
    Error, Extent, GuestRange, HostOffset, Image, ImageInfo, Invalid, Lease, Limits, Lookup, Need,
    Result, Source, Storage, Supplied, TableCache, Ticket, Value,
};

use crate::layout::{NONE, SECTOR};
use crate::table::{BITMAP_SLICE, CATALOG_SLICE, Geometry, Place, SLICE_SECTORS, SliceAt, run};
use crate::{Header, NAME};

/// An open Bochs image.
#[derive(Debug)]
pub struct BochsImage {
    store: Arc<dyn Storage>,
    header: Header,
    geometry: Geometry,
    catalog: TableCache,
    bitmaps: TableCache,
}

/// What the bytes of a [`Need`] are for: the low bit of its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Catalog,
    Bitmap,
}

impl BochsImage {
    /// Opens the image in `store` for reading.
    ///
    /// # Errors
    /// As [`Header::parse`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*store)?;
        let geometry = Geometry::new(&header, store.len()?);
        let cache = |entries: u64, limit: usize| {
            let entries = usize::try_from(entries).unwrap_or(usize::MAX);
            TableCache::new(entries, limit)
        };
        // With twice the room that the table takes few slices meet.
        let most = usize::try_from(u64::from(header.entries) * 16).unwrap_or(usize::MAX);
        let room = limits.table_cache / 2;
        Ok(Self {
            catalog: cache(CATALOG_SLICE, room.min(most)),
            bitmaps: cache(BITMAP_SLICE, room),
            store,
            header,
            geometry,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    #[cold]
    fn need(&self, table: Table, slice: SliceAt) -> Need<'_> {
        let (cache, bit, len) = match table {
            Table::Catalog => (&self.catalog, 0, CATALOG_SLICE * 4),
            Table::Bitmap => (&self.bitmaps, 1, BITMAP_SLICE * 8),
        };
        let ticket = cache.ticket(slice.at).to_bits() << 1 | bit;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        // The last slice may reach into the first extent, or behind the end of the file.
        Need { store: &self.store, at: slice.at, len, least: 0, ticket }
    }

    /// What the extent at `place` says of the start of the range.
    fn map_in(&self, at: HostOffset, place: Place, range: GuestRange) -> Result<Lookup<'_>> {
        let slice = Geometry::bitmap_slice(at, place.sector);
        let in_extent = self.geometry.extent() / SECTOR - place.sector;
        let end = slice.index.saturating_add(in_extent).min(SLICE_SECTORS);
        let seen = self.bitmaps.read(slice.at, |words| {
            let word = |index: u64| words.get(usize::try_from(index).unwrap_or(usize::MAX));
            run(word, slice.index, end)
        });
        let Some((is_set, sectors)) = seen else {
            return Ok(Lookup::Need(self.need(Table::Bitmap, slice)));
        };
        if !is_set {
            let len = (sectors * SECTOR - place.within).min(range.len());
            let source = Source::Absent { reserved: None };
            return Ok(Lookup::Found(Extent::without_data(len, source)));
        }
        let data = self.geometry.sector_at(at, place.sector).ok_or_else(|| {
            let at = slice.at.saturating_add(slice.index / 8);
            broken("bit of a sector", at, Value::Number(1), "0 for what is not in the file")
        })?;
        let sectors = sectors.min(self.geometry.held(data));
        let len = (sectors * SECTOR - place.within).min(range.len());
        let at = data.saturating_add(place.within);
        let source = Source::Data { store: &self.store, at, shared: false };
        // Nothing is freed while an image is only read.
        Ok(Lookup::Found(Extent { len, source, lease: Lease::eternal() }))
    }
}

#[cold]
pub(crate) fn broken(
    field: &'static str,
    at: HostOffset,
    found: Value,
    expected: &'static str,
) -> Error {
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }.into()
}

impl Image for BochsImage {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let place = self.geometry.locate(range.start());
        let slice = self.geometry.catalog_slice(place.entry);
        let seen = self.catalog.read(slice.at, |entries| {
            let entry = |index: u64| entries.get(usize::try_from(index).unwrap_or(usize::MAX));
            let is_none = |index: &u64| entry(*index) == u64::from(NONE);
            let absent = (slice.index..CATALOG_SLICE).take_while(is_none).count();
            (entry(slice.index), absent as u64)
        });
        let Some((entry, absent)) = seen else {
            return Ok(Lookup::Need(self.need(Table::Catalog, slice)));
        };
        let extent = self.geometry.place(entry).map_err(|entry| {
            let at = slice.at.saturating_add(slice.index * 4);
            broken("entry of the catalog", at, Value::Number(entry), "an extent in the file")
        })?;
        match extent {
            Some(at) => self.map_in(at, place, range),
            None => {
                let within = place.sector * SECTOR + place.within;
                let len = absent.saturating_mul(self.geometry.extent()) - within;
                let source = Source::Absent { reserved: None };
                Ok(Lookup::Found(Extent::without_data(len.min(range.len()), source)))
            }
        }
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let ticket = Ticket::from_bits(need.ticket >> 1);
        let taken = if need.ticket & 1 == 0 {
            let (words, _) = bytes.as_chunks();
            let entries = words.iter().map(|word| u64::from(u32::from_le_bytes(*word)));
            self.catalog.insert(need.at, ticket, entries)
        } else {
            let (words, _) = bytes.as_chunks();
            let entries = words.iter().map(|word| u64::from_le_bytes(*word));
            self.bitmaps.insert(need.at, ticket, entries)
        };
        Ok(taken.into())
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new(NAME)
    }
}
