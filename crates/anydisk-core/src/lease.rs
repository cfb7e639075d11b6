//! Leases: the right to use a mapped extent a little longer than the call that mapped it.
//!
//! A reader maps a guest range to a place in a file, and then reads there. Between the two another
//! thread may discard the range and a third may be given the place for other data. So whoever maps
//! holds a [`Lease`], and space that is freed waits in a [`Quarantine`] until every lease that was
//! taken before is gone, and until the metadata that freed it is durable.
//!
//! ```text
//!   epoch e      lease lease ........ retire(space)      space is stamped e
//!   epoch e+1    lease ...            (needs: no lease of epoch e-1)
//!   epoch e+2                         (needs: no lease of epoch e)   space may be used again
//! ```
//!
//! Taking and dropping a lease is one atomic addition each, on a counter that other threads rarely
//! share; there is no lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU64, Ordering::SeqCst, fence};
use crate::sync::{change_before_look, pause};

/// Counters that threads are spread over, so that two cores do not fight for one cache line.
const STRIPES: usize = if cfg!(anydisk_loom) { 1 } else { 16 };

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

#[derive(Debug, Default)]
struct Shared {
    epoch: AtomicU64,
    /// How often space came back into use; see [`Lease::generation`].
    recycled: AtomicU64,
    /// Live leases of even and of odd epochs: those for reading, then those for writing.
    live: [[Counter; 2 * STRIPES]; 2],
}

/// The leases of one image. Cloning gives another handle to the same leases.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    shared: Arc<Shared>,
}

/// While it lives, space that was in use when it was taken is not given to other data.
#[derive(Debug)]
#[must_use]
pub struct Lease<'a> {
    held: Option<(&'a Leases, usize, usize)>,
}

/// The right to write in place: a [`Lease`], told apart so that whoever makes a place shared (a
/// snapshot) can wait for writers alone.
#[derive(Debug)]
#[must_use]
pub struct WriteLease<'a>(Lease<'a>);

impl<'a> WriteLease<'a> {
    /// For formats: the lease that was taken before the table was read.
    pub const fn new(lease: Lease<'a>) -> Self {
        Self(lease)
    }

    /// A lease on space that always belongs to the range (raw files).
    pub const fn eternal() -> Self {
        Self(Lease::eternal())
    }

    /// The same lease without the borrow.
    pub fn into_owned(self) -> OwnedLease {
        self.0.into_owned()
    }
}

/// A [`Lease`] that borrows nothing, for requests that outlive the stack that made them.
#[derive(Debug)]
#[must_use]
pub struct OwnedLease {
    held: Option<(Leases, usize, usize)>,
}

