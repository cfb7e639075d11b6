//! The order in which things reach the medium (qcow2, "Host cluster management").

use std::sync::Arc;

use crate::common::{create, disk, open, range};
use anydisk_core::{Disk, GuestOffset, Storage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::{Call, CrashStorage, Kind, RecordingStorage};

const CLUSTER: u64 = 4096;

/// A recorded image whose first cluster is allocated, and nothing is to be written back.
fn recorded(given: crate::common::Given<'_>) -> (RecordingStorage, Disk) {
    let recording = RecordingStorage::new(Arc::new(MemoryStorage::default()));
    let store: Arc<dyn Storage> = Arc::new(recording.clone());
    let image = create(&store, 1 << 20, given);
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &[1; 4096]).expect("written");
    disk.flush().expect("flushed");
    let _ = recording.take();
    (recording, disk)
}

/// What was changed and flushed, in stretches between flushes.
fn stretches(calls: &[Call]) -> Vec<Vec<Call>> {
    let changes = |kind| matches!(kind, Kind::Write | Kind::SetLen | Kind::Zero | Kind::Discard);
    let stretches = calls.split(|call| call.kind == Kind::Flush);
    stretches.map(|part| part.iter().filter(|call| changes(call.kind)).copied().collect()).collect()
}

const CLUSTERS: (&str, &str) = ("cluster_size", "4k");

// In the image of `recorded`: header, refcount table, refcount block, L1 table, then what was
// allotted for the first write: L2 table, data.
const BLOCK: u64 = 2 * CLUSTER;
const L1: u64 = 3 * CLUSTER;
const L2: u64 = 4 * CLUSTER;
const DATA: u64 = 5 * CLUSTER;

fn touches(stretch: &[Call], cluster: u64) -> bool {
    let at = anydisk_core::HostOffset(cluster);
    stretch.iter().any(|call| call.kind != Kind::SetLen && call.touches(at, CLUSTER))
}

#[test]
fn an_entry_is_written_behind_a_flush_of_the_data_and_the_refcount_it_needs() {
    let (recording, disk) = recorded(&[CLUSTERS]);
    disk.write(GuestOffset(CLUSTER), &[2; 4096]).expect("written");
    disk.flush().expect("flushed");
    let stretches = stretches(&recording.take());
    let [first, second, rest @ ..] = stretches.as_slice() else { panic!("{stretches:?}") };
    assert!(touches(first, BLOCK) && touches(first, 6 * CLUSTER), "{first:?}");
    assert!(!touches(first, L2) && !touches(first, L1), "{first:?}");
    assert!(touches(second, L2) && !touches(second, BLOCK), "{second:?}");
    assert!(rest.iter().all(Vec::is_empty), "{rest:?}");
}

#[test]
fn a_new_table_is_durable_before_the_entry_that_names_it() {
    let recording = RecordingStorage::new(Arc::new(MemoryStorage::default()));
    let store: Arc<dyn Storage> = Arc::new(recording.clone());
    let disk = disk(&create(&store, 1 << 20, &[CLUSTERS]), None);
    disk.flush().expect("flushed");
    let _ = recording.take();
    disk.write(GuestOffset(0), &[1; 4096]).expect("written");
    disk.flush().expect("flushed");
    let stretches = stretches(&recording.take());
    let [first, second, ..] = stretches.as_slice() else { panic!("{stretches:?}") };
    for cluster in [BLOCK, DATA, L2] {
        assert!(touches(first, cluster), "{cluster:#x}: {first:?}");
    }
    assert!(!touches(first, L1) && touches(second, L1), "{stretches:?}");
}

