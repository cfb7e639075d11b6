//! The image: locate (pure), find the table (memory), answer (pure).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anydisk_core::{
    BitmapInfo, Bitmaps, Detail, DetailValue, Encoded, Error, Extent, GuestRange, HostOffset,
    Image, ImageInfo, Lease, Leases, Limits, Lookup, Need, Result, Snapshots, Source, Storage,
    Supplied, TableCache, Ticket,
};

use anydisk_crypto::luks::LuksInfo;
use anydisk_storage::name;

use crate::bitmap::{BitmapEntry, Directory};
use crate::crypt::{Crypt, View};
use crate::entry::{Cluster, Fault, L2Entry};
use crate::layout::extension;
use crate::table::{Geometry, L1Run, Run};
use crate::{Header, NAME, crypt, limits, snapshot};

/// An open qcow2 image.
#[derive(Debug)]
pub struct Qcow2Image {
    pub(crate) shared: Shared,
    pub(crate) bitmaps: Directory,
    /// Why there are none, though the image has some.
    pub(crate) no_bitmaps: Option<String>,
}

/// What reading and writing have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Storage>,
    /// Where guest data lies: the same, or the external data file; decrypted, if that is one store
    /// for all of it.
    pub(crate) data: Arc<dyn Storage>,
    /// How guest data is reached there.
    pub(crate) view: View,
    /// What the LUKS header says.
    pub(crate) luks: Option<Arc<LuksInfo>>,
    /// As it was when the image was opened.
    pub(crate) header: Header,
    pub(crate) geometry: Geometry,
    /// Virtual size in bytes.
    pub(crate) size: AtomicU64,
    /// Where the active L1 table is.
    pub(crate) l1_table: AtomicU64,
    pub(crate) leases: Leases,
    /// Space is freed while the image is open, so that whoever maps needs a lease.
    pub(crate) frees: bool,
    /// What opening the image may cost, and a snapshot of it.
    pub(crate) limits: Limits,
    /// Slices of the active L1 table.
    pub(crate) l1: TableCache,
    /// Slices of L2 tables.
    pub(crate) l2: TableCache,
}

/// What the bytes of a [`Need`] are for: the low bits of its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    L1,
    L2,
    /// A refcount block. Writing only.
    Refcounts,
}

impl Table {
    const BITS: u32 = 2;

    pub(crate) fn ticket(self, ticket: Ticket) -> u64 {
        let kind = match self {
            Self::L1 => 0,
            Self::L2 => 1,
            Self::Refcounts => 2,
        };
        ticket.to_bits() << Self::BITS | kind
    }

    pub(crate) fn of(ticket: u64) -> (Self, Ticket) {
        let table = match ticket & ((1 << Self::BITS) - 1) {
            0 => Self::L1,
            1 => Self::L2,
            _ => Self::Refcounts,
        };
        (table, Ticket::from_bits(ticket >> Self::BITS))
    }
}

impl Qcow2Image {
    /// Opens the image in `store` for reading. Files that it names are not opened.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Limit`] and [`Error::Unsupported`] as the header deserves
    /// them; those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        Self::open_in(Stores::of_one(store), limits)
    }

    /// Opens the image in `stores`, one of which is the external data file if it needs one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_in(stores: Stores, limits: &Limits) -> Result<Self> {
        let shared = Shared { frees: false, ..Shared::open(stores, limits)? };
        // Whoever only reads can do without them.
        let (bitmaps, no_bitmaps) = match Directory::read(&*shared.store, &shared.header, limits) {
            Ok(directory) => {
                let stale = directory.place.is_none()
                    && shared.header.extension(extension::BITMAPS).is_some();
                (directory, stale.then(|| STALE_BITMAPS.to_owned()))
            }
            Err(error @ Error::Storage(_)) => return Err(error),
            Err(error) => (Directory::default(), Some(error.to_string())),
        };
        Ok(Self { shared, bitmaps, no_bitmaps })
    }

    /// The header as it was when the image was opened.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.shared.header
    }
}

