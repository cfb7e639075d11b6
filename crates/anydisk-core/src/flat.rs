//! A table of one level: an entry for each block of the disk, blocks of one size (VDI, Parallels).
//!
//! ```text
//!   guest block number --> slice of the table --> entry --> absent | zero | place of the block
//!                            TableCache          BlockEntries              BlockSpace
//! ```
//!
//! All that translating, reserving and writing back have in common. What is left to a format: the
//! header, what its entries say ([`BlockEntries`]), and what else it writes when the disk changes.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use std::time::Duration;

use anydisk_storage::{HostOffset, Storage};

use crate::{
    Attempt, BlockSpace, Claim, Claims, Committed, DirtySlice, Error, Extent, GuestOffset,
    GuestRange, ImageWrite, Lease, Lookup, Need, Pace, Placement, Reservation, Reserved, Result,
    Slice, SliceMut, Source, Supplied, TableCache, TakenBlock, Updated, WriteLease,
};

/// Bytes of slices that may always be kept in memory, if the caller's limits allow: in a set whose
/// slots all hold changes, the next change has to wait for a flush.
const LEAST_CACHE: usize = 256 << 10;

/// How long whoever moves blocks waits for leases.
const PATIENCE: Duration = Duration::from_secs(10);

/// Entries in a slice: the part of the table that is read, cached and written at once.
const SLICE: usize = 512;

/// What an entry says of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Nothing: look below, or it is zero.
    Absent,
    /// Zeroes, whatever lies below.
    Zero,
    /// Its bytes begin here.
    At(HostOffset),
}

/// How a format stores the entries of its one table. All of it is pure.
pub trait BlockEntries: Debug + Send + Sync {
    /// Name of the format.
    const NAME: &'static str;

    /// Bytes of an entry in the file.
    const LEN: usize;

    /// Number of the entry of a block, and how many blocks from it on have theirs in a row: other
    /// things may stand between them (VHDX).
    #[inline]
    fn slot(&self, block: u64) -> (u64, u64) {
        (block, u64::MAX)
    }

    /// The number that these bytes, [`LEN`](Self::LEN) of them, hold.
    fn load(&self, bytes: &[u8]) -> u64;

    /// Appends the bytes of an entry.
    fn save(&self, entry: u64, bytes: &mut Vec<u8>);

    /// What an entry says, `first` being where the first block begins. It is asked of any number,
    /// also of ones that no file holds.
    fn decode(&self, entry: u64, first: HostOffset) -> Block;

    /// The entry that says it; `None` if there is none, because the place is too far.
    fn encode(&self, block: Block, first: HostOffset) -> Option<u64>;

    /// The error for a block at this place, which no entry can name.
    fn full(&self, at: HostOffset) -> Error;

    /// The error for an entry at this place of the file that names no block of it.
    fn invalid(&self, at: HostOffset, entry: u64) -> Error;
}

/// Where the table is, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// The first entry.
    pub table: HostOffset,
    /// Number of entries, what stands between those of blocks included: enough for the disk.
    pub entries: u64,
    /// Virtual size in bytes.
    pub size: u64,
    /// The first block, with what precedes its data.
    pub first: HostOffset,
}

/// The sizes that do not change while the image is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// Bytes of the disk in a block, at least 1; fastest as a power of two, which formats of today have.
    pub unit: u64,
    /// Bytes of the file before a block's data that belong to it.
    pub lead: u64,
}

impl BlockShape {
    /// Bytes of the file from one block to the next.
    #[must_use]
    pub const fn stride(&self) -> u64 {
        self.unit + self.lead
    }

    /// The number of the block that holds byte `at` of the disk, and where in the block it is.
    #[inline]
    #[must_use]
    pub const fn locate(&self, at: u64) -> (u64, u64) {
        match self.unit.is_power_of_two() {
            true => (at >> self.unit.trailing_zeros(), at & (self.unit - 1)),
            false => (at / self.unit, at % self.unit),
        }
    }
}

