//! Repairing bitmaps: what cannot be relied on says that everything has changed, and nothing else
//! is touched.

use std::sync::Arc;

use crate::common::{Dump, create, disk, load, memory, save, try_open};
use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Finding, Format, GuestOffset, GuestRange, HostOffset,
    Limits, Location, NewBitmap, OpenRequest, Repair, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::{MemoryStorage, Scratch};
use anydisk_testkit::golden::cases;
use anydisk_testkit::oracle::{Checked, Qemu};

fn check(store: &Arc<dyn Storage>, repair: Repair) -> (CheckReport, Vec<Finding>) {
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(repair);
    let mut found = Vec::new();
    let report = QCOW2.check(&request, &mut |finding| found.push(finding));
    (report.expect("it can be checked"), found)
}

/// Names of the bitmaps, and what each says has changed.
fn bitmaps(store: &Arc<dyn Storage>) -> Vec<(String, bool, Vec<GuestRange>)> {
    let image = try_open(store, Access::Read).expect("it opens");
    let bitmaps = image.bitmaps().expect("there can be bitmaps");
    let all = |name: &str| {
        let mut changes = bitmaps.changes(name).ok()?;
        let (mut ranges, mut from) = (Vec::new(), GuestOffset(0));
        while let Some(range) = changes.next(from).expect("it can be read") {
            from = range.end();
            ranges.push(range);
        }
        Some(ranges)
    };
    let list = bitmaps.list().expect("a list");
    list.iter()
        .map(|one| (one.name.clone(), one.inconsistent, all(&one.name).unwrap_or_default()))
        .collect()
}

fn contents(store: &Arc<dyn Storage>) -> Vec<u8> {
    let disk = Disk::new(try_open(store, Access::Read).expect("it opens"));
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it can be read");
    bytes
}

const SIZE: u64 = 1 << 20;

/// An image with two bitmaps, `a` and `b`, each of which has recorded one write.
fn marked() -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, SIZE, &[("cluster_size", "4096")]);
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &[9; 8192]).expect("a write to memory");
    let bitmaps = image.bitmaps().expect("there can be bitmaps");
    for (name, at) in [("a", 64 << 10), ("b", 128 << 10)] {
        let new = NewBitmap { name: name.into(), granularity: Some(4096), enabled: true };
        bitmaps.add(&new).expect("a bitmap");
        disk.write(GuestOffset(at), &[1; 4096]).expect("a write to memory");
    }
    disk.flush().expect("a flush of memory");
    store
}

/// Where the entry of a bitmap is in the directory, which has one cluster.
fn directory(store: &Arc<dyn Storage>) -> u64 {
    let dump = Dump::of(&**store);
    let extension = dump.header.extension(0x2385_2875).expect("there are bitmaps");
    u64::from_be_bytes(extension[16..24].try_into().expect("eight bytes"))
}

fn set(store: &Arc<dyn Storage>, at: u64, word: u64) {
    store.write_at(HostOffset(at), &word.to_be_bytes()).expect("a write to memory");
}

/// Damages `a`, repairs, and compares: `b` and the disk are as before, and `a` says that everything
/// has changed.
fn damage_a(what: &str, kind: &str, damage: impl Fn(&Arc<dyn Storage>, u64, u64)) {
    let store = marked();
    let (before, disk) = (bitmaps(&store), contents(&store));
    let directory = directory(&store);
    let table = Dump::of(&*store).word(directory);
    damage(&store, directory, table);
    let (report, found) = check(&store, Repair::All);
    assert!(found.iter().any(|one| one.kind == kind && one.repaired), "{what}: {found:?}");
    assert!(report.is_clean(), "{what}: {report:?} {found:?}");
    assert!(check(&store, Repair::Nothing).1.is_empty(), "{what}");
    let after = bitmaps(&store);
    assert_eq!(after[1], before[1], "{what}");
    let whole = GuestRange::whole(SIZE);
    assert_eq!(after[0], ("a".into(), false, vec![whole]), "{what}");
    assert!(contents(&store) == disk, "{what}");
    if let Some(qemu) = Qemu::find() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("repaired.qcow2");
        save(&*store, &path);
        let clean = Checked { leaks: 0, corruptions: 0 };
        assert_eq!(qemu.check(&path, "qcow2"), Ok(clean), "{what}");
    }
}

