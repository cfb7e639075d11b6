//! Host space in blocks: who gets which block when, and the order of a write-back.

use std::sync::Arc;

use anydisk_core::{
    BlockSpace, DirtySlice, HostOffset, Inserted, Result, Storage, TableCache, TakenBlock,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::{Call, Kind, RecordingStorage};

const UNIT: u64 = 4096;
const END: HostOffset = HostOffset(2 * UNIT);

fn no_table() -> TableCache {
    TableCache::new(4, 4096)
}

fn one_changed_table() -> TableCache {
    let tables = no_table();
    assert_eq!(tables.create(HostOffset(512), [1, 2]), Inserted::Yes);
    tables
}

fn write_to(store: &dyn Storage) -> impl FnMut(&DirtySlice) -> Result<()> {
    |picture| Ok(store.write_at(picture.at, &[7; 32])?)
}

#[test]
fn new_blocks_lie_behind_each_other_and_are_zero() {
    let space = BlockSpace::new(UNIT, END);
    assert_eq!(space.take(), TakenBlock { at: END, zeroed: true });
    assert_eq!(space.take(), TakenBlock { at: HostOffset(3 * UNIT), zeroed: true });
    assert_eq!(space.end(), HostOffset(4 * UNIT));
}

#[test]
fn an_abandoned_block_is_next_and_no_longer_known_to_be_zero() {
    let space = BlockSpace::new(UNIT, END);
    let taken = space.take();
    space.give_back(taken.at);
    assert_eq!(space.take(), TakenBlock { at: END, zeroed: false });
}

#[test]
fn a_retired_block_comes_back_after_the_write_back_and_the_last_lease() {
    let (space, store) = (BlockSpace::new(UNIT, END), MemoryStorage::default());
    let old = space.take().at;
    let lease = space.leases().take();
    space.retire(old);
    assert_ne!(space.take().at, old, "the table that freed it is not durable");
    space.write_back(&store, &no_table(), write_to(&store)).unwrap();
    assert_ne!(space.take().at, old, "someone may be reading there");
    drop(lease);
    assert_eq!(space.take(), TakenBlock { at: old, zeroed: false });
}

#[test]
fn the_file_is_grown_and_flushed_before_a_table_is_written_and_flushed() {
    let (space, tables) = (BlockSpace::new(UNIT, END), one_changed_table());
    let store = RecordingStorage::new(Arc::new(MemoryStorage::default()));
    let _ = space.take();
    space.write_back(&store, &tables, write_to(&store)).unwrap();
    let calls: Vec<String> =
        store.take().iter().filter(|call| call.kind != Kind::Len).map(Call::to_string).collect();
    assert_eq!(calls, ["set the length to 0x3000", "flush", "write 0x20 at 0x200", "flush"]);
    assert_eq!(tables.dirty_count(), 0);
    assert_eq!(store.len().unwrap(), 3 * UNIT);
}

#[test]
fn a_file_that_reaches_further_is_not_cut() {
    let (space, store) = (BlockSpace::new(UNIT, END), MemoryStorage::new(vec![1; 20_000]));
    space.write_back(&store, &no_table(), write_to(&store)).unwrap();
    assert_eq!(store.len().unwrap(), 20_000);
}

#[test]
fn after_a_failed_write_back_the_table_is_still_changed_and_the_block_is_not_reused() {
    let (space, tables) = (BlockSpace::new(UNIT, END), one_changed_table());
    let store = MemoryStorage::default();
    let old = space.take().at;
    space.retire(old);
    let failing = |_: &DirtySlice| Err(anydisk_core::Error::UnknownFormat("a failure".into()));
    space.write_back(&store, &tables, failing).unwrap_err();
    assert_eq!(tables.dirty_count(), 1);
    assert_ne!(space.take().at, old);
    space.write_back(&store, &tables, write_to(&store)).unwrap();
    assert_eq!(space.take().at, old);
}
