//! The image open for writing: places for data, and what a commit changes.
//!
//! A place that is a range's own is answered without a lock: a look at the tables, the COPIED
//! flags, the [guard](crate::guard). Otherwise the range is claimed, clusters are taken, and the
//! tables learn of them when the data has been written.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anydisk_codec::{DeflateEncoder, Encode, ZstdEncoder};
use anydisk_core::{
    Attempt, BackingLink, Below, Bitmaps, Claims, Committed, Compact, Error, GuestOffset,
    GuestRange, Handled, HostOffset, Image, ImageInfo, ImageWrite, Limits, Lookup, Need, Packing,
    Reserved, Resize, Result, Snapshots, Source, Storage, Supplied, Zeroing,
};

use crate::alloc::{Allocator, Fresh};
use crate::alone::Turns;
use crate::bitmap::{Directory, Keeper};
use crate::crypt::{View, locked};
use crate::format::check_writable;
use crate::image::{Shared, Stores, Table};
use crate::live::LiveHeader;
use crate::reserve::Purpose;
use crate::snapshot::Pins;
use crate::survey::survey;
use crate::{Compression, Header, NAME, check};

/// A qcow2 image that is open for writing.
///
/// What is written is on the medium after the next [`flush`](ImageWrite::flush). An image that is
/// dropped without one is as after a power failure: it opens, holds what was flushed, and may have
/// leaked clusters.
#[derive(Debug)]
pub struct WritableImage {
    pub(crate) shared: Shared,
    /// The header as it is now.
    pub(crate) live: Arc<LiveHeader>,
    pub(crate) space: Allocator,
    pub(crate) claims: Claims,
    pub(crate) turns: Turns,
    pub(crate) pins: Pins,
    pub(crate) bitmaps: Keeper,
    /// Whoever changes tables holds it shared; taking pictures of them needs it alone, so that
    /// nobody is between two changes that belong together.
    gate: RwLock<()>,
    pub(crate) tables: Mutex<NewTables>,
    /// One write-back runs at a time.
    pub(crate) round: Mutex<()>,
    packing: Packing,
    /// No cluster of the external data file from this guest offset on was ever written.
    pub(crate) virgin_data: AtomicU64,
}

/// L2 tables on their way into the L1 table.
#[derive(Debug, Default)]
pub(crate) struct NewTables {
    /// Places of tables that no L1 entry on the medium names yet.
    pub(crate) unlinked: BTreeSet<HostOffset>,
    /// Guest offsets whose table cannot be made without I/O.
    pub(crate) wanted: Vec<GuestOffset>,
    /// A cluster for the next table.
    pub(crate) spare: Option<Fresh>,
}

/// The value of a [`Step`] that is done; another one is the answer of the function.
macro_rules! done {
    ($step:expr) => {
        match $step {
            Step::Done(value) => value,
            Step::Need(need) => return Ok(Step::Need(need)),
            Step::Full => return Ok(Step::Full),
        }
    };
}
pub(crate) use done;

/// How far a step came.
pub(crate) enum Step<'a, T> {
    Done(T),
    /// Metadata is missing.
    Need(Need<'a>),
    /// The image must be [relieved](Image::relieve) first.
    Full,
}

impl WritableImage {
    /// Opens the image in `store` for reading and writing. Bits of features that a writer must
    /// know to keep valid (unknown autoclear bits) are cleared on the medium; an image that was not
    /// closed cleanly is repaired.
    ///
    /// # Errors
    /// As [`Qcow2Image::open`](crate::Qcow2Image::open); [`Error::ReadOnly`] if the store is;
    /// [`Error::NeedsRepair`] if the image is marked corrupt, cannot be repaired where it is marked
    /// dirty, or its metadata overlaps.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        Self::open_in(Stores::of_one(store), limits)
    }

    /// Opens the image in `stores`, one of which is the external data file if it needs one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_in(stores: Stores, limits: &Limits) -> Result<Self> {
        if let Some(store) = stores.all().find(|store| !store.is_writable()) {
            let why = format!("its file {} was opened for reading", store.name());
            return Err(Error::ReadOnly { why: why.into() });
        }
        let header = Header::read(&*stores.image, limits)?;
        if header.is_dirty() && !header.is_corrupt() {
            check::repair_dirty(&stores.image, limits)?;
        }
        let shared = Shared::open(stores, limits)?;
        let directory = Directory::read(&*shared.store, &shared.header, limits)?;
        check_writable(&shared.header)?;
        if matches!(shared.view, View::Locked) {
            return Err(locked());
        }
        let guard = survey(&*shared.store, &shared.header)?;
        let cache = limits.table_cache / 8;
        let leases = shared.leases.clone();
        let live = Arc::new(LiveHeader::open(&shared.store, shared.header.clone())?);
        let space = Allocator::open(&shared.store, &live, guard, leases, cache)?;
        let image = Self {
            packing: packing(&shared.header)?,
            virgin_data: AtomicU64::new(shared.data.len()?),
            bitmaps: Keeper::new(directory.clone(), shared.size()),
            shared,
            live,
            space,
            claims: Claims::default(),
            turns: Turns::default(),
            pins: Pins::default(),
            gate: RwLock::default(),
            tables: Mutex::default(),
            round: Mutex::default(),
        };
        image.guard_bitmaps(&directory)?;
        Ok(image)
    }

    /// The header as it was when the image was opened.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.shared.header
    }

    /// To be held while something is written back.
    pub(crate) fn round(&self) -> MutexGuard<'_, ()> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held while tables change.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held while pictures of the tables are taken.
    pub(crate) fn stop(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compressed clusters lie beside the tables, and are never encrypted.
    fn packs(&self) -> bool {
        !self.shared.geometry.has_data_file() && !self.is_encrypted()
    }

    /// Space that was never written does not read as zero.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.shared.header.crypt_method != 0
    }

    pub(crate) fn new_tables(&self) -> MutexGuard<'_, NewTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The question for a slice of refcounts.
    pub(crate) fn need_counts(&self, slice: HostOffset) -> Need<'_> {
        let ticket = Table::Refcounts.ticket(self.space.counts_ticket(slice));
        let len = self.space.slice_len();
        Need { store: &self.shared.store, at: slice, len, least: 0, ticket }
    }
}

