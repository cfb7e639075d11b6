//! The writing side of differencing disks.
//!
//! ```text
//!   flush:  data -> flush -> bitmaps -> flush -> block allocation table -> flush
//! ```
//!
//! What is written to a block that is absent makes it one of which a part is here: a bit for each
//! sector says which. Bits count once the entry says so, and are cleared before it does. A block that
//! is written as a whole, or was zero, is here as a whole, and its bits say nothing. So a block never
//! needs two places to change at once, and there is nothing for the log to do. The bitmap of a chunk is
//! there, durable, before the first block of the chunk is here in part.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::bits::mask;
use anydisk_core::{
    Attempt, Claims, Committed, DirtySlice, GuestOffset, GuestRange, HostOffset, ImageWrite,
    Inserted, Pace, Placement, Reservation, Reserved, Result, RunSpace, StorageExt, Supplied,
    Updated, WantedRun, WriteLease,
};

use crate::layout::MIB;
use crate::state::HeaderState;
use crate::table::{BIT_WORDS, ENTRY, FULL, PARTIAL, SLICE_BITS, Slot, Spot, Use, ZERO};
use crate::tables::{Look, Tables};

/// What a reservation is about, in its token.
const SECTORS: u64 = 0;
const NEW_PART: u64 = 1;
const NEW_WHOLE: u64 = 2;

/// What writes a child.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) tables: Tables,
    pub(crate) state: HeaderState,
    pub(crate) claims: Claims,
    pub(crate) space: RunSpace,
    /// When tables are written back though nobody flushes.
    pace: Pace,
    /// Chunks that need a bitmap, or whose bitmap is not durable yet.
    wanted: Mutex<BTreeSet<u64>>,
}

impl Child {
    pub(crate) fn new(tables: Tables, state: HeaderState, space: RunSpace, pace: Pace) -> Self {
        let (claims, wanted) = (Claims::default(), Mutex::default());
        Self { tables, state, claims, space, pace, wanted }
    }

