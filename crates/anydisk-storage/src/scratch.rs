//! A store over another one, whose changes stay in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Error, Holes, HostOffset, Identity, Result, Run, Space, Storage, StorageExt};

/// Bytes that are kept together.
const PAGE: usize = 4096;
const PAGE_LEN: u64 = PAGE as u64;

/// Bytes that one of [`Changes::hidden`] counts for.
const HIDDEN: usize = 64;

/// Shows another store, and what was written here instead of it. Nothing reaches the store below,
/// which may be read-only: for trying out what a change would come to.
#[derive(Debug)]
pub struct Scratch {
    below: Arc<dyn Storage>,
    room: Arc<Room>,
    state: RwLock<Changes>,
}

/// What stores beside each other may keep.
#[derive(Debug)]
struct Room {
    bytes: AtomicUsize,
    /// There was not enough.
    was_short: AtomicBool,
}

#[derive(Debug)]
struct Changes {
    /// Pages that were written, by number, as a whole. They lie over what is hidden.
    pages: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    /// What no more shows of the store below, and reads as zero: starts and ends. It may have been
    /// cut, and grown again.
    hidden: BTreeMap<u64, u64>,
}

impl Scratch {
    /// A store that shows `below`, and keeps at most `limit` bytes of changes.
    ///
    /// # Errors
    /// Those of finding the length of `below`.
    pub fn over(below: Arc<dyn Storage>, limit: usize) -> Result<Self> {
        let room = Room { bytes: AtomicUsize::new(limit), was_short: AtomicBool::new(false) };
        Self::with_room(below, Arc::new(room))
    }

    /// Another one, over `below`: what both keep counts together.
    ///
    /// # Errors
    /// As [`over`](Self::over).
    pub fn beside(&self, below: Arc<dyn Storage>) -> Result<Self> {
        Self::with_room(below, Arc::clone(&self.room))
    }

    fn with_room(below: Arc<dyn Storage>, room: Arc<Room>) -> Result<Self> {
        let len = below.len()?;
        let hidden = BTreeMap::from([(len, u64::MAX)]);
        Ok(Self {
            below,
            room,
            state: RwLock::new(Changes { pages: BTreeMap::new(), len, hidden }),
        })
    }

    fn shared(&self) -> RwLockReadGuard<'_, Changes> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Changes> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a change was refused because there were too many. Then nothing is known of what the
    /// others would have come to.
    #[must_use]
    pub fn was_short(&self) -> bool {
        self.room.was_short.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<()> {
        let less = |room: usize| room.checked_sub(bytes);
        match self.room.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.room.was_short.store(true, Ordering::Relaxed);
                let what = "keeping so many changes in memory";
                Err(Error::Unsupported { store: self.name().into(), what })
            }
        }
    }

    fn give(&self, bytes: usize) {
        self.room.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reads what the store below still shows, and zeroes for the rest.
    fn read_below(&self, changes: &Changes, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        let mut at = at;
        while !rest.is_empty() {
            let (hidden, len) = changes.hidden_at(at, rest.len() as u64);
            let (part, behind) = rest.split_at_mut(usize::try_from(len).unwrap_or(usize::MAX));
            match hidden {
                true => part.fill(0),
                false => self.below.read_padded_at(HostOffset(at), part)?,
            }
            (rest, at) = (behind, at + len);
        }
        Ok(())
    }

    /// The page of this number, to be changed.
    fn page<'a>(&self, changes: &'a mut Changes, number: u64) -> Result<&'a mut [u8]> {
        if !changes.pages.contains_key(&number) {
            self.take(PAGE)?;
            let mut page = vec![0; PAGE].into_boxed_slice();
            self.read_below(changes, number * PAGE_LEN, &mut page)?;
            changes.pages.insert(number, page);
        }
        Ok(changes.pages.get_mut(&number).map_or(&mut [], |page| &mut page[..]))
    }

    /// Makes all between two places read as zero and be a hole.
    fn hide(&self, changes: &mut Changes, start: u64, end: u64) -> Result<()> {
        self.take(HIDDEN)?;
        let before = changes.hidden.len();
        changes.hide(start, end);
        self.give((before + 1 - changes.hidden.len()) * HIDDEN);
        let inside = start.div_ceil(PAGE_LEN)..(end / PAGE_LEN).max(start.div_ceil(PAGE_LEN));
        while let Some(number) = changes.pages.range(inside.clone()).next().map(|(at, _)| *at) {
            changes.pages.remove(&number);
            self.give(PAGE);
        }
        for number in [start / PAGE_LEN, end / PAGE_LEN] {
            if let Some(page) = changes.pages.get_mut(&number) {
                let len = usize::try_from(end - start).unwrap_or(usize::MAX);
                let (within, _, len) = overlap(number, start, len);
                page[within..][..len].fill(0);
            }
        }
        Ok(())
    }
}

