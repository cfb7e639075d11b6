//! The smallest format that allocates: a header, one table, units in the order they were needed.
//!
//! ```text
//!   unit 0  "toy!", virtual size         table entry 0: absent   1: zero   n: data in unit n
//!   1 .. t  table: one u32 for each unit of the disk
//!   t ..    data
//! ```
//!
//! It does everything right, unless it is told to make one of the mistakes that a format can make.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

use anydisk_core::{
    Access, Attempt, Below, Claims, Committed, Error, Extent, GuestOffset, GuestRange, Handled,
    HostOffset, Image, ImageInfo, ImageWrite, Lease, Leases, Lookup, Need, NewSize, Placement,
    Quarantine, Reservation, Reserved, Resize, Result, Source, Storage, StorageExt, Supplied,
    WriteLease, Zeroing,
};
use anydisk_testkit::suite::Fixture;

/// Bytes in a unit.
pub(crate) const UNIT: u64 = 1024;

/// The largest disk: tables are made for it, so that disks can grow.
const MOST_UNITS: u64 = 256;

const TABLE_AT: HostOffset = HostOffset(UNIT);
const FIRST_DATA: u32 = 2;
const ABSENT: u32 = 0;
const ZERO: u32 = 1;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    TableBeforeData,
    TableNotFlushed,
    FlushDoesNothing,
    FreedSpaceIsUsedAtOnce,
    LeaseHoldsNothing,
    DiscardShowsTheLayerBelow,
    DiscardKeepsTheEntryButFreesTheSpace,
    ZeroForgetsTheLayerBelow,
    ZeroTakesTheWholeUnit,
    ErrorsOfTheTableAreIgnored,
    SpaceIsNeverUsedAgain,
    NobodyClaims,
    HeaderIsWrittenWhenReading,
    WritesWhenReading,
    ExtentsAreLongerThanAskedFor,
    NewSpaceCallsItselfZero,
    LastUnitIsForgotten,
    ShrinkingKeepsWhatLiesBehind,
    GrowingShowsTheLayerBelow,
    CommitsTakeSpace,
}

#[derive(Debug)]
pub(crate) struct Toy {
    pub(crate) mistake: Mistake,
}

impl Fixture for Toy {
    fn create(&self, store: Arc<dyn Storage>, size: u64, _: Below) -> Result<Arc<dyn Image>> {
        let image = ToyImage::new(store, size, Access::ReadWrite, self.mistake);
        image.store.set_len(u64::from(FIRST_DATA) * UNIT)?;
        image.write_header()?;
        Ok(Arc::new(image))
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        let mut header = [0; 16];
        store.read_exact_at(HostOffset::ZERO, &mut header)?;
        if header[..4] != *b"toy!" {
            return Err(Error::UnknownFormat("no toy".into()));
        }
        let size = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        let image = ToyImage::new(store, size, access, self.mistake);
        if self.mistake == Mistake::HeaderIsWrittenWhenReading {
            image.write_header()?;
        }
        image.load()?;
        Ok(Arc::new(image))
    }

    fn unit(&self) -> u64 {
        UNIT
    }

