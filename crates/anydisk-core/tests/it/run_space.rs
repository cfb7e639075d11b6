//! Host space in runs of any length: who gets which when, and the order of a write-back.

use std::sync::Arc;

use anydisk_core::{
    DirtySlice, HostOffset, Inserted, Result, RunSpace, Storage, TableCache, TakenRun, WantedRun,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::{Call, Kind, RecordingStorage};
use proptest::prelude::*;

const CLUSTER: u64 = 4096;

fn clusters(most: u64) -> WantedRun {
    WantedRun { len: CLUSTER, most, align: CLUSTER }
}

fn stream(len: u64) -> WantedRun {
    WantedRun { len, most: 1, align: 1 }
}

fn run(at: u64, len: u64, zeroed: bool) -> TakenRun {
    TakenRun { at: HostOffset(at), len, zeroed }
}

fn changed_table(at: u64) -> TableCache {
    let tables = TableCache::new(4, 4096);
    assert_eq!(tables.create(HostOffset(at), [1, 2]), Inserted::Yes);
    tables
}

fn write_to(store: &dyn Storage) -> impl FnMut(usize, &DirtySlice) -> Result<()> {
    |_, picture| Ok(store.write_at(picture.at, &[7; 32])?)
}

#[test]
fn a_gap_before_aligned_space_goes_to_what_needs_no_alignment() {
    let space = RunSpace::new(HostOffset(100));
    assert_eq!(space.take(clusters(2)), run(CLUSTER, 2 * CLUSTER, true));
    assert_eq!(space.take(stream(1000)), run(100, 1000, false));
    assert_eq!(space.take(stream(3000)), run(3 * CLUSTER, 3000, true));
}

#[test]
fn a_gap_that_nobody_gets_is_behind_the_end_once_all_behind_it_is_free() {
    let space = RunSpace::new(HostOffset(3 * CLUSTER));
    space.keep_for_end(HostOffset(CLUSTER), 100);
    assert_eq!(space.take(stream(50)), run(3 * CLUSTER, 50, true));
    space.give_back(HostOffset(3 * CLUSTER), 50);
    assert_eq!(space.end(), HostOffset(3 * CLUSTER));
    space.give_back(HostOffset(CLUSTER + 100), 2 * CLUSTER - 100);
    assert_eq!(space.end(), HostOffset(CLUSTER));
    space.keep_for_end(HostOffset(0), CLUSTER);
    assert_eq!(space.end(), HostOffset(0));
}

#[test]
fn of_a_free_run_as_much_is_taken_as_there_is() {
    let space = RunSpace::new(HostOffset(0));
    let _ = space.take(clusters(9));
    space.give_back(HostOffset(CLUSTER - 1), 3 * CLUSTER);
    assert_eq!(space.take(clusters(5)), run(CLUSTER, 2 * CLUSTER, false));
    assert_eq!(space.take(stream(CLUSTER)), run(9 * CLUSTER, CLUSTER, true));
}

#[test]
fn streams_that_were_freed_one_by_one_make_room_for_a_cluster() {
    let (space, store) = (RunSpace::new(HostOffset(0)), MemoryStorage::default());
    let streams: Vec<_> = (0..8).map(|_| space.take(stream(1024))).collect();
    let _ = space.take(stream(1));
    streams.iter().for_each(|taken| space.retire(taken.at, taken.len));
    space.write_back(&store, &[], write_to(&store)).unwrap();
    assert_eq!(space.take(clusters(2)), run(0, 2 * CLUSTER, false));
}

#[test]
fn zeroed_space_is_never_space_that_was_given_back() {
    let space = RunSpace::new(HostOffset(0));
    let taken = space.take(clusters(2));
    space.give_back(taken.at, taken.len);
    assert_eq!(space.take_zeroed(CLUSTER, CLUSTER), run(2 * CLUSTER, CLUSTER, true));
    assert_eq!(space.take(clusters(2)), run(0, 2 * CLUSTER, false));
    let untouched = space.take(clusters(1));
    space.untake(untouched);
    assert_eq!(space.take(clusters(1)), untouched);
}

#[test]
fn data_with_a_place_of_its_own_is_zero_only_behind_all_that_was_used() {
    let (space, store) = (RunSpace::new(HostOffset(1000)), MemoryStorage::default());
    assert!(space.take_at(HostOffset(5000), 100));
    assert!(!space.take_at(HostOffset(4000), 100), "something behind it may have been written");
    assert!(!space.take_at(HostOffset(5000), 100));
    assert!(space.take_at(HostOffset(5100), 412));
    space.write_back(&store, &[], write_to(&store)).unwrap();
    assert_eq!(store.len().unwrap(), 5512);
}

#[test]
fn retired_space_comes_back_after_the_write_back_and_the_last_lease() {
    let (space, store) = (RunSpace::new(HostOffset(0)), MemoryStorage::default());
    let old = space.take(clusters(1));
    let lease = space.leases().take();
    space.retire(old.at, old.len);
    assert_ne!(space.take(clusters(1)).at, old.at, "the table that freed it is not durable");
    space.write_back(&store, &[], write_to(&store)).unwrap();
    assert_ne!(space.take(clusters(1)).at, old.at, "someone may be reading there");
    drop(lease);
    assert_eq!(space.take(clusters(1)), run(0, CLUSTER, false));
}

#[test]
fn data_is_durable_before_tables_and_each_table_before_the_one_that_names_it() {
    let space = RunSpace::new(HostOffset(0));
    let (upper, lower) = (changed_table(512), changed_table(1024));
    let store = RecordingStorage::new(Arc::new(MemoryStorage::default()));
    let _ = space.take(clusters(1));
    space.write_back(&store, &[&upper, &lower], write_to(&store)).unwrap();
    let calls: Vec<String> =
        store.take().iter().filter(|call| call.kind != Kind::Len).map(Call::to_string).collect();
    let expected = [
        "set the length to 0x1000",
        "flush",
        "write 0x20 at 0x400",
        "flush",
        "write 0x20 at 0x200",
        "flush",
    ];
    assert_eq!(calls, expected);
    assert_eq!((upper.dirty_count(), lower.dirty_count()), (0, 0));
}

#[test]
fn after_a_failed_write_back_tables_are_still_changed_and_space_is_not_reused() {
    let (space, tables) = (RunSpace::new(HostOffset(0)), changed_table(512));
    let store = MemoryStorage::default();
    let old = space.take(clusters(1));
    space.retire(old.at, old.len);
    let failing =
        |_: usize, _: &DirtySlice| Err(anydisk_core::Error::UnknownFormat("a failure".into()));
    space.write_back(&store, &[&tables], failing).unwrap_err();
    assert_eq!(tables.dirty_count(), 1);
    assert_ne!(space.take(clusters(1)).at, old.at);
    space.write_back(&store, &[&tables], write_to(&store)).unwrap();
    assert_eq!(space.take(clusters(1)).at, old.at);
}

proptest! {
    #[test]
    fn nothing_is_handed_out_twice_and_zeroed_space_was_never_handed_out(
        steps in proptest::collection::vec(
            (1u64..5000, 1u64..4, 0u32..13, 0u8..5, any::<prop::sample::Index>()), 1..80),
        start in 0u64..9000,
    ) {
        let space = RunSpace::new(HostOffset(start));
        let mut held: Vec<TakenRun> = Vec::new();
        // Behind every byte that someone may have written.
        let mut written = start;
        for (len, most, align, what, pick) in steps {
            let align = 1 << align;
            let taken = match what {
                0 | 1 if !held.is_empty() => {
                    let taken = held.swap_remove(pick.index(held.len()));
                    if what == 0 {
                        space.untake(taken);
                    } else {
                        space.give_back(taken.at, taken.len);
                        written = written.max(taken.end().get());
                    }
                    continue;
                }
                2 => space.take_zeroed(len, align),
                _ => space.take(WantedRun { len, most, align }),
            };
            prop_assert!(taken.at.get() >= start && taken.at.get() % align == 0);
            prop_assert!(taken.len >= len && taken.len % len == 0 && taken.len <= len * most);
            for other in &held {
                prop_assert!(taken.end() <= other.at || other.end() <= taken.at, "{taken:?} {other:?}");
            }
            prop_assert!(taken.zeroed || what != 2);
            prop_assert!(!taken.zeroed || taken.at.get() >= written);
            held.push(taken);
        }
    }
}
