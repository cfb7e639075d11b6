//! The image open for writing: places for data, and what a commit changes.
//!
//! A place that is a range's own is answered without a lock: a look at the tables, the COPIED
//! flags, the [guard](crate::guard). Otherwise the range is claimed, clusters are taken, and the
//! tables learn of them when the data has been written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anydisk_codec::{DeflateEncoder, Encode, ZstdEncoder};
use anydisk_core::{
    Attempt, Below, Claims, Committed, Error, GuestOffset, GuestRange, Handled, HostOffset, Image,
    ImageInfo, ImageWrite, Lease, Limits, Lookup, Need, Packing, Placement, Reservation, Reserved,
    Result, Source, Storage, Supplied, Updated, WriteLease, Zeroing,
};

use crate::alloc::{Allocator, Freed, Fresh, Taken, Wanted, needs_repair};
use crate::entry::L2Entry;
use crate::format::check_writable;
use crate::guard::Clusters;
use crate::image::{Shared, Table};
use crate::layout::RawHeader;
use crate::plan::Plan;
use crate::survey::survey;
use crate::table::L1Run;
use crate::{Compression, Header, NAME, Qcow2Image};

/// A qcow2 image that is open for writing.
///
/// What is written is on the medium after the next [`flush`](ImageWrite::flush). An image that is
/// dropped without one is as after a power failure: it opens, holds what was flushed, and may have
/// leaked clusters.
#[derive(Debug)]
pub struct WritableImage {
    pub(crate) shared: Shared,
    pub(crate) space: Allocator,
    pub(crate) claims: Claims,
    /// Whoever changes tables holds it shared; taking pictures of them needs it alone, so that
    /// nobody is between two changes that belong together.
    gate: RwLock<()>,
    pub(crate) tables: Mutex<NewTables>,
    /// One write-back runs at a time.
    pub(crate) round: Mutex<()>,
    packing: Packing,
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

/// How far a step came.
pub(crate) enum Step<'a, T> {
    Done(T),
    /// Metadata is missing.
    Need(Need<'a>),
    /// The image must be [relieved](Image::relieve) first.
    Full,
}

/// What a reservation is for, as its token tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Data in new clusters.
    Fresh,
    /// Data in space that the entry keeps.
    Reuse,
    /// A stream of so many bytes.
    Packed(u64),
    /// Space without content (preallocation).
    Space,
}

impl Purpose {
    fn token(self) -> u64 {
        match self {
            Self::Fresh => 0,
            Self::Reuse => 1,
            Self::Space => 2,
            Self::Packed(len) => len << 2 | 3,
        }
    }

    fn of(token: u64) -> Self {
        match token & 3 {
            0 => Self::Fresh,
            1 => Self::Reuse,
            2 => Self::Space,
            _ => Self::Packed(token >> 2),
        }
    }
}

