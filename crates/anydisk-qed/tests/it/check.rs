//! What a check finds, and what a repair makes of it.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Format, GuestOffset, HostOffset, Limits, Location,
    OpenRequest, Repair, Storage,
};
use anydisk_qed::QED;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::contents;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::repair::{Trials, Word, shows_nothing_elsewhere};

use crate::common::{create, in_memory};

/// Where things are in the image of [`small`].
const L1: u64 = 0x1000;
const L2: u64 = 0x3000;
const DATA: u64 = 0x5000;
const NEED_CHECK: u64 = 0x10;

/// A disk of 4 MiB whose clusters 0 to 3 hold their number plus one: tables of two clusters of 4 KiB.
fn small() -> Arc<MemoryStorage> {
    let (store, disk) = in_memory(4 << 20, &[("cluster_size", "4k"), ("table_size", "2")]);
    for number in 0..4_u8 {
        disk.write(GuestOffset(u64::from(number) << 12), &[number + 1; 4096]).expect("a write");
    }
    disk.flush().expect("a flush");
    store
}

fn put(store: &dyn Storage, at: u64, word: u64) {
    store.write_at(HostOffset(at), &word.to_le_bytes()).expect("a write");
}

fn check_any(store: Arc<dyn Storage>, repair: Repair) -> (CheckReport, Vec<String>) {
    check_within(store, repair, &Limits::default())
}

fn check_within(
    store: Arc<dyn Storage>,
    repair: Repair,
    limits: &Limits,
) -> (CheckReport, Vec<String>) {
    let location = Location::Other("image".to_owned());
    let open = OpenRequest::new(store, &location, limits);
    let access = if repair == Repair::Nothing { Access::Read } else { Access::ReadWrite };
    let request = CheckRequest::new(OpenRequest { access, ..open }).repairing(repair);
    let mut lines = Vec::new();
    let report = QED.check(&request, &mut |found| {
        lines.push(format!("{} at {}: {}", found.kind, found.at, found.text));
    });
    (report.expect("it can be checked"), lines)
}

fn check(store: &Arc<MemoryStorage>, repair: Repair) -> (CheckReport, Vec<String>) {
    check_any(store.clone(), repair)
}

fn open(store: &Arc<dyn Storage>, access: Access) -> anydisk_core::Result<Disk> {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let open = OpenRequest::new(Arc::clone(store), &location, &limits);
    QED.open(OpenRequest { access, ..open }).map(|opened| Disk::new(opened.image))
}

/// The first byte of each of the first four clusters.
fn firsts(store: &Arc<MemoryStorage>) -> [u8; 4] {
    let store: Arc<dyn Storage> = store.clone();
    let disk = open(&store, Access::Read).expect("it opens");
    [0, 1, 2, 3].map(|number| {
        let mut byte = [0];
        disk.read(GuestOffset(number << 12), &mut byte).expect("a read");
        byte[0]
    })
}

#[test]
fn what_was_written_here_is_clean_and_counted() {
    let store = small();
    let (report, lines) = check(&store, Repair::Nothing);
    assert!(report.is_clean() && lines.is_empty(), "{lines:?}");
    assert_eq!((report.total_clusters, report.allocated_clusters), (Some(1024), Some(4)));
}

