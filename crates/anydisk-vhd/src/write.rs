//! The writing side.
//!
//! ```text
//!   flush:  data, bitmaps of dynamic disks, footer -> flush -> bitmaps -> flush -> table -> flush
//! ```
//!
//! A dynamic disk gets whole blocks, whose bits are all set: so does everyone else. A differencing
//! disk gets sectors: a new block holds those that are written, and its bits say which they are.
//! The footer ends the file after each flush, right behind the last block: qemu puts its next one
//! there, and takes what it finds for zeroes. Until then its copy at the start serves.

use std::sync::Mutex;
use std::sync::atomic::Ordering::Release;

use anydisk_core::bits::mask;
use anydisk_core::{
    Attempt, Claims, Committed, DirtySlice, Doubt, GuestOffset, GuestRange, HostOffset, ImageWrite,
    Inserted, Need, Pace, Placement, Reservation, Reserved, Result, RunSpace, Storage, StorageExt,
    Supplied, Updated, WantedRun, WriteLease,
};

use crate::blocks::{Blocks, Look};
use crate::ends::Ends;
use crate::footer::limit;
use crate::guard::Room;
use crate::image::Parts;
use crate::layout::{ABSENT, ENTRY, SECTOR};
use crate::link::Place;
use crate::table::{
    BIT_WORDS, BitSpot, SLICE_BITS, Shape, bytes_of_entries, bytes_of_words, entry_of,
};
use crate::unset::Unset;

/// The token of a reservation that brings a block of its own; else it is about sectors of one that
/// is there.
const NEW_BLOCK: u64 = 1;

/// The largest file, in bytes: a block at the last sector that an entry can name.
const FILE: u64 = ABSENT as u64 * SECTOR;

/// What writing needs beside the tables.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) claims: Claims,
    pub(crate) space: RunSpace,
    /// Bytes before each bitmap that belong to the block.
    pad: u64,
    pub(crate) align: u64,
    /// When the table is written back though nobody flushes.
    pace: Pace,
    unset: Unset,
    pub(crate) ends: Mutex<Ends>,
    /// Where header and locators are.
    pub(crate) place: Mutex<Place>,
    /// Whether the size and the place of the table are those that are known.
    pub(crate) doubt: Doubt,
}

impl Writer {
    pub(crate) fn new(room: &Room, shape: &Shape, parts: &Parts, is_new: bool) -> Self {
        let len = HostOffset(parts.len);
        let space = RunSpace::new(HostOffset(room.end)).with_old_bytes_to(len);
        room.free.iter().for_each(|(at, end)| space.give_back(HostOffset(*at), end - at));
        room.slivers.iter().for_each(|(at, end)| space.keep_for_end(HostOffset(*at), end - at));
        Self {
            claims: Claims::default(),
            space,
            pad: room.pad,
            align: room.align,
            pace: if is_new { Pace::default() } else { Pace::new(room.named, room.unnamed) },
            unset: Unset::new(shape.entries),
            ends: Mutex::new(Ends::new(parts)),
            place: Mutex::new(Place::of(parts, room.home, shape)),
            doubt: Doubt::default(),
        }
    }

    /// Gives the space of a block back, which no entry names any more.
    pub(crate) fn forget_block(&self, shape: &Shape, block: u64, bitmap: HostOffset) {
        self.unset.forget(block);
        let at = HostOffset(bitmap.get().saturating_sub(self.pad));
        self.pace.freed(self.run(shape));
        self.space.retire(at, self.run(shape));
    }

    /// Bytes that a block takes.
    fn run(&self, shape: &Shape) -> u64 {
        self.pad + shape.stride()
    }
}