    fn has_backing(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct ToyImage {
    store: Arc<dyn Storage>,
    size: AtomicU64,
    writable: bool,
    mistake: Mistake,
    claims: Claims,
    leases: Leases,
    state: Mutex<State>,
    flushing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    table: Vec<u32>,
    free: Vec<u32>,
    end: u32,
    quarantine: Quarantine<u32>,
}

impl ToyImage {
    fn new(store: Arc<dyn Storage>, size: u64, access: Access, mistake: Mistake) -> Self {
        let table = vec![ABSENT; usize::try_from(MOST_UNITS).expect("few")];
        let quarantine = Quarantine::default();
        let state = State { table, free: Vec::new(), end: FIRST_DATA, quarantine };
        Self {
            store,
            size: size.into(),
            writable: access == Access::ReadWrite,
            mistake,
            claims: Claims::default(),
            leases: Leases::new(),
            state: Mutex::new(state),
            flushing: Mutex::new(()),
        }
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked")
    }

    fn write_header(&self) -> Result<()> {
        let mut header = *b"toy!\0\0\0\0........";
        header[8..].copy_from_slice(&self.size().to_le_bytes());
        Ok(self.store.write_at(HostOffset::ZERO, &header)?)
    }

    fn load(&self) -> Result<()> {
        let mut bytes = vec![0; 4 * usize::try_from(MOST_UNITS).expect("few")];
        self.store.read_padded_at(TABLE_AT, &mut bytes)?;
        let mut state = self.state();
        for (entry, bytes) in state.table.iter_mut().zip(bytes.chunks_exact(4)) {
            *entry = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
        let end = state.table.iter().max().map_or(0, |last| last + 1).max(FIRST_DATA);
        state.free = (FIRST_DATA..end).filter(|unit| !state.table.contains(unit)).collect();
        state.end = end;
        Ok(())
    }

    /// The unit that holds the start of `range`, cut at the end of the disk, and its number.
    fn unit_of(&self, range: GuestRange) -> (GuestRange, usize) {
        let number = range.start().get() / UNIT;
        let unit = GuestRange::whole(self.size()).skip(number * UNIT).first(UNIT);
        (unit, usize::try_from(number).expect("few"))
    }

    fn place(unit: u32, within: u64) -> HostOffset {
        HostOffset(u64::from(unit) * UNIT + within)
    }

    /// Changes the entry of a unit and frees what it named.
    fn replace(&self, state: &mut State, number: usize, entry: u32) {
        let old = std::mem::replace(&mut state.table[number], entry);
        if old >= FIRST_DATA {
            self.free(state, old);
        }
    }

    fn free(&self, state: &mut State, unit: u32) {
        match self.mistake {
            Mistake::FreedSpaceIsUsedAtOnce => state.free.push(unit),
            Mistake::SpaceIsNeverUsedAgain => {}
            _ => state.quarantine.retire(unit),
        }
    }

    /// Runs `change` on the unit at the start of `range`, claimed, and says how far that got.
    fn change_unit(
        &self,
        range: GuestRange,
        change: impl FnOnce(&mut State, usize),
    ) -> Result<Handled> {
        let (unit, number) = self.unit_of(range);
        let part = range.before(unit.end());
        if part != unit && !self.is(Mistake::ZeroTakesTheWholeUnit) {
            return Ok(Handled::ByData(part.len()));
        }
        let claim = self.claims.hold(unit);
        change(&mut self.state(), number);
        drop(claim);
        Ok(Handled::Done(part.len()))
    }

    fn table_bytes(&self, table: &[u32]) -> Vec<u8> {
        let last = self.size().div_ceil(UNIT) - 1;
        let mut bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        if self.is(Mistake::LastUnitIsForgotten) {
            bytes.truncate(4 * usize::try_from(last).expect("few"));
        }
        bytes
    }

    fn write_back(&self, table: &[u32]) -> Result<()> {
        if !self.is(Mistake::TableBeforeData) {
            self.store.flush()?;
        }
        self.write_header()?;
        let written = self.store.write_at(TABLE_AT, &self.table_bytes(table));
        if !self.is(Mistake::ErrorsOfTheTableAreIgnored) {
            written?;
        }
        if !self.is(Mistake::TableNotFlushed) {
            self.store.flush()?;
        }
        Ok(())
    }
}

impl Image for ToyImage {
    fn size(&self) -> u64 {
        self.size.load(SeqCst)
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let lease = match self.mistake {
            Mistake::LeaseHoldsNothing => Lease::eternal(),
            _ => self.leases.take(),
        };
        let (unit, number) = self.unit_of(range);
        let within = range.start().get() - unit.start().get();
        let source = match self.state().table[number] {
            ABSENT => Source::Absent { reserved: None },
            ZERO => Source::Zero { reserved: None },
            entry => {
                let at = Self::place(entry, within);
                Source::Data { store: &self.store, at, shared: false }
            }
        };
        let len = match self.mistake {
            Mistake::ExtentsAreLongerThanAskedFor => unit.len() - within,
            _ => range.before(unit.end()).len(),
        };
        Ok(Lookup::Found(Extent { len, source, lease }))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken)
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new("toy")
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        (self.writable || self.is(Mistake::WritesWhenReading)).then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.writable.then_some(self)
    }
}

impl ImageWrite for ToyImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        let lease = WriteLease::new(self.leases.take());
        let (unit, number) = self.unit_of(range);
        if !self.is(Mistake::NobodyClaims) && !self.claims.try_claim(unit) {
            return Ok(Attempt::Busy);
        }
        let mut state = self.state();
        let entry = state.table[number];
        if entry >= FIRST_DATA {
            self.claims.release(unit);
            let part = range.before(unit.end());
            let at = Self::place(entry, part.start().get() - unit.start().get());
            let (store, len) = (&self.store, part.len());
            return Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }));
        }
        let new = state.free.pop().unwrap_or_else(|| {
            state.end += 1;
            state.end - 1
        });
        let at = Self::place(new, 0);
        let zeroed = self.is(Mistake::NewSpaceCallsItselfZero);
        let reserved = Reserved { range: unit, at, zeroed, token: new.into() };
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(self, &self.store, reserved))))
    }

    fn try_place_encoded(&self, _: GuestRange, _: usize) -> Result<Attempt<'_>> {
        Err(Error::Unsupported { format: "toy", feature: "packed units".into() })
    }

    fn claims(&self) -> Option<&Claims> {
        Some(&self.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        let (unit, number) = self.unit_of(reserved.range);
        let new = u32::try_from(reserved.token).expect("it was one");
        let mut state = self.state();
        // As for a table that only this unit needs.
        state.end += u32::from(self.is(Mistake::CommitsTakeSpace));
        self.replace(&mut state, number, new);
        drop(state);
        self.claims.release(unit);
        Ok(Committed::Done)
    }

    fn abandon(&self, reserved: &Reserved) {
        let new = u32::try_from(reserved.token).expect("it was one");
        self.state().free.push(new);
        self.claims.release(reserved.range);
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let hides = how.below == Below::Image && !self.is(Mistake::ZeroForgetsTheLayerBelow);
        let entry = if hides { ZERO } else { ABSENT };
        self.change_unit(range, |state, number| self.replace(state, number, entry))
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        let shows = below == Below::Nothing || self.is(Mistake::DiscardShowsTheLayerBelow);
        let entry = if shows { ABSENT } else { ZERO };
        self.change_unit(range, |state, number| {
            if self.is(Mistake::DiscardKeepsTheEntryButFreesTheSpace) {
                let old = state.table[number];
                if old >= FIRST_DATA {
                    self.free(state, old);
                }
            } else {
                self.replace(state, number, entry);
            }
        })
    }

    fn flush(&self) -> Result<()> {
        if self.is(Mistake::FlushDoesNothing) {
            return Ok(());
        }
        let _alone = self.flushing.lock().expect("nobody panicked");
        let (table, sealed) = {
            let mut state = self.state();
            (state.table.clone(), state.quarantine.seal())
        };
        if let Err(error) = self.write_back(&table) {
            self.state().quarantine.unseal(sealed);
            return Err(error);
        }
        let mut state = self.state();
        state.quarantine.durable(&self.leases, sealed);
        let free = state.quarantine.release(&self.leases);
        state.free.extend(free);
        Ok(())
    }

    fn unit(&self) -> u64 {
        UNIT
    }
}