/// Why bitmaps are ignored that no autoclear bit vouches for.
const STALE_BITMAPS: &str = "the image was written by a program that does not know them";

/// The bytes of one image.
#[derive(Debug)]
pub(crate) struct Stores {
    /// Header and tables.
    pub(crate) image: Arc<dyn Storage>,
    /// Guest data, if it lies in another file.
    pub(crate) data: Option<Arc<dyn Storage>>,
    /// What opens it; `None`: nobody was asked.
    pub(crate) crypt: Option<Crypt>,
}

impl Stores {
    /// Everything in one file.
    pub(crate) fn of_one(image: Arc<dyn Storage>) -> Self {
        Self { image, data: None, crypt: None }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn Storage>> {
        std::iter::once(&self.image).chain(&self.data)
    }
}

/// Features that are legal and not done here.
fn refuse_unsupported(header: &Header, stores: &Stores) -> Result<()> {
    if header.has_data_file() && stores.data.is_none() {
        let feature = "an external data file that was not given with the image".into();
        return Err(Error::Unsupported { format: NAME, feature });
    }
    Ok(())
}

impl Shared {
    pub(crate) fn open(stores: Stores, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*stores.image, limits)?;
        refuse_unsupported(&header, &stores)?;
        snapshot::check_table(&*stores.image, &header)?;
        let crypt = match stores.crypt {
            Some(crypt) => crypt,
            None => Crypt::locked(&header, &stores.image)?,
        };
        Ok(Self::new(Stores { crypt: Some(crypt), ..stores }, header, limits))
    }

    pub(crate) fn new(stores: Stores, header: Header, limits: &Limits) -> Self {
        let geometry = Geometry::new(&header);
        let slice = geometry.slice_len();
        // A small disk gets a small cache: twice what its tables take, so that few slices meet. Not
        // less than some: in a set whose slots all hold changes, the next change has to wait for a
        // flush.
        let cache = |limit: usize, tables: u64| {
            let most = usize::try_from(tables.saturating_mul(2)).unwrap_or(usize::MAX);
            TableCache::new(slice / 8, limit.min(most.max(limits::LEAST_CACHE)))
        };
        let data = stores.data.unwrap_or_else(|| Arc::clone(&stores.image));
        let (data, view, luks) = stores.crypt.unwrap_or_default().applied(data);
        let clusters = header.disk_size().div_ceil(geometry.cluster_size());
        let l2_bytes = clusters.saturating_mul(geometry.entry_words() as u64 * 8);
        Self {
            l1: cache(limits.table_cache / 16, u64::from(header.l1_size) * 8),
            l2: cache(limits.table_cache, l2_bytes),
            size: AtomicU64::new(header.disk_size()),
            l1_table: AtomicU64::new(header.l1_table_offset.get()),
            leases: Leases::new(),
            frees: true,
            limits: limits.clone(),
            data,
            view,
            luks,
            store: stores.image,
            header,
            geometry,
        }
    }

    /// Virtual size in bytes now.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Where the active L1 table is now.
    pub(crate) fn l1_table(&self) -> HostOffset {
        HostOffset(self.l1_table.load(Relaxed))
    }

