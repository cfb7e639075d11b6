//! Encryption keyed by the guest's sectors, where a store has only its own positions.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use anydisk_storage::{HostOffset, Storage};

use crate::{EncryptedStorage, Error, PastEnd, Result, SECTOR, SectorCipher};

/// Views of an encrypted store in which a sector's number is that of the guest's sector it holds
/// (the legacy encryption of qcow and qcow2). For each distance between guest and host there is a
/// view of its own, made when it is first asked for.
///
/// A view lives as long as this, so that a map can lend it. Their number is limited: an image with
/// more distances than that is refused where it has one more.
#[derive(Debug)]
pub struct ByGuest {
    /// Of distance 0, which the others are made from.
    base: EncryptedStorage,
    chains: Box<[OnceLock<Box<View>>]>,
    hasher: RandomState,
    count: AtomicUsize,
}

#[derive(Debug)]
struct View {
    first: u64,
    store: Arc<dyn Storage>,
    next: OnceLock<Box<View>>,
}

/// Lists that views are spread over.
const CHAINS: usize = 4096;

/// Most views: some 200 bytes each.
const LIMIT: usize = 1 << 18;

impl ByGuest {
    /// Views of `store`; see [`EncryptedStorage::new`].
    #[must_use]
    pub fn new(store: Arc<dyn Storage>, cipher: SectorCipher, past_end: PastEnd) -> Self {
        Self {
            base: EncryptedStorage::new(store, cipher, 0, past_end),
            chains: (0..CHAINS).map(|_| OnceLock::new()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
        }
    }

    /// The view in which the sector at `host` has the number of the one at guest offset `guest`.
    /// Both begin a sector.
    ///
    /// # Errors
    /// [`Error::Limit`] for one distance too many.
    pub fn at(&self, guest: u64, host: HostOffset) -> Result<&Arc<dyn Storage>> {
        let first = (guest / SECTOR).wrapping_sub(host.get() / SECTOR);
        let hash = usize::try_from(self.hasher.hash_one(first) % CHAINS as u64).unwrap_or(0);
        let mut place = &self.chains[hash];
        loop {
            let view = match place.get() {
                Some(view) => view,
                None => {
                    let new = self.new_view(first)?;
                    place.get_or_init(|| new)
                }
            };
            if view.first == first {
                return Ok(&view.store);
            }
            place = &view.next;
        }
    }

    fn new_view(&self, first: u64) -> Result<Box<View>> {
        let count = self.count.fetch_add(1, Relaxed);
        if count >= LIMIT {
            self.count.fetch_sub(1, Relaxed);
            let (found, limit) = (count as u64 + 1, LIMIT as u64);
            return Err(Error::Limit { what: "distances of guest and host", found, limit });
        }
        let store = Arc::new(self.base.renumbered(first));
        Ok(Box::new(View { first, store, next: OnceLock::new() }))
    }
}

#[cfg(test)]
mod tests {
    use anydisk_storage::{MemoryStorage, StorageExt};

    use super::*;

    #[test]
    fn each_distance_has_one_view_with_the_numbers_of_the_guest() {
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(vec![0; 1 << 20]));
        let views =
            ByGuest::new(Arc::clone(&store), SectorCipher::legacy(b"x"), PastEnd::Ciphertext);
        for number in 0..10_000_u64 {
            let guest = number * 1024;
            let view = views.at(guest, HostOffset(512)).unwrap();
            let again = views.at(guest + 4096, HostOffset(512 + 4096)).unwrap();
            assert!(Arc::ptr_eq(view, again));
        }
        for (guest, host) in [(0, 8192), (1 << 40, 0), (512, 4096)] {
            views
                .at(guest, HostOffset(host))
                .unwrap()
                .write_at(HostOffset(host), &[5; 512])
                .unwrap();
            let mut plain = vec![5; 512];
            SectorCipher::legacy(b"x").encrypt(guest / 512, &mut plain);
            let mut found = vec![0; 512];
            store.read_exact_at(HostOffset(host), &mut found).unwrap();
            assert_eq!(found, plain);
        }
    }
}
