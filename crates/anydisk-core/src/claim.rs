//! Claims: who is changing the mapping of which part of the disk.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::GuestRange;

/// The guest ranges whose mapping is being changed by someone. A claim is on units, not on the
/// image: everything else goes on meanwhile, also reading the claimed range.
#[derive(Debug, Default)]
pub struct Claims {
    held: Mutex<Vec<GuestRange>>,
    released: Condvar,
}

impl Claims {
    /// Claims `range` unless someone has claimed part of it.
    #[must_use]
    pub fn try_claim(&self, range: GuestRange) -> bool {
        let mut held = self.lock();
        let free = !held.iter().any(|other| other.overlaps(range));
        if free {
            held.push(range);
        }
        free
    }

    /// Claims `range`, waiting for others to finish.
    pub fn claim(&self, range: GuestRange) {
        while !self.try_claim(range) {
            self.wait(range);
        }
    }

    /// Gives a claim back.
    pub fn release(&self, range: GuestRange) {
        let mut held = self.lock();
        if let Some(index) = held.iter().position(|other| *other == range) {
            held.swap_remove(index);
        }
        drop(held);
        self.released.notify_all();
    }

    /// Returns once nobody claims any part of `range`; by then someone may have claimed it again.
    pub fn wait(&self, range: GuestRange) {
        let mut held = self.lock();
        while held.iter().any(|other| other.overlaps(range)) {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<GuestRange>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_meet_only_where_they_overlap() {
        let range = |start, len| GuestRange::new(crate::GuestOffset(start), len).expect("small");
        let claims = Claims::default();
        assert!(claims.try_claim(range(0, 10)));
        assert!(claims.try_claim(range(10, 10)));
        assert!(!claims.try_claim(range(9, 2)));
        claims.release(range(0, 10));
        assert!(claims.try_claim(range(0, 5)));
    }
}