    /// The disk has `size` bytes now.
    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Relaxed);
    }

    /// The active L1 table lies at `to` now. Nothing is changed in the old one that the medium
    /// does not know.
    pub(crate) fn move_l1(&self, to: HostOffset, entries: u64, old_entries: u64) {
        self.forget_l1(to, entries); // Of what lay there before.
        let from = self.l1_table.swap(to.get(), Relaxed);
        self.forget_l1(HostOffset(from), old_entries);
    }

    fn forget_l1(&self, table: HostOffset, entries: u64) {
        let slices = (0..entries * 8).step_by(self.geometry.slice_len());
        slices.for_each(|inside| self.l1.remove(table.saturating_add(inside)));
    }

    /// See [`Image::info`].
    pub(crate) fn info(&self, header: &Header, bitmaps: &[BitmapInfo]) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        info.encrypted = header.crypt_method != 0;
        info.locked = matches!(self.view, View::Locked).then_some(crypt::KEY_SECRET);
        info.cluster_size = Some(header.cluster_size());
        info.dirty = header.is_dirty();
        info.loose_end = header.cluster_size();
        info.details = details(header, bitmaps, self.luks.as_deref());
        info
    }

    /// The question for a slice that is not in the cache.
    #[cold]
    pub(crate) fn need(&self, table: Table, slice: HostOffset) -> Need<'_> {
        let cache = if table == Table::L1 { &self.l1 } else { &self.l2 };
        let ticket = table.ticket(cache.ticket(slice));
        let len = self.geometry.slice_len();
        Need { store: &self.store, at: slice, len, least: self.least_of(table, slice), ticket }
    }

    /// Bytes of a slice that a sound file holds: an L1 table may end it.
    fn least_of(&self, table: Table, slice: HostOffset) -> usize {
        let len = self.geometry.slice_len();
        if table != Table::L1 {
            return len;
        }
        let end = self.l1_table().saturating_add(u64::from(self.header.l1_size) * 8);
        usize::try_from(end.get().saturating_sub(slice.get())).map_or(len, |rest| rest.min(len))
    }

    pub(crate) fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Supplied {
        let (table, ticket) = Table::of(need.ticket);
        let cache = match table {
            Table::L1 => &self.l1,
            Table::L2 => &self.l2,
            Table::Refcounts => return Supplied::Taken,
        };
        let (words, _) = bytes.as_chunks::<8>();
        let entries = words.iter().map(|word| u64::from_be_bytes(*word));
        cache.insert(need.at, ticket, entries).into()
    }

    /// See [`Image::map_cached`].
    #[inline]
    pub(crate) fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        // Before any table is read: what the tables name then stays in its place.
        let lease = if self.frees { self.leases.take() } else { Lease::eternal() };
        self.map_under(lease, range)
    }

    /// As [`map_cached`](Self::map_cached), under a lease that was taken before.
    #[inline]
    pub(crate) fn map_under<'a>(
        &'a self,
        lease: Lease<'a>,
        range: GuestRange,
    ) -> Result<Lookup<'a>> {
        let geometry = &self.geometry;
        let l1 = geometry.l1_slot(self.l1_table(), range.start());
        let Some(found) = self.l1.read(l1.slice, |slice| geometry.l1_run(&slice, l1.word, range))
        else {
            return Ok(Lookup::Need(self.need(Table::L1, l1.slice)));
        };
        let (at, table_copied) = match found {
            Ok(L1Run::Table { at, copied }) => (at, copied),
            Ok(L1Run::Absent(len)) => {
                self.view.check_unlocked()?;
                return Ok(Lookup::Found(absent(len)));
            }
            Err(fault) => return broken(fault, l1.slice),
        };
        let l2 = geometry.l2_slot(at, range.start());
        if geometry.is_within_cluster(range)
            && let Some(Some(entry)) =
                self.l2.read(l2.slice, |slice| geometry.plain_data(&slice, l2.word))
        {
            return Ok(Lookup::Found(self.plain(entry, range, table_copied, lease)?));
        }
        match self.l2.read(l2.slice, |slice| geometry.run(&slice, l2.word, range)) {
            Some(Ok(run)) => Ok(Lookup::Found(self.extent(run, range, table_copied, lease)?)),
            Some(Err(fault)) => broken(fault, l2.slice),
            None => Ok(Lookup::Need(self.need(Table::L2, l2.slice))),
        }
    }

    /// The extent of a range inside a cluster of plain data.
    #[inline]
    fn plain<'a>(
        &'a self,
        entry: L2Entry,
        range: GuestRange,
        table_copied: bool,
        lease: Lease<'a>,
    ) -> Result<Extent<'a>> {
        let within = range.start().get() & (self.geometry.cluster_size() - 1);
        let at = entry.host().unwrap_or_default().saturating_add(within);
        let shared = !(entry.is_copied() && table_copied);
        let store = self.view.store(&self.data, range.start(), at)?;
        Ok(Extent { len: range.len(), source: Source::Data { store, at, shared }, lease })
    }

    #[inline]
    fn extent<'a>(
        &'a self,
        run: Run,
        range: GuestRange,
        table_copied: bool,
        lease: Lease<'a>,
    ) -> Result<Extent<'a>> {
        let source = match run.cluster {
            Cluster::Data { at, copied } => {
                let store = self.view.store(&self.data, range.start(), at)?;
                Source::Data { store, at, shared: !(copied && table_copied) }
            }
            Cluster::Zero { reserved } => {
                self.view.check_unlocked()?;
                Source::Zero { reserved }
            }
            Cluster::Absent { reserved } => {
                self.view.check_unlocked()?;
                Source::Absent { reserved }
            }
            Cluster::Compressed(stream) => Source::Encoded(Encoded {
                store: &self.store,
                at: stream.at,
                len: usize::try_from(stream.len).expect("at most two clusters"),
                codec: self.header.compression.codec(),
                unit: self.geometry.cluster_range(range.start()),
            }),
        };
        Ok(Extent { len: run.len, source, lease })
    }
}

