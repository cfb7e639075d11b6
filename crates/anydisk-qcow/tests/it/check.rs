//! What a check finds, and what a repair does about it.

use std::sync::Arc;

use crate::common::{create, in_memory, range, read};
use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Error, Format, GuestOffset, HostOffset, Limits,
    Location, OpenRequest, Placement, Reference, Repair, Role, Storage,
};
use anydisk_qcow::QCOW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::golden::cases;
use anydisk_testkit::repair::{Trials, Word};

/// Runs a check: the report, and each finding as one line.
fn check_with(
    store: &Arc<MemoryStorage>,
    repair: Repair,
    limits: &Limits,
) -> (CheckReport, Vec<String>) {
    check_any(store.clone(), repair, limits)
}

fn check_any(
    store: Arc<dyn Storage>,
    repair: Repair,
    limits: &Limits,
) -> (CheckReport, Vec<String>) {
    let location = Location::Other("image".to_owned());
    let open = OpenRequest::new(store, &location, limits);
    let open = OpenRequest { access: Access::ReadWrite, ..open };
    let mut lines = Vec::new();
    let request = CheckRequest::new(open).repairing(repair);
    let report = QCOW.check(&request, &mut |found| {
        let mended = if found.repaired { ", mended" } else { "" };
        lines.push(format!("{} at {}: {}{mended}", found.kind, found.at, found.text));
    });
    (report.expect("it can be checked"), lines)
}

fn check(store: &Arc<MemoryStorage>) -> (CheckReport, Vec<String>) {
    check_with(store, Repair::Nothing, &Limits::default())
}

#[test]
fn a_repair_of_any_damage_keeps_what_is_right() {
    repairs_of_any_damage(None);
}

#[test]
fn a_repair_of_an_image_over_another_uncovers_nothing() {
    repairs_of_any_damage(Some("base.raw"));
}