impl WritableImage {
    /// Opens the image in `store` for reading and writing. Bits of features that a writer must
    /// know to keep valid (bitmaps, unknown autoclear bits) are cleared on the medium.
    ///
    /// # Errors
    /// As [`Qcow2Image::open`]; [`Error::ReadOnly`] if the store is; [`Error::NeedsRepair`] if the
    /// image is marked dirty or corrupt, or its metadata overlaps.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        if !store.is_writable() {
            return Err(Error::ReadOnly { why: "its file was opened for reading".into() });
        }
        let shared = Qcow2Image::open(store, limits)?.shared;
        check_writable(&shared.header)?;
        let guard = survey(&*shared.store, &shared.header)?;
        let cache = limits.table_cache / 8;
        let leases = shared.leases.clone();
        let space = Allocator::open(&shared.store, &shared.header, guard, leases, cache)?;
        clear_autoclear(&*shared.store, &shared.header)?;
        Ok(Self {
            packing: packing(&shared.header)?,
            shared,
            space,
            claims: Claims::default(),
            gate: RwLock::default(),
            tables: Mutex::default(),
            round: Mutex::default(),
        })
    }

    /// The header as it was when the image was opened.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.shared.header
    }

    /// To be held while tables change.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held while pictures of the tables are taken.
    pub(crate) fn stop(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new_tables(&self) -> MutexGuard<'_, NewTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The question for a slice of refcounts.
    pub(crate) fn need_counts(&self, slice: HostOffset) -> Need<'_> {
        let ticket = Table::Refcounts.ticket(self.space.counts_ticket(slice));
        Need { store: &self.shared.store, at: slice, len: self.space.slice_len(), ticket }
    }

    /// The question whose answer finds no room, where nothing else can say so.
    fn need_room(&self) -> Need<'_> {
        let ticket = Table::Room.ticket(self.space.counts_ticket(HostOffset::ZERO));
        Need { store: &self.shared.store, at: HostOffset::ZERO, len: 0, ticket }
    }

    /// What the L1 table says about the start of `range`.
    pub(crate) fn l1_run(&self, range: GuestRange) -> Result<Step<'_, L1Run>> {
        let (shared, geometry) = (&self.shared, &self.shared.geometry);
        let slot = geometry.l1_slot(shared.l1_table(), range.start());
        match shared.l1.read(slot.slice, |slice| geometry.l1_run(&slice, slot.word, range)) {
            Some(Ok(run)) => Ok(Step::Done(run)),
            Some(Err(fault)) => Err(fault.at(slot.slice).into()),
            None => Ok(Step::Need(shared.need(Table::L1, slot.slice))),
        }
    }

    /// Where the data for the start of `range` can go; looks no farther than one slice.
    fn plan(&self, range: GuestRange) -> Result<Step<'_, Plan>> {
        let (shared, geometry) = (&self.shared, &self.shared.geometry);
        let range = geometry.in_one_slice(range);
        let (at, own) = match self.l1_run(range)? {
            Step::Done(L1Run::Table { at, copied }) => (at, copied),
            Step::Done(L1Run::Absent(_)) => {
                let none = vec![0; shared.geometry.slice_len() / 8];
                let slot = geometry.l2_slot(HostOffset::ZERO, range.start());
                let plan = geometry.plan(none.as_slice(), slot.word, range, false);
                return Ok(Step::Done(plan.map_err(|fault| fault.at(slot.slice))?));
            }
            Step::Need(need) => return Ok(Step::Need(need)),
            Step::Full => return Ok(Step::Full),
        };
        let slot = geometry.l2_slot(at, range.start());
        match shared.l2.read(slot.slice, |slice| geometry.plan(&slice, slot.word, range, own)) {
            Some(Ok(plan)) => Ok(Step::Done(plan)),
            Some(Err(fault)) => Err(fault.at(slot.slice).into()),
            None => Ok(Step::Need(shared.need(Table::L2, slot.slice))),
        }
    }

    /// The place of a run that is its own, unless a damaged table says so of metadata.
    #[inline]
    fn in_place<'a>(&'a self, at: HostOffset, len: u64, lease: Lease<'a>) -> Result<Attempt<'a>> {
        let clusters = Clusters::touched(at.get(), len, self.shared.geometry.cluster_bits());
        if let Some(overlap) = self.space.guard().find(clusters) {
            let place = self.space.offset(overlap.cluster);
            return Err(needs_repair(format!("guest data at {place} lies in {}", overlap.holds)));
        }
        Ok(Attempt::Placed(Placement::InPlace {
            store: &self.shared.store,
            at,
            len,
            lease: WriteLease::new(lease),
        }))
    }

    /// New or kept space for units that have no place of their own.
    pub(crate) fn reserve(&self, range: GuestRange, purpose: Purpose) -> Result<Attempt<'_>> {
        let cluster_size = self.shared.geometry.cluster_size();
        let clusters = match self.plan(range)? {
            Step::Done(Plan::InPlace) => return self.try_place(range),
            Step::Done(Plan::Reuse { range, .. } | Plan::Fresh { range }) => {
                range.grown_to(cluster_size)
            }
            Step::Need(need) => return Ok(Attempt::Need(need)),
            Step::Full => return Ok(Attempt::Need(self.need_room())),
        };
        let Some(mut claim) = self.claims.try_hold(clusters) else { return Ok(Attempt::Busy) };
        // Only a look under the claim counts.
        let reserved = match self.plan(range.before(clusters.end()))? {
            Step::Done(Plan::InPlace) => {
                drop(claim);
                return self.try_place(range);
            }
            Step::Done(Plan::Reuse { range, at }) => {
                let token = Purpose::Reuse.token();
                Reserved { range, at, zeroed: false, token }
            }
            Step::Done(Plan::Fresh { range: units }) => {
                match self.take_clusters(range, units, purpose)? {
                    Step::Done(reserved) => reserved,
                    Step::Need(need) => return Ok(Attempt::Need(need)),
                    Step::Full => return Ok(Attempt::Need(self.need_room())),
                }
            }
            Step::Need(need) => return Ok(Attempt::Need(need)),
            Step::Full => return Ok(Attempt::Need(self.need_room())),
        };
        claim.narrow(reserved.range.grown_to(cluster_size));
        claim.keep();
        let range = reserved.range.before(GuestOffset(self.shared.size()));
        Ok(self.reserved(Reserved { range, ..reserved }))
    }

    fn reserved(&self, reserved: Reserved) -> Attempt<'_> {
        let reservation = Reservation::new(self, &self.shared.store, reserved);
        Attempt::Placed(Placement::Fresh(reservation))
    }

    /// New clusters for `units`, or for as many of them as there are in one piece.
    fn take_clusters(
        &self,
        range: GuestRange,
        units: GuestRange,
        purpose: Purpose,
    ) -> Result<Step<'_, Reserved>> {
        let geometry = &self.shared.geometry;
        let bits = geometry.cluster_bits();
        let whole = units.grown_to(geometry.cluster_size());
        let fresh = match self.space.take(Wanted::up_to(whole.len() >> bits), None)? {
            Taken::Space(fresh) => fresh,
            Taken::Missing(slice) => return Ok(Step::Need(self.need_counts(slice))),
            Taken::Full => return Ok(Step::Full),
        };
        let first = self.space.offset(fresh.clusters.first);
        let skipped = units.start().get() - whole.start().get();
        let mut reserved = Reserved {
            range: units,
            at: first.saturating_add(skipped),
            zeroed: fresh.zeroed,
            token: purpose.token(),
        };
        let covered = whole.first(fresh.clusters.count << bits);
        if covered != whole {
            // Fewer clusters: where the last of them has subclusters, less of it may be needed.
            match self.plan(range.before(covered.end()))? {
                Step::Done(Plan::Fresh { range }) => reserved.range = range,
                _ => reserved.range = units.before(covered.end()),
            }
        }
        Ok(Step::Done(reserved))
    }

    /// New space for a stream.
    fn reserve_packed(&self, unit: GuestRange, len: u64) -> Result<Attempt<'_>> {
        let cluster = self.shared.geometry.cluster_range(unit.start());
        let Some(claim) = self.claims.try_hold(cluster) else { return Ok(Attempt::Busy) };
        let at = match self.space.take_packed(len)? {
            Taken::Space(at) => at,
            Taken::Missing(slice) => return Ok(Attempt::Need(self.need_counts(slice))),
            Taken::Full => return Ok(Attempt::Need(self.need_room())),
        };
        let token = Purpose::Packed(len).token();
        let reserved = Reserved { range: unit, at, zeroed: false, token };
        if self.shared.geometry.compressed_entry(at, len).is_none() {
            self.space.retire(self.taken_by(&reserved));
            let what = "offset of compressed data".into();
            let limit = 1 << self.shared.geometry.stream_offset_bits();
            return Err(Error::Limit { format: NAME, what, found: at.get(), limit });
        }
        claim.keep();
        Ok(self.reserved(reserved))
    }

    /// The references that a reservation took.
    fn taken_by(&self, reserved: &Reserved) -> Option<Freed> {
        let bits = self.shared.geometry.cluster_bits();
        let len = match Purpose::of(reserved.token) {
            Purpose::Reuse => return None,
            Purpose::Packed(len) => len,
            Purpose::Fresh | Purpose::Space => reserved.range.len(),
        };
        let clusters = Clusters::touched(reserved.at.get(), len, bits);
        Some(Freed { clusters, discard: false })
    }

    /// Ends the claim of a reservation.
    fn unclaim(&self, reserved: &Reserved) {
        self.claims.release(reserved.range.grown_to(self.shared.geometry.cluster_size()));
    }

    /// The tables learn of a reservation.
    fn link(&self, reserved: &Reserved) -> Result<Step<'_, ()>> {
        let _changing = self.enter();
        let (shared, start) = (&self.shared, reserved.range.start());
        let table = match self.own_table(start, false)? {
            Step::Done(table) => table,
            Step::Need(need) => return Ok(Step::Need(need)),
            Step::Full => return Ok(Step::Full),
        };
        let slot = shared.geometry.l2_slot(table, start);
        let change = shared.l2.update(slot.slice, |l2| {
            let words = (slot.word..).step_by(shared.geometry.entry_words());
            let mut freed = Vec::new();
            for (word, cluster) in words.zip(self.clusters_of(reserved.range)) {
                let old = shared.geometry.entry_of(l2, word);
                let new = self.linked(old, cluster, reserved);
                freed.extend(shared.geometry.replace(l2, word, new, false));
            }
            freed
        });
        match change {
            Updated::Done(freed) => self.space.retire(freed),
            Updated::Missing => return Ok(Step::Need(shared.need(Table::L2, slot.slice))),
            Updated::Full => return Ok(Step::Full),
        }
        Ok(Step::Done(()))
    }

    /// The clusters that a range touches, by their guest offsets.
    pub(crate) fn clusters_of(&self, range: GuestRange) -> impl Iterator<Item = GuestOffset> {
        let size = self.shared.geometry.cluster_size();
        let whole = range.grown_to(size);
        let count = whole.len() / size;
        (0..count).map(move |number| GuestOffset(whole.start().get() + number * size))
    }

    /// The entry of the cluster at `cluster` when it has the space of a reservation.
    fn linked(&self, old: L2Entry, cluster: GuestOffset, reserved: &Reserved) -> L2Entry {
        let geometry = &self.shared.geometry;
        let first = HostOffset(reserved.at.get() & !(geometry.cluster_size() - 1));
        let whole = reserved.range.grown_to(geometry.cluster_size());
        let host = first.saturating_add(cluster.get() - whole.start().get());
        match Purpose::of(reserved.token) {
            Purpose::Packed(len) => {
                let entry = geometry.compressed_entry(reserved.at, len);
                entry.expect("checked when the space was taken")
            }
            Purpose::Space if geometry.is_extended() => {
                L2Entry { word: L2Entry::data(host).word, bitmap: old.bitmap }
            }
            Purpose::Space => L2Entry::data(host),
            Purpose::Fresh | Purpose::Reuse => {
                let units = geometry.subclusters_in(cluster, reserved.range);
                geometry.with_data(old, host, units)
            }
        }
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
            (Table::Room, _) => Supplied::Full,
            _ => self.shared.supply(need, bytes),
        })
    }

    fn relieve(&self) -> Result<()> {
        if self.make_wanted_tables()? { Ok(()) } else { self.write_back() }
    }

    fn info(&self) -> ImageInfo {
        self.shared.info()
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        Some(self)
    }
}

