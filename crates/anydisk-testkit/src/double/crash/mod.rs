//! Power failure: what may be on the medium when the power goes.

mod change;
mod states;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_storage::{Error, Holes, HostOffset, Identity, MemoryStorage, Result, Space, Storage};

pub use self::states::{CrashState, CrashStates};

use self::change::Change;
use super::joined;

/// A store in memory that remembers every change and every flush, and can then show each state in
/// which a power failure may leave it.
///
/// ```text
///   write a, write b, flush, write c, set_len d, write e, (power fails)
///   `---- durable --------'  `--- any subset of these ------'
/// ```
///
/// What was changed before a flush is there. Of the changes behind the last flush any subset may
/// be, each write as a whole ([`states`](Self::states)) or cut at any multiples of 512 bytes
/// ([`torn_states`](Self::torn_states)). Discarded bytes read as garbage, since they may.
///
/// Clones share the store, so a test keeps one and gives the other away:
///
/// ```
/// use std::sync::Arc;
/// use anydisk_storage::{HostOffset, Storage};
/// use anydisk_testkit::double::CrashStorage;
///
/// let crash = CrashStorage::new();
/// crash.write_at(HostOffset(0), b"data")?;
/// crash.flush()?;
/// crash.mark(); // "the flush was acknowledged"
/// crash.write_at(HostOffset(0), b"more")?;
/// for state in crash.states(100, 1) {
///     let store = state.storage();
///     if state.marks() > 0 {
///         assert!(store.len()? >= 4, "lost what was flushed: {state}");
///     }
/// }
/// # Ok::<(), anydisk_storage::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrashStorage {
    log: Arc<Mutex<Log>>,
    has_space: bool,
    live: Arc<MemoryStorage>,
}

#[derive(Debug, Default)]
struct Log {
    /// What the store held when it was made.
    start: Arc<[u8]>,
    events: Vec<Event>,
    marks: usize,
    /// Bytes of each of its media, if it has several.
    medium: Option<u64>,
}

#[derive(Clone, Debug)]
enum Event {
    Change(Arc<Change>),
    /// Of one medium, or of all.
    Flush(Option<u64>),
    Mark,
}

impl Default for CrashStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl CrashStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Vec::new())
    }

    /// A store on whose medium `bytes` are already.
    #[must_use]
    pub fn over(bytes: Vec<u8>) -> Self {
        let log = Log { start: Arc::from(&*bytes), ..Log::default() };
        let live = Arc::new(MemoryStorage::new(bytes));
        Self { log: Arc::new(Mutex::new(log)), has_space: true, live }
    }

    /// The same store on a medium that can neither zero nor discard.
    #[must_use]
    pub fn without_space(mut self) -> Self {
        self.has_space = false;
        self
    }

    /// The same on several media of `len` bytes each, as several files are: each keeps and loses its
    /// changes by itself. A flush is one of all media; an empty write is a flush of the medium that
    /// it lies in. The length of the store is that of all media together, and at once durable.
    #[must_use]
    pub fn with_media(self, len: u64) -> Self {
        self.log().medium = Some(len);
        self
    }

    /// Notes a moment, usually that a flush of the image was acknowledged. Each state tells how
    /// many such moments had passed. Returns their number so far, this one included.
    pub fn mark(&self) -> usize {
        let mut log = self.log();
        log.events.push(Event::Mark);
        log.marks += 1;
        log.marks
    }

    /// Changes since the last flush: the size of the problem.
    ///
    /// # Panics
    /// If the store has several media, each with a last flush of its own.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        let log = self.log();
        assert!(log.medium.is_none(), "of several media");
        let since = log.events.iter().rev().take_while(|event| !matches!(event, Event::Flush(_)));
        since.filter(|event| matches!(event, Event::Change(_))).count()
    }

    /// The most changes that there were between two flushes: with a limit of that many powers of two
    /// the [states](Self::states) are all there are.
    ///
    /// # Panics
    /// As [`unflushed`](Self::unflushed).
    #[must_use]
    pub fn longest_stretch(&self) -> usize {
        let log = self.log();
        assert!(log.medium.is_none(), "of several media");
        let stretches = log.events.split(|event| matches!(event, Event::Flush(_)));
        let is_change = |event: &&Event| matches!(event, Event::Change(_));
        stretches.map(|stretch| stretch.iter().filter(is_change).count()).max().unwrap_or(0)
    }

    /// The states in which a power failure may leave the medium, writes being kept or lost whole.
    ///
    /// For each stretch between two flushes: all subsets of its changes if there are at most
    /// `limit`, else `limit` of them, the nastiest ones first and then random ones of `seed`. A
    /// failure in the middle of a stretch leaves nothing that is not among them.
    #[must_use]
    pub fn states(&self, limit: usize, seed: u64) -> CrashStates {
        CrashStates::new(&self.log(), limit, seed, false)
    }

    /// As [`states`](Self::states), and each write may also be kept in part, in whole sectors of
    /// 512 bytes.
    #[must_use]
    pub fn torn_states(&self, limit: usize, seed: u64) -> CrashStates {
        CrashStates::new(&self.log(), limit, seed, true)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change and remembers it; both under the lock, so that the order is the same.
    fn change(&self, change: Change) -> Result<()> {
        let mut log = self.log();
        change.apply(&self.live)?;
        log.events.push(Event::Change(Arc::new(change)));
        Ok(())
    }

    /// How many of `len` bytes at `at` lie inside the store.
    fn inside(&self, at: HostOffset, len: u64) -> Result<u64> {
        Ok(len.min(self.live.len()?.saturating_sub(at.get())))
    }
}