/// An open table of one level.
#[derive(Debug)]
pub struct FlatTable<E> {
    store: Arc<dyn Storage>,
    entries: E,
    blocks: BlockShape,
    shape: ShapeCell,
    tables: TableCache,
    space: BlockSpace,
    pace: Option<Pace>,
    claims: Claims,
    /// How many hold the disk still.
    still: AtomicU64,
    /// Blocks may be moved or freed while it is open, so that whoever maps needs a lease.
    frees: bool,
}

/// A disk that is held still: nobody writes to it, in place or anew, until this is dropped. Reading
/// goes on.
#[derive(Debug)]
#[must_use]
pub struct Still<'a> {
    holders: &'a AtomicU64,
    space: &'a BlockSpace,
    format: &'static str,
    _claim: Claim<'a>,
}

impl Still<'_> {
    /// Waits until nobody uses a place any more that the table does not name now.
    ///
    /// # Errors
    /// [`Error::Unsupported`] while a lease is held for too long.
    pub fn drain(&self) -> Result<()> {
        if self.space.leases().wait_for_all(PATIENCE) {
            return Ok(());
        }
        let feature = "moving blocks while parts of the disk are in use".into();
        Err(Error::Unsupported { format: self.format, feature })
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.holders.fetch_sub(1, SeqCst);
    }
}

/// Where the answer for the start of a range stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    slice: HostOffset,
    /// Entries that the table has in the slice.
    count: usize,
    index: usize,
    /// Blocks whose entries follow this one, itself included.
    row: u64,
    /// Bytes from the start of the block.
    within: u64,
}

impl<E: BlockEntries> FlatTable<E> {
    /// A table in `store`, its blocks in `space`, whose unit is the [stride](BlockShape::stride).
    /// It is not read: opening costs the same whatever the size. `memory` bounds the cache.
    #[must_use]
    pub fn new(
        store: Arc<dyn Storage>,
        entries: E,
        blocks: BlockShape,
        shape: TableShape,
        space: BlockSpace,
        memory: usize,
    ) -> Self {
        // Room for eight times what there can be, so that few slices meet in one set; an empty slot
        // costs little.
        let all = shape.entries.div_ceil(SLICE as u64).saturating_mul(64 * SLICE as u64);
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        let memory = all.max(LEAST_CACHE).min(memory);
        debug_assert!(blocks.unit > 0, "blocks hold something");
        Self {
            store,
            entries,
            blocks,
            shape: ShapeCell::new(shape),
            tables: TableCache::new(SLICE, memory),
            space,
            pace: None,
            claims: Claims::default(),
            still: AtomicU64::new(0),
            frees: true,
        }
    }

    /// The same, written back whenever it is time by `pace`.
    #[must_use]
    pub fn at_pace(self, pace: Pace) -> Self {
        Self { pace: Some(pace), ..self }
    }

    /// The same, of an image that nobody changes.
    #[must_use]
    pub fn for_reading(self) -> Self {
        Self { frees: false, ..self }
    }

