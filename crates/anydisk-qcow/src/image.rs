//! The image: locate (pure), find the tables (memory), answer (pure).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    BackingLink, Codec, Encoded, Error, Extent, GuestOffset, GuestRange, HostOffset, Image,
    ImageInfo, ImageWrite, Invalid, Lease, Limits, Location, Lookup, Need, Reference, Result, Role,
    RunSpace, Secrets, Source, Storage, Supplied, TableCache, Ticket, Value,
};

use crate::crypt::{KEY_SECRET, View};
use crate::survey::Survey;
use crate::table::{Cluster, ENTRY, Geometry, SLICE, SliceAt};
use crate::write::Writer;
use crate::{Header, NAME};

/// An open qcow image.
#[derive(Debug)]
pub struct QcowImage {
    pub(crate) store: Arc<dyn Storage>,
    pub(crate) header: Header,
    pub(crate) geometry: Geometry,
    /// The name of the image below, as the header has it now.
    backing: Mutex<Option<Vec<u8>>>,
    pub(crate) l1: TableCache,
    pub(crate) l2: TableCache,
    /// The space of the file, and the leases on it.
    pub(crate) space: RunSpace,
    view: View,
    pub(crate) writer: Option<Writer>,
}

/// What the bytes of a [`Need`] are for: the low bits of its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    L1,
    L2,
}

/// The low bits of the ticket of bytes that the survey asks for.
const SURVEY: u64 = 2;

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

impl QcowImage {
    /// Opens the image in `store` for writing. The backing file is not opened.
    ///
    /// The L1 table is read: nothing is written to an image whose tables lie on each other. The others
    /// are read once, before the first write: new space is behind all that they name, and what two of
    /// their entries name is not written.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::NeedsRepair`].
    pub fn open_writable(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let mut image = Self::open(store, limits)?;
        let len = image.store.len()?;
        let survey = Survey::begin(&image, len)?;
        image.space = RunSpace::new(survey.end());
        image.writer = Some(Writer::new(survey)?);
        Ok(image)
    }