/// What is found, what the first clusters read after a repair, and whether nothing is wrong then.
#[test]
fn each_damage_is_found_where_it_is_and_mended_where_it_can_be() {
    let end = DATA + 4 * 4096;
    // Where clusters are without a name that a bad entry may have named, it stays.
    type Damage<'a> = (&'a [(u64, u64)], &'a str, Option<[u8; 4]>);
    let damages: [Damage<'_>; 12] = [
        (&[(L1, 0x3001)], "l1-entry-invalid at 0x1000: the L1 entry is 0x3001", None),
        (&[(L1, 0xF000)], "past-end-of-file at 0x1000: the L2 table at 0xf000", None),
        (&[(L1 + 8, 0x3001)], "l1-entry-invalid at 0x1008", Some([1, 2, 3, 4])),
        (&[(L1 + 8, 0xF000)], "past-end-of-file at 0x1008", Some([1, 2, 3, 4])),
        (&[(L1 + 8, L2)], "l2-table-shared at 0x1008: the L2 table at 0x3000", None),
        (&[(L2 + 8, 2)], "l2-entry-invalid at 0x3008: the L2 entry is 0x2", None),
        (&[(L2 + 40, 2)], "l2-entry-invalid at 0x3028: the L2 entry is 0x2", Some([1, 2, 3, 4])),
        (
            &[(L2 + 40, end)],
            "past-end-of-file at 0x3028: the cluster at 0x9000",
            Some([1, 2, 3, 4]),
        ),
        (&[(L2 + 8, DATA)], "cluster-shared at 0x3008: the cluster at 0x5000", Some([1, 1, 3, 4])),
        (&[(L2 + 8, L2)], "metadata-overlap at 0x3008: the cluster at 0x3000", None),
        // Nothing is mended beside that.
        (&[(L2 + 8, L2), (L2 + 40, 2)], "metadata-overlap at 0x3008", None),
        (&[(L2 + 24, 0)], "leak at 0x8000: nothing names 1 clusters", Some([1, 2, 3, 0])),
    ];
    for (words, expected, after) in damages {
        let store = small();
        words.iter().for_each(|(at, word)| put(&*store, *at, *word));
        let before = store.to_vec();
        let (report, lines) = check(&store, Repair::Nothing);
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}: {lines:?}");
        let is_leak = expected.starts_with("leak");
        assert_eq!(report.corruptions > 0, !is_leak, "{expected}");
        assert!(store.to_vec() == before, "{expected}");
        let opened = open(&(store.clone() as Arc<dyn Storage>), Access::ReadWrite);
        assert_eq!(opened.is_ok(), is_leak, "{expected}");
        let (report, lines) = check(&store, Repair::All);
        assert_eq!(report.corruptions == 0, after.is_some(), "{expected}: {lines:?}");
        if after.is_none() {
            assert!(store.to_vec() == before, "{expected}: {lines:?}");
        }
        if let Some(after) = after {
            assert_eq!(firsts(&store), after, "{expected}");
            let (report, lines) = check(&store, Repair::Nothing);
            assert!(report.corruptions == 0, "{expected}: {lines:?}");
            open(&(store.clone() as Arc<dyn Storage>), Access::ReadWrite).expect("it is mended");
        }
    }
}

#[test]
fn a_table_or_a_cluster_in_which_the_file_ends_is_told_and_the_file_filled_up() {
    for (len, expected, after) in [
        (
            DATA + 0x3800,
            "cluster-cut at 0x3018: the file ends in the cluster at 0x8000",
            [1, 2, 3, 4],
        ),
        (L2 + 12, "l2-table-cut at 0x1000: the file ends in the L2 table at 0x3000", [0; 4]),
    ] {
        let store = small();
        store.set_len(len).expect("memory");
        let (report, lines) = check(&store, Repair::Nothing);
        assert!(report.corruptions > 0, "{expected}");
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}: {lines:?}");
        assert!(check(&store, Repair::All).0.is_clean(), "{expected}");
        assert_eq!(firsts(&store), after, "{expected}");
        let (report, lines) = check(&store, Repair::Nothing);
        assert!(report.is_clean() && lines.is_empty(), "{expected}: {lines:?}");
    }
}

