//! A store that remembers what was asked of it.

use std::sync::{Arc, Mutex, PoisonError};

use anydisk_storage::Storage;

use super::tap::{Ruling, Tap, Tapped};
use super::{Call, Kind};

/// A store that remembers every call, in order. Clones share the memory.
pub type RecordingStorage = Tapped<Recorder>;

/// The calls so far.
#[derive(Debug, Default)]
pub struct Recorder {
    calls: Mutex<Vec<Call>>,
}

impl RecordingStorage {
    /// A store over `inner` with nothing recorded.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self::with_tap(inner, Recorder::default())
    }

    /// The calls since the last time they were taken.
    #[must_use]
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.tap().calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The calls of one kind since the last time they were taken; the others are forgotten.
    #[must_use]
    pub fn take_kind(&self, kind: Kind) -> Vec<Call> {
        self.take().into_iter().filter(|call| call.kind == kind).collect()
    }
}

impl Tap for Recorder {
    fn rule(&self, call: &Call) -> Ruling {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(*call);
        Ruling::Pass
    }
}

#[cfg(test)]
mod tests {
    use anydisk_storage::{HostOffset, MemoryStorage};

    use super::*;

    #[test]
    fn calls_are_remembered_in_their_order_with_their_places() {
        let store = RecordingStorage::new(Arc::new(MemoryStorage::default()));
        store.write_at(HostOffset(0x200), &[1; 16]).unwrap();
        store.flush().unwrap();
        store.set_len(4096).unwrap();
        store.space().unwrap().zero(HostOffset(0), 512, true).unwrap();
        let calls: Vec<String> = store.take().iter().map(Call::to_string).collect();
        assert_eq!(
            calls,
            ["write 0x10 at 0x200", "flush", "set the length to 0x1000", "zero 0x200 at 0x0"]
        );
        assert!(store.take().is_empty());
    }
}