impl Leases {
    /// No lease yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a lease. Do it **before** reading the table entry that names the space.
    pub fn take(&self) -> Lease<'_> {
        self.take_in(stripe_of_this_thread())
    }

    /// As [`take`](Self::take), for a [`WriteLease`]: the lease is counted apart, so that whoever
    /// makes places shared can [wait](Self::wait_for_writers) for those who write in place.
    pub fn take_to_write(&self) -> Lease<'_> {
        self.take_in(STRIPES + stripe_of_this_thread())
    }

    /// Returns when no lease [to write](Self::take_to_write) is alive.
    ///
    /// The caller has seen to it that nobody keeps a new one: whoever takes one looks at a flag of
    /// the caller's afterwards and drops it again. Both sides order their steps by `SeqCst`.
    pub fn wait_for_writers(&self) {
        let mut patience = 0_u32;
        let writes = |lease: &Counter| lease.0.load(SeqCst) != 0;
        while self.shared.live.iter().any(|epoch| epoch[STRIPES..].iter().any(writes)) {
            // A write takes as long as its I/O. Nobody is told when it ends: that would cost
            // every write something, for what happens rarely.
            pause(patience);
            patience += 1;
        }
    }

    fn take_in(&self, stripe: usize) -> Lease<'_> {
        loop {
            let epoch = self.shared.epoch.load(SeqCst);
            let parity = usize::from(epoch & 1 == 1);
            let live = &self.shared.live[parity][stripe].0;
            live.fetch_add(1, SeqCst);
            change_before_look();
            if self.shared.epoch.load(SeqCst) == epoch {
                return Lease { held: Some((self, parity, stripe)) };
            }
            // The epoch moved on between the two loads: this lease would not be seen.
            live.fetch_sub(1, SeqCst);
        }
    }

    fn drop_one(&self, parity: usize, stripe: usize) {
        self.shared.live[parity][stripe].0.fetch_sub(1, SeqCst);
    }

    /// The epoch now, read so that whoever takes a lease in a later one sees all that was done
    /// before this call.
    fn stamp(&self) -> u64 {
        self.shared.epoch.fetch_add(0, SeqCst)
    }

    fn epoch(&self) -> u64 {
        self.shared.epoch.load(SeqCst)
    }

    /// Waits until every lease that was taken before is gone. False if some is left after
    /// `patience`.
    #[must_use]
    pub fn wait_for_all(&self, patience: Duration) -> bool {
        let (stamp, begin) = (self.stamp(), Instant::now());
        while self.epoch() < stamp + 2 {
            if self.try_advance() {
                continue;
            }
            if begin.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        true
    }

    /// Moves to the next epoch if no lease of the one before is left.
    fn try_advance(&self) -> bool {
        let epoch = self.shared.epoch.load(SeqCst);
        let before = usize::from(epoch & 1 == 0);
        fence(SeqCst);
        if self.shared.live[before].iter().any(|counter| counter.0.load(SeqCst) != 0) {
            return false;
        }
        // Another quarantine may have moved it meanwhile; the epoch never goes back.
        self.shared.epoch.compare_exchange(epoch, epoch + 1, SeqCst, SeqCst).is_ok()
    }
}

impl Lease<'_> {
    /// A lease on space that is never freed while the image is open (raw files).
    pub const fn eternal() -> Self {
        Lease { held: None }
    }

    /// Changes whenever freed space comes back into use. Bytes once read under a lease are still
    /// those of the same place if the generation, asked **after** mapping, is the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.held.map_or(0, |(leases, ..)| leases.shared.recycled.load(SeqCst))
    }

    /// The same lease without the borrow.
    pub fn into_owned(mut self) -> OwnedLease {
        let held = self.held.take();
        OwnedLease { held: held.map(|(leases, parity, stripe)| (leases.clone(), parity, stripe)) }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some((leases, parity, stripe)) = self.held {
            leases.drop_one(parity, stripe);
        }
    }
}

impl Drop for OwnedLease {
    fn drop(&mut self) {
        if let Some((leases, parity, stripe)) = &self.held {
            leases.drop_one(*parity, *stripe);
        }
    }
}

/// Freed space on its way back into use: `retire` -> `seal` -> `durable` -> `release`.
///
/// The owner keeps it behind a lock of its own.
#[derive(Debug)]
pub struct Quarantine<T> {
    /// Freed in memory; the metadata that freed it is not on the medium yet.
    freed: Vec<T>,
    /// Freed on the medium; each batch with the epoch in which that became known.
    waiting: VecDeque<(u64, Vec<T>)>,
}

/// What was freed before a write-back began. See [`Quarantine::seal`].
#[derive(Debug)]
#[must_use]
pub struct Sealed<T>(Vec<T>);

