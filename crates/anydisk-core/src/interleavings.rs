//! Leases, claims and table slices under every interleaving that loom finds, with the memory model
//! of the language: `cargo xtask loom`.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release, SeqCst},
};
use loom::thread;

use crate::{
    Claims, GuestOffset, GuestRange, HostOffset, KnownTables, Leases, Quarantine, TableCache,
};

/// Tries all interleavings with few enough pre-emptions to end in seconds.
fn try_all(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(start), len).expect("small numbers")
}

/// Bytes on the medium. Loom fails the test if they are used and given away at once.
#[derive(Default)]
struct Place(UnsafeCell<()>);

impl Place {
    fn is_used(&self) {
        self.0.with(|_| ());
    }

    fn is_given_away(&self) {
        self.0.with_mut(|_| ());
    }
}

/// A table of one entry, and the place it names.
struct Named {
    leases: Leases,
    is_named: AtomicBool,
    place: Place,
}

impl Named {
    fn new() -> Arc<Self> {
        let (leases, place) = (Leases::new(), Place::default());
        Arc::new(Self { leases, is_named: AtomicBool::new(true), place })
    }

    /// A reader: lease, look, use.
    fn read(&self) {
        let lease = self.leases.take();
        if self.is_named.load(SeqCst) {
            self.place.is_used();
        }
        drop(lease);
    }

    /// A discard that is flushed at once, and whoever wants the space.
    fn free(&self) {
        let mut quarantine = Quarantine::default();
        self.is_named.store(false, SeqCst);
        quarantine.retire(());
        let sealed = quarantine.seal();
        quarantine.durable(&self.leases, sealed);
        for _ in 0..2 {
            if !quarantine.release(&self.leases).is_empty() {
                self.place.is_given_away();
            }
        }
    }
}

#[test]
fn space_never_comes_back_under_a_reader() {
    try_all(|| {
        let named = Named::new();
        let reader = {
            let named = named.clone();
            thread::spawn(move || named.read())
        };
        named.free();
        reader.join().expect("no panic");
    });
}

#[test]
fn space_never_comes_back_under_either_of_two_readers() {
    try_all(|| {
        let named = Named::new();
        let readers =
            [named.clone(), named.clone()].map(|named| thread::spawn(move || named.read()));
        named.free();
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
    });
}

#[test]
fn two_quarantines_over_the_same_leases_never_move_the_epoch_under_a_reader() {
    try_all(|| {
        let named = Named::new();
        let reader = {
            let named = named.clone();
            thread::spawn(move || named.read())
        };
        let other = {
            let leases = named.leases.clone();
            thread::spawn(move || {
                let mut quarantine = Quarantine::default();
                quarantine.retire(());
                let sealed = quarantine.seal();
                quarantine.durable(&leases, sealed);
                drop(quarantine.release(&leases));
            })
        };
        named.free();
        reader.join().expect("no panic");
        other.join().expect("no panic");
    });
}

#[test]
fn whoever_makes_places_shared_waits_for_those_who_write() {
    try_all(|| {
        let named = Named::new();
        let is_shared = Arc::new(AtomicBool::new(false));
        let writer = {
            let (named, is_shared) = (named.clone(), is_shared.clone());
            thread::spawn(move || {
                let lease = named.leases.take_to_write();
                crate::sync::change_before_look();
                if !is_shared.load(SeqCst) {
                    named.place.is_given_away(); // It writes in place.
                }
                drop(lease);
            })
        };
        is_shared.store(true, SeqCst);
        crate::sync::change_before_look();
        named.leases.wait_for_writers();
        named.place.is_used();
        writer.join().expect("no panic");
    });
}

#[test]
fn two_who_claim_the_same_units_change_them_one_after_the_other() {
    try_all(|| {
        let shared = Arc::new((Claims::default(), Place::default()));
        let claim = |shared: &(Claims, Place), range| {
            let claim = shared.0.hold(range);
            shared.1.is_given_away();
            drop(claim);
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || claim(&shared, range(0, 8)))
        };
        claim(&shared, range(4, 8));
        other.join().expect("no panic");
    });
}

