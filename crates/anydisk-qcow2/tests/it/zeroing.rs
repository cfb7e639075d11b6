//! What entries become when clusters are zeroed and discarded: the same as qemu makes of them.

use crate::common::{Dump, create, disk, memory, open, range, try_open, write_packed};
use anydisk_core::{Access, Disk, GuestOffset, Storage};
use anydisk_qcow2::L2Entry;

const CLUSTER: u64 = 16 << 10;
const COPIED: u64 = 1 << 63;
const ZERO: u64 = 1;
const ALL_ZERO: u64 = 0xFFFF_FFFF_0000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Data,
    Absent,
    Packed,
    ZeroPlain,
    ZeroKept,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Zero,
    ZeroUnmap,
    Discard,
}

/// An entry, the host cluster left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The entry is so, and the host cluster is free.
    Freed(u64, u64),
    /// The entry has its host cluster, and these flags and this bitmap.
    Kept(u64, u64),
    /// Nothing changed.
    Same,
    /// A cluster of zeroes.
    Written,
}

struct Kind {
    options: &'static [(&'static str, &'static str)],
    /// What becomes of data, absent, packed, plain zero and kept zero clusters.
    rows: fn(Start, Change) -> Left,
}

const CLUSTERS: (&str, &str) = ("cluster_size", "16k");
const BACKING: (&str, &str) = ("backing_file", "below");

const KINDS: [Kind; 6] = [
    Kind { options: &[CLUSTERS, ("compat", "0.10")], rows: version_2 },
    Kind { options: &[CLUSTERS, ("compat", "0.10"), BACKING], rows: version_2_over_another },
    Kind { options: &[CLUSTERS], rows: version_3 },
    Kind { options: &[CLUSTERS, BACKING], rows: version_3_over_another },
    Kind { options: &[CLUSTERS, ("extended_l2", "on")], rows: extended },
    Kind { options: &[CLUSTERS, ("extended_l2", "on"), BACKING], rows: extended_over_another },
];

fn version_2(start: Start, _: Change) -> Left {
    if start == Start::Absent { Left::Same } else { Left::Freed(0, 0) }
}

fn version_2_over_another(_: Start, change: Change) -> Left {
    if matches!(change, Change::Discard) { Left::Same } else { Left::Written }
}

fn version_3(start: Start, change: Change) -> Left {
    use Start::{Absent, Data, Packed, ZeroKept, ZeroPlain};
    match (start, change) {
        (Data, Change::Zero) => Left::Kept(COPIED | ZERO, 0),
        (ZeroKept, Change::Zero) | (ZeroPlain, _) | (Absent, Change::Discard) => Left::Same,
        (Data | Absent | Packed | ZeroKept, _) => Left::Freed(ZERO, 0),
    }
}

fn version_3_over_another(start: Start, change: Change) -> Left {
    match (start, change) {
        (Start::Absent, Change::Discard) => Left::Freed(ZERO, 0),
        _ => version_3(start, change),
    }
}

fn extended(start: Start, change: Change) -> Left {
    match version_3(start, change) {
        Left::Kept(..) => Left::Kept(COPIED, ALL_ZERO),
        Left::Freed(..) => Left::Freed(0, ALL_ZERO),
        other => other,
    }
}

fn extended_over_another(start: Start, change: Change) -> Left {
    match version_3_over_another(start, change) {
        Left::Kept(..) => Left::Kept(COPIED, ALL_ZERO),
        Left::Freed(..) => Left::Freed(0, ALL_ZERO),
        other => other,
    }
}

fn prepare(disk: &Disk, start: Start) {
    let whole = range(0, CLUSTER);
    let data = vec![7; 16 << 10];
    match start {
        Start::Absent => {}
        Start::Data => disk.write(GuestOffset(0), &data).expect("written"),
        Start::Packed => assert!(write_packed(disk.top(), 0, &data)),
        Start::ZeroPlain => disk.zero(whole, true).expect("zeroed"),
        Start::ZeroKept => {
            disk.write(GuestOffset(0), &data).expect("written");
            disk.zero(whole, false).expect("zeroed");
        }
    }
    // So that the table is there, whatever the cluster holds.
    disk.write(GuestOffset(3 * CLUSTER), &[1]).expect("written");
    disk.flush().expect("flushed");
}

/// Whether both the entry and the refcount are as the table says.
fn check(store: &dyn Storage, before: L2Entry, left: Left, case: &str) {
    let dump = Dump::of(store);
    let after = dump.entry(0);
    let host = if before.is_compressed() {
        before.word & ((1 << 56) - 1) & !(CLUSTER - 1)
    } else {
        before.host().map_or(0, |at| at.get())
    };
    match left {
        Left::Same => assert_eq!(after, before, "{case}"),
        Left::Freed(word, bitmap) => {
            assert_eq!(after, L2Entry { word, bitmap }, "{case}");
            assert_eq!(dump.refcount(host), u64::from(host == 0), "{case}");
        }
        Left::Kept(flags, bitmap) => {
            assert_eq!(after, L2Entry { word: host | flags, bitmap }, "{case}");
            assert_eq!(dump.refcount(host), 1, "{case}");
        }
        Left::Written => {
            let at = after.host().unwrap_or_else(|| panic!("{case}: no cluster"));
            assert_eq!(after, L2Entry::data(at), "{case}");
            let mut bytes = vec![1; 16 << 10];
            assert_eq!(store.read_at(at, &mut bytes).expect("read"), bytes.len(), "{case}");
            assert!(bytes.iter().all(|byte| *byte == 0), "{case}");
        }
    }
}