impl ImageWrite for WritableImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        match self.shared.map_cached(range)? {
            Lookup::Found(extent) => match extent.source {
                Source::Data { at, shared: false, .. } => {
                    self.in_place(at, extent.len, extent.lease)
                }
                _ => self.reserve(range, Purpose::Fresh),
            },
            Lookup::Need(need) => Ok(Attempt::Need(need)),
        }
    }

    fn try_place_encoded(&self, unit: GuestRange, len: usize) -> Result<Attempt<'_>> {
        let cluster = self.shared.geometry.cluster_range(unit.start());
        let whole = cluster.before(GuestOffset(self.shared.size()));
        // At the worst place in its sector, the stream reaches farthest.
        let fits = self.shared.geometry.compressed_entry(HostOffset(511), len as u64).is_some();
        if unit != whole || !fits {
            let feature = format!("compressed data of {len} bytes for guest range {unit}").into();
            return Err(Error::Unsupported { format: NAME, feature });
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

    fn packing(&self) -> Option<Packing> {
        Some(self.packing.clone())
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

/// What the autoclear bits promise ends with the first write (qcow2, "Header"): they are cleared
/// before anything else changes.
fn clear_autoclear(store: &dyn Storage, header: &Header) -> Result<()> {
    if header.version < 3 || header.autoclear_features == 0 {
        return Ok(());
    }
    let field = std::mem::offset_of!(RawHeader, autoclear_features) as u64;
    store.write_at(HostOffset(field), &[0; 8])?;
    Ok(store.flush()?)
}
