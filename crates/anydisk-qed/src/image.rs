//! The image: locate (pure), find the tables (memory), answer (pure).

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    BackingLink, Detail, Error, Extent, GuestRange, HostOffset, Image, ImageInfo, ImageWrite,
    Invalid, Limits, Lookup, Need, Reference, Resize, Result, Role, RunSpace, Source, Storage,
    Supplied, TableCache, Ticket, Value,
};

use crate::header::HeaderNow;
use crate::survey::Survey;
use crate::table::{Cluster, Geometry, SLICE, SLICE_LEN, SliceAt};
use crate::write::Writer;
use crate::{Header, NAME, check};

/// An open QED image.
#[derive(Debug)]
pub struct QedImage {
    pub(crate) store: Arc<dyn Storage>,
    /// As it was when the image was opened.
    pub(crate) header: Header,
    /// As it is now.
    pub(crate) now: Mutex<HeaderNow>,
    pub(crate) geometry: Geometry,
    /// Size of the disk now.
    size: AtomicU64,
    /// Where the file ends, in whole clusters, with what was taken and not written yet.
    end: AtomicU64,
    pub(crate) l1: TableCache,
    pub(crate) l2: TableCache,
    /// The space of the file, and the leases on it.
    pub(crate) space: RunSpace,
    pub(crate) writer: Option<Writer>,
}

/// What the bytes of a [`Need`] are for: the low bit of its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    L1,
    L2,
}

/// What one look at the tables tells about the start of a range.
#[derive(Debug)]
pub(crate) enum Look<'a> {
    /// Metadata is missing.
    Need(Need<'a>),
    /// No L2 table: nothing is there for so many bytes.
    NoTable(u64),
    /// `cluster` is the answer for `len` bytes.
    Run { cluster: Cluster, len: u64, slice: SliceAt },
}