impl Storage for CrashStorage {
    fn len(&self) -> Result<u64> {
        self.live.len()
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        self.live.read_at(at, buf)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            let mut log = self.log();
            if let Some(len) = log.medium {
                log.events.push(Event::Flush(Some(at.get() / len)));
            }
            return Ok(());
        }
        self.change(Change::Write { at, data: data.to_vec() })
    }

    fn write_vectored_at(&self, at: HostOffset, data: &[std::io::IoSlice<'_>]) -> Result<()> {
        self.write_at(at, &joined(data))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(Change::SetLen { len })
    }

    fn flush(&self) -> Result<()> {
        self.log().events.push(Event::Flush(None));
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "crash"
    }

    fn holes(&self) -> Option<&dyn Holes> {
        self.live.holes()
    }

    fn space(&self) -> Option<&dyn Space> {
        self.has_space.then_some(self)
    }

    fn identity(&self) -> Option<Identity> {
        self.live.identity()
    }
}

impl Space for CrashStorage {
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> Result<()> {
        match self.inside(at, len)? {
            0 => Ok(()),
            len => self.change(Change::Zero { at, len, unmap }),
        }
    }

    fn discard(&self, at: HostOffset, len: u64) -> Result<()> {
        match self.inside(at, len)? {
            0 => Ok(()),
            len => self.change(Change::Discard { at, len }),
        }
    }