#[test]
fn lost_space_is_given_back_where_it_holds_no_data_and_nothing_is_damaged() {
    // Zeroes in the middle and at the end.
    let store = small();
    for number in [1, 3] {
        put(&*store, L2 + 8 * number, 0);
        store.write_at(HostOffset(DATA + (number << 12)), &[0; 4096]).expect("memory");
    }
    let (report, lines) = check(&store, Repair::Nothing);
    assert_eq!((report.leaks, report.corruptions), (2, 0), "{lines:?}");
    let damaged = Arc::new(MemoryStorage::new(store.to_vec()));
    put(&*damaged, L2, 2);
    check(&damaged, Repair::All);
    assert_eq!(damaged.len().expect("memory"), DATA + 4 * 4096);
    let (report, _) = check(&store, Repair::Leaks);
    // Memory has no holes: only the end can be given back.
    assert_eq!(report.leaks_fixed, 1);
    assert_eq!(store.len().expect("memory"), DATA + 3 * 4096);
    assert_eq!(firsts(&store), [1, 0, 3, 0]);
    // With data in it, it stays.
    let store = small();
    put(&*store, L2 + 24, 0);
    let (report, lines) = check(&store, Repair::All);
    assert_eq!((report.leaks, report.leaks_fixed), (1, 0), "{lines:?}");
    assert_eq!(store.len().expect("memory"), DATA + 4 * 4096);
}

