//! Decoded units, kept for the next small read of the same unit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_storage::HostOffset;

use crate::GuestOffset;

const SHARDS: usize = 8;

/// Which bytes a decoded unit was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitKey {
    pub(crate) layer: usize,
    pub(crate) unit: GuestOffset,
    pub(crate) at: HostOffset,
    pub(crate) len: usize,
    /// The image's [generation](crate::Lease::generation): bytes at the same place in another
    /// generation may be others.
    pub(crate) generation: u64,
}

/// A bounded cache: the unit that came in first goes first.
#[derive(Debug)]
pub(crate) struct DecodedCache {
    shards: [Mutex<Shard>; SHARDS],
    bytes_per_shard: usize,
}

#[derive(Debug, Default)]
struct Shard {
    units: VecDeque<(UnitKey, Arc<[u8]>)>,
    bytes: usize,
}

impl DecodedCache {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { shards: Default::default(), bytes_per_shard: bytes / SHARDS }
    }

    /// An empty one with the same budget.
    pub(crate) fn of_same_size(&self) -> Self {
        Self { shards: Default::default(), bytes_per_shard: self.bytes_per_shard }
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
    }

    pub(crate) fn get(&self, key: &UnitKey) -> Option<Arc<[u8]>> {
        let shard = self.shard(key);
        shard.units.iter().find(|(other, _)| other == key).map(|(_, bytes)| Arc::clone(bytes))
    }

    pub(crate) fn put(&self, key: UnitKey, bytes: &Arc<[u8]>) {
        let mut shard = self.shard(&key);
        shard.units.push_back((key, Arc::clone(bytes)));
        shard.bytes += bytes.len();
        // The newest stays even if it alone is over the budget: its reader comes back soon.
        while shard.bytes > self.bytes_per_shard && shard.units.len() > 1 {
            if let Some((_, oldest)) = shard.units.pop_front() {
                shard.bytes -= oldest.len();
            }
        }
    }

    fn shard(&self, key: &UnitKey) -> MutexGuard<'_, Shard> {
        let hash = (key.unit.get() >> 9).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61;
        let index = usize::try_from(hash).unwrap_or(0) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