#[test]
fn a_bitmap_whose_bits_cannot_be_relied_on_says_that_everything_has_changed() {
    damage_a("in use", "bitmap-in-use", |store, entry, _| {
        let flags = Dump::of(&**store).word(entry + 8);
        set(store, entry + 8, flags | 1);
    });
    damage_a("an entry that breaks the format", "bitmap-bits-invalid", |store, _, table| {
        set(store, table, 0x1_0200);
    });
    damage_a("a cluster past the end", "bitmap-bits-invalid", |store, _, table| {
        set(store, table, 1 << 40);
    });
    damage_a("a table past the end", "bitmap-bits-invalid", |store, entry, _| {
        set(store, entry, 1 << 40);
    });
    damage_a("bits where the disk has data", "bitmap-overlap", |store, _, table| {
        let data = Dump::of(&**store).entry(0).word & 0x00ff_ffff_ffff_fe00;
        set(store, table, data);
    });
    damage_a("a table where the disk has one", "bitmap-overlap", |store, entry, _| {
        let dump = Dump::of(&**store);
        let l2 = dump.word(dump.header.l1_table_offset.get()) & 0x00ff_ffff_ffff_fe00;
        set(store, entry, l2);
    });
    damage_a("a table where the refcounts are", "bitmap-overlap", |store, entry, _| {
        let refcounts = Dump::of(&**store).header.refcount_table_offset.get();
        set(store, entry, refcounts);
    });
}

#[test]
fn two_bitmaps_that_share_bits_both_say_that_everything_has_changed() {
    let store = marked();
    let directory = directory(&store);
    let tables = [0, 32].map(|entry| Dump::of(&*store).word(directory + entry));
    let bits = Dump::of(&*store).word(tables[0]);
    set(&store, tables[1], bits);
    assert!(check(&store, Repair::All).0.is_clean());
    let whole = vec![GuestRange::whole(SIZE)];
    let expected = [("a".into(), false, whole.clone()), ("b".into(), false, whole)];
    assert_eq!(bitmaps(&store), expected);
}

#[test]
fn a_bitmap_that_nobody_could_use_is_removed_and_the_others_stay() {
    let damages: [(&str, u64, u64); 2] = [
        ("a granularity that is too small", 16, 0x0108_0001_0000_0000),
        ("a table at no cluster's place", 0, 0x5200),
    ];
    for (what, field, word) in damages {
        let store = marked();
        let (before, disk) = (bitmaps(&store), contents(&store));
        set(&store, directory(&store) + field, word);
        let (report, found) = check(&store, Repair::All);
        assert!(report.is_clean(), "{what}: {report:?} {found:?}");
        assert!(found.iter().all(|one| one.repaired), "{what}: {found:?}");
        assert_eq!(bitmaps(&store), before[1..], "{what}");
        assert!(contents(&store) == disk, "{what}");
    }
}

/// What makes a bitmap one of another kind than ours: where in its entry, and the word there.
const FOREIGN: [(&str, u64, u64); 4] = [
    ("extra data that may be ignored", 8, 0x0000_0001_0000_0006),
    ("a flag that is unknown", 8, 0x0000_0001_8000_0002),
    ("a type that is unknown", 16, 0x020c_0001_0000_0000),
    // Behind it the name of the entry is its extra data, and the next entry a part of its own.
    ("extra data", 16, 0x010c_0001_0000_0008),
];