    /// Opens the image in `store` for reading. The backing file is not opened, and an encrypted image
    /// can only be told about: its passphrase comes with the request of
    /// [`Format::open`](anydisk_core::Format::open).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Limit`] and [`Error::Unsupported`] as the header deserves them;
    /// those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*store)?;
        let backing = header.read_backing_name(&*store)?;
        let geometry = Geometry::new(&header);
        let clusters = header.disk_size().div_ceil(geometry.cluster());
        Ok(Self {
            l1: cache(SLICE, limits.table_cache / 16, geometry.l1_entries()),
            l2: cache(geometry.l2_slice_entries(), limits.table_cache, clusters),
            space: RunSpace::new(HostOffset::ZERO),
            writer: None,
            view: if header.encrypted { View::Locked } else { View::Plain },
            store,
            header,
            geometry,
            backing: Mutex::new(backing),
        })
    }

    /// The same with the passphrase that `secrets` gives, if the image is encrypted.
    ///
    /// # Errors
    /// Those of asking.
    pub(crate) fn unlocked(mut self, location: &Location, secrets: &dyn Secrets) -> Result<Self> {
        if self.header.encrypted {
            self.view = View::unlocked(&self.store, location, secrets)?;
        }
        Ok(self)
    }

    /// The store for the data of the cluster around a byte of the disk, which lies at `at`.
    pub(crate) fn data_store(
        &self,
        around: GuestOffset,
        at: HostOffset,
    ) -> Result<&Arc<dyn Storage>> {
        let guest = around.get() & !(self.geometry.cluster() - 1);
        self.view.store(&self.store, guest, at)
    }

    /// The header as it was when the image was opened.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The image below, as the header names it. Its format is not stored.
    #[must_use]
    pub fn backing(&self) -> Option<Reference> {
        Some(Reference::new(Role::Backing, self.lock_backing().clone()?))
    }

    pub(crate) fn lock_backing(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.backing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables' answer for the start of `range`.
    pub(crate) fn look(&self, range: GuestRange) -> Result<Look<'_>> {
        let geometry = &self.geometry;
        let place = geometry.locate(range.start());
        let l1 = geometry.l1_slice(place.l1);
        let seen = self.l1.read(l1.at, |entries| {
            let absent = (l1.index..l1.count).take_while(|n| entries.get(*n as usize) == 0).count();
            (entries.get(l1.index as usize), absent as u64)
        });
        let Some((entry, absent)) = seen else { return Ok(Look::Need(self.need(Level::L1, l1))) };
        let table = geometry.table(entry).map_err(|entry| broken_table(l1, entry))?;
        let Some(table) = table else {
            let behind = range.start().get() & (geometry.coverage() - 1);
            let len = absent.saturating_mul(geometry.coverage()) - behind;
            return Ok(Look::NoTable(len.min(range.len())));
        };
        let slice = geometry.l2_slice(table, place.l2);
        self.look_in(slice, place.within, range)
    }

    fn look_in(&self, slice: SliceAt, within: u64, range: GuestRange) -> Result<Look<'_>> {
        let geometry = &self.geometry;
        let wanted = within.saturating_add(range.len()).div_ceil(geometry.cluster());
        let wanted = u32::try_from(wanted).unwrap_or(SLICE);
        let end = slice.index.saturating_add(wanted).min(slice.count);
        let seen = self.l2.read(slice.at, |entries| {
            let entry = |index: u32| entries.get(index as usize);
            (geometry.run(entry, slice.index, end), entry(slice.index))
        });
        match seen {
            None => Ok(Look::Need(self.need(Level::L2, slice))),
            Some(((Some(cluster), count), _)) => {
                let len = (u64::from(count) * geometry.cluster() - within).min(range.len());
                Ok(Look::Run { cluster, len, slice })
            }
            Some(((None, _), entry)) => {
                let expected = "0, a sector of the file, or a compressed cluster with its length";
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
        let ticket = cache.ticket(slice.at).to_bits() << 2 | bit;
        let len = slice.len();
        Need { store: &self.store, at: slice.at, len, least: len, ticket }
    }

    /// What must be read before anything is written or given back; `None`: all is known.
    pub(crate) fn unsurveyed(&self, survey: &Survey) -> Option<Need<'_>> {
        let (at, len) = survey.next()?;
        let len = usize::try_from(len).expect("a mebibyte at most");
        Some(Need { store: &self.store, at, len, least: 0, ticket: SURVEY })
    }

    /// The part of the disk for which there is no table: its entry is not in the file, breaks the rules, or
    /// names a place behind the end.
    fn without_table(&self, at: GuestOffset) -> Result<Option<GuestRange>> {
        let (geometry, size) = (&self.geometry, self.size());
        let place = geometry.locate(at);
        let slice = geometry.l1_slice(place.l1);
        let len = self.store.len()?;
        let start = GuestOffset(place.l1.saturating_mul(geometry.coverage()));
        let until = |end: u64| Some(GuestRange::between(start, GuestOffset(end.min(size))));
        if slice.entry_at().get() >= len {
            return Ok(until(size));
        }
        let entry = loop {
            match self.l1.read(slice.at, |entries| entries.get(slice.index as usize)) {
                Some(entry) => break entry,
                None => self.satisfy(&self.need(Level::L1, slice))?,
            }
        };
        let is_there = match geometry.table(entry) {
            Ok(Some(table)) => table.get() < len,
            Ok(None) => true,
            Err(_) => false,
        };
        Ok(if is_there { None } else { until(start.get().saturating_add(geometry.coverage())) })
    }

    /// A hole at the start of what the survey asks for names nothing: it need not be read.
    fn skip_hole(&self, survey: &Survey, at: HostOffset) -> Result<bool> {
        let Some(holes) = self.store.holes() else { return Ok(false) };
        let run = holes.run_at(at, survey.rest_from(at).max(ENTRY))?;
        let len = run.len - run.len % ENTRY;
        let skips = run.hole && len > 0;
        if skips {
            survey.skip(&self.space, at, len)?;
        }
        Ok(skips)
    }

    fn extent<'a>(
        &'a self,
        cluster: Cluster,
        len: u64,
        range: GuestRange,
        lease: Lease<'a>,
    ) -> Result<Extent<'a>> {
        let source = match cluster {
            Cluster::Absent => {
                self.view.check_unlocked()?;
                Source::Absent { reserved: None }
            }
            Cluster::Data(at) => {
                let store = self.data_store(range.start(), at)?;
                let at = at.saturating_add(self.geometry.locate(range.start()).within);
                Source::Data { store, at, shared: false }
            }
            Cluster::Packed { at, len } => {
                let unit = self.geometry.cluster_range(range.start());
                let len = len as usize;
                let store = &self.store;
                Source::Encoded(Encoded { store, at, len, codec: Codec::Deflate, unit })
            }
        };
        Ok(Extent { len, source, lease })
    }
}