fn repairs_of_any_damage(below: Option<&str>) {
    let store = Arc::new(MemoryStorage::default());
    let disk = Disk::new(create(store.clone(), 4 << 20, &[], below).expect("an image"));
    for number in [0_u8, 1, 2, 5, 7] {
        disk.write(GuestOffset(u64::from(number) << 12), &[number + 1; 4096]).expect("a write");
    }
    disk.write(GuestOffset(3 << 20), &[9; 4096]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let sound = store.to_vec();
    let word = |at: usize| {
        let bytes = sound[at..].first_chunk().expect("in the file");
        usize::try_from(u64::from_be_bytes(*bytes)).expect("small")
    };
    let l1 = word(0x28);
    let l2 = word(l1);
    let trials = Trials {
        format: &QCOW,
        sound: &sound,
        unit: 512,
        areas: &[0x18..0x30, l1..l1 + 16, l2..l2 + 64, l2..l2 + 64],
        word: Word::Big64,
        nasty: &[0, 1, 0x30, 0x1000, 0x2000, 0x3000, sound.len() as u64, 1 << 40, 1 << 63 | 0x2000],
        count: 300,
    };
    trials.run(&mut Random::new(5));
}

/// An image of 1 MiB with clusters of 4 KiB: the L2 table at 0x1000, clusters 0 and 1 at 0x2000, cluster
/// 9 compressed at 0x230, in the gap behind the L1 table.
fn small() -> Arc<MemoryStorage> {
    let (store, disk) = in_memory(1 << 20, &[]);
    disk.write(GuestOffset(0), &[7; 8192]).expect("a write");
    let writer = disk.top().writer().expect("open for writing");
    let packing = writer.packing().expect("it packs");
    let mut packed = Vec::new();
    assert!(packing.encoder.encode(&[9; 4096], 4096, &mut packed).expect("it packs"));
    let place = writer.place_encoded(range(9 * 4096, 4096), packed.len()).expect("room");
    let Placement::Fresh(taken) = place else { panic!("packed bytes are new") };
    taken.store().write_at(taken.at(), &packed).expect("a write");
    taken.commit().expect("a commit");
    disk.flush().expect("a flush");
    store
}

fn put(store: &Arc<MemoryStorage>, at: u64, word: u64) {
    store.write_at(HostOffset(at), &word.to_be_bytes()).expect("a write");
}

#[test]
fn what_was_written_here_is_clean_and_counted() {
    let store = small();
    let (report, lines) = check(&store);
    assert_eq!(lines, [""; 0]);
    assert!(report.is_clean());
    assert_eq!(report.total_clusters, Some(256));
    assert_eq!((report.allocated_clusters, report.compressed_clusters), (Some(3), Some(1)));
    assert_eq!(report.fragmented_clusters, Some(1));
}

#[test]
fn each_damage_is_found_where_it_is() {
    const TABLE: u64 = 0x1000;
    for (at, word, expected) in [
        (TABLE + 40, 0x1001, "l2-entry-invalid at 0x1028: the L2 entry is 0x1001"),
        (
            TABLE + 40,
            0x2000,
            "cluster-shared at 0x1028: a cluster at 0x2000, named at 0x1028, lies on a cluster named \
             at 0x1000",
        ),
        (
            TABLE + 40,
            0x1200,
            "metadata-overlap at 0x1028: a cluster at 0x1200, named at 0x1028, lies on metadata named \
             at 0x30",
        ),
        (
            TABLE + 40,
            0x9_0000,
            "past-end-of-file at 0x1028: the cluster at 0x90000 lies behind the end of the file",
        ),
        (
            48,
            1 << 63,
            "l1-entry-invalid at 0x30: the L1 entry is 0x8000000000000000, where no table can be",
        ),
        (
            48,
            0x9_0000,
            "past-end-of-file at 0x30: the L2 table at 0x90000 lies behind the end of the file",
        ),
    ] {
        let store = small();
        put(&store, at, word);
        let (report, lines) = check(&store);
        assert_eq!(lines.first().map(String::as_str), Some(expected), "{lines:?}");
        assert!(report.corruptions >= 1);
    }
}

#[test]
fn a_stream_that_is_broken_or_cut_is_found() {
    let store = small();
    store.write_at(HostOffset(0x230), &[0xFF; 4]).expect("a write");
    let (report, lines) = check(&store);
    assert_eq!(report.corruptions, 1);
    assert!(
        lines[0].starts_with("compressed-broken at 0x1048: the stream at 0x230 of"),
        "{lines:?}"
    );
    let store = small();
    put(&store, 0x1048, 1 << 63 | 9 << 51 | 0x3ffc);
    let (_, lines) = check(&store);
    let expected =
        "compressed-past-end at 0x1048: the stream at 0x3ffc reaches behind the end of the file";
    assert_eq!(lines[0], expected);
}

#[test]
fn tables_that_lie_on_each_other_are_found_and_read_once() {
    let (store, disk) = in_memory(6 << 20, &[]);
    disk.write(GuestOffset(0), &[7; 100]).expect("a write");
    disk.flush().expect("a flush");
    let bytes = store.to_vec();
    put(&store, 56, u64::from_be_bytes(bytes[48..56].try_into().expect("8 bytes")));
    let (report, lines) = check(&store);
    assert_eq!(lines, ["l2-table-shared at 0x38: the L2 table at 0x1000 lies on another"]);
    assert_eq!(report.allocated_clusters, Some(1));
}

/// The length of the L1 table comes from the size: one wrong bit of that made a repair take data for
/// entries, and write zeroes over it.
#[test]
fn no_bit_of_the_header_that_is_wrong_makes_a_repair_cost_anything() {
    let (store, disk) = in_memory((2 << 20) + (192 << 10), &[]);
    let mut random = Random::new(3);
    for at in (0..disk.size()).step_by(96 << 10) {
        let mut data = vec![0; 8 << 10];
        random.fill(&mut data);
        disk.write(GuestOffset(at), &data).expect("a write");
    }
    disk.flush().expect("a flush");
    drop(disk);
    let (whole, expected) = (store.to_vec(), content(store.clone()).0);
    let mut in_doubt = Vec::new();
    for bit in 0..48 * 8 {
        let (at, mask) = (bit / 8, 1 << (bit % 8));
        let mut wrong = whole.clone();
        wrong[at] ^= mask;
        let store = Arc::new(MemoryStorage::new(wrong));
        let location = Location::Other("image".to_owned());
        let limits = Limits::default();
        let open = OpenRequest::new(store.clone(), &location, &limits);
        let open = OpenRequest { access: Access::ReadWrite, ..open };
        let request = CheckRequest::new(open).repairing(Repair::All);
        let mut kinds = Vec::new();
        let _ = QCOW.check(&request, &mut |found| kinds.push((found.kind, found.repaired)));
        if kinds.contains(&("header-field", false)) {
            in_doubt.push(bit);
            assert!(kinds.iter().all(|(_, repaired)| !repaired), "bit {bit}");
        }
        store.write_at(HostOffset(at as u64), &whole[at..=at]).expect("memory");
        assert!(content(store).0 == expected, "bit {bit}");
    }
    // From bits of the size on that make the table reach over the first L2 table.
    let of_size = in_doubt.iter().filter(|bit| (24 * 8..32 * 8).contains(*bit)).count();
    assert!(of_size > 4, "{in_doubt:?}");
}

#[test]
fn lost_space_is_counted_in_clusters_and_given_back() {
    let (store, disk) = in_memory(1 << 20, &[("cluster_size", "64k")]);
    disk.write(GuestOffset(0), &[7; 2 << 16]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let contents = |store: &Arc<MemoryStorage>| {
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let request = OpenRequest::new(store.clone(), &location, &limits);
        let disk = Disk::new(QCOW.open(request).expect("it opens").image);
        read(&disk, 0, disk.size())
    };
    // The first cluster, and 12 behind the end. They hold nothing.
    put(&store, 0x10000, 0);
    store.write_at(HostOffset(0x20000), &[0; 1 << 16]).expect("a write");
    store.write_at(HostOffset(0x40000), &[0; 12 << 16]).expect("a write");
    let before = contents(&store);
    let (report, lines) = check(&store);
    assert_eq!((report.leaks, report.corruptions), (13, 0));
    let expected = [
        "leak at 0x20000: nothing names 1 clusters from 0x20000 on",
        "leak at 0x40000: nothing names 12 clusters from 0x40000 on",
    ];
    assert_eq!(lines, expected);
    let (report, _) = check_with(&store, Repair::Leaks, &Limits::default());
    assert_eq!((report.leaks, report.leaks_fixed), (0, 13));
    assert_eq!(store.len().expect("memory has a length"), 0x40000);
    assert!(check(&store).0.is_clean());
    assert!(contents(&store) == before);
}

/// An entry of the L1 or of an L2 table was zeroed: nothing tells it from a cluster that was never
/// written, but that there is data.
#[test]
fn clusters_with_data_are_kept_whatever_no_table_says_of_them() {
    let (store, disk) = in_memory(64 << 20, &[("cluster_size", "64k")]);
    for number in 0..8 {
        disk.write(GuestOffset(number << 16), &[7; 1 << 16]).expect("a write");
    }
    disk.flush().expect("a flush");
    drop(disk);
    let whole = store.to_vec();
    let l2 = u64::from_be_bytes(whole[48..56].try_into().expect("8 bytes"));
    // One entry in the middle, the last one, a whole sector.
    for (at, len) in [(l2 + 24, 8), (l2 + 56, 8), (l2, 512)] {
        let store = Arc::new(MemoryStorage::new(whole.clone()));
        store.write_at(HostOffset(at), &vec![0; len]).expect("a write");
        let before = store.to_vec();
        for repair in [Repair::Nothing, Repair::Leaks, Repair::All] {
            let (report, lines) = check_with(&store, repair, &Limits::default());
            assert!(report.leaks > 0 && report.leaks_fixed == 0, "{lines:?}");
            assert!(lines[0].ends_with(", and they hold data: they are kept"), "{lines:?}");
            assert!(store.to_vec() == before, "{at:#x}");
        }
    }
}

#[test]
fn discarded_clusters_take_no_space_when_the_image_is_closed() {
    let (store, disk) = in_memory(1 << 20, &[("cluster_size", "64k")]);
    disk.write(GuestOffset(0), &[7; 4 << 16]).expect("a write");
    disk.flush().expect("a flush");
    disk.discard(range(1 << 16, 2 << 16)).expect("a discard");
    disk.flush().expect("a flush");
    drop(disk);
    assert_eq!(check(&store).1, [""; 0]);
}

#[test]
fn nothing_is_given_back_while_something_is_damaged() {
    let store = small();
    put(&store, 0x1028, 0x1001);
    put(&store, 0x1000, 0);
    let before = store.to_vec();
    let (report, _) = check_with(&store, Repair::All, &Limits::default());
    assert_eq!((report.leaks, report.leaks_fixed, report.corruptions), (1, 0, 1));
    assert!(store.to_vec() == before);
}

/// A flipped byte of l1_table_offset, or a lost table, once made a repair punch out the whole disk.
#[test]
fn clusters_of_a_table_that_was_lost_are_neither_leaks_nor_given_back() {
    let full = || {
        let (store, disk) = in_memory(18 << 20, &[("cluster_size", "64k")]);
        disk.write(GuestOffset(0), &vec![7; 18 << 20]).expect("a write");
        disk.flush().expect("a flush");
        store
    };
    type Damage = fn(&Arc<MemoryStorage>);
    let damages: [(Damage, &str); 3] = [
        (
            |store| put(store, 0x28, 1 << 50 | 48),
            "l1-table-past-end at 0x28: the L1 table ends at 0x4000000000038, behind the end of the \
             file at",
        ),
        (
            |store| put(store, 48, 0),
            "tables-lost at 0x30: the L1 table names nothing, and there are 289 clusters: it may be \
             damaged",
        ),
        (
            |store| put(store, 48, 0x9_0000_0000),
            "past-end-of-file at 0x30: the L2 table at 0x900000000 lies behind the end of the file",
        ),
    ];
    for (damage, expected) in damages {
        let store = full();
        damage(&store);
        let before = store.to_vec();
        for repair in [Repair::Nothing, Repair::Leaks, Repair::All, Repair::All] {
            let (report, lines) = check_with(&store, repair, &Limits::default());
            assert!(lines[0].starts_with(expected), "{lines:?}");
            assert!(report.corruptions > 0 && report.leaks_fixed == 0, "{report:?}");
            assert!(report.image_end.is_some_and(|end| end.get() <= before.len() as u64));
            assert!(store.to_vec() == before, "{expected}, {repair:?}");
        }
    }
}

#[test]
fn a_cluster_in_which_the_file_ends_is_told_and_the_file_filled_up() {
    // The last cluster of the second disk is cut by its end.
    for (size, cut, is_damage) in [(1 << 20, 1, true), ((1 << 20) + 512, 3584, false)] {
        let (store, disk) = in_memory(size, &[]);
        disk.write(GuestOffset(size - 512), &[7; 512]).expect("a write");
        disk.flush().expect("a flush");
        drop(disk);
        let len = store.len().expect("memory");
        store.set_len(len - cut).expect("memory");
        let (report, lines) = check(&store);
        assert_eq!(report.corruptions, u64::from(is_damage), "{lines:?}");
        if is_damage {
            let expected =
                "cluster-cut at 0x17f8: the file ends in the cluster at 0x2000, at 0x2fff";
            assert_eq!(lines, [expected]);
            let (report, _) = check_with(&store, Repair::All, &Limits::default());
            assert!(report.is_clean());
            assert_eq!(store.len().expect("memory"), len);
        }
    }
}

/// Whatever of a table is behind the end is told as lost; filled up, the rest of it is read by everyone.
#[test]
fn a_table_in_which_the_file_ends_is_told_and_the_file_filled_up() {
    let (store, disk) = in_memory(4 << 20, &[]);
    disk.write(GuestOffset(0), &[7; 4096]).expect("a write");
    disk.flush().expect("a flush");
    disk.write(GuestOffset(2 << 20), &[8; 4096]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let whole = store.to_vec();
    let second = 0x3000;
    for (len, end, expected) in [
        (50, 64, "l1-table-cut at 0x28: the file ends in the L1 table at 0x30, at 0x32"),
        (
            64,
            64,
            "past-end-of-file at 0x30: the L2 table at 0x1000 lies behind the end of the file",
        ),
        (
            0x1004,
            0x2000,
            "l2-table-cut at 0x30: the file ends in the L2 table at 0x1000, at 0x1004",
        ),
        (
            second + 16,
            0x4000,
            "l2-table-cut at 0x38: the file ends in the L2 table at 0x3000, at 0x3010",
        ),
    ] {
        store.set_len(0).expect("memory");
        store.write_at(HostOffset(0), &whole[..len]).expect("memory");
        let (report, lines) = check(&store);
        assert!(report.corruptions > 0 && lines.iter().any(|it| it == expected), "{lines:?}");
        let (report, _) = check_with(&store, Repair::All, &Limits::default());
        assert!(report.is_clean(), "{len}");
        let (report, lines) = check(&store);
        assert!(report.is_clean() && lines.is_empty(), "{len}: {lines:?}");
        // All tables are in the file now.
        assert_eq!(store.len().expect("memory"), end, "{len}");
        let kept = if len > second { 7 } else { 0 };
        assert_eq!(content(store.clone()).0[0], kept, "{len}");
    }
}

/// Bytes of the disk in a store, and the name of the image below it.
fn content(store: Arc<dyn Storage>) -> (Vec<u8>, Option<Vec<u8>>) {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let opened = QCOW.open(OpenRequest::new(store, &location, &limits)).expect("it opens");
    let disk = Disk::new(opened.image);
    (read(&disk, 0, disk.size()), opened.backing.map(|reference| reference.name))
}

#[test]
fn power_may_fail_during_a_repair_and_all_reads_as_before() {
    let damages: [fn(&Arc<MemoryStorage>); 2] = [
        |store| put(store, 0x1028, 0x9_0000),
        |store| {
            put(store, 0x1000, 0);
            store.write_at(HostOffset(0x2000), &[0; 4096]).expect("a write");
            store.set_len(store.len().expect("memory") + (3 << 12)).expect("memory");
        },
    ];
    for damage in damages {
        let store = small();
        damage(&store);
        let before = content(store.clone());
        let crash = CrashStorage::over(store.to_vec());
        check_any(Arc::new(crash.clone()), Repair::All, &Limits::default());
        let mut count = 0;
        for state in crash.torn_states(200, 1) {
            count += 1;
            let store: Arc<dyn Storage> = state.storage();
            assert!(content(store.clone()) == before, "{state}");
            check_any(store.clone(), Repair::All, &Limits::default());
            assert!(content(store.clone()) == before, "{state}");
            let (report, lines) = check_any(store, Repair::Nothing, &Limits::default());
            // Not every medium makes holes.
            assert_eq!(report.corruptions, 0, "{lines:?}\n{state}");
        }
        assert!(count > 1, "nothing was written");
    }
}

#[test]
fn power_may_fail_while_another_image_is_named_and_one_of_the_two_is() {
    let (store, disk) = in_memory(1 << 20, &[]);
    disk.write(GuestOffset(0), &[7; 8192]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let before = content(store.clone()).0;
    let crash = CrashStorage::over(store.to_vec());
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let open = OpenRequest::new(Arc::new(crash.clone()), &location, &limits);
    let image =
        QCOW.open(OpenRequest { access: Access::ReadWrite, ..open }).expect("it opens").image;
    let link = image.backing_link().expect("it can be changed");
    let mut names = vec![None];
    for name in [Some("a"), Some("another name"), None] {
        let reference = name.map(|name| Reference::new(Role::Backing, name));
        link.set_backing(reference.as_ref()).expect("another name");
        crash.mark();
        names.push(name.map(|name| name.as_bytes().to_vec()));
    }
    for state in crash.torn_states(200, 1) {
        let (found, name) = content(state.storage());
        let named = state.marks().min(names.len() - 2);
        assert!(names[named..named + 2].contains(&name), "{name:?}\n{state}");
        assert!(found == before, "{state}");
        let (report, lines) = check_any(state.storage(), Repair::Nothing, &Limits::default());
        assert_eq!(report.corruptions, 0, "{lines:?}\n{state}");
    }
}

#[test]
fn entries_behind_the_end_are_cleared_where_that_reads_the_same() {
    let store = small();
    put(&store, 0x1028, 0x9_0000);
    let (report, lines) = check_with(&store, Repair::All, &Limits::default());
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 1));
    assert!(lines[0].ends_with(", mended"), "{lines:?}");
    assert!(check(&store).0.is_clean());
    // Over another image it would show that instead of zeroes.
    let store = Arc::new(MemoryStorage::default());
    let image = create(store.clone(), 1 << 20, &[], Some("below")).expect("an image");
    let disk = Disk::new(image);
    disk.write(GuestOffset(0), &[7; 512]).expect("a write");
    disk.flush().expect("a flush");
    let table = u64::from_be_bytes(store.to_vec()[56..64].try_into().expect("8 bytes"));
    put(&store, table + 8, 0x9_0000);
    let (report, _) = check_with(&store, Repair::All, &Limits::default());
    assert_eq!((report.corruptions, report.corruptions_fixed), (1, 0));
}

/// Beside an entry that can be nothing, another one that leads behind the end may be data as well.
#[test]
fn nothing_is_repaired_beside_what_cannot_be() {
    let store = small();
    put(&store, 0x1028, 0x9_0000);
    put(&store, 0x1030, 0x1001);
    store.set_len(store.len().expect("memory") - 8).expect("memory");
    let before = store.to_vec();
    let (report, lines) = check_with(&store, Repair::All, &Limits::default());
    assert_eq!((report.corruptions, report.corruptions_fixed), (3, 0), "{lines:?}");
    assert!(store.to_vec() == before);
    put(&store, 0x1030, 0);
    let (report, lines) = check_with(&store, Repair::All, &Limits::default());
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 2), "{lines:?}");
}

