//! Tables of a format in memory: bounded, read without locks, written back in order.
//!
//! A table (L2 table, grain table, block map) is cached in **slices** of a fixed number of entries,
//! each entry decoded to a `u64`. Readers take no lock: a slot carries a sequence number that is
//! odd while the slot changes, and a reader that saw it change reads again.
//!
//! The order of writing back is the same for every format, and one write-back runs at a time, under
//! a lock that is held from the first step to the last:
//!
//! 1. [seal](crate::Quarantine::seal) the quarantine, **then** take [pictures](TableCache::dirty),
//!    those that refer before those that are referred to (L1, L2, reference counts);
//! 2. flush every store that data was placed in;
//! 3. write the pictures, what is referred to before what refers, with a flush between;
//! 4. flush, and only then [settle](TableCache::settle) the pictures and call the sealed space
//!    [durable](crate::Quarantine::durable); now counts of freed space may be lowered, now the
//!    quarantine may release.
//!
//! An entry that changed after its picture was taken stays dirty. A write-back that finds nothing
//! dirty flushes all the same. A format with tables of one level and blocks that lie behind each
//! other has all of this in [`BlockSpace::write_back`](crate::BlockSpace::write_back).
//!
//! A picture is a whole slice, so a table ends with a whole slice, or the format cuts the last
//! picture where something else begins.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, PoisonError};

use anydisk_storage::{HostOffset, Storage};

use crate::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use crate::sync::{Mutex, MutexGuard};
use crate::{Need, Supplied};

/// Slots that may hold one slice.
const WAYS: usize = 8;
/// The key of a slot that holds nothing: no table begins there.
const EMPTY: u64 = u64::MAX;

/// A bounded cache of table slices, named by their place in the file.
#[derive(Debug)]
pub struct TableCache {
    sets: Box<[Set]>,
    entries: usize,
    dirty: Mutex<BTreeSet<u64>>,
}

#[derive(Debug, Default)]
struct Set {
    /// Serialises whoever changes a slot of this set.
    lock: Mutex<()>,
    /// Counts write-backs and removals; a slice read from the file before one is stale.
    generation: AtomicU64,
    /// Counts changes in this set, to tell whether a picture is still the newest.
    version: AtomicU64,
    slots: [Slot; WAYS],
}

/// What a look needs is in one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    sequence: AtomicU64,
    key: AtomicU64,
    entries: OnceLock<Box<[AtomicU64]>>,
    /// Used since the clock hand passed.
    used: AtomicBool,
    dirty: AtomicBool,
    /// The set's version at the last change.
    version: AtomicU64,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            key: AtomicU64::new(EMPTY),
            entries: OnceLock::new(),
            used: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            version: AtomicU64::new(0),
        }
    }
}

/// The entries of one slice while it is looked at. Values may be torn between two tables until
/// the look is validated, so a look must be a pure function of them.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(&'a [AtomicU64]);

impl Slice<'_> {
    /// Entry number `index`; 0 past the end of the slice.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |entry| entry.load(Relaxed))
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the slice has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The entries of one slice while they are changed.
#[derive(Debug)]
pub struct SliceMut<'a>(&'a [AtomicU64]);

impl SliceMut<'_> {
    /// Entry number `index`; 0 past the end of the slice.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        Slice(self.0).get(index)
    }

    /// Changes entry number `index`.
    ///
    /// # Panics
    /// If the slice has no such entry: the index is the format's own arithmetic.
    pub fn set(&mut self, index: usize, value: u64) {
        self.0[index].store(value, Relaxed);
    }
}

/// Remembers the state of the cache before a slice is read from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket as a number below 2^63, to travel in [`Need::ticket`](crate::Need::ticket)
    /// beside a bit of the format's own.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The ticket that [`to_bits`](Self::to_bits) gave.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// What became of a slice that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It is in the cache (or was there already).
    Yes,
    /// The table was written back or removed since the ticket was taken: read it again.
    Stale,
    /// Too many of the slots it could go to hold changes: write back first.
    Full,
}