impl Resize for ToyImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let size = new.size;
        let old = self.size.swap(size, SeqCst);
        if size < old && !self.is(Mistake::ShrinkingKeepsWhatLiesBehind) {
            self.drop_behind(size, old)?;
        }
        if size > old && !self.is(Mistake::GrowingShowsTheLayerBelow) {
            if !self.is(Mistake::ShrinkingKeepsWhatLiesBehind) {
                self.forget_behind(old);
            }
            let end = size.min(new.below).max(old);
            (old.div_ceil(UNIT)..end.div_ceil(UNIT)).for_each(|unit| self.hide(unit));
            let rest = GuestOffset(old.next_multiple_of(UNIT).min(size));
            (new.zero)(GuestRange::between(GuestOffset(old), rest))?;
        }
        Ok(())
    }
}

impl ToyImage {
    fn hide(&self, unit: u64) {
        self.replace(&mut self.state(), usize::try_from(unit).expect("few"), ZERO);
    }

    /// What a shrink that a crash cut short left in the table must not show again.
    fn forget_behind(&self, old: u64) {
        let mut state = self.state();
        let first = usize::try_from(old.div_ceil(UNIT)).expect("few");
        state.table.iter_mut().skip(first).for_each(|entry| *entry = ABSENT);
    }

    fn drop_behind(&self, size: u64, old: u64) -> Result<()> {
        let mut state = self.state();
        for unit in size.div_ceil(UNIT)..old.div_ceil(UNIT) {
            self.replace(&mut state, usize::try_from(unit).expect("few"), ABSENT);
        }
        let last = GuestOffset(size).get();
        let entry = state.table[usize::try_from(last / UNIT).expect("few")];
        if !last.is_multiple_of(UNIT) && entry >= FIRST_DATA {
            let rest = usize::try_from(UNIT - last % UNIT).expect("less than a unit");
            self.store.write_at(Self::place(entry, last % UNIT), &vec![0; rest])?;
        }
        Ok(())
    }
}