#[test]
fn a_refcount_is_lowered_behind_a_flush_of_the_entry_that_is_gone() {
    let (recording, disk) = recorded(&[CLUSTERS]);
    disk.discard(range(0, CLUSTER)).expect("discarded");
    disk.flush().expect("flushed");
    let stretches = stretches(&recording.take());
    let lowered = stretches.iter().position(|stretch| touches(stretch, BLOCK));
    let changed = stretches.iter().position(|stretch| touches(stretch, L2));
    assert!(changed < lowered && lowered.is_some(), "{stretches:?}");
    // Space is given back to the file system last of all.
    let last: Vec<_> = stretches.concat().into_iter().filter(|c| c.kind == Kind::Discard).collect();
    assert!(touches(&last, DATA), "{stretches:?}");
}

#[test]
fn a_write_in_place_costs_one_flush_and_nothing_else() {
    let (recording, disk) = recorded(&[CLUSTERS]);
    disk.write(GuestOffset(512), &[2; 512]).expect("written");
    disk.flush().expect("flushed");
    let calls = recording.take();
    let flushes = calls.iter().filter(|call| call.kind == Kind::Flush).count();
    let writes: Vec<_> = calls.iter().filter(|call| call.kind == Kind::Write).collect();
    assert_eq!(flushes, 1, "{calls:?}");
    assert!(matches!(writes[..], [Call { len: 512, .. }]), "{calls:?}");
}

#[test]
fn many_writes_are_written_back_with_two_flushes() {
    let (recording, disk) = recorded(&[CLUSTERS]);
    for cluster in 1..200 {
        disk.write(GuestOffset(cluster * CLUSTER), &[2; 4096]).expect("written");
    }
    disk.flush().expect("flushed");
    assert_eq!(recording.take_kind(Kind::Flush).len(), 2);
}

#[test]
fn a_long_write_into_nothing_is_one_write() {
    let (recording, disk) = recorded(&[("cluster_size", "64k")]);
    disk.write(GuestOffset(0), &vec![3; 1 << 20]).expect("written");
    let writes = recording.take_kind(Kind::Write);
    // The first cluster is there already.
    let lens: Vec<u64> = writes.iter().map(|call| call.len).collect();
    assert_eq!(lens, [64 << 10, 960 << 10]);
}

/// Refcounts of 64 bits in clusters of 512 bytes: a table of one cluster counts 2 MiB, so little
/// is written until it must grow.
#[test]
fn a_refcount_table_that_grows_loses_nothing_at_any_moment() {
    let given = [("cluster_size", "512"), ("refcount_bits", "64")];
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let filled = disk(&create(&store, 8 << 20, &given), None);
    let mut written = 0_u64;
    // Up to a little before the end of what the table counts.
    while store.len().expect("a length") < (2 << 20) - 6 * 512 {
        filled.write(GuestOffset(written), &[1; 512]).expect("written");
        filled.flush().expect("flushed");
        written += 512;
    }
    drop(filled);
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(anydisk_core::HostOffset(0), &mut bytes).expect("read");
    let crash = CrashStorage::over(bytes);
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let disk = disk(&open(&store), None);
    for _ in 0..12 {
        disk.write(GuestOffset(written), &[2; 512]).expect("written");
        written += 512;
    }
    disk.flush().expect("flushed");
    crash.mark();
    let grown = crash.clone();
    assert!(crate::common::Dump::of(&grown).header.refcount_table_clusters > 1, "it has grown");
    for state in crash.torn_states(60, 1) {
        let store: Arc<dyn Storage> = state.storage();
        let again = crate::common::disk(&open(&store), None);
        let sure = if state.marks() > 0 { written } else { written - 12 * 512 };
        let mut bytes = vec![0; usize::try_from(sure).expect("small")];
        again.read(GuestOffset(0), &mut bytes).expect("read");
        assert!(bytes.iter().all(|byte| *byte != 0), "{} flushes", state.flushes());
        // And it can go on: new clusters are taken from nobody.
        again.write(GuestOffset(6 << 20), &[3; 4096]).expect("written");
        again.flush().expect("flushed");
        again.read(GuestOffset(0), &mut bytes).expect("read");
        assert!(bytes.iter().all(|byte| matches!(*byte, 1 | 2)), "{} flushes", state.flushes());
    }
}