#[test]
fn clusters_of_a_table_that_was_lost_are_neither_leaks_nor_given_back() {
    let (store, disk) = in_memory(64 << 20, &[]);
    disk.write(GuestOffset(0), &vec![7; 20 << 20]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    put(&*store, 0x10000, 0);
    let len = store.len().expect("memory");
    for repair in [Repair::Nothing, Repair::Leaks, Repair::All] {
        let (report, lines) = check(&store, repair);
        assert!(report.corruptions == 1 && report.leaks == 0, "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("tables-lost")), "{lines:?}");
        assert_eq!(store.len().expect("memory"), len);
    }
}

/// QEMU marks an image before it writes entries, and writes them in any order with the data.
#[test]
fn an_image_that_was_not_closed_is_repaired_when_it_is_opened_for_writing() {
    let store = small();
    put(&*store, NEED_CHECK, 2);
    // The last cluster did not reach the file.
    store.set_len(DATA + 3 * 4096 + 7).expect("memory");
    put(&*store, L2 + 32, DATA + 9 * 4096);
    assert!(check(&store, Repair::Nothing).1.iter().any(|line| line.starts_with("unclean")));
    let any: Arc<dyn Storage> = store.clone();
    assert!(open(&any, Access::Read).expect("it opens").top().info().dirty);
    let disk = open(&any, Access::ReadWrite).expect("it is repaired");
    assert!(!disk.top().info().dirty);
    assert_eq!(firsts(&store), [1, 2, 3, 4]);
    drop(disk);
    let (report, lines) = check(&store, Repair::Nothing);
    assert!(report.is_clean() && lines.is_empty(), "{lines:?}");
    // What no crash leaves is not decided without being asked.
    put(&*store, NEED_CHECK, 2);
    put(&*store, L2 + 40, 0x5001);
    let before = store.to_vec();
    let error = open(&any, Access::ReadWrite).expect_err("it is damaged").to_string();
    assert!(error.contains("the L2 entry is 0x5001"), "{error}");
    assert!(store.to_vec() == before);
    assert!(check(&store, Repair::All).0.corruptions == 0);
    assert!(!open(&any, Access::ReadWrite).expect("mended").top().info().dirty);
}

/// Copies go to where the file ends, which is where a damaged entry leads.
#[test]
fn a_repair_shows_no_cluster_in_another_whenever_power_fails() {
    let end = DATA + 4 * 4096;
    // With clusters that nothing names, a damaged entry may have meant one of them.
    for (shared, behind, left) in [(4, 5, 0), (5, 4, 0), (1, 4, 2), (4, 1, 2)] {
        let (store, disk) = in_memory(64 << 10, &[("cluster_size", "4k"), ("table_size", "2")]);
        for number in 0..4_u8 {
            disk.write(GuestOffset(u64::from(number) << 12), &[number + 1; 4096]).expect("a write");
        }
        disk.flush().expect("a flush");
        drop(disk);
        put(&*store, L2 + 8 * shared, DATA);
        put(&*store, L2 + 8 * behind, end);
        let found = shows_nothing_elsewhere(&QED, &store.to_vec(), 4096);
        assert_eq!(found, left, "{shared}, {behind}");
    }
    // Nor for an entry behind the end of the disk, which is kept.
    let store = small();
    put(&*store, L2 + 8, DATA);
    put(&*store, L2 + 24, 0);
    put(&*store, 0x18 + 0x18, 12 << 10);
    put(&*store, L2 + 40, end);
    assert_eq!(check(&store, Repair::All).0.corruptions, 1);
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
    let given = [("cluster_size", "4k"), ("table_size", "2")];
    let disk = Disk::new(create(store.clone(), 1 << 20, &given, below).expect("an image"));
    for number in [0_u8, 1, 2, 5, 7, 130] {
        disk.write(GuestOffset(u64::from(number) << 12), &[number + 1; 4096]).expect("a write");
    }
    disk.flush().expect("a flush");
    drop(disk);
    let sound = store.to_vec();
    let l2 = 0x3000;
    // An image that was not closed is as it was before what is missing was written.
    let header = if below.is_some() { 0x28..0x30 } else { 0x10..0x30 };
    let trials = Trials {
        format: &QED,
        sound: &sound,
        unit: 512,
        areas: &[header, 0x1000..0x1010, l2..l2 + 0x60, l2..l2 + 0x60],
        word: Word::Little64,
        nasty: &[
            0,
            1,
            2,
            0x1000,
            0x2000,
            0x3000,
            0x5000,
            0x6000,
            0x7000,
            sound.len() as u64,
            1 << 40,
        ],
        count: 300,
    };
    trials.run(&mut Random::new(5));
}

#[test]
fn power_may_fail_during_a_repair_and_what_was_whole_stays() {
    let store = small();
    put(&*store, NEED_CHECK, 2);
    put(&*store, L2 + 8, DATA);
    put(&*store, L2 + 40, DATA + (9 << 12));
    let crash = CrashStorage::over(store.to_vec());
    let (report, lines) = check_any(Arc::new(crash.clone()), Repair::All);
    assert_eq!(report.corruptions, 0, "{lines:?}");
    for state in crash.torn_states(60, 1) {
        let store: Arc<dyn Storage> = state.storage();
        let (report, lines) = check_any(store.clone(), Repair::All);
        assert_eq!(report.corruptions, 0, "{state}: {lines:?}");
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        let bytes = contents(&disk);
        assert_eq!([bytes[0], bytes[4096], bytes[8192]], [1, 1, 3], "{state}");
    }
}

#[test]
fn little_memory_finds_what_much_memory_finds() {
    let (store, disk) = in_memory(8 << 20, &[("cluster_size", "4k"), ("table_size", "2")]);
    disk.write(GuestOffset(0), &vec![7; 8 << 20]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    // A cluster in the first window, one in the second, and one without a name.
    put(&*store, L2 + 80, DATA);
    put(&*store, L2 + 8 * 1023, DATA + (1020 << 12));
    let all = check(&store, Repair::Nothing);
    assert_eq!((all.0.corruptions, all.0.leaks), (2, 2), "{:?}", all.1);
    let mut little = Limits::default();
    little.table_cache = 1;
    assert_eq!(check_within(store.clone(), Repair::Nothing, &little), all);
    let (report, lines) = check_within(store.clone(), Repair::All, &little);
    assert_eq!(report.corruptions, 0, "{lines:?}");
    assert_eq!(check(&store, Repair::Nothing).0.corruptions, 0);
}

#[test]
fn a_check_can_be_stopped() {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = CheckRequest::new(OpenRequest::new(small(), &location, &limits));
    request.progress = Some(&|_, _| false);
    let stopped = QED.check(&request, &mut |_| {});
    assert!(matches!(stopped, Err(anydisk_core::Error::Cancelled)), "{stopped:?}");
}