    /// The store that holds it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Storage> {
        &self.store
    }

    /// The sizes of a block.
    #[must_use]
    pub fn blocks(&self) -> BlockShape {
        self.blocks
    }

    /// Where the table is now.
    #[must_use]
    pub fn shape(&self) -> TableShape {
        self.shape.get()
    }

    /// Puts another table in its place. The caller holds a claim on the whole disk, has written
    /// everything back, and the new table says of each block what the old one said.
    pub fn reshape(&self, shape: TableShape) {
        let old = self.shape.get();
        self.shape.set(shape);
        // Whoever was late has handed in the last slice as long as it was: the rest of it would be zeroes.
        if shape.table == old.table && shape.entries > old.entries {
            self.forget_slices(shape.table, &(old.entries..shape.entries));
        }
    }

    /// The blocks of the file.
    #[must_use]
    pub fn space(&self) -> &BlockSpace {
        &self.space
    }

    /// Who changes what.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The block around a guest offset, cut at the end of the disk.
    #[must_use]
    pub fn unit_at(&self, at: GuestOffset) -> GuestRange {
        let (_, within) = self.blocks.locate(at.get());
        let start = GuestOffset(at.get() - within);
        GuestRange::between(start, GuestOffset(self.shape.size())).first(self.blocks.unit)
    }

    /// The answer of [`Image::map_cached`](crate::Image::map_cached).
    ///
    /// # Errors
    /// What the format says of an entry that names no block of the file.
    #[inline]
    pub fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        // Before the look, so that a block that is freed now is not given to other data yet.
        let lease = if self.frees { self.space.leases().take() } else { Lease::eternal() };
        let shape = self.shape.get();
        let place = self.place(&shape, range.start());
        match self.plain(&shape, &place, range) {
            Some(at) => {
                let source = Source::Data { store: &self.store, at, shared: false };
                Ok(Lookup::Found(Extent { len: range.len(), source, lease }))
            }
            None => self.map_run(&shape, place, range, lease),
        }
    }

    /// The place of a range that lies in one block of the file: the answer of nearly every small
    /// read. It fits a register; that of [`run`](Self::run) is moved through memory, which costs as
    /// much as finding it.
    #[inline]
    fn plain(&self, shape: &TableShape, place: &Place, range: GuestRange) -> Option<HostOffset> {
        if range.len() > self.blocks.unit - place.within {
            return None;
        }
        let entry = self.tables.read(place.slice, |slice| slice.get(place.index))?;
        let Block::At(at) = self.entries.decode(entry, shape.first) else { return None };
        self.is_in_file(at, shape.first).then(|| at.saturating_add(place.within))
    }

    /// The extent at the start of a range, as far as its slice tells.
    fn map_run<'a>(
        &'a self,
        shape: &TableShape,
        place: Place,
        range: GuestRange,
        lease: Lease<'a>,
    ) -> Result<Lookup<'a>> {
        let most = (place.within + range.len()).div_ceil(self.blocks.unit);
        let look = |slice: Slice<'_>| self.run(slice, &place, most, shape.first);
        let Some((entry, block, count)) = self.tables.read(place.slice, look) else {
            return Ok(Lookup::Need(self.need(&place)));
        };
        let len = |count: u64| range.len().min(count * self.blocks.unit - place.within);
        let source = match block {
            Block::Absent => Source::Absent { reserved: None },
            Block::Zero => Source::Zero { reserved: None },
            Block::At(at) => {
                // After the look, so that a block that was added meanwhile lies before the end.
                let Some(room) = self.room(at, shape.first) else {
                    return Err(self.entries.invalid(self.entry_at(&place), entry));
                };
                let at = at.saturating_add(place.within);
                let source = Source::Data { store: &self.store, at, shared: false };
                return Ok(Lookup::Found(Extent { len: len(count.min(room)), source, lease }));
            }
        };
        Ok(Lookup::Found(Extent::without_data(len(count), source)))
    }

    /// The answer of [`Image::supply`](crate::Image::supply).
    pub fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Supplied {
        // The table has grown since it was asked for: it is asked for again, with all that the slice has now.
        if bytes.len() < self.len_at(need.at) {
            return Supplied::Taken;
        }
        self.tables.supply(need, bytes.chunks_exact(E::LEN).map(|bytes| self.entries.load(bytes)))
    }

    /// The answer of [`ImageWrite::try_place`]; `owner` is the image that asks.
    ///
    /// # Errors
    /// As [`map_cached`](Self::map_cached); [`Error::Limit`] where the file is full.
    pub fn try_place<'a>(
        &'a self,
        owner: &'a dyn ImageWrite,
        range: GuestRange,
    ) -> Result<Attempt<'a>> {
        match self.map_cached(range)? {
            Lookup::Need(need) => Ok(Attempt::Need(need)),
            // After the lease was taken: whoever holds the disk still waits for those before.
            Lookup::Found(_) if self.still.load(SeqCst) != 0 => Ok(Attempt::Busy),
            Lookup::Found(Extent { len, source: Source::Data { store, at, .. }, lease }) => {
                let lease = WriteLease::new(lease);
                Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
            }
            Lookup::Found(_) => self.reserve(owner, self.unit_at(range.start())),
        }
    }

    fn reserve<'a>(&'a self, owner: &'a dyn ImageWrite, unit: GuestRange) -> Result<Attempt<'a>> {
        let stride = self.blocks.stride();
        if self.pace.as_ref().is_some_and(|pace| pace.is_due(stride)) {
            return Ok(Attempt::Full);
        }
        let Some(claim) = self.claims.try_hold(unit) else { return Ok(Attempt::Busy) };
        // The look before the claim may be out of date; Busy means: ask again.
        match self.map_cached(unit)? {
            Lookup::Found(Extent {
                source: Source::Absent { .. } | Source::Zero { .. }, ..
            }) => {}
            _ => return Ok(Attempt::Busy),
        }
        let TakenBlock { at: block, zeroed } = self.space.take();
        let at = block.saturating_add(self.blocks.lead);
        if self.entries.encode(Block::At(at), self.shape.get().first).is_none() {
            self.space.give_back(block);
            return Err(self.entries.full(block));
        }
        claim.keep(); // The reservation holds it now, until commit or abandon.
        self.pace.iter().for_each(|pace| pace.reserved(stride));
        let reserved = Reserved { range: unit, at, zeroed, token: 0 };
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(owner, &self.store, reserved))))
    }

    /// The answer of [`ImageWrite::try_commit`].
    pub fn try_commit(&self, reserved: &Reserved) -> Committed<'_> {
        let shape = self.shape.get();
        let place = self.place(&shape, reserved.range.start());
        let entry = self.entries.encode(Block::At(reserved.at), shape.first);
        let entry = entry.expect("it was asked when the block was taken");
        match self.tables.update(place.slice, |entries| entries.set(place.index, entry)) {
            Updated::Missing => Committed::Need(self.need(&place)),
            Updated::Full => Committed::Full,
            Updated::Done(()) => {
                self.pace.iter().for_each(|pace| pace.committed(self.blocks.stride()));
                self.claims.release(reserved.range);
                Committed::Done
            }
        }
    }

    /// The work of [`ImageWrite::abandon`].
    pub fn abandon(&self, reserved: &Reserved) {
        self.space.give_back(HostOffset(reserved.at.get().saturating_sub(self.blocks.lead)));
        self.pace.iter().for_each(|pace| pace.abandoned(self.blocks.stride()));
        self.claims.release(reserved.range);
    }

    /// Changes what the whole units at the start of `units` say, waiting for whoever has claimed
    /// them, and returns for how many bytes that was done. Blocks that are named no more are retired.
    ///
    /// # Errors
    /// Those of reading the table and of writing it back where there is no room.
    pub fn change(
        &self,
        owner: &dyn ImageWrite,
        units: GuestRange,
        change: impl Fn(Block) -> Block,
    ) -> Result<u64> {
        let shape = self.shape.get();
        let rest = (self.place(&shape, units.start())).rest();
        let units = units.first(rest.saturating_mul(self.blocks.unit));
        let _claim = self.claims.hold(units);
        loop {
            // Now that it is claimed, the shape stays.
            let shape = self.shape.get();
            let place = self.place(&shape, units.start());
            let count = usize::try_from(units.len().div_ceil(self.blocks.unit)).unwrap_or(SLICE);
            let update = self.tables.update(place.slice, |entries| {
                self.change_run(entries, place.index..place.index + count, shape.first, &change)
            });
            match update {
                Updated::Missing => owner.satisfy(&self.need(&place))?,
                Updated::Full => owner.relieve()?,
                Updated::Done(freed) => {
                    self.retire(freed);
                    return Ok(units.len());
                }
            }
        }
    }

    /// Holds the disk still, once whoever has claimed a part of it is done and writes in place have
    /// ended. The caller has no claim and no lease.
    ///
    /// # Errors
    /// As [`Still::drain`].
    pub fn hold_still(&self) -> Result<Still<'_>> {
        // Also what the disk may grow by.
        let claim = self.claims.hold(GuestRange::whole(u64::MAX));
        self.still.fetch_add(1, SeqCst);
        let (holders, space) = (&self.still, &self.space);
        let still = Still { holders, space, format: E::NAME, _claim: claim };
        still.drain()?;
        Ok(still)
    }

    /// Changes what the unit at `at` says, of a disk that is held still.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    pub fn set_still(
        &self,
        owner: &dyn ImageWrite,
        _: &Still<'_>,
        at: GuestOffset,
        to: Block,
    ) -> Result<()> {
        let shape = self.shape.get();
        let place = self.place(&shape, at);
        loop {
            let run = place.index..place.index + 1;
            let update = self
                .tables
                .update(place.slice, |entries| self.change_run(entries, run, shape.first, &|_| to));
            match update {
                Updated::Missing => owner.satisfy(&self.need(&place))?,
                Updated::Full => owner.relieve()?,
                Updated::Done(freed) => {
                    self.retire(freed);
                    return Ok(());
                }
            }
        }
    }

    /// Takes blocks back that entries named, each by the place of its lead. Call it **after** the entries
    /// were changed: now nobody finds them.
    pub fn retire(&self, freed: Vec<HostOffset>) {
        let bytes = (freed.len() as u64).saturating_mul(self.blocks.stride());
        self.pace.iter().for_each(|pace| pace.freed(bytes));
        freed.into_iter().for_each(|block| self.space.retire(block));
    }

    /// Forgets what is known of these entries and those around them, of a disk that is held still
    /// and has been written back: the table ended there, or does from now on.
    pub fn forget(&self, _: &Still<'_>, entries: Range<u64>) {
        self.forget_slices(self.shape.get().table, &entries);
    }

    fn forget_slices(&self, table: HostOffset, entries: &Range<u64>) {
        let slice = SLICE as u64;
        for number in entries.start / slice..entries.end.div_ceil(slice).max(1) {
            let from_table = (number * slice).saturating_mul(E::LEN as u64);
            self.tables.remove(table.saturating_add(from_table));
        }
    }

    /// Changes entries of a slice, and returns the blocks that are named no more.
    fn change_run(
        &self,
        entries: &mut SliceMut<'_>,
        run: Range<usize>,
        first: HostOffset,
        change: &impl Fn(Block) -> Block,
    ) -> Vec<HostOffset> {
        let mut freed = Vec::new();
        for index in run {
            let old = self.entries.decode(entries.get(index), first);
            let new = change(old);
            let Some(entry) = self.entries.encode(new, first).filter(|_| new != old) else {
                continue;
            };
            entries.set(index, entry);
            if let Block::At(at) = old {
                freed.push(HostOffset(at.get().saturating_sub(self.blocks.lead)));
            }
        }
        freed
    }

    /// A flush: data, then what `before` writes, given the place behind the last block in use, then
    /// the table.
    ///
    /// # Errors
    /// Those of the store and of `before`.
    pub fn write_back(&self, before: impl FnOnce(HostOffset) -> Result<()>) -> Result<()> {
        let write = |picture: &DirtySlice| {
            let shape = self.shape.get();
            let index = picture.at.get().saturating_sub(shape.table.get()) / E::LEN as u64;
            // The last slice reaches further than the table does.
            let count = usize::try_from(shape.entries.saturating_sub(index)).unwrap_or(SLICE);
            let mut bytes = Vec::with_capacity(SLICE * E::LEN);
            let entries = picture.entries.iter().take(count);
            entries.for_each(|entry| self.entries.save(*entry, &mut bytes));
            Ok(self.store.write_at(picture.at, &bytes)?)
        };
        let committed = self.pace.as_ref().map_or(0, Pace::begin);
        self.space.write_back_after(&*self.store, &self.tables, before, write)?;
        self.pace.iter().for_each(|pace| pace.written(committed));
        Ok(())
    }

    fn place(&self, shape: &TableShape, at: GuestOffset) -> Place {
        let (block, within) = self.blocks.locate(at.get());
        let slice = SLICE as u64;
        let (slot, row) = self.entries.slot(block);
        let first = slot & !(slice - 1);
        let count = shape.entries.saturating_sub(first).min(slice);
        Place {
            slice: shape.table.saturating_add(first.saturating_mul(E::LEN as u64)),
            count: usize::try_from(count).unwrap_or(SLICE),
            index: usize::try_from(slot & (slice - 1)).unwrap_or_default(),
            row,
            within,
        }
    }

    /// Bytes of the slice at `at`, 0 where the table has none.
    fn len_at(&self, at: HostOffset) -> usize {
        let shape = self.shape.get();
        let Some(from_table) = at.get().checked_sub(shape.table.get()) else { return 0 };
        let rest = shape.entries.saturating_sub(from_table / E::LEN as u64);
        usize::try_from(rest).unwrap_or(SLICE).min(SLICE) * E::LEN
    }

    fn entry_at(&self, place: &Place) -> HostOffset {
        place.slice.saturating_add((place.index * E::LEN) as u64)
    }

    fn need(&self, place: &Place) -> Need<'_> {
        self.tables.need(&self.store, place.slice, place.count * E::LEN)
    }

    /// The entry, what it says, and how many blocks from it on, `most` at most, are one run. Runs
    /// while others change the slice, so the values may be any.
    fn run(
        &self,
        slice: Slice<'_>,
        place: &Place,
        most: u64,
        first: HostOffset,
    ) -> (u64, Block, u64) {
        let entry = slice.get(place.index);
        let block = self.entries.decode(entry, first);
        let goes_on = |next: &u64| {
            let index = place.index + usize::try_from(*next).unwrap_or(SLICE);
            let found = self.entries.decode(slice.get(index), first);
            match block {
                Block::At(_) if self.blocks.lead != 0 => false,
                Block::At(at) => found == Block::At(at.saturating_add(next * self.blocks.unit)),
                other => found == other,
            }
        };
        let count = (1..most.min(place.rest())).take_while(goes_on).count();
        (entry, block, 1 + count as u64)
    }

    /// How many blocks the file has from the one whose data is at `at`; `None` if that is the place
    /// of no block. New blocks go behind the end, so one that is named there would be overwritten.
    fn room(&self, at: HostOffset, first: HostOffset) -> Option<u64> {
        let block = at.get().saturating_sub(self.blocks.lead);
        let room = || (self.space.end().get() - block).div_ceil(self.blocks.stride());
        self.is_in_file(at, first).then(room)
    }

    #[inline]
    fn is_in_file(&self, at: HostOffset, first: HostOffset) -> bool {
        let block = at.get().checked_sub(self.blocks.lead);
        block.is_some_and(|block| block >= first.get() && block < self.space.end().get())
    }
}