#[test]
fn little_memory_finds_what_much_memory_finds() {
    let (store, disk) = in_memory(16 << 20, &[("cluster_size", "512")]);
    // Clusters in no order, so that hardly two of them are one run.
    let mut random = Random::new(5);
    for _ in 0..6000 {
        disk.write(GuestOffset(random.below(32768) * 512), &[1; 512]).expect("a write");
    }
    disk.discard(range(1 << 20, 1 << 20)).expect("a discard");
    disk.flush().expect("a flush");
    drop(disk);
    let table = u64::from_be_bytes(store.to_vec()[48 + 16..48 + 24].try_into().expect("8 bytes"));
    put(&store, table + 8, 0x2_0000);
    put(&store, table + 16, 0x6_0200);
    let mut little = Limits::default();
    little.table_cache = 1;
    let (all, mut lines) = check(&store);
    let (some, mut others) = check_with(&store, Repair::Nothing, &little);
    lines.retain(|line| !line.starts_with("leak"));
    others.retain(|line| !line.starts_with("leak"));
    assert_eq!(lines, others);
    assert!(all.corruptions >= 2 && all.leaks > 100, "{all:?}");
    assert_eq!(all, some);
}

#[test]
fn golden_images_are_clean_but_for_those_with_damage() {
    for case in cases("qcow") {
        let store = Arc::new(MemoryStorage::new(
            std::fs::read(&case.unpack().path).expect("it was unpacked"),
        ));
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
        let mut kinds = Vec::new();
        let report = QCOW.check(&request, &mut |found| kinds.push(found.kind));
        let expected: &[&str] = match case.name.as_str() {
            name if name.starts_with("hdr-") && name != "hdr-l1-eof" => {
                assert!(report.is_err(), "{name}");
                continue;
            }
            "compressed-garbage" => &["compressed-broken"],
            "compressed-len0" | "data-unaligned" => &["l2-entry-invalid", "leak"],
            "compressed-overwritten" | "hdr-l1-eof" | "l2-loop" => {
                assert!(report.is_ok(), "{}", case.name);
                continue;
            }
            "data-eof" => &["past-end-of-file", "leak"],
            _ => &[],
        };
        assert_eq!(kinds, expected, "{}", case.name);
    }
}

#[test]
fn a_check_can_be_stopped() {
    let store = small();
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    request.progress = Some(&|_, _| false);
    let stopped = QCOW.check(&request, &mut |_| {});
    assert!(matches!(stopped, Err(Error::Cancelled)));
}