impl Blocks {
    /// The answer of [`ImageWrite::try_place`]; `owner` is the image that asks.
    pub(crate) fn try_place<'a>(
        &'a self,
        writer: &'a Writer,
        owner: &'a dyn ImageWrite,
        range: GuestRange,
    ) -> Result<Attempt<'a>> {
        writer.doubt.check()?;
        let lease = writer.space.leases().take();
        match self.look(range)? {
            Look::Need(need) => Ok(Attempt::Need(need)),
            Look::Here { at, len } => {
                if !self.has_bitmaps() {
                    writer.unset.note(range.start().get() / self.shape().block);
                }
                let (store, lease) = (&self.store, WriteLease::new(lease));
                Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
            }
            Look::NoBlock { .. } => {
                drop(lease);
                self.reserve_block(writer, owner, range)
            }
            Look::Unset { len, .. } => self.reserve_sectors(writer, owner, range.first(len)),
        }
    }

    /// A new block: for all that a dynamic disk has of it, or for the sectors that the range touches.
    fn reserve_block<'a>(
        &'a self,
        writer: &'a Writer,
        owner: &'a dyn ImageWrite,
        range: GuestRange,
    ) -> Result<Attempt<'a>> {
        let (block, len) = (self.shape().block_at(range.start()), writer.run(&self.shape()));
        if writer.pace.is_due(len) {
            return Ok(Attempt::Full);
        }
        let Some(claim) = writer.claims.try_hold(block) else { return Ok(Attempt::Busy) };
        // The look before the claim may be out of date; Busy means: ask again.
        match self.look(block)? {
            Look::NoBlock { .. } => {}
            Look::Need(need) => return Ok(Attempt::Need(need)),
            _ => return Ok(Attempt::Busy),
        }
        writer.secure_copy(&*self.store)?;
        let taken = writer.space.take(WantedRun { len, most: 1, align: writer.align });
        limit("size of the file in bytes", taken.end().get(), FILE)
            .inspect_err(|_| writer.space.untake(taken))?;
        // Before an entry names it, so that who sees the entry finds the block before the end.
        self.end.fetch_max(taken.end().get(), Release);
        let units = match self.has_bitmaps() {
            true => {
                let slice = self.shape().slice_at(range.start());
                range.before(slice.end()).grown_to(SECTOR).before(slice.end())
            }
            false => block,
        };
        let data = taken.at.saturating_add(writer.pad + self.shape().bitmap);
        let at = data.saturating_add(units.start().get() - block.start().get());
        let reserved = Reserved { range: units, at, zeroed: taken.zeroed, token: NEW_BLOCK };
        claim.keep();
        writer.pace.reserved(len);
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(owner, &self.store, reserved))))
    }

    /// Sectors of a block that is there, whose bits are not set.
    fn reserve_sectors<'a>(
        &'a self,
        writer: &'a Writer,
        owner: &'a dyn ImageWrite,
        range: GuestRange,
    ) -> Result<Attempt<'a>> {
        let end = GuestOffset(self.shape().size);
        let units = range.grown_to(SECTOR).before(end);
        let Some(claim) = writer.claims.try_hold(units) else { return Ok(Attempt::Busy) };
        let at = match self.look(units)? {
            Look::Unset { at, len } if len == units.len() => at,
            Look::Need(need) => return Ok(Attempt::Need(need)),
            _ => return Ok(Attempt::Busy),
        };
        let reserved = Reserved { range: units, at, zeroed: false, token: 0 };
        claim.keep();
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(owner, &self.store, reserved))))
    }

    /// Where the bitmap of a reservation's block is.
    fn bitmap_of(&self, reserved: &Reserved) -> HostOffset {
        let within = reserved.range.start().get() % self.shape().block;
        HostOffset(reserved.at.get().saturating_sub(within + self.shape().bitmap))
    }

    /// What a reservation has claimed.
    fn claimed(&self, reserved: &Reserved) -> GuestRange {
        match reserved.token {
            NEW_BLOCK => self.shape().block_at(reserved.range.start()),
            _ => reserved.range,
        }
    }

    /// The answer of [`ImageWrite::try_commit`].
    pub(crate) fn try_commit(&self, writer: &Writer, reserved: &Reserved) -> Committed<'_> {
        let committed = match (reserved.token, self.has_bitmaps()) {
            (NEW_BLOCK, true) => self.commit_block_and_bits(reserved),
            (NEW_BLOCK, false) => {
                // Before the entry: a flush that writes the entry looks after the bits first.
                writer.unset.note_new(reserved.range.start().get() / self.shape().block);
                self.commit_block(reserved)
            }
            _ => self.commit_bits(reserved),
        };
        if matches!(committed, Committed::Done) {
            if reserved.token == NEW_BLOCK {
                writer.pace.committed(writer.run(&self.shape()));
            }
            writer.claims.release(self.claimed(reserved));
        }
        committed
    }

    fn commit_block(&self, reserved: &Reserved) -> Committed<'_> {
        let spot = self.shape().locate(reserved.range.start());
        let entry = self.bitmap_of(reserved).get() / SECTOR;
        match self.table.update(spot.slice, |entries| entries.set(spot.index, entry)) {
            Updated::Missing => Committed::Need(self.need_entry(&spot)),
            Updated::Full => Committed::Full,
            Updated::Done(()) => Committed::Done,
        }
    }

    /// The bits of a new block, whatever the file has there, then the block.
    fn commit_block_and_bits(&self, reserved: &Reserved) -> Committed<'_> {
        let bitmap = self.bitmap_of(reserved);
        let (first, end) = self.bits_of(bitmap, reserved.range);
        let is_made = self.bitmap_slices(bitmap).all(|at| {
            let bits = |number| if at == first.slice { mask(number, first.bit, end) } else { 0 };
            self.bitmaps.create(at, (0..BIT_WORDS).map(bits)) == Inserted::Yes
        });
        let committed = if is_made { self.commit_block(reserved) } else { Committed::Full };
        if !matches!(committed, Committed::Done) {
            self.bitmap_slices(bitmap).for_each(|at| self.bitmaps.remove(at));
        }
        committed
    }

    /// Where the slices of a bitmap are.
    fn bitmap_slices(&self, bitmap: HostOffset) -> impl Iterator<Item = HostOffset> + use<> {
        (0..self.shape().bitmap / SECTOR).map(move |number| bitmap.saturating_add(number * SECTOR))
    }

    fn commit_bits(&self, reserved: &Reserved) -> Committed<'_> {
        let (first, end) = self.bits_of(self.bitmap_of(reserved), reserved.range);
        let update = self.bitmaps.update(first.slice, |words| {
            for number in 0..BIT_WORDS {
                words.set(number, words.get(number) | mask(number, first.bit, end));
            }
        });
        match update {
            Updated::Missing => Committed::Need(self.need_bits(first)),
            Updated::Full => Committed::Full,
            Updated::Done(()) => Committed::Done,
        }
    }

    /// The bits of whole sectors, all in one slice: the first, and the number of the one behind.
    fn bits_of(&self, bitmap: HostOffset, range: GuestRange) -> (BitSpot, u64) {
        let first = self.shape().bit(bitmap, range.start().get() % self.shape().block);
        (first, (first.bit + range.len().div_ceil(SECTOR)).min(SLICE_BITS))
    }

    /// The work of [`ImageWrite::abandon`].
    pub(crate) fn abandon(&self, writer: &Writer, reserved: &Reserved) {
        if reserved.token == NEW_BLOCK {
            let bitmap = self.bitmap_of(reserved).get();
            let at = HostOffset(bitmap.saturating_sub(writer.pad));
            let len = writer.run(&self.shape());
            writer.space.give_back(at, len);
            writer.pace.abandoned(len);
        }
        writer.claims.release(self.claimed(reserved));
    }

    /// Forgets the block around `at`, and returns how many bytes of the disk it had.
    ///
    /// # Errors
    /// Those of reading the table and of writing it back where there is no room.
    pub(crate) fn free_block(
        &self,
        writer: &Writer,
        owner: &dyn ImageWrite,
        at: GuestOffset,
    ) -> Result<u64> {
        let _claim = writer.claims.hold(self.shape().block_at(at));
        self.free_claimed(writer, owner, at)
    }

    /// The same, where that is claimed.
    pub(crate) fn free_claimed(
        &self,
        writer: &Writer,
        owner: &dyn ImageWrite,
        at: GuestOffset,
    ) -> Result<u64> {
        writer.doubt.check()?;
        let (block, spot) = (self.shape().block_at(at), self.shape().locate(at));
        loop {
            let update = self.table.update(spot.slice, |entries| {
                let old = entry_of(entries.get(spot.index));
                entries.set(spot.index, ABSENT.into());
                old
            });
            match update {
                Updated::Missing => owner.satisfy(&self.need_entry(&spot))?,
                Updated::Full => owner.relieve()?,
                Updated::Done(ABSENT) => return Ok(block.len()),
                Updated::Done(old) => {
                    let bitmap = HostOffset(u64::from(old) * SECTOR);
                    self.bitmap_slices(bitmap).for_each(|at| self.bitmaps.remove(at));
                    // After the entry: now nobody finds it any more.
                    writer.forget_block(&self.shape(), spot.block, bitmap);
                    return Ok(block.len());
                }
            }
        }
    }

    /// A flush.
    ///
    /// # Errors
    /// Those of the store; what was changed stays changed, to be written the next time.
    pub(crate) fn write_back(&self, writer: &Writer) -> Result<()> {
        writer.doubt.check()?;
        let before = |_| {
            self.set_all_bits(writer)?;
            writer.write_footer(&*self.store)
        };
        let write = |cache, picture: &DirtySlice| self.write_slice(cache, picture);
        let tables = [&self.table, &self.bitmaps];
        let committed = writer.pace.begin();
        writer.space.write_back_after(&*self.store, &tables, before, write)?;
        writer.pace.written(committed);
        writer.shorten(&*self.store)
    }

    fn write_slice(&self, cache: usize, picture: &DirtySlice) -> Result<()> {
        let bytes = match cache {
            0 => {
                let index = picture.at.get().saturating_sub(self.shape().table.get()) / ENTRY;
                // The last slice reaches further than the table does.
                let left = usize::try_from(self.shape().entries.saturating_sub(index));
                let count = picture.entries.len().min(left.unwrap_or(usize::MAX));
                bytes_of_entries(picture.entries.get(..count).unwrap_or_default())
            }
            _ => bytes_of_words(&picture.entries),
        };
        Ok(self.store.write_at(picture.at, &bytes)?)
    }

    /// Sets all bits of the blocks that were written since the last time.
    fn set_all_bits(&self, writer: &Writer) -> Result<()> {
        let mut blocks = std::mem::take(&mut *writer.unset.lock());
        let mut work = || {
            while let Some(block) = blocks.first() {
                if let Some(bitmap) = self.block_now(*block)? {
                    self.fill_bitmap(bitmap)?;
                }
                blocks.pop_first();
            }
            Ok(())
        };
        let result = work();
        writer.unset.lock().append(&mut blocks);
        result
    }

    /// Where a block is now, or nowhere: it may have been freed.
    fn block_now(&self, block: u64) -> Result<Option<HostOffset>> {
        let spot = self.shape().locate(GuestOffset(block.saturating_mul(self.shape().block)));
        loop {
            match self.table.read(spot.slice, |slice| entry_of(slice.get(spot.index))) {
                Some(ABSENT) => return Ok(None),
                Some(entry) => return Ok(Some(HostOffset(u64::from(entry) * SECTOR))),
                None => {
                    let need: Need<'_> = self.need_entry(&spot);
                    if self.supply(&need, &need.read()?) == Supplied::Full {
                        // A slot of each set stays clean, so this is only for a moment.
                        std::thread::yield_now();
                    }
                }
            }
        }
    }

    /// Sets all bits of a block in the file, past what is known of them in memory.
    pub(crate) fn set_bits_on_medium(&self, block: u64) -> Result<()> {
        match self.block_now(block)? {
            Some(bitmap) => self.fill_bitmap(bitmap),
            None => Ok(()),
        }
    }

    fn fill_bitmap(&self, at: HostOffset) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(self.shape().bitmap).unwrap_or_default()];
        self.store.read_padded_at(at, &mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0xFF) {
            bytes.fill(0xFF);
            self.store.write_at(at, &bytes)?;
        }
        Ok(())
    }
}
