//! Claims: who is changing the mapping of which part of the disk.

use std::sync::PoisonError;
use std::task::Waker;

use crate::GuestRange;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The guest ranges whose mapping is being changed by someone. A claim is on units, not on the
/// image: everything else goes on meanwhile, also reading the claimed range.
///
/// Claim first, **then** look at the mapping: a look before the claim may be out of date. A format
/// holds a [`Claim`] while it looks and [keeps](Claim::keep) it when it hands out the reservation;
/// its `try_commit` and `abandon` [release](Self::release) the range.
#[derive(Debug, Default)]
pub struct Claims {
    state: Mutex<State>,
    released: Condvar,
}

/// A claim that ends when it is dropped, so that no early return forgets it.
#[derive(Debug)]
#[must_use]
pub struct Claim<'a> {
    claims: &'a Claims,
    range: GuestRange,
}

impl Claim<'_> {
    /// What is claimed.
    #[must_use]
    pub const fn range(&self) -> GuestRange {
        self.range
    }

    /// Gives back what lies outside of `to`, which is a part of what is claimed.
    pub fn narrow(&mut self, to: GuestRange) {
        debug_assert!(self.range.contains(to), "a claim grows by claiming only");
        if to != self.range {
            self.claims.replace(self.range, Some(to));
            self.range = to;
        }
    }

    /// Lets the claim outlive this value: a reservation holds it from here on, and whoever commits
    /// or abandons that [releases](Claims::release) the range.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.release(self.range);
    }
}

#[derive(Debug, Default)]
struct State {
    held: Vec<GuestRange>,
    /// Claimed as soon as nobody holds any part of them.
    promised: Vec<GuestRange>,
    waiting: Vec<(GuestRange, Waker)>,
    /// Threads that sleep until something is released: waking nobody is a system call all the same.
    asleep: usize,
}

impl State {
    fn is_free(&self, range: GuestRange) -> bool {
        !self.is_held(range) && !self.is_promised(range)
    }

    fn is_held(&self, range: GuestRange) -> bool {
        self.held.iter().any(|other| other.overlaps(range))
    }

    fn is_promised(&self, range: GuestRange) -> bool {
        self.promised.iter().any(|other| other.overlaps(range))
    }
}

impl Claims {
    /// Claims `range` unless someone has claimed part of it.
    #[must_use]
    pub fn try_claim(&self, range: GuestRange) -> bool {
        let mut state = self.lock();
        let free = state.is_free(range);
        if free {
            state.held.push(range);
        }
        free
    }

    /// Claims `range`, waiting for others to finish.
    pub fn claim(&self, range: GuestRange) {
        while !self.try_claim(range) {
            self.wait(range);
        }
    }