    fn allocate(&self, at: HostOffset, len: u64) -> Result<()> {
        let end = at.checked_add(len).ok_or_else(|| Error::OutOfRange {
            store: self.name().into(),
            at,
            len,
            end: u64::MAX,
        })?;
        if len == 0 || end.get() <= self.live.len()? {
            return Ok(());
        }
        self.change(Change::Grow { len: end.get() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use anydisk_storage::StorageExt;

    use super::*;

    fn contents(states: CrashStates) -> BTreeSet<Vec<u8>> {
        states.map(|state| state.storage().to_vec()).collect()
    }

    #[test]
    fn flushed_bytes_are_in_every_later_state_and_of_the_rest_each_subset_is_there_once() {
        let crash = CrashStorage::new();
        crash.write_at(HostOffset(0), b"aaa").unwrap();
        crash.flush().unwrap();
        crash.write_at(HostOffset(0), b"b").unwrap();
        crash.write_at(HostOffset(2), b"c").unwrap();
        let last: BTreeSet<_> = crash
            .states(100, 1)
            .filter(|state| state.flushes() == 1)
            .map(|state| state.storage().to_vec())
            .collect();
        let expected = [b"aaa", b"baa", b"aac", b"bac"].map(|bytes| bytes.to_vec());
        assert_eq!(last, BTreeSet::from(expected));
        assert_eq!(crash.states(100, 1).count(), 2 + 4);
    }

    #[test]
    fn a_later_write_to_the_same_place_wins_where_both_are_kept() {
        let crash = CrashStorage::new();
        crash.write_at(HostOffset(0), b"a").unwrap();
        crash.write_at(HostOffset(0), b"b").unwrap();
        let expected = [&b""[..], b"a", b"b"].map(<[u8]>::to_vec);
        assert_eq!(contents(crash.states(100, 1)), BTreeSet::from(expected));
    }

    #[test]
    fn lengths_and_zeroes_are_lost_like_writes() {
        let crash = CrashStorage::over(b"xy".to_vec());
        crash.set_len(3).unwrap();
        crash.zero(HostOffset(0), 1, true).unwrap();
        let expected = [&b"xy"[..], b"\0y", b"xy\0", b"\0y\0"].map(<[u8]>::to_vec);
        assert_eq!(contents(crash.states(100, 1)), BTreeSet::from(expected));
    }

    #[test]
    fn a_torn_write_is_cut_at_multiples_of_512_bytes_of_the_store_only() {
        let crash = CrashStorage::over(vec![0; 1024]);
        crash.write_at(HostOffset(500), &[1; 24]).unwrap();
        let sums: BTreeSet<usize> = contents(crash.torn_states(100, 1))
            .iter()
            .map(|bytes| bytes.iter().map(|byte| usize::from(*byte)).sum())
            .collect();
        assert_eq!(sums, BTreeSet::from([0, 12, 24]));
        assert_eq!(contents(crash.states(100, 1)).len(), 2);
    }

    #[test]
    fn many_changes_give_as_many_states_as_asked_for_the_extremes_among_them() {
        let crash = CrashStorage::over(vec![0; 64]);
        for at in 0..64 {
            crash.write_at(HostOffset(at), &[1]).unwrap();
        }
        let states = contents(crash.states(200, 5));
        assert!(states.len() > 150, "{}", states.len());
        assert!(states.contains(&vec![0; 64]) && states.contains(&vec![1; 64]));
        assert_eq!(crash.states(200, 5).count(), 200);
        assert_eq!(states, contents(crash.states(200, 5)), "the seed decides");
    }

    #[test]
    fn each_of_several_media_is_flushed_by_itself() {
        let crash = CrashStorage::over(vec![0; 4]).with_media(2);
        crash.write_at(HostOffset(0), b"a").unwrap();
        crash.write_at(HostOffset(2), b"b").unwrap();
        crash.write_at(HostOffset(3), b"").unwrap();
        crash.write_at(HostOffset(1), b"c").unwrap();
        let states = |flushes| -> BTreeSet<Vec<u8>> {
            let of = crash.states(100, 1).filter(|state| state.flushes() == flushes);
            of.map(|state| state.storage().to_vec()).collect()
        };
        let expected = [b"\0\0b\0", b"a\0b\0", b"\0cb\0", b"acb\0"].map(|bytes| bytes.to_vec());
        assert_eq!(states(1), BTreeSet::from(expected));
        assert_eq!(states(0).len(), 4);
    }

    #[test]
    fn a_mark_counts_from_its_moment_on() {
        let crash = CrashStorage::new();
        crash.write_at(HostOffset(0), b"a").unwrap();
        crash.flush().unwrap();
        assert_eq!(crash.mark(), 1);
        let seen: BTreeSet<_> =
            crash.states(100, 1).map(|state| (state.flushes(), state.marks())).collect();
        assert_eq!(seen, BTreeSet::from([(0, 0), (1, 1)]));
    }

    #[test]
    fn a_discard_leaves_neither_the_old_bytes_nor_zeroes() {
        let crash = CrashStorage::over(vec![7; 100]);
        crash.discard(HostOffset(10), 1000).unwrap();
        let mut bytes = [0; 100];
        crash.read_exact_at(HostOffset(0), &mut bytes).unwrap();
        assert_eq!(bytes[..10], [7; 10]);
        assert!(bytes[10..].iter().all(|byte| *byte != 7 && *byte != 0));
    }

    #[test]
    fn allocating_grows_but_never_shrinks() {
        let crash = CrashStorage::over(vec![7; 100]);
        crash.allocate(HostOffset(0), 50).unwrap();
        assert_eq!(crash.unflushed(), 0);
        crash.allocate(HostOffset(50), 100).unwrap();
        assert_eq!(crash.len().unwrap(), 150);
    }
}