/// A cache of slices of so many entries, for tables of `all` entries: as large as allowed, or with
/// twice the room that the tables take, so that few slices meet.
fn cache(entries: u32, limit: usize, all: u64) -> TableCache {
    let most = usize::try_from(all.saturating_mul(16)).unwrap_or(usize::MAX);
    TableCache::new(entries as usize, limit.min(most))
}

/// An L1 entry at which no table can be.
pub(crate) fn broken_table(slice: SliceAt, entry: u64) -> Error {
    broken("L1 table entry", slice, entry, "the place of an L2 table below 2^63")
}

#[cold]
fn broken(field: &'static str, slice: SliceAt, entry: u64, expected: &'static str) -> Error {
    let (at, found) = (slice.entry_at(), Value::Hex(entry));
    let expected = expected.into();
    Invalid { format: NAME, field: field.into(), at, found, expected }.into()
}

impl Image for QcowImage {
    fn size(&self) -> u64 {
        self.header.disk_size()
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        // Before any table is looked at: what the tables name then stays in its place.
        let lease = self.space.leases().take();
        Ok(match self.look(range)? {
            Look::Need(need) => Lookup::Need(need),
            Look::NoTable(len) => {
                self.view.check_unlocked()?;
                Lookup::Found(Extent::without_data(len, Source::Absent { reserved: None }))
            }
            Look::Run { cluster, len, .. } => {
                Lookup::Found(self.extent(cluster, len, range, lease)?)
            }
        })
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        if let (SURVEY, Some(writer)) = (need.ticket, &self.writer) {
            writer.survey.take(&self.geometry, &self.space, (need.at, bytes))?;
            return Ok(Supplied::Taken);
        }
        let cache = if need.ticket & 1 == 0 { &self.l1 } else { &self.l2 };
        let (words, _) = bytes.as_chunks();
        let entries = words.iter().map(|word| u64::from_be_bytes(*word));
        Ok(cache.insert(need.at, Ticket::from_bits(need.ticket >> 2), entries).into())
    }

    fn satisfy(&self, need: &Need<'_>) -> Result<()> {
        if let (SURVEY, Some(writer)) = (need.ticket, &self.writer)
            && self.skip_hole(&writer.survey, need.at)?
        {
            return Ok(());
        }
        match self.supply(need, &need.read()?)? {
            Supplied::Taken => Ok(()),
            Supplied::Full => self.relieve(),
        }
    }

    fn lost_around(&self, at: GuestOffset) -> Option<GuestRange> {
        self.without_table(at).ok().flatten()
    }

    fn info(&self) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        info.cluster_size = Some(self.geometry.cluster());
        info.encrypted = self.header.encrypted;
        info.locked = matches!(self.view, View::Locked).then_some(KEY_SECRET);
        info
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writer.is_some().then_some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        self.writer.is_some().then_some(self)
    }
}
