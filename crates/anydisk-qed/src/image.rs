//! The image: locate (pure), find the tables (memory), answer (pure).

use std::sync::Arc;

use anydisk_core::{
    Error, Extent, GuestRange, HostOffset, Image, ImageInfo, Invalid, Lease, Limits, Lookup, Need,
    Reference, Result, Role, Source, Storage, Supplied, TableCache, Ticket, Value,
};

use crate::table::{Cluster, Geometry, SLICE, SLICE_LEN, SliceAt};
use crate::{Header, NAME};

/// An open QED image.
#[derive(Debug)]
pub struct QedImage {
    store: Arc<dyn Storage>,
    header: Header,
    geometry: Geometry,
    backing: Option<Vec<u8>>,
    l1: TableCache,
    l2: TableCache,
}

/// What the bytes of a [`Need`] are for: the low bit of its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    L1,
    L2,
}

impl QedImage {
    /// Opens the image in `store` for reading. The backing file is not opened.
    ///
    /// # Errors
    /// As [`Header::parse`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*store)?;
        let backing = header.read_backing_name(&*store)?;
        let geometry = Geometry::new(&header, store.len()?);
        let clusters = header.image_size.div_ceil(geometry.cluster());
        let tables = header.image_size.div_ceil(geometry.coverage());
        // As large as allowed, or with twice the room that the tables take, so that few slices meet.
        let cache = |limit: usize, entries: u64| {
            let most = usize::try_from(entries.saturating_mul(16)).unwrap_or(usize::MAX);
            TableCache::new(SLICE_LEN / 8, limit.min(most))
        };
        Ok(Self {
            l1: cache(limits.table_cache / 16, tables),
            l2: cache(limits.table_cache, clusters),
            store,
            header,
            geometry,
            backing,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The image below, as the header names it. Of its format only raw can be told.
    #[must_use]
    pub fn backing(&self) -> Option<Reference> {
        let mut reference = Reference::new(Role::Backing, self.backing.clone()?);
        reference.format = self.header.backing_is_raw().then(|| "raw".to_owned());
        Some(reference)
    }

    #[cold]
    fn need(&self, level: Level, slice: SliceAt) -> Need<'_> {
        let (cache, bit) = match level {
            Level::L1 => (&self.l1, 0),
            Level::L2 => (&self.l2, 1),
        };
        let ticket = cache.ticket(slice.at).to_bits() << 1 | bit;
        Need { store: &self.store, at: slice.at, len: SLICE_LEN, least: SLICE_LEN, ticket }
    }

    /// What the table at `table` says of the start of the range.
    fn map_in(&self, table: HostOffset, range: GuestRange) -> Result<Lookup<'_>> {
        let geometry = &self.geometry;
        let place = geometry.locate(range.start());
        let slice = SliceAt::of(table, place.l2);
        let wanted = place.within.saturating_add(range.len()).div_ceil(geometry.cluster());
        let end = slice.index.saturating_add(wanted).min(SLICE);
        let seen = self.l2.read(slice.at, |entries| {
            let entry = |index: u64| entries.get(usize::try_from(index).unwrap_or(usize::MAX));
            (geometry.run(entry, slice.index, end), entry(slice.index))
        });
        let (cluster, count) = match seen {
            None => return Ok(Lookup::Need(self.need(Level::L2, slice))),
            Some(((Some(cluster), count), _)) => (cluster, count),
            Some(((None, _), entry)) => {
                let expected = "0, 1, or a whole cluster of the file behind its header";
                return Err(broken("L2 table entry", slice, entry, expected));
            }
        };
        let len = (count * geometry.cluster() - place.within).min(range.len());
        let source = match cluster {
            Cluster::Absent => Source::Absent { reserved: None },
            Cluster::Zero => Source::Zero { reserved: None },
            Cluster::Data(at) => {
                let at = at.saturating_add(place.within);
                Source::Data { store: &self.store, at, shared: false }
            }
        };
        // Nothing is freed while an image is only read.
        Ok(Lookup::Found(Extent { len, source, lease: Lease::eternal() }))
    }
}

#[cold]
fn broken(field: &'static str, slice: SliceAt, entry: u64, expected: &'static str) -> Error {
    let (at, found) = (slice.entry_at(), Value::Hex(entry));
    let expected = expected.into();
    Invalid { format: NAME, field: field.into(), at, found, expected }.into()
}

impl Image for QedImage {
    fn size(&self) -> u64 {
        self.header.image_size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let geometry = &self.geometry;
        let place = geometry.locate(range.start());
        let slice = SliceAt::of(self.header.l1_table_offset, place.l1);
        let seen = self.l1.read(slice.at, |entries| {
            let entry = |index: u64| entries.get(usize::try_from(index).unwrap_or(usize::MAX));
            let absent = (slice.index..SLICE).take_while(|index| entry(*index) == 0).count();
            (entry(slice.index), absent as u64)
        });
        let Some((entry, absent)) = seen else {
            return Ok(Lookup::Need(self.need(Level::L1, slice)));
        };
        let table = geometry.table(entry).map_err(|entry| {
            let expected = "0, or whole clusters of the file behind its header";
            broken("L1 table entry", slice, entry, expected)
        })?;
        match table {
            Some(table) => self.map_in(table, range),
            None => {
                let behind = range.start().get() & (geometry.coverage() - 1);
                let len = absent.saturating_mul(geometry.coverage()) - behind;
                let source = Source::Absent { reserved: None };
                Ok(Lookup::Found(Extent::without_data(len.min(range.len()), source)))
            }
        }
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let cache = if need.ticket & 1 == 0 { &self.l1 } else { &self.l2 };
        let (words, _) = bytes.as_chunks();
        let entries = words.iter().map(|word| u64::from_le_bytes(*word));
        Ok(cache.insert(need.at, Ticket::from_bits(need.ticket >> 1), entries).into())
    }

    fn info(&self) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        info.cluster_size = Some(self.geometry.cluster());
        info.dirty = self.header.needs_check();
        info
    }
}