impl QedImage {
    /// Opens the image in `store` for reading. The backing file is not opened.
    ///
    /// # Errors
    /// As [`Header::parse`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*store)?;
        let backing = header.read_backing_name(&*store)?;
        let geometry = Geometry::new(&header);
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
            size: header.image_size.into(),
            end: geometry.whole(store.len()?).into(),
            space: RunSpace::new(HostOffset::ZERO),
            now: Mutex::new(HeaderNow { header: header.clone(), backing }),
            writer: None,
            store,
            header,
            geometry,
        })
    }

    /// Opens the image in `store` for writing. The backing file is not opened.
    ///
    /// All tables are read: nothing is written to an image in which two entries name one cluster, or one
    /// names what is not in the file. One that was not closed cleanly is repaired first.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::NeedsRepair`].
    pub fn open_writable(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let mut image = Self::open(store, limits)?;
        if image.header.needs_check() {
            check::after_a_crash(&image.store, limits)?;
            image = Self::open(image.store, limits)?;
        }
        let end = image.end().get();
        let survey = Survey::of(&*image.store, &image.header, &image.geometry, end)?;
        image.space = RunSpace::new(HostOffset(image.geometry.whole_or_more(image.store.len()?)));
        image.header.clear_unknown(&*image.store)?;
        image.writer = Some(Writer::new(&survey));
        Ok(image)
    }

    /// The header as it was when the image was opened.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The image below, as the header names it. Of its format only raw can be told.
    #[must_use]
    pub fn backing(&self) -> Option<Reference> {
        let now = self.lock_now();
        let mut reference = Reference::new(Role::Backing, now.backing.clone()?);
        reference.format = now.header.backing_is_raw().then(|| "raw".to_owned());
        Some(reference)
    }

    pub(crate) fn lock_now(&self) -> MutexGuard<'_, HeaderNow> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the file ends, in whole clusters, with what is named in memory.
    pub(crate) fn end(&self) -> HostOffset {
        HostOffset(self.end.load(Acquire))
    }

    /// What ends at `end` is about to be named.
    pub(crate) fn grow_to(&self, end: HostOffset) {
        self.end.fetch_max(end.get(), Release);
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Release);
    }

    /// The tables' answer for the start of `range`.
    pub(crate) fn look(&self, range: GuestRange) -> Result<Look<'_>> {
        let geometry = &self.geometry;
        let place = geometry.locate(range.start());
        let l1 = SliceAt::of(self.header.l1_table_offset, place.l1);
        let seen = self.l1.read(l1.at, |entries| {
            let entry = |index: u64| entries.get(usize::try_from(index).unwrap_or(usize::MAX));
            let absent = (l1.index..SLICE).take_while(|index| entry(*index) == 0).count();
            (entry(l1.index), absent as u64)
        });
        let Some((entry, absent)) = seen else { return Ok(Look::Need(self.need(Level::L1, l1))) };
        let table = geometry.table(entry, self.end().get()).map_err(|e| broken_table(l1, e))?;
        let Some(table) = table else {
            let behind = range.start().get() & (geometry.coverage() - 1);
            let len = absent.saturating_mul(geometry.coverage()) - behind;
            return Ok(Look::NoTable(len.min(range.len())));
        };
        self.look_in(SliceAt::of(table, place.l2), place.within, range)
    }

    fn look_in(&self, slice: SliceAt, within: u64, range: GuestRange) -> Result<Look<'_>> {
        let geometry = &self.geometry;
        let wanted = within.saturating_add(range.len()).div_ceil(geometry.cluster());
        let end = slice.index.saturating_add(wanted).min(SLICE);
        let seen = self.l2.read(slice.at, |entries| {
            let entry = |index: u64| entries.get(usize::try_from(index).unwrap_or(usize::MAX));
            // The file has grown before an entry names what is new in it.
            let file_end = || self.end().get();
            (geometry.run(entry, slice.index, end, file_end), entry(slice.index))
        });
        match seen {
            None => Ok(Look::Need(self.need(Level::L2, slice))),
            Some(((Some(cluster), count), _)) => {
                let len = (count * geometry.cluster() - within).min(range.len());
                Ok(Look::Run { cluster, len, slice })
            }
            Some(((None, _), entry)) => {
                let expected = "0, 1, or a whole cluster of the file behind its header";
                Err(broken("L2 table entry", slice, entry, expected))
            }
        }
    }

    /// The question for a slice that is not in the cache.
    #[cold]
    pub(crate) fn need(&self, level: Level, slice: SliceAt) -> Need<'_> {
        let (cache, bit) = match level {
            Level::L1 => (&self.l1, 0),
            Level::L2 => (&self.l2, 1),
        };
        let ticket = cache.ticket(slice.at).to_bits() << 1 | bit;
        Need { store: &self.store, at: slice.at, len: SLICE_LEN, least: SLICE_LEN, ticket }
    }
}

/// An L1 entry at which no table can be.
pub(crate) fn broken_table(slice: SliceAt, entry: u64) -> Error {
    let expected = "0, or whole clusters of the file behind its header";
    broken("L1 table entry", slice, entry, expected)
}

#[cold]
fn broken(field: &'static str, slice: SliceAt, entry: u64, expected: &'static str) -> Error {
    let (at, found) = (slice.entry_at(), Value::Hex(entry));
    let expected = expected.into();
    Invalid { format: NAME, field: field.into(), at, found, expected }.into()
}

impl Image for QedImage {
    fn size(&self) -> u64 {
        self.size.load(Acquire)
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        // Before any table is looked at: what the tables name then stays in its place.
        let lease = self.space.leases().take();
        let (cluster, len) = match self.look(range)? {
            Look::Need(need) => return Ok(Lookup::Need(need)),
            Look::NoTable(len) => (Cluster::Absent, len),
            Look::Run { cluster, len, .. } => (cluster, len),
        };
        let source = match cluster {
            Cluster::Absent => Source::Absent { reserved: None },
            Cluster::Zero => Source::Zero { reserved: None },
            Cluster::Data(at) => {
                let at = at.saturating_add(self.geometry.locate(range.start()).within);
                let store = &self.store;
                return Ok(Lookup::Found(Extent {
                    len,
                    source: Source::Data { store, at, shared: false },
                    lease,
                }));
            }
        };
        Ok(Lookup::Found(Extent::without_data(len, source)))
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
        let now = self.lock_now();
        info.dirty = now.header.needs_check();
        info.more = vec![Detail::number("table-size", now.header.table_size.into())];
        info
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writer.is_some().then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.writer.is_some().then_some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        self.writer.is_some().then_some(self)
    }
}