/// The directory and the refcounts, as they stand.
fn metadata(store: &Arc<dyn Storage>) -> Vec<u64> {
    let (dump, at) = (Dump::of(&**store), directory(store));
    let clusters = store.len().expect("a length") >> 12;
    let words = (0..8).map(|number| dump.word(at + number * 8));
    words.chain((0..clusters).map(|number| dump.refcount(number << 12))).collect()
}

/// It may be right for whoever wrote it, and name more than can be seen from here.
#[test]
fn a_bitmap_that_is_not_understood_is_left_alone_and_nothing_is_freed() {
    for (what, field, word) in FOREIGN {
        let store = marked();
        set(&store, directory(&store) + field, word);
        // Lost space, and the clusters of extra data of whatever kind, cannot be told apart.
        let (end, at) = (store.len().expect("a length"), Dump::of(&*store).header);
        let block = Dump::of(&*store).word(at.refcount_table_offset.get());
        store.set_len(end + 4096).expect("memory");
        store.write_at(HostOffset(block + end / 4096 * 2), &[0, 1]).expect("a write to memory");
        let before = metadata(&store);
        for repair in [Repair::Leaks, Repair::All] {
            let (report, found) = check(&store, repair);
            let kinds: Vec<_> = found.iter().map(|one| one.kind).collect();
            assert!(kinds.contains(&"bitmap-not-understood"), "{what}: {found:?}");
            assert!(kinds.contains(&"leak") && report.leaks_fixed == 0, "{what}: {found:?}");
            if what != "extra data" {
                assert!(metadata(&store) == before, "{what}: {repair:?}");
            }
        }
        let error = try_open(&store, Access::ReadWrite).expect_err("nobody could keep it right");
        assert!(error.to_string().contains("expected"), "{what}: {error}");
        try_open(&store, Access::Read).expect("the disk can be read");
    }
}

/// Another bitmap needs a new directory: the entry that is not understood goes along, byte for byte.
#[test]
fn where_one_that_is_not_understood_claims_all_of_the_file_the_others_stay_as_they_are() {
    let store = marked();
    let directory = directory(&store);
    let entry = Dump::of(&*store).word(directory + 8);
    // So many entries from the first cluster on, and a flag that nobody knows.
    set(&store, directory, 4096);
    set(&store, directory + 8, 0x1000_0000 << 32 | entry & 0xffff_ffff | 0x8000);
    let before = bitmaps(&store).pop();
    check(&store, Repair::All);
    let (report, len) = (check(&store, Repair::Nothing).0, store.len().expect("memory"));
    for _ in 0..3 {
        check(&store, Repair::All);
        assert_eq!(check(&store, Repair::Nothing).0, report);
        assert_eq!((bitmaps(&store).pop(), store.len().expect("memory")), (before.clone(), len));
    }
}

#[test]
fn a_repair_of_other_bitmaps_takes_one_that_is_not_understood_along() {
    for (what, field, word) in &FOREIGN[..3] {
        let store = marked();
        let old = directory(&store);
        set(&store, old + field, *word);
        let flags = Dump::of(&*store).word(old + 32 + 8);
        set(&store, old + 32 + 8, flags | 1);
        let entry = |at: u64| [0, 8, 16, 24].map(|word| Dump::of(&*store).word(at + word));
        let foreign = entry(old);
        let (_, found) = check(&store, Repair::All);
        let mended = found.iter().any(|one| one.kind == "bitmap-in-use" && one.repaired);
        assert!(mended, "{what}: {found:?}");
        let new = directory(&store);
        assert!(new != old && entry(new + 32) == foreign, "{what}");
        let (_, found) = check(&store, Repair::Nothing);
        assert!(found.iter().all(|one| one.kind != "bitmap-in-use"), "{what}: {found:?}");
        assert!(found.iter().any(|one| one.kind == "bitmap-not-understood"), "{what}: {found:?}");
    }
}