impl Changes {
    /// Whether the store below is hidden at `at`, and for how many of `limit` bytes that is so.
    fn hidden_at(&self, at: u64, limit: u64) -> (bool, u64) {
        let before = self.hidden.range(..=at).next_back().map(|(_, end)| *end);
        if let Some(end) = before.filter(|end| *end > at) {
            return (true, limit.min(end - at));
        }
        let next = self.hidden.range(at..).next().map_or(u64::MAX, |(start, _)| *start);
        (false, limit.min(next - at))
    }

    /// Adds a range to what is hidden, joined with those that it meets.
    fn hide(&mut self, mut start: u64, mut end: u64) {
        while let Some((from, to)) =
            self.hidden.range(..=end).next_back().map(|(from, to)| (*from, *to))
            && to >= start
        {
            self.hidden.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.hidden.insert(start, end);
    }
}

/// The part of `len` bytes at `at` that lies in the page of this number: where in the page it
/// begins, and where in the bytes, and how long it is.
fn overlap(number: u64, at: u64, len: usize) -> (usize, usize, usize) {
    let start = number * PAGE_LEN;
    let within = usize::try_from(at.saturating_sub(start)).unwrap_or(PAGE).min(PAGE);
    let skipped = usize::try_from(start.saturating_sub(at)).unwrap_or(len).min(len);
    (within, skipped, (PAGE - within).min(len - skipped))
}

impl Storage for Scratch {
    fn len(&self) -> Result<u64> {
        Ok(self.shared().len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let (changes, at) = (self.shared(), at.get());
        let inside = usize::try_from(changes.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = inside.min(buf.len());
        if count == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..count];
        self.read_below(&changes, at, buf)?;
        let last = (at + (count as u64 - 1)) / PAGE_LEN;
        for (number, page) in changes.pages.range(at / PAGE_LEN..=last) {
            let (within, skipped, len) = overlap(*number, at, count);
            buf[skipped..][..len].copy_from_slice(&page[within..][..len]);
        }
        Ok(count)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        let end = at.checked_add(data.len() as u64).ok_or_else(|| Error::OutOfRange {
            store: self.name().into(),
            at,
            len: data.len() as u64,
            end: u64::MAX,
        })?;
        if data.is_empty() {
            return Ok(());
        }
        let (mut changes, at) = (self.alone(), at.get());
        for number in at / PAGE_LEN..=(end.get() - 1) / PAGE_LEN {
            let (within, skipped, len) = overlap(number, at, data.len());
            let page = self.page(&mut changes, number)?;
            page[within..][..len].copy_from_slice(&data[skipped..][..len]);
        }
        changes.len = changes.len.max(end.get());
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut changes = self.alone();
        self.hide(&mut changes, len, u64::MAX)?;
        changes.len = len;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        self.below.name()
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    fn space(&self) -> Option<&dyn Space> {
        Some(self)
    }

    fn identity(&self) -> Option<Identity> {
        self.below.identity()
    }
}

impl Space for Scratch {
    fn zero(&self, at: HostOffset, len: u64, _: bool) -> Result<()> {
        let mut changes = self.alone();
        let end = at.get().saturating_add(len).min(changes.len);
        if at.get() < end { self.hide(&mut changes, at.get(), end) } else { Ok(()) }
    }

    fn discard(&self, at: HostOffset, len: u64) -> Result<()> {
        self.zero(at, len, true)
    }

    fn allocate(&self, at: HostOffset, len: u64) -> Result<()> {
        let mut changes = self.alone();
        changes.len = changes.len.max(at.get().saturating_add(len));
        Ok(())
    }
}

impl Holes for Scratch {
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run> {
        let (changes, place) = (self.shared(), at.get());
        if place >= changes.len {
            return Ok(Run { len: limit, hole: true });
        }
        let next =
            changes.pages.range(place / PAGE_LEN..).next().map(|(number, _)| number * PAGE_LEN);
        if let Some(page) = next.filter(|page| *page <= place) {
            return Ok(Run { len: limit.min(PAGE_LEN - (place - page)), hole: false });
        }
        let limit = limit.min(next.map_or(u64::MAX, |page| page - place));
        let (hidden, limit) = changes.hidden_at(place, limit);
        match self.below.holes().filter(|_| !hidden) {
            Some(holes) => holes.run_at(at, limit),
            None => Ok(Run { len: limit, hole: hidden }),
        }
    }

    /// As the store below, before any change.
    fn allocated(&self) -> Result<u64> {
        match self.below.holes() {
            Some(holes) => holes.allocated(),
            None => self.below.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Zero(u64, u64),
        Read(u64, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let place = 0_u64..30_000;
        let step = prop_oneof![
            (place.clone(), proptest::collection::vec(any::<u8>(), 0..9000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            place.clone().prop_map(Step::SetLen),
            (place.clone(), 0_u64..20_000).prop_map(|(at, len)| Step::Zero(at, len)),
            (place, 0_usize..9000).prop_map(|(at, len)| Step::Read(at, len)),
        ];
        proptest::collection::vec(step, 1..20)
    }

    proptest! {
        #[test]
        fn it_reads_as_a_copy_would_and_the_store_below_stays(steps in steps(), size in 0_usize..20_000) {
            let old: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251 + 1).expect("a byte")).collect();
            let below = Arc::new(MemoryStorage::new(old.clone()));
            let (copy, scratch) = (MemoryStorage::new(old.clone()), Scratch::over(below.clone(), 1 << 20)?);
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        copy.write_at(HostOffset(at), &data)?;
                        scratch.write_at(HostOffset(at), &data)?;
                    }
                    Step::SetLen(len) => {
                        copy.set_len(len)?;
                        scratch.set_len(len)?;
                    }
                    Step::Zero(at, len) => {
                        copy.zero(HostOffset(at), len, true)?;
                        scratch.zero(HostOffset(at), len, true)?;
                    }
                    Step::Read(at, len) => {
                        let (mut one, mut other) = (vec![1; len], vec![1; len]);
                        let counts = (copy.read_at(HostOffset(at), &mut one)?, scratch.read_at(HostOffset(at), &mut other)?);
                        prop_assert_eq!(counts.0, counts.1);
                        prop_assert_eq!(one, other);
                    }
                }
                prop_assert_eq!(copy.len()?, scratch.len()?);
            }
            prop_assert_eq!(below.to_vec(), old);
            let mut all = vec![0; usize::try_from(scratch.len()?).expect("small")];
            scratch.read_at(HostOffset::ZERO, &mut all)?;
            let mut at = 0;
            while at < all.len() {
                let run = scratch.run_at(HostOffset(at as u64), (all.len() - at) as u64)?;
                let end = at + usize::try_from(run.len).expect("small");
                prop_assert!(run.len > 0 && (!run.hole || all[at..end].iter().all(|byte| *byte == 0)));
                at = end;
            }
        }
    }

    #[test]
    fn what_was_zeroed_is_a_hole_and_gives_back_its_room() {
        let below = Arc::new(MemoryStorage::new(vec![7; 10 * PAGE]));
        let scratch = Scratch::over(below, 2 * PAGE).expect("memory");
        for round in 0..20 {
            scratch.write_at(HostOffset(PAGE_LEN), &[1; PAGE]).expect("a page");
            scratch.zero(HostOffset(PAGE_LEN - 1), PAGE_LEN + 2, true).expect("zeroed");
            let run = scratch.run_at(HostOffset(PAGE_LEN), u64::MAX).expect("memory");
            assert_eq!(run, Run { len: PAGE_LEN + 1, hole: true }, "round {round}");
        }
    }

    #[test]
    fn more_changes_than_allowed_are_refused_also_beside_each_other() {
        let room = 2 * PAGE + 8 * HIDDEN;
        let scratch = Scratch::over(Arc::new(MemoryStorage::default()), room).expect("memory");
        let other = scratch.beside(Arc::new(MemoryStorage::default())).expect("memory");
        other.write_at(HostOffset(0), &[1; PAGE]).expect("a page");
        other.write_at(HostOffset(PAGE_LEN), &[1]).expect("another");
        assert!(!scratch.was_short() && scratch.write_at(HostOffset(0), &[1]).is_err());
        assert!(other.was_short());
        other.set_len(0).expect("room again");
        scratch.write_at(HostOffset(0), &[1; PAGE]).expect("a page");
        scratch.write_at(HostOffset(1 << 40), &[1]).expect("another");
        scratch.write_at(HostOffset(5), &[2; 100]).expect("the same again");
        assert!(scratch.write_at(HostOffset(PAGE_LEN), &[1]).is_err());
    }
}