impl<T> Default for Quarantine<T> {
    fn default() -> Self {
        Self { freed: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<T> Quarantine<T> {
    /// Takes space that no table entry names any more. Call it **after** changing the entry.
    pub fn retire(&mut self, space: T) {
        self.freed.push(space);
    }

    /// Takes what has been retired so far; call it together with taking the picture of the dirty
    /// tables that are about to be written.
    pub fn seal(&mut self) -> Sealed<T> {
        Sealed(std::mem::take(&mut self.freed))
    }

    /// The tables written since `seal` are on the medium.
    pub fn durable(&mut self, leases: &Leases, sealed: Sealed<T>) {
        if !sealed.0.is_empty() {
            self.waiting.push_back((leases.stamp(), sealed.0));
        }
    }

    /// The write-back failed: the space stays where it was.
    pub fn unseal(&mut self, mut sealed: Sealed<T>) {
        sealed.0.append(&mut self.freed);
        self.freed = sealed.0;
    }

    /// Whether anything waits, in any state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.freed.is_empty() && self.waiting.is_empty()
    }

    /// The space that nobody can be using any more.
    #[must_use = "space that is dropped is lost until the image is opened again"]
    pub fn release(&mut self, leases: &Leases) -> Vec<T> {
        let mut free = Vec::new();
        while let Some((stamp, _)) = self.waiting.front() {
            if leases.epoch() < stamp + 2 {
                if !leases.try_advance() {
                    break;
                }
                continue;
            }
            if let Some((_, mut batch)) = self.waiting.pop_front() {
                free.append(&mut batch);
            }
        }
        if !free.is_empty() {
            leases.shared.recycled.fetch_add(1, SeqCst);
        }
        free
    }
}

/// Spreads threads over the counters by where their stacks are: no thread-local, no registration.
/// A bad spread costs speed, never correctness, because a lease remembers its counter.
fn stripe_of_this_thread() -> usize {
    let here = 0_u8;
    let page = std::ptr::from_ref(&here).addr() >> 16;
    (page.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) % STRIPES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freed_on_medium(leases: &Leases) -> Quarantine<u32> {
        let mut quarantine = Quarantine::default();
        quarantine.retire(7);
        let sealed = quarantine.seal();
        quarantine.durable(leases, sealed);
        quarantine
    }

    #[test]
    fn space_comes_back_at_once_when_nobody_holds_a_lease() {
        let leases = Leases::new();
        assert_eq!(freed_on_medium(&leases).release(&leases), [7]);
    }

    #[test]
    fn space_waits_for_a_lease_taken_before_it_was_freed() {
        let leases = Leases::new();
        let lease = leases.take();
        let mut quarantine = freed_on_medium(&leases);
        assert!(quarantine.release(&leases).is_empty());
        drop(lease);
        assert_eq!(quarantine.release(&leases), [7]);
    }

    #[test]
    fn space_does_not_wait_for_a_lease_taken_two_epochs_later() {
        let leases = Leases::new();
        let mut quarantine = freed_on_medium(&leases);
        assert!(leases.try_advance() && leases.try_advance());
        let _late = leases.take();
        assert_eq!(quarantine.release(&leases), [7]);
    }

    #[test]
    fn an_owned_lease_holds_as_the_borrowed_one_did() {
        let leases = Leases::new();
        let lease = leases.take().into_owned();
        let mut quarantine = freed_on_medium(&leases);
        assert!(quarantine.release(&leases).is_empty());
        drop(lease);
        assert_eq!(quarantine.release(&leases), [7]);
    }

    #[test]
    fn what_is_not_durable_never_comes_back() {
        let leases = Leases::new();
        let mut quarantine = Quarantine::default();
        quarantine.retire(7);
        assert!(quarantine.release(&leases).is_empty());
        let sealed = quarantine.seal();
        quarantine.unseal(sealed);
        assert!(quarantine.release(&leases).is_empty());
    }

    #[test]
    fn whoever_waits_for_writers_does_not_wait_for_readers() {
        let leases = Leases::new();
        let _reader = leases.take();
        leases.wait_for_writers();
        let writer = leases.take_to_write();
        let (sent, received) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                leases.wait_for_writers();
                sent.send(()).expect("someone listens");
            });
            let soon = Duration::from_millis(20);
            assert!(received.recv_timeout(soon).is_err(), "it did not wait");
            drop(writer);
            received.recv().expect("it waited for ever");
        });
    }

    #[test]
    fn space_waits_for_a_lease_to_write_as_well() {
        let leases = Leases::new();
        let lease = WriteLease::new(leases.take_to_write());
        let mut quarantine = freed_on_medium(&leases);
        assert!(quarantine.release(&leases).is_empty());
        drop(lease);
        assert_eq!(quarantine.release(&leases), [7]);
    }

    #[test]
    fn the_generation_changes_when_space_comes_back() {
        let leases = Leases::new();
        let before = leases.take().generation();
        assert_eq!(freed_on_medium(&leases).release(&leases), [7]);
        assert_ne!(leases.take().generation(), before);
    }
}