    /// As [`try_claim`](Self::try_claim); the claim ends with the answer.
    pub fn try_hold(&self, range: GuestRange) -> Option<Claim<'_>> {
        // Lazily: a claim that is made only to be dropped would end the one that is held.
        self.try_claim(range).then(|| Claim { claims: self, range })
    }

    /// As [`claim`](Self::claim); the claim ends with the answer.
    pub fn hold(&self, range: GuestRange) -> Claim<'_> {
        self.claim(range);
        Claim { claims: self, range }
    }

    /// As [`hold`](Self::hold), and whoever comes later waits: a claim on much of the disk would
    /// else never find all of it free. Who holds a claim already must not wait for another one
    /// meanwhile.
    pub fn hold_before_others(&self, range: GuestRange) -> Claim<'_> {
        let mut state = self.sleep_while(self.lock(), |state| state.is_promised(range));
        state.promised.push(range);
        let mut state = self.sleep_while(state, |state| state.is_held(range));
        state.promised.retain(|other| *other != range);
        state.held.push(range);
        Claim { claims: self, range }
    }

    /// Gives a claim back, and tells whoever waits for it.
    pub fn release(&self, range: GuestRange) {
        self.replace(range, None);
    }

    /// Ends the claim on `range`, or narrows it, and tells whoever waits for what is free now.
    fn replace(&self, range: GuestRange, by: Option<GuestRange>) {
        let mut state = self.lock();
        if let Some(index) = state.held.iter().position(|other| *other == range) {
            state.held.swap_remove(index);
            state.held.extend(by);
        }
        let waiting = std::mem::take(&mut state.waiting);
        let (told, waiting) = waiting.into_iter().partition(|(wanted, _)| state.is_free(*wanted));
        state.waiting = waiting;
        let asleep = state.asleep;
        drop(state);
        if asleep > 0 {
            self.released.notify_all();
        }
        let told: Vec<(GuestRange, Waker)> = told;
        told.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Gives back all of the claim `from` but `to`, which is a part of it.
    pub fn shrink(&self, from: GuestRange, to: GuestRange) {
        if from == to {
            return;
        }
        // Both are held for a moment, so that nobody gets in between.
        self.lock().held.push(to);
        self.release(from);
    }

    /// Returns once nobody claims any part of `range`; by then someone may have claimed it again.
    pub fn wait(&self, range: GuestRange) {
        drop(self.sleep_while(self.lock(), |state| !state.is_free(range)));
    }

    fn sleep_while<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        state.asleep += 1;
        while condition(&state) {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep -= 1;
        state
    }

    /// Has `waker` woken once nobody claims any part of `range`. False, and it will not be woken, if
    /// that is so already.
    #[must_use]
    pub fn notify(&self, range: GuestRange, waker: Waker) -> bool {
        let mut state = self.lock();
        let busy = !state.is_free(range);
        if busy {
            state.waiting.push((range, waker));
        }
        busy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[test]
    fn a_narrowed_claim_leaves_the_rest_to_others_and_ends_with_its_value() {
        let range = |start, len| GuestRange::new(crate::GuestOffset(start), len).expect("small");
        let claims = Claims::default();
        let mut claim = claims.hold(range(0, 10));
        claim.narrow(range(2, 4));
        assert!(claims.try_claim(range(0, 2)));
        assert!(claims.try_claim(range(6, 4)));
        assert!(!claims.try_claim(range(5, 1)));
        drop(claim);
        assert!(claims.try_claim(range(2, 4)));
    }

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

    #[test]
    fn a_claim_on_everything_is_not_kept_waiting_by_those_who_come_later() {
        let range = |start, len| GuestRange::new(crate::GuestOffset(start), len).expect("small");
        let claims = Claims::default();
        let first = claims.hold(range(0, 1));
        std::thread::scope(|scope| {
            let all = scope.spawn(|| drop(claims.hold_before_others(range(0, 100))));
            while claims.try_hold(range(5, 1)).is_some() {
                std::thread::yield_now();
            }
            assert!(!all.is_finished());
            drop(first);
            all.join().expect("it gets its turn");
        });
        assert!(claims.try_claim(range(5, 1)));
    }

    #[test]
    fn a_held_claim_ends_when_it_is_dropped_and_a_kept_one_when_it_is_released() {
        let range = GuestRange::whole(10);
        let claims = Claims::default();
        let held = claims.try_hold(range).expect("nobody else");
        assert!(claims.try_hold(range).is_none());
        assert!(!claims.try_claim(range), "a refused claim took the held one with it");
        drop(held);
        claims.hold(range).keep();
        assert!(!claims.try_claim(range));
        claims.release(range);
        assert!(claims.try_claim(range));
    }

    #[test]
    fn a_waker_is_woken_when_its_range_is_free_and_not_before() {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Relaxed);
            }
        }
        let range = |start, len| GuestRange::new(crate::GuestOffset(start), len).expect("small");
        let claims = Claims::default();
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        assert!(claims.try_claim(range(0, 4)) && claims.try_claim(range(4, 4)));
        assert!(claims.notify(range(0, 8), Arc::clone(&flag).into()));
        claims.release(range(0, 4));
        assert!(!flag.0.load(Relaxed));
        claims.release(range(4, 4));
        assert!(flag.0.load(Relaxed));
        assert!(!claims.notify(range(0, 8), flag.into()));
    }
}
