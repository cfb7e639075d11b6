//! A store that fails when it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_storage::Storage;

use super::tap::{Ruling, Tap, Tapped};
use super::{Call, Kind};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A store that fails when it is told to, and works otherwise.
///
/// A write that fails has written the first half of its bytes, as the trait allows. Clones share
/// the plan, so a test keeps one and gives the other away.
pub type FaultStorage = Tapped<Faults>;

/// What is to fail.
#[derive(Debug, Default)]
pub struct Faults {
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    /// The call with this number fails.
    call: Option<u64>,
    /// Calls of these kinds fail from this number of their kind on.
    kinds: HashMap<Kind, u64>,
    /// Bytes that can still be written before the store is full.
    room: Option<u64>,
    /// Reads find the end of the store here.
    end: Option<u64>,
    calls: u64,
    calls_of: HashMap<Kind, u64>,
    failed: Vec<Kind>,
}

impl FaultStorage {
    /// A store over `inner` that does not fail yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self::with_tap(inner, Faults::default())
    }

    /// The `number`-th call from now, counted from 0, fails, whatever it is, and only that one.
    pub fn fail_call(&self, number: u64) {
        let mut plan = self.tap().plan();
        plan.call = Some(plan.calls + number);
    }

    /// From the `number`-th call of this kind from now on, counted from 0, all of the kind fail.
    pub fn fail_from(&self, kind: Kind, number: u64) {
        let mut plan = self.tap().plan();
        let first = plan.calls_of.get(&kind).copied().unwrap_or(0) + number;
        plan.kinds.insert(kind, first);
    }

    /// After `bytes` more bytes the store is full: writes and allocations fail with `ENOSPC`, and
    /// the first of them has written what fitted.
    pub fn fill_up_after(&self, bytes: u64) {
        self.tap().plan().room = Some(bytes);
    }

    /// Reads find the end of the store at `len`, as if another process had cut the file.
    pub fn end_reads_at(&self, len: u64) {
        self.tap().plan().end = Some(len);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut plan = self.tap().plan();
        let Plan { calls, calls_of, failed, .. } = std::mem::take(&mut *plan);
        *plan = Plan { calls, calls_of, failed, ..Plan::default() };
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.tap().plan().calls
    }

    /// Calls so far that were made to fail.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed_kinds().len() as u64
    }

    /// What the calls were that were made to fail, in order.
    #[must_use]
    pub fn failed_kinds(&self) -> Vec<Kind> {
        self.tap().plan().failed.clone()
    }
}

impl Faults {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap for Faults {
    fn rule(&self, call: &Call) -> Ruling {
        let mut plan = self.plan();
        let ruling = plan.rule(call);
        if matches!(ruling, Ruling::Fail { .. }) {
            plan.failed.push(call.kind);
        }
        ruling
    }
}

impl Plan {
    fn rule(&mut self, call: &Call) -> Ruling {
        let number = self.calls;
        let of_kind = self.calls_of.entry(call.kind).or_default();
        let number_of_kind = *of_kind;
        self.calls += 1;
        *of_kind += 1;
        let kind_fails = self.kinds.get(&call.kind).is_some_and(|first| number_of_kind >= *first);
        if self.call == Some(number) || kind_fails {
            return Ruling::Fail { after: call.len / 2, errno: EIO };
        }
        match call.kind {
            Kind::Write | Kind::Allocate => self.take_room(call.len),
            Kind::Read => self.end_read(call),
            _ => Ruling::Pass,
        }
    }

    fn take_room(&mut self, len: u64) -> Ruling {
        let Some(room) = &mut self.room else { return Ruling::Pass };
        let fits = len.min(*room);
        *room -= fits;
        if fits == len { Ruling::Pass } else { Ruling::Fail { after: fits, errno: ENOSPC } }
    }

    fn end_read(&self, call: &Call) -> Ruling {
        match self.end {
            Some(end) => Ruling::Short(end.saturating_sub(call.at.get()).min(call.len)),
            None => Ruling::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use anydisk_storage::{Error, HostOffset, MemoryStorage};

    use super::*;

    fn store() -> FaultStorage {
        FaultStorage::new(Arc::new(MemoryStorage::new(vec![1; 1024])))
    }

    fn read(store: &FaultStorage) -> anydisk_storage::Result<usize> {
        store.read_at(HostOffset(512), &mut [0; 512])
    }

    #[test]
    fn only_the_call_of_the_number_fails_and_names_itself() {
        let store = store();
        store.fail_call(1);
        read(&store).unwrap();
        let error = read(&store).unwrap_err();
        assert!(error.to_string().starts_with("memory: cannot read 512 bytes at 0x200"), "{error}");
        read(&store).unwrap();
        assert_eq!((store.calls(), store.failed()), (3, 1));
    }

    #[test]
    fn a_kind_fails_from_its_number_on_until_the_store_is_healed() {
        let store = store();
        store.fail_from(Kind::Flush, 1);
        store.flush().unwrap();
        assert!(store.flush().is_err() && store.flush().is_err());
        read(&store).unwrap();
        store.heal();
        store.flush().unwrap();
    }

    #[test]
    fn a_write_that_fails_has_written_its_first_half() {
        let store = store();
        store.fail_from(Kind::Write, 0);
        store.write_at(HostOffset(0), &[2; 8]).unwrap_err();
        let mut bytes = [0; 8];
        store.read_at(HostOffset(0), &mut bytes).unwrap();
        assert_eq!(bytes, [2, 2, 2, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn a_full_store_takes_what_fits_and_says_so() {
        let store = store();
        store.fill_up_after(10);
        store.write_at(HostOffset(0), &[2; 8]).unwrap();
        let error = store.write_at(HostOffset(8), &[2; 8]).unwrap_err();
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
        let mut bytes = [0; 12];
        store.read_at(HostOffset(0), &mut bytes).unwrap();
        assert_eq!(bytes, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
        assert!(matches!(store.write_at(HostOffset(0), &[3]), Err(Error::Io(_))));
    }

    #[test]
    fn reads_end_where_they_are_told_to() {
        let store = store();
        store.end_reads_at(700);
        assert_eq!(read(&store).unwrap(), 188);
        assert_eq!(store.read_at(HostOffset(700), &mut [0; 8]).unwrap(), 0);
    }
}