/// Whoever opens the image refuses such a table, so a check tells it, whether it is too short or too
/// long.
#[test]
fn a_table_of_another_length_than_the_disk_needs_is_told_and_mended() {
    for entries in [2, 5] {
        let store = marked();
        let (old, before) = (directory(&store), bitmaps(&store));
        set(&store, old + 8, entries << 32 | 2);
        try_open(&store, Access::ReadWrite).expect_err("the table does not fit");
        let (report, found) = check(&store, Repair::All);
        assert!(report.is_clean() && !found.is_empty(), "{report:?} {found:?}");
        assert_eq!(bitmaps(&store), before, "{entries}");
    }
}

/// Golden images with bitmaps of another kind.
const OF_ANOTHER_KIND: [&str; 4] =
    ["bitmap-extra-compatible", "bitmap-extra-data", "bitmap-reserved-flags", "bitmap-type-2"];

#[test]
fn golden_images_with_bitmaps_that_are_not_understood_keep_them() {
    for case in cases("qcow2").iter().filter(|case| OF_ANOTHER_KIND.contains(&&*case.name)) {
        let store = load(&case.unpack().path);
        let len = usize::try_from(store.len().expect("a length")).expect("small");
        let bytes = || {
            let mut bytes = vec![0; len];
            store.read_at(HostOffset::ZERO, &mut bytes).expect("a read of memory");
            bytes
        };
        let before = bytes();
        let (report, found) = check(&store, Repair::All);
        assert!(report.corruptions > 0 && found.iter().all(|one| !one.repaired), "{case}");
        assert!(bytes() == before, "{case}");
    }
}

#[test]
fn golden_images_with_bad_bitmaps_are_in_order_after_a_repair() {
    let bad = |name: &str| {
        let kept = name == "bitmap-autoclear-off" || OF_ANOTHER_KIND.contains(&name);
        name.starts_with("bitmap-") && !kept
    };
    let mut count = 0;
    for case in cases("qcow2").iter().filter(|case| bad(&case.name)) {
        let store = load(&case.unpack().path);
        let (report, found) = check(&store, Repair::All);
        assert!(report.is_clean(), "{case}: {report:?} {found:?}");
        assert!(found.iter().all(|one| one.repaired), "{case}: {found:?}");
        try_open(&store, Access::ReadWrite).unwrap_or_else(|error| panic!("{case}: {error}"));
        count += 1;
    }
    assert!(count > 15, "{count}");
}

/// What a repair that is tried out tells is what the repair then tells, to the word.
#[test]
fn a_dry_run_tells_what_is_then_done() {
    let (mut told, mut mended) = (0, 0);
    for case in cases("qcow2").iter().filter(|case| case.files[0].size <= 1 << 20) {
        let bytes = std::fs::read(case.unpack().path).expect("the file is there");
        for repair in [Repair::Leaks, Repair::All] {
            let below = Arc::new(MemoryStorage::new(bytes.clone()));
            let scratch = Scratch::over(below.clone(), 64 << 20).expect("memory");
            let dry: Arc<dyn Storage> = Arc::new(scratch);
            let (location, limits) = (Location::Other("test".into()), Limits::default());
            let mut open = OpenRequest::new(Arc::clone(&dry), &location, &limits);
            open.access = Access::ReadWrite;
            let request = CheckRequest::new(open).repairing(repair);
            if QCOW2.check(&request, &mut |_| {}).is_err() {
                continue;
            }
            let scratch = Scratch::over(below.clone(), 64 << 20).expect("memory");
            let dry = check(&(Arc::new(scratch) as Arc<dyn Storage>), repair);
            assert!(below.to_vec() == bytes, "{case}: it was changed");
            let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes.clone()));
            assert_eq!(check(&store, repair), dry, "{case}");
            told += dry.1.len();
            mended += dry.1.iter().filter(|one| one.repaired).count();
        }
    }
    assert!(told > 200 && mended > 50, "{told} told, {mended} mended");
}