#[test]
fn a_whole_cluster_becomes_what_qemu_makes_of_it() {
    let starts = [Start::Data, Start::Absent, Start::Packed, Start::ZeroPlain, Start::ZeroKept];
    for kind in KINDS {
        for start in starts {
            let zero_flag = !kind.options.contains(&("compat", "0.10"));
            if !zero_flag && matches!(start, Start::ZeroPlain | Start::ZeroKept) {
                continue;
            }
            for change in [Change::Zero, Change::ZeroUnmap, Change::Discard] {
                let case = format!("{:?}: {start:?}, {change:?}", kind.options);
                let store = memory();
                let image = create(&store, 8 * CLUSTER, kind.options);
                // The header alone says that something lies below.
                let disk = disk(&image, None);
                prepare(&disk, start);
                let before = Dump::of(&*store).entry(0);
                match change {
                    Change::Zero => disk.zero(range(0, CLUSTER), false).expect("zeroed"),
                    Change::ZeroUnmap => disk.zero(range(0, CLUSTER), true).expect("zeroed"),
                    Change::Discard => disk.discard(range(0, CLUSTER)).expect("discarded"),
                }
                disk.flush().expect("flushed");
                check(&*store, before, (kind.rows)(start, change), &case);
            }
        }
    }
}

#[test]
fn a_write_into_a_zero_cluster_keeps_the_rest_zero() {
    for (extended, bitmap) in [("off", 0), ("on", 0xFFFF_FFFD_0000_0002)] {
        let store = memory();
        let image = create(&store, 8 * CLUSTER, &[CLUSTERS, ("extended_l2", extended)]);
        let disk = disk(&image, None);
        disk.zero(range(0, CLUSTER), true).expect("zeroed");
        disk.write(GuestOffset(512), &[7; 512]).expect("written");
        disk.flush().expect("flushed");
        let entry = Dump::of(&*store).entry(0);
        assert_eq!(entry.bitmap, bitmap);
        assert!(entry.is_copied() && entry.word & ZERO == 0);
        let mut bytes = vec![1; 16 << 10];
        disk.read(GuestOffset(0), &mut bytes).expect("read");
        let expected: Vec<u8> = (0..CLUSTER).map(|at| if at / 512 == 1 { 7 } else { 0 }).collect();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn subclusters_are_zeroed_one_by_one() {
    let store = memory();
    let image = create(&store, 8 * CLUSTER, &[CLUSTERS, ("extended_l2", "on")]);
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &[7; 16 << 10]).expect("written");
    disk.zero(range(1024, 1024), true).expect("zeroed");
    disk.flush().expect("flushed");
    let entry = Dump::of(&*store).entry(0);
    assert_eq!(entry.bitmap, 0x0000_000C_FFFF_FFF3);
    assert!(entry.host().is_some(), "a part does not free the cluster");
}

#[test]
fn a_part_of_a_cluster_that_is_zero_already_needs_nothing() {
    let store = memory();
    let image = create(&store, 8 * CLUSTER, &[CLUSTERS]);
    let disk = disk(&image, None);
    disk.zero(range(100, 5000), false).expect("zeroed");
    disk.flush().expect("flushed");
    assert_eq!(Dump::of(&*store).entry(0), L2Entry::default());
}

#[test]
fn zeroing_a_huge_disk_that_is_empty_makes_no_table_for_every_part_of_it() {
    let store = memory();
    let image = create(&store, 1 << 40, &[]);
    let disk = disk(&image, None);
    disk.zero(range(0, 1 << 40), true).expect("zeroed");
    disk.flush().expect("flushed");
    let len = store.len().expect("a length");
    assert!(len < 2 << 20, "{len}");
}

#[test]
fn an_image_that_is_marked_corrupt_is_not_written() {
    let store = memory();
    drop(create(&store, 8 * CLUSTER, &[]));
    let field = anydisk_core::HostOffset(72);
    store.write_at(field, &u64::to_be_bytes(2)).expect("written");
    let error = try_open(&store, Access::ReadWrite).map(drop).unwrap_err();
    assert!(matches!(error.kind(), anydisk_core::Error::NeedsRepair { .. }), "{error}");
    assert!(error.to_string().contains("corrupt"), "{error}");
    try_open(&store, Access::Read).expect("reading is allowed");
}

#[test]
fn what_autoclear_bits_promise_ends_when_the_image_is_opened_for_writing() {
    let store = memory();
    drop(create(&store, 8 * CLUSTER, &[]));
    store.write_at(anydisk_core::HostOffset(88), &[0x80, 0, 0, 0, 0, 0, 0, 1]).expect("written");
    drop(try_open(&store, Access::Read).expect("it opens"));
    assert_ne!(Dump::of(&*store).header.autoclear_features, 0);
    drop(open(&store));
    assert_eq!(Dump::of(&*store).header.autoclear_features, 0);
}