impl From<Inserted> for Supplied {
    /// A stale slice was taken in this sense: ask again.
    fn from(inserted: Inserted) -> Self {
        match inserted {
            Inserted::Yes | Inserted::Stale => Self::Taken,
            Inserted::Full => Self::Full,
        }
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Updated<R> {
    /// It was made; this is what it returned.
    Done(R),
    /// The slice is not in the cache: read it and hand it in first.
    Missing,
    /// Too many of the slots beside it hold changes: write back first.
    Full,
}

impl<R> Updated<R> {
    /// The answer, if the change was made.
    #[must_use]
    pub fn done(self) -> Option<R> {
        match self {
            Self::Done(answer) => Some(answer),
            Self::Missing | Self::Full => None,
        }
    }
}

/// A picture of a changed slice.
#[derive(Clone, Debug)]
pub struct DirtySlice {
    /// Where the slice belongs in the file.
    pub at: HostOffset,
    /// All its entries.
    pub entries: Box<[u64]>,
    version: u64,
}

impl TableCache {
    /// A cache of slices of `entries` entries each, holding about `bytes` bytes at most. Memory is
    /// taken as slices come in.
    #[must_use]
    pub fn new(entries: usize, bytes: usize) -> Self {
        let slices = (bytes / (entries * size_of::<u64>())).max(WAYS);
        let sets = (slices / WAYS).next_power_of_two();
        Self {
            sets: std::iter::repeat_with(Set::default).take(sets).collect(),
            entries,
            dirty: Mutex::default(),
        }
    }

    /// Entries in a slice.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// What `look` makes of the slice at `at`, or `None` if it is not in the cache.
    ///
    /// `look` may run several times, on values that do not belong together; only the answer of a
    /// consistent run is returned.
    #[inline(always)]
    pub fn read<R>(&self, at: HostOffset, look: impl Fn(Slice<'_>) -> R) -> Option<R> {
        let set = self.set(at);
        for slot in &set.slots {
            if slot.key.load(Relaxed) == at.get() {
                if let Some(answer) = slot.read(at.get(), &look) {
                    return Some(answer);
                }
                return self.read_locked(at, look);
            }
        }
        None
    }

    /// As `read`, when the slot was changing: waits for the change.
    #[cold]
    fn read_locked<R>(&self, at: HostOffset, look: impl Fn(Slice<'_>) -> R) -> Option<R> {
        let set = self.set(at);
        let _guard = set.lock();
        set.slots.iter().find(|slot| slot.holds(at)).map(|slot| look(Slice(slot.entries())))
    }

    /// To be taken before a slice is read from the file, and given back with it.
    #[must_use]
    pub fn ticket(&self, at: HostOffset) -> Ticket {
        Ticket(self.set(at).generation.load(Acquire))
    }

    /// The slice at `at` of `len` bytes in `store`, as what must be read: the answer of
    /// [`map_cached`](crate::Image::map_cached) when [`read`](Self::read) finds nothing. For a
    /// format with one cache; one with several tells them apart in the ticket itself.
    #[must_use]
    pub fn need<'a>(&self, store: &'a Arc<dyn Storage>, at: HostOffset, len: usize) -> Need<'a> {
        Need { store, at, len, least: len, ticket: self.ticket(at).to_bits() }
    }

    /// Hands in the entries that the bytes of a [`need`](Self::need) hold: the answer of
    /// [`Image::supply`](crate::Image::supply).
    pub fn supply(&self, need: &Need<'_>, entries: impl IntoIterator<Item = u64>) -> Supplied {
        self.insert(need.at, Ticket::from_bits(need.ticket), entries).into()
    }

    /// Hands in a slice as read from the file. Missing entries are 0.
    pub fn insert(
        &self,
        at: HostOffset,
        ticket: Ticket,
        entries: impl IntoIterator<Item = u64>,
    ) -> Inserted {
        let set = self.set(at);
        let _guard = set.lock();
        if set.slots.iter().any(|slot| slot.holds(at)) {
            return Inserted::Yes;
        }
        if set.generation.load(Relaxed) != ticket.0 {
            return Inserted::Stale;
        }
        match set.victim() {
            Some(slot) => {
                slot.fill(at, self.entries, entries);
                Inserted::Yes
            }
            None => Inserted::Full,
        }
    }

    /// Puts a slice of a **new** table into the cache, changed from the start, whatever the file
    /// holds there.
    pub fn create(&self, at: HostOffset, entries: impl IntoIterator<Item = u64>) -> Inserted {
        let set = self.set(at);
        let _guard = set.lock();
        let slot = set.slots.iter().find(|slot| slot.holds(at)).or_else(|| set.victim());
        let Some(slot) = slot.filter(|slot| set.may_dirty(slot)) else { return Inserted::Full };
        set.generation.fetch_add(1, Release);
        self.mark_dirty(set, slot, at);
        slot.fill(at, self.entries, entries);
        Inserted::Yes
    }

    /// Changes entries of the slice at `at`.
    pub fn update<R>(
        &self,
        at: HostOffset,
        change: impl FnOnce(&mut SliceMut<'_>) -> R,
    ) -> Updated<R> {
        let set = self.set(at);
        let _guard = set.lock();
        let Some(slot) = set.slots.iter().find(|slot| slot.holds(at)) else {
            return Updated::Missing;
        };
        if !set.may_dirty(slot) {
            return Updated::Full;
        }
        self.mark_dirty(set, slot, at);
        Updated::Done(slot.change(|| change(&mut SliceMut(slot.entries()))))
    }

    /// Forgets a slice, changed or not. Call it for every slice of a table that is freed, and again
    /// when its space comes back into use: a reader that was late may have handed it in meanwhile.
    pub fn remove(&self, at: HostOffset) {
        let set = self.set(at);
        let _guard = set.lock();
        set.generation.fetch_add(1, Release);
        if let Some(slot) = set.slots.iter().find(|slot| slot.holds(at)) {
            slot.change(|| slot.key.store(EMPTY, Relaxed));
            slot.dirty.store(false, Relaxed);
            self.dirty_keys().remove(&at.get());
        }
    }

    /// Forgets all slices that are not changed. Entries that are on their way come too late.
    pub fn clear(&self) {
        for set in &self.sets {
            let _guard = set.lock();
            set.generation.fetch_add(1, Release);
            for slot in set.slots.iter().filter(|slot| !slot.dirty.load(Relaxed)) {
                slot.change(|| slot.key.store(EMPTY, Relaxed));
            }
        }
    }

    /// Number of changed slices.
    #[must_use]
    pub fn dirty_count(&self) -> usize {
        self.dirty_keys().len()
    }

    /// Whether the cache should be written back soon, so that readers find a free slot.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.dirty_count() * 4 > self.sets.len() * WAYS
    }

    /// Pictures of all changed slices, in file order. Take them while nobody can be between two
    /// changes that belong together.
    #[must_use]
    pub fn dirty(&self) -> Vec<DirtySlice> {
        let keys: Vec<u64> = self.dirty_keys().iter().copied().collect();
        keys.into_iter().filter_map(|key| self.picture(HostOffset(key))).collect()
    }

    fn picture(&self, at: HostOffset) -> Option<DirtySlice> {
        let set = self.set(at);
        let _guard = set.lock();
        let slot = set.slots.iter().find(|slot| slot.holds(at))?;
        let entries = slot.entries().iter().map(|entry| entry.load(Relaxed)).collect();
        Some(DirtySlice { at, entries, version: slot.version.load(Relaxed) })
    }

    /// The picture is in the file now.
    pub fn settle(&self, written: &DirtySlice) {
        let set = self.set(written.at);
        let _guard = set.lock();
        set.generation.fetch_add(1, Release);
        if let Some(slot) = set.slots.iter().find(|slot| slot.holds(written.at))
            && slot.version.load(Relaxed) == written.version
        {
            slot.dirty.store(false, Relaxed);
            self.dirty_keys().remove(&written.at.get());
        }
    }

    fn mark_dirty(&self, set: &Set, slot: &Slot, at: HostOffset) {
        slot.version.store(set.version.fetch_add(1, Relaxed), Relaxed);
        if !slot.dirty.swap(true, Relaxed) {
            self.dirty_keys().insert(at.get());
        }
    }

    fn dirty_keys(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: HostOffset) -> &Set {
        // Slices lie at multiples of at least 512 bytes; the product spreads the rest.
        let hash = (at.get() >> 9).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mask = self.sets.len() as u64 - 1;
        let index = usize::try_from(hash & mask).unwrap_or_default();
        &self.sets[index]
    }
}

impl Set {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `slot` may hold changes: one slot of a set always stays clean, so that reading can
    /// always go on.
    fn may_dirty(&self, slot: &Slot) -> bool {
        let others = self.slots.iter().filter(|other| !std::ptr::eq(*other, slot));
        others.filter(|other| other.dirty.load(Relaxed)).count() < WAYS - 1
    }

    /// A slot to fill: an empty one, else the first clean one not used since the last search.
    fn victim(&self) -> Option<&Slot> {
        let empty = self.slots.iter().find(|slot| slot.key.load(Relaxed) == EMPTY);
        empty.or_else(|| {
            let clean = || self.slots.iter().filter(|slot| !slot.dirty.load(Relaxed));
            clean().find(|slot| !slot.used.swap(false, Relaxed)).or_else(|| clean().next())
        })
    }
}

impl Slot {
    fn holds(&self, at: HostOffset) -> bool {
        self.key.load(Relaxed) == at.get()
    }

    fn entries(&self) -> &[AtomicU64] {
        self.entries.get().map_or(&[], |entries| entries)
    }

    /// One try without the lock: `None` if the slot changed meanwhile.
    #[inline(always)]
    fn read<R>(&self, key: u64, look: &impl Fn(Slice<'_>) -> R) -> Option<R> {
        let before = self.sequence.load(Acquire);
        if before & 1 == 1 || self.key.load(Relaxed) != key {
            return None;
        }
        let answer = look(Slice(self.entries()));
        fence(Acquire);
        if self.sequence.load(Relaxed) != before {
            return None;
        }
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        Some(answer)
    }

    /// Runs a change under an odd sequence number. The set is locked.
    fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let before = self.sequence.load(Relaxed);
        self.sequence.store(before | 1, Relaxed);
        fence(Release);
        let answer = change();
        self.sequence.store((before | 1) + 1, Release);
        answer
    }

    fn fill(&self, at: HostOffset, len: usize, values: impl IntoIterator<Item = u64>) {
        let entries = self
            .entries
            .get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(len).collect());
        self.change(|| {
            self.key.store(at.get(), Relaxed);
            let mut values = values.into_iter();
            for entry in entries {
                entry.store(values.next().unwrap_or(0), Relaxed);
            }
        });
        self.used.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: HostOffset = HostOffset(0x1000);

    fn cache() -> TableCache {
        TableCache::new(4, 4 * 8 * WAYS)
    }

    fn filled(values: [u64; 4]) -> TableCache {
        let cache = cache();
        assert_eq!(cache.insert(AT, cache.ticket(AT), values), Inserted::Yes);
        cache
    }

    #[test]
    fn a_slice_handed_in_is_found() {
        let cache = filled([1, 2, 3, 4]);
        assert_eq!(cache.read(AT, |slice| slice.get(2)), Some(3));
        assert_eq!(cache.read(HostOffset(0x2000), |slice| slice.get(2)), None);
    }

    #[test]
    fn a_slice_that_was_needed_is_found_once_its_entries_are_supplied() {
        let store: Arc<dyn Storage> = Arc::new(anydisk_storage::MemoryStorage::default());
        let cache = cache();
        let need = cache.need(&store, AT, 32);
        assert_eq!((need.at, need.len), (AT, 32));
        assert_eq!(cache.supply(&need, [5, 6]), Supplied::Taken);
        assert_eq!(
            cache.read(AT, |slice| [0, 1, 2, 3].map(|index| slice.get(index))),
            Some([5, 6, 0, 0])
        );
    }

    #[test]
    fn entries_that_come_too_late_are_taken_and_not_used() {
        let store: Arc<dyn Storage> = Arc::new(anydisk_storage::MemoryStorage::default());
        let cache = cache();
        let need = cache.need(&store, AT, 32);
        cache.remove(AT);
        assert_eq!(cache.supply(&need, [5]), Supplied::Taken);
        assert_eq!(cache.read(AT, |_| ()), None);
    }

    #[test]
    fn a_slice_read_before_a_write_back_is_stale_after_it() {
        let cache = filled([0; 4]);
        let ticket = cache.ticket(AT);
        cache.update(AT, |slice| slice.set(0, 9)).done().expect("cached");
        cache.dirty().iter().for_each(|slice| cache.settle(slice));
        // Push the slice out.
        for other in 1..=WAYS as u64 {
            let at = HostOffset(0x1000 * (1 + other));
            assert_eq!(cache.insert(at, cache.ticket(at), [0; 4]), Inserted::Yes);
        }
        if cache.read(AT, |_| ()).is_none() {
            assert_eq!(cache.insert(AT, ticket, [0; 4]), Inserted::Stale);
        }
    }

    #[test]
    fn a_change_after_the_picture_stays_dirty() {
        let cache = filled([0; 4]);
        cache.update(AT, |slice| slice.set(0, 1)).done().expect("cached");
        let pictures = cache.dirty();
        cache.update(AT, |slice| slice.set(0, 2)).done().expect("cached");
        pictures.iter().for_each(|picture| cache.settle(picture));
        assert_eq!(pictures[0].entries[0], 1);
        assert_eq!(cache.dirty()[0].entries[0], 2);
    }

    #[test]
    fn changed_slices_are_never_pushed_out() {
        let cache = cache();
        let ats: Vec<HostOffset> = (1..=WAYS as u64).map(|n| HostOffset(n << 12)).collect();
        let (last, others) = ats.split_last().expect("several");
        for at in others {
            assert_eq!(cache.create(*at, [7; 4]), Inserted::Yes);
        }
        assert_eq!(cache.create(*last, [7; 4]), Inserted::Full);
        // Reading goes on in the one slot that stays clean.
        for at in [*last, AT.saturating_add(1 << 30)] {
            assert_eq!(cache.insert(at, cache.ticket(at), [0; 4]), Inserted::Yes);
            assert_eq!(cache.update(at, |_| ()), Updated::Full);
        }
        assert_eq!(cache.dirty_count(), WAYS - 1);
        assert!(cache.is_pressed());
    }

    #[test]
    fn an_old_picture_does_not_settle_a_new_table_at_the_same_place() {
        let cache = cache();
        assert_eq!(cache.create(AT, [1; 4]), Inserted::Yes);
        let old = cache.dirty();
        cache.remove(AT);
        // Another table takes the slot, so that the new one gets a fresh slot.
        let other = HostOffset(0x9000);
        assert_eq!(cache.insert(other, cache.ticket(other), [0; 4]), Inserted::Yes);
        assert_eq!(cache.create(AT, [2; 4]), Inserted::Yes);
        old.iter().for_each(|picture| cache.settle(picture));
        assert_eq!(cache.dirty()[0].entries[0], 2);
    }

    #[test]
    fn a_cleared_cache_keeps_what_is_changed_and_takes_nothing_that_was_asked_for_before() {
        let cache = filled([1, 2, 3, 4]);
        let ticket = cache.ticket(AT);
        cache.clear();
        assert_eq!(cache.read(AT, |slice| slice.get(0)), None);
        assert_eq!(cache.insert(AT, ticket, [9; 4]), Inserted::Stale);
        assert_eq!(cache.insert(AT, cache.ticket(AT), [5; 4]), Inserted::Yes);
        assert!(matches!(cache.update(AT, |slice| slice.set(0, 7)), Updated::Done(())));
        cache.clear();
        assert_eq!(cache.read(AT, |slice| slice.get(0)), Some(7));
    }

    #[test]
    fn a_removed_slice_is_neither_found_nor_dirty() {
        let cache = filled([1; 4]);
        cache.update(AT, |slice| slice.set(0, 2)).done().expect("cached");
        cache.remove(AT);
        assert_eq!(cache.read(AT, |slice| slice.get(0)), None);
        assert_eq!(cache.dirty_count(), 0);
    }

    #[test]
    fn readers_never_see_half_a_change() {
        let cache = filled([0; 4]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 1..20_000 {
                    let change =
                        |slice: &mut SliceMut<'_>| (0..4).for_each(|index| slice.set(index, value));
                    cache.update(AT, change).done().expect("cached");
                }
            });
            for _ in 0..20_000 {
                let seen = cache.read(AT, |slice| [0, 1, 2, 3].map(|index| slice.get(index)));
                let seen = seen.expect("cached");
                assert!(seen.iter().all(|value| *value == seen[0]), "torn: {seen:?}");
            }
        });
    }
}