#[test]
fn a_claim_on_everything_gets_its_turn() {
    try_all(|| {
        let shared = Arc::new((Claims::default(), Place::default()));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let claim = shared.0.hold(range(0, 8));
                shared.1.is_given_away();
                drop(claim);
            })
        };
        let all = shared.0.hold_before_others(range(0, 100));
        shared.1.is_given_away();
        drop(all);
        other.join().expect("no panic");
    });
}

const SLICE: HostOffset = HostOffset(512);

#[test]
fn a_look_at_a_slice_never_sees_half_a_change() {
    try_all(|| {
        let cache = Arc::new(TableCache::new(2, 0));
        let ticket = cache.ticket(SLICE);
        assert_eq!(cache.insert(SLICE, ticket, [1, 1]), crate::Inserted::Yes);
        let writer = {
            let cache = cache.clone();
            thread::spawn(move || {
                let change =
                    |words: &mut crate::SliceMut<'_>| (0..2).for_each(|at| words.set(at, 2));
                assert_eq!(cache.update(SLICE, change), crate::Updated::Done(()));
            })
        };
        let seen = cache.read(SLICE, |words| (words.get(0), words.get(1)));
        assert!(matches!(seen, Some((1, 1) | (2, 2))), "{seen:?}");
        writer.join().expect("no panic");
    });
}

#[test]
fn a_slice_that_was_read_before_a_write_back_is_not_taken_for_new() {
    try_all(|| {
        let cache = Arc::new(TableCache::new(2, 0));
        // The medium: what a write-back puts there.
        let medium = Arc::new(AtomicU64::new(1));
        let ticket = cache.ticket(SLICE);
        assert_eq!(cache.insert(SLICE, ticket, [1, 1]), crate::Inserted::Yes);
        let writer = {
            let (cache, medium) = (cache.clone(), medium.clone());
            thread::spawn(move || {
                let _ = cache.update(SLICE, |words| (0..2).for_each(|at| words.set(at, 2)));
                for picture in cache.dirty() {
                    medium.store(picture.entries[0], SeqCst);
                    cache.settle(&picture);
                }
                cache.remove(SLICE); // As eviction does.
            })
        };
        let ticket = cache.ticket(SLICE);
        let read = medium.load(SeqCst);
        let inserted = cache.insert(SLICE, ticket, [read, read]);
        writer.join().expect("no panic");
        if let Some(seen) = cache.read(SLICE, |words| words.get(0)) {
            assert_eq!(seen, medium.load(SeqCst), "{inserted:?}");
        }
    });
}

/// Table 0 is at unit 1, then, in another directory, at unit 2. Who knows that the disk reaches
/// there again (`is_grown`) must not be told the first place.
#[test]
fn a_table_of_the_directory_before_is_never_known_once_the_new_one_is_in_use() {
    try_all(|| {
        let known = Arc::new(KnownTables::new(1, 1));
        let (directory, is_grown) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
        let look = {
            let (known, directory) = (known.clone(), directory.clone());
            move || {
                let age = known.age();
                known.put(age, 0, HostOffset(directory.load(Acquire)));
            }
        };
        let reader = {
            let (known, is_grown, look) = (known.clone(), is_grown.clone(), look.clone());
            thread::spawn(move || {
                look();
                if is_grown.load(Acquire) {
                    assert!(matches!(known.get(0), None | Some(HostOffset(2))));
                }
            })
        };
        let late = thread::spawn(look);
        directory.store(2, Release);
        known.forget();
        is_grown.store(true, Release);
        reader.join().expect("no panic");
        late.join().expect("no panic");
        assert!(matches!(known.get(0), None | Some(HostOffset(2))));
    });
}