impl Image for WritableImage {
    fn size(&self) -> u64 {
        self.shared.size()
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        self.shared.map_cached(range)
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(match Table::of(need.ticket) {
            (Table::Refcounts, ticket) => self.space.supply(need.at, ticket, bytes),
            _ => self.shared.supply(need, bytes),
        })
    }

    fn relieve(&self) -> Result<()> {
        if self.bitmaps.is_wanted() {
            return self.mark_bitmaps();
        }
        if self.make_wanted_tables()? { Ok(()) } else { self.write_back() }
    }

    fn info(&self) -> ImageInfo {
        let bitmaps = self.bitmaps.list();
        self.live.with(|header| self.shared.info(header, &bitmaps))
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        Some(self)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        Some(self)
    }

    fn compactor(&self) -> Option<&dyn Compact> {
        Some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

impl ImageWrite for WritableImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        self.live.doubt.check()?;
        let lease = self.shared.leases.take_to_write();
        if self.turns.is_frozen() {
            return Ok(Attempt::Busy);
        }
        if !self.bitmaps.note(self.shared.geometry.in_one_slice(range)) {
            return Ok(Attempt::Full);
        }
        match self.shared.map_under(lease, range)? {
            Lookup::Found(extent) => match extent.source {
                Source::Data { at, shared: false, .. } => {
                    self.in_place(range.start(), at, extent.len, extent.lease)
                }
                _ => self.reserve(range, Purpose::Fresh),
            },
            Lookup::Need(need) => Ok(Attempt::Need(need)),
        }
    }

    fn try_place_encoded(&self, unit: GuestRange, len: usize) -> Result<Attempt<'_>> {
        if !self.packs() {
            let feature = "compressed data, encrypted or with an external data file,".into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
        let cluster = self.shared.geometry.cluster_range(unit.start());
        let whole = cluster.before(GuestOffset(self.shared.size()));
        // At the worst place in its sector, the stream reaches farthest.
        let fits = self.shared.geometry.compressed_entry(HostOffset(511), len as u64).is_some();
        if unit != whole || !fits {
            let feature = format!("compressed data of {len} bytes for guest range {unit}").into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
        if !self.bitmaps.note(unit) {
            return Ok(Attempt::Full);
        }
        self.reserve_packed(unit, len as u64)
    }

    fn claims(&self) -> Option<&Claims> {
        Some(&self.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        Ok(match self.link(reserved)? {
            Step::Done(()) => {
                self.unclaim(reserved);
                Committed::Done
            }
            Step::Need(need) => Committed::Need(need),
            Step::Full => Committed::Full,
        })
    }

    fn abandon(&self, reserved: &Reserved) {
        self.space.retire(self.taken_by(reserved));
        self.unclaim(reserved);
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.zero_range(range, how)
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.discard_range(range, below)
    }

    fn flush(&self) -> Result<()> {
        self.write_back()
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        matches!(self.shared.view, View::Direct).then_some(&self.shared.data)
    }

    fn packing(&self) -> Option<Packing> {
        self.packs().then(|| self.packing.clone())
    }

    fn unit(&self) -> u64 {
        self.shared.geometry.subcluster_size()
    }
}

/// How compressed clusters are packed. Deflate keeps to distances of 4 KiB, for readers with no
/// larger window.
fn packing(header: &Header) -> Result<Packing> {
    let refused = |error: anydisk_codec::EncodeError| Error::Unsupported {
        format: NAME,
        feature: error.to_string().into(),
    };
    let encoder: Arc<dyn Encode> = match header.compression {
        Compression::Deflate => {
            Arc::new(DeflateEncoder::new(DeflateEncoder::DEFAULT_LEVEL, 12).map_err(refused)?)
        }
        Compression::Zstd => {
            Arc::new(ZstdEncoder::new(ZstdEncoder::DEFAULT_LEVEL).map_err(refused)?)
        }
    };
    Ok(Packing { unit: header.cluster_size(), encoder, short_tail: false })
}