    fn lock_wanted(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block around a guest offset, cut at the end of the disk.
    pub(crate) fn block_at(&self, at: GuestOffset) -> GuestRange {
        let shape = &self.tables.shape;
        let start = GuestOffset(at.get() / shape.block * shape.block);
        GuestRange::between(start, GuestOffset(shape.size)).first(shape.block)
    }

    /// The sectors that a range touches, as far as their bits are in one slice.
    fn sectors_of(&self, range: GuestRange) -> GuestRange {
        let shape = &self.tables.shape;
        let bytes = (SLICE_BITS * shape.sector).min(shape.block);
        let start = GuestOffset(range.start().get() / bytes * bytes);
        let slice = GuestRange::between(start, GuestOffset(shape.size)).first(bytes);
        range.before(slice.end()).grown_to(shape.sector).before(slice.end())
    }

    /// The answer of [`ImageWrite::try_place`]; `owner` is the image that asks.
    pub(crate) fn try_place<'a>(
        &'a self,
        owner: &'a dyn ImageWrite,
        range: GuestRange,
    ) -> Result<Attempt<'a>> {
        let lease = self.space.leases().take();
        match self.tables.look(range)? {
            Look::Need(need) => Ok(Attempt::Need(need)),
            Look::Here { at, len } => {
                let (store, lease) = (&self.tables.store, WriteLease::new(lease));
                Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
            }
            Look::Unset { len, .. } => self.reserve_sectors(owner, range.first(len)),
            Look::Zero { .. } => {
                drop(lease);
                self.reserve_block(owner, range, true)
            }
            Look::Absent { .. } => {
                drop(lease);
                let whole = range.contains(self.block_at(range.start()));
                self.reserve_block(owner, range, whole || !self.tables.has_parent())
            }
        }
    }

    /// A new block, of which a part or the whole is to be here.
    fn reserve_block<'a>(
        &'a self,
        owner: &'a dyn ImageWrite,
        range: GuestRange,
        whole: bool,
    ) -> Result<Attempt<'a>> {
        let (block, len) = (self.block_at(range.start()), self.tables.shape.block);
        if self.pace.is_due(len) {
            return Ok(Attempt::Full);
        }
        let Some(claim) = self.claims.try_hold(block) else { return Ok(Attempt::Busy) };
        // The look before the claim may be out of date; Busy means: ask again.
        match self.tables.look(block)? {
            Look::Absent { .. } => {}
            Look::Zero { .. } if whole => {}
            Look::Need(need) => return Ok(Attempt::Need(need)),
            _ => return Ok(Attempt::Busy),
        }
        if !whole && let Some(attempt) = self.want_bitmap(block.start()) {
            return Ok(attempt);
        }
        let taken = self.space.take(WantedRun { len, most: 1, align: MIB });
        self.tables.reach(taken.end());
        let (units, token) = match whole {
            true => (block, NEW_WHOLE),
            false => (self.sectors_of(range), NEW_PART),
        };
        let at = taken.at.saturating_add(units.start().get() - block.start().get());
        let reserved = Reserved { range: units, at, zeroed: taken.zeroed, token };
        claim.keep();
        self.pace.reserved(len);
        let store = &self.tables.store;
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(owner, store, reserved))))
    }

    /// Sectors of a block that is here in part.
    fn reserve_sectors<'a>(
        &'a self,
        owner: &'a dyn ImageWrite,
        range: GuestRange,
    ) -> Result<Attempt<'a>> {
        let units = self.sectors_of(range);
        let Some(claim) = self.claims.try_hold(units) else { return Ok(Attempt::Busy) };
        let at = match self.tables.look(units)? {
            Look::Unset { at, len } if len == units.len() => at,
            Look::Need(need) => return Ok(Attempt::Need(need)),
            _ => return Ok(Attempt::Busy),
        };
        let reserved = Reserved { range: units, at, zeroed: false, token: SECTORS };
        claim.keep();
        let store = &self.tables.store;
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(owner, store, reserved))))
    }

    /// What must be done before a block can be here in part: its chunk has a bitmap, on the medium.
    fn want_bitmap(&self, at: GuestOffset) -> Option<Attempt<'_>> {
        let spot = self.tables.shape.bitmap_spot(self.tables.shape.block_number(at));
        let mut wanted = self.lock_wanted();
        let chunk = self.tables.shape.chunk(at);
        if wanted.contains(&chunk) {
            return Some(Attempt::Full);
        }
        match self.tables.entry(&spot) {
            None => Some(Attempt::Need(self.tables.need(&spot))),
            Some(entry) if entry & 7 == FULL => None,
            Some(_) => {
                wanted.insert(chunk);
                Some(Attempt::Full)
            }
        }
    }

    /// The work of [`Image::relieve`](anydisk_core::Image::relieve): bitmaps that are wanted, and a
    /// flush.
    pub(crate) fn relieve(&self) -> Result<()> {
        let wanted: Vec<u64> = self.lock_wanted().iter().copied().collect();
        let made = wanted.iter().try_for_each(|chunk| self.make_bitmap(*chunk));
        made.and_then(|()| self.write_back())?;
        let mut still = self.lock_wanted();
        still.retain(|chunk| !wanted.contains(chunk));
        Ok(())
    }

    fn make_bitmap(&self, chunk: u64) -> Result<()> {
        let spot = self.tables.shape.bitmap_spot(chunk * self.tables.shape.ratio);
        if self.entry_now(&spot)? & 7 == FULL {
            return Ok(());
        }
        let taken = self.space.take(WantedRun { len: MIB, most: 1, align: MIB });
        self.tables.reach(taken.end());
        let zeroed = match taken.zeroed {
            true => Ok(()),
            false => self.tables.store.write_zeroes_at(taken.at, MIB),
        };
        // Slices of another bitmap that lay here are not those of this one.
        (0..MIB / 4096).for_each(|n| self.tables.bitmaps.remove(taken.at.saturating_add(n * 4096)));
        let mut is_new = false;
        let put = zeroed.map_err(Into::into).and_then(|()| {
            self.change_entry(&spot, |entry| {
                is_new = entry & 7 != FULL;
                if is_new { taken.at.get() | FULL } else { entry }
            })
        });
        if !is_new {
            self.space.give_back(taken.at, MIB);
        }
        put.map(drop)
    }

    /// An entry, which is read if it is not in memory.
    pub(crate) fn entry_now(&self, spot: &Spot) -> Result<u64> {
        loop {
            if let Some(entry) = self.tables.entry(spot) {
                return Ok(entry);
            }
            self.read_slice(spot)?;
        }
    }

    fn read_slice(&self, spot: &Spot) -> Result<()> {
        let need = self.tables.need(spot);
        match self.tables.supply(&need, &need.read()?) {
            Supplied::Taken => Ok(()),
            Supplied::Full => self.write_back(),
        }
    }

    /// Changes an entry, and returns what it was.
    pub(crate) fn change_entry(
        &self,
        spot: &Spot,
        mut change: impl FnMut(u64) -> u64,
    ) -> Result<u64> {
        loop {
            let update = self.tables.table.update(spot.slice, |entries| {
                let old = entries.get(spot.index);
                entries.set(spot.index, change(old));
                old
            });
            match update {
                Updated::Done(old) => return Ok(old),
                Updated::Missing => self.read_slice(spot)?,
                Updated::Full => self.write_back()?,
            }
        }
    }

    /// Where the block of a reservation begins.
    fn block_place(&self, reserved: &Reserved) -> HostOffset {
        let within = reserved.range.start().get() % self.tables.shape.block;
        HostOffset(reserved.at.get().saturating_sub(within))
    }

    /// What a reservation has claimed.
    fn claimed(&self, reserved: &Reserved) -> GuestRange {
        match reserved.token {
            SECTORS => reserved.range,
            _ => self.block_at(reserved.range.start()),
        }
    }

    /// The answer of [`ImageWrite::try_commit`].
    pub(crate) fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        let committed = match reserved.token {
            SECTORS => self.commit_bits(reserved, false)?,
            NEW_PART => match self.commit_bits(reserved, true)? {
                Committed::Done => self.commit_block(reserved, PARTIAL),
                waiting => waiting,
            },
            _ => self.commit_block(reserved, FULL),
        };
        if matches!(committed, Committed::Done) {
            if reserved.token != SECTORS {
                self.pace.committed(self.tables.shape.block);
            }
            self.claims.release(self.claimed(reserved));
        }
        Ok(committed)
    }

    fn commit_block(&self, reserved: &Reserved, state: u64) -> Committed<'_> {
        let shape = &self.tables.shape;
        let spot = shape.block_spot(shape.block_number(reserved.range.start()));
        let entry = self.block_place(reserved).get() | state;
        match self.tables.table.update(spot.slice, |entries| entries.set(spot.index, entry)) {
            Updated::Missing => Committed::Need(self.tables.need(&spot)),
            Updated::Full => Committed::Full,
            Updated::Done(()) => Committed::Done,
        }
    }

    /// Sets the bits of a reservation; of a new block all others are cleared. Until its entry says so
    /// its bits do not count.
    fn commit_bits(&self, reserved: &Reserved, is_new: bool) -> Result<Committed<'_>> {
        let shape = &self.tables.shape;
        let block = shape.block_number(reserved.range.start());
        let spot = shape.bitmap_spot(block);
        let Some(entry) = self.tables.entry(&spot) else {
            return Ok(Committed::Need(self.tables.need(&spot)));
        };
        let bitmap = self.tables.bitmap_at(&spot, entry)?;
        let within = reserved.range.start().get() % shape.block;
        let (slice, first) = shape.bit(bitmap, block, within);
        let end = (first + reserved.range.len().div_ceil(shape.sector)).min(SLICE_BITS);
        let in_block = shape.block / shape.sector;
        if is_new && in_block > SLICE_BITS {
            // The slices of a large block are its own.
            let start = shape.bit(bitmap, block, 0).0;
            let slices =
                (0..in_block / SLICE_BITS).map(|n| start.saturating_add(n * SLICE_BITS / 8));
            for at in slices {
                let bits = |number| if at == slice { mask(number, first, end) } else { 0 };
                if self.tables.bitmaps.create(at, (0..BIT_WORDS).map(bits)) != Inserted::Yes {
                    return Ok(Committed::Full);
                }
            }
            return Ok(Committed::Done);
        }
        let start = shape.bit(bitmap, block, 0).1;
        let update = self.tables.bitmaps.update(slice, |words| {
            for number in 0..BIT_WORDS {
                let old = if is_new { mask(number, start, start + in_block) } else { 0 };
                let kept = words.get(number) & !old;
                words.set(number, kept | mask(number, first, end));
            }
        });
        Ok(match update {
            Updated::Missing => Committed::Need(self.tables.need_bits(slice)),
            Updated::Full => Committed::Full,
            Updated::Done(()) => Committed::Done,
        })
    }

    /// The work of [`ImageWrite::abandon`].
    pub(crate) fn abandon(&self, reserved: &Reserved) {
        if reserved.token != SECTORS {
            self.space.give_back(self.block_place(reserved), self.tables.shape.block);
            self.pace.abandoned(self.tables.shape.block);
        }
        self.claims.release(self.claimed(reserved));
    }

    /// Makes a block zero, and gives its space back.
    pub(crate) fn zero_block(&self, at: GuestOffset) -> Result<()> {
        let _claim = self.claims.hold(self.block_at(at));
        self.forget_block(self.tables.shape.block_number(at), ZERO)
    }

    /// Changes the entry of a block, which is claimed, to one without a place.
    pub(crate) fn forget_block(&self, block: u64, entry: u64) -> Result<()> {
        let shape = &self.tables.shape;
        let spot = shape.block_spot(block);
        if self.entry_now(&spot)? == entry {
            return Ok(());
        }
        let old = self.change_entry(&spot, |_| entry)?;
        if let Use::Held(at) = shape.use_of(Slot::Block(block), old) {
            // After the entry: now nobody finds it any more.
            self.pace.freed(shape.block);
            self.space.retire(at, shape.block);
        }
        Ok(())
    }

    /// A flush.
    ///
    /// # Errors
    /// Those of the store; what was changed stays changed, to be written the next time.
    pub(crate) fn write_back(&self) -> Result<()> {
        self.state.doubt.check()?;
        let tables = &self.tables;
        let store = &*tables.store;
        let write = |cache, picture: &DirtySlice| {
            let count = match cache {
                0 => tables.shape.count(picture.at),
                _ => BIT_WORDS,
            };
            let words = picture.entries.iter().take(count);
            let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
            Ok(store.write_at(picture.at, &bytes)?)
        };
        let committed = self.pace.begin();
        self.space.write_back(store, &[&tables.table, &tables.bitmaps], write)?;
        self.pace.written(committed);
        self.space.shorten(store)
    }

    /// Forgets all blocks, then the bitmaps, which are not needed any more: durable.
    pub(crate) fn forget_all(&self) -> Result<()> {
        let shape = &self.tables.shape;
        for number in 0..shape.size.div_ceil(shape.block) {
            self.forget_block(number, 0)?;
        }
        self.write_back()?;
        for chunk in 0..shape.entries() / (shape.ratio + 1) {
            self.forget_bitmap(chunk)?;
        }
        self.write_back()
    }

    fn forget_bitmap(&self, chunk: u64) -> Result<()> {
        let shape = &self.tables.shape;
        let spot = shape.bitmap_spot(chunk * shape.ratio);
        if self.entry_now(&spot)? == 0 {
            return Ok(());
        }
        let old = self.change_entry(&spot, |_| 0)?;
        if let Use::Held(at) = shape.use_of(Slot::Bitmap(chunk), old) {
            (0..MIB / 4096).for_each(|n| self.tables.bitmaps.remove(at.saturating_add(n * 4096)));
            self.space.retire(at, MIB);
        }
        Ok(())
    }
}

const _: () =
    assert!(BIT_WORDS as u64 * ENTRY == 4096, "a slice of a bitmap has a sector of the log");