fn absent<'a>(len: u64) -> Extent<'a> {
    Extent::without_data(len, Source::Absent { reserved: None })
}

#[cold]
fn broken<'a>(fault: Fault, slice: HostOffset) -> Result<Lookup<'a>> {
    Err(fault.at(slice).into())
}

impl Image for Qcow2Image {
    fn size(&self) -> u64 {
        self.shared.size()
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        self.shared.map_cached(range)
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(self.shared.supply(need, bytes))
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn info(&self) -> ImageInfo {
        let bitmaps: Vec<_> = self.bitmaps.entries.iter().map(BitmapEntry::info).collect();
        self.shared.info(&self.shared.header, &bitmaps)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        Some(self)
    }
}

/// What qemu-img shows under `format-specific`, in its order.
fn details(header: &Header, bitmaps: &[BitmapInfo], luks: Option<&LuksInfo>) -> Vec<Detail> {
    let detail = |name, value| Detail { name, value };
    let flag = |name, flag| detail(name, DetailValue::Flag(flag));
    let text = |name, text: &str| detail(name, DetailValue::Text(text.to_owned()));
    let compat = text("compat", if header.version >= 3 { "1.1" } else { "0.10" });
    let compression = text("compression-type", header.compression.name());
    let refcounts = detail("refcount-bits", DetailValue::Number(header.refcount_bits().into()));
    let encrypt = crypt::details(header, luks);
    if header.version < 3 {
        return [compat, compression, refcounts].into_iter().chain(encrypt).collect();
    }
    let lazy = flag("lazy-refcounts", header.has_lazy_refcounts());
    let mut details = vec![compat, compression, lazy];
    if !bitmaps.is_empty() {
        let list = bitmaps.iter().map(bitmap_detail).collect();
        details.push(detail("bitmaps", DetailValue::List(list)));
    }
    details.push(refcounts);
    if header.has_data_file() {
        let name = header.data_file().map(name::shown);
        details.extend(name.map(|name| text("data-file", &name)));
        details.push(flag("data-file-raw", header.has_raw_data_file()));
    }
    details.extend(encrypt);
    details.push(flag("corrupt", header.is_corrupt()));
    details.push(flag("extended-l2", header.has_extended_l2()));
    details
}

fn bitmap_detail(bitmap: &BitmapInfo) -> DetailValue {
    let flags = [("in-use", bitmap.inconsistent), ("auto", bitmap.enabled)];
    let flags = flags.into_iter().filter(|(_, set)| *set);
    let flags = flags.map(|(name, _)| DetailValue::Text(name.to_owned())).collect();
    DetailValue::Map(vec![
        Detail { name: "flags", value: DetailValue::List(flags) },
        Detail { name: "name", value: DetailValue::Text(bitmap.name.clone()) },
        Detail { name: "granularity", value: DetailValue::Number(bitmap.granularity) },
    ])
}