impl Place {
    /// Entries from the one in question to the end of the slice.
    fn rest(&self) -> u64 {
        (self.count.saturating_sub(self.index).max(1) as u64).min(self.row)
    }
}

/// A shape that is read by many and changed rarely: a look during a change is repeated.
#[derive(Debug)]
pub struct ShapeCell {
    /// Odd during a change.
    sequence: AtomicU64,
    table: AtomicU64,
    entries: AtomicU64,
    size: AtomicU64,
    first: AtomicU64,
}

impl ShapeCell {
    /// A shape that can be changed.
    #[must_use]
    pub fn new(shape: TableShape) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            table: shape.table.get().into(),
            entries: shape.entries.into(),
            size: shape.size.into(),
            first: shape.first.get().into(),
        }
    }

    fn size(&self) -> u64 {
        self.size.load(Acquire)
    }

    /// The shape now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> TableShape {
        loop {
            let before = self.sequence.load(Acquire);
            let shape = TableShape {
                table: HostOffset(self.table.load(Relaxed)),
                entries: self.entries.load(Relaxed),
                size: self.size.load(Relaxed),
                first: HostOffset(self.first.load(Relaxed)),
            };
            fence(Acquire);
            if before & 1 == 0 && self.sequence.load(Relaxed) == before {
                return shape;
            }
            std::hint::spin_loop();
        }
    }

    /// Changes it. One caller at a time: whoever does has claimed the disk.
    pub fn set(&self, shape: TableShape) {
        let before = self.sequence.load(Relaxed);
        self.sequence.store(before | 1, Relaxed);
        fence(Release);
        self.table.store(shape.table.get(), Relaxed);
        self.entries.store(shape.entries, Relaxed);
        self.size.store(shape.size, Relaxed);
        self.first.store(shape.first.get(), Relaxed);
        self.sequence.store((before | 1) + 1, Release);
    }
}
