//! What a check finds, and what a repair does about it.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckReport, CheckRequest, CreateRequest, Disk, Format, GuestOffset, HostOffset,
    Limits, Location, OpenRequest, Options, Repair, Storage,
};
use anydisk_cow::COW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::contents;
use anydisk_testkit::double::CrashStorage;

/// Data begins here in an image of 100 sectors.
const DATA: u64 = 1536;

/// 100 sectors, of which 3 to 9 and 70 were written.
fn small() -> Arc<MemoryStorage> {
    let store = Arc::new(MemoryStorage::default());
    let (location, options) = (Location::Other("image".to_owned()), Options::of(&COW));
    let limits = Limits::default();
    let request = CreateRequest::new(store.clone(), &location, 51200, &options, &limits);
    let disk = Disk::new(COW.create(request).expect("an image"));
    disk.write(GuestOffset(3 * 512), &[7; 7 * 512]).expect("a write");
    disk.write(GuestOffset(70 * 512), &[7; 1]).expect("a write");
    disk.flush().expect("a flush");
    store
}

fn check(store: &Arc<MemoryStorage>, repair: Repair) -> (CheckReport, Vec<String>) {
    check_any(store.clone(), repair)
}

fn check_any(store: Arc<dyn Storage>, repair: Repair) -> (CheckReport, Vec<String>) {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let open = OpenRequest::new(store, &location, &limits);
    let open = OpenRequest { access: Access::ReadWrite, ..open };
    let mut lines = Vec::new();
    let request = CheckRequest::new(open).repairing(repair);
    let report = COW.check(&request, &mut |found| {
        let mended = if found.repaired { ", mended" } else { "" };
        lines.push(format!("{} at {}: {}{mended}", found.kind, found.at, found.text));
    });
    (report.expect("it can be checked"), lines)
}

#[test]
fn what_was_written_here_is_clean_and_counted() {
    let (report, lines) = check(&small(), Repair::Nothing);
    assert_eq!(lines, [""; 0]);
    assert!(report.is_clean());
    assert_eq!((report.total_clusters, report.allocated_clusters), (Some(100), Some(8)));
    assert_eq!(report.image_end, Some(HostOffset(DATA + 71 * 512)));
}

#[test]
fn sectors_that_are_not_in_the_file_are_found_and_the_file_is_made_to_hold_them() {
    let store = small();
    store.set_len(DATA + 5 * 512 + 100).expect("memory can be cut");
    let (report, lines) = check(&store, Repair::Nothing);
    let expected = [
        "past-end-of-file at 0x1000: the sectors 5 to 9 are not in the file",
        "past-end-of-file at 0x9200: the sectors 70 to 70 are not in the file",
    ];
    assert_eq!(lines, expected);
    assert_eq!(report.corruptions, 2);
    let (report, _) = check(&store, Repair::All);
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 2));
    assert_eq!(store.len().expect("memory has a length"), DATA + 71 * 512);
    assert!(check(&store, Repair::Nothing).0.is_clean());
}

#[test]
fn bits_of_no_sector_are_noted_and_cleared() {
    let store = small();
    // The last byte of the bitmap has the bits of sectors 96 to 99, and four of none.
    store.write_at(HostOffset(1056 + 12), &[0xF2]).expect("a write");
    let (report, lines) = check(&store, Repair::Nothing);
    assert_eq!(lines[0], "unused-bits at 0x428: bits behind the last sector are set");
    assert_eq!(report.allocated_clusters, Some(9));
    let (_, lines) = check(&store, Repair::All);
    assert!(lines[0].ends_with(", mended"), "{lines:?}");
    assert_eq!(store.to_vec()[1056 + 12], 2);
    assert_eq!(check(&store, Repair::Nothing).1, [""; 0]);
}

#[test]
fn a_file_that_is_too_long_is_cut() {
    let store = small();
    store.set_len(DATA + 51200 + 1000).expect("memory grows");
    let (report, lines) = check(&store, Repair::Nothing);
    assert_eq!(lines, ["leak at 0xce00: 2 sectors lie behind the end of the disk"]);
    assert_eq!(report.leaks, 2);
    assert_eq!(check(&store, Repair::Leaks).0.leaks_fixed, 2);
    assert_eq!(store.len().expect("memory has a length"), DATA + 51200);
}

/// The size in the header may be what is wrong.
#[test]
fn data_behind_the_end_of_the_disk_is_told_and_kept() {
    let store = small();
    store.write_at(HostOffset(DATA + 51200 + 700), &[1]).expect("memory grows");
    let before = store.to_vec();
    for repair in [Repair::Nothing, Repair::Leaks, Repair::All] {
        let (report, lines) = check(&store, repair);
        assert_eq!((report.leaks, report.leaks_fixed), (2, 0));
        assert!(lines[0].ends_with("behind the end of the disk, and hold data: they are kept"));
    }
    // What is missing before the end is filled up, and nothing else.
    assert!(store.to_vec() == before);
}

#[test]
fn power_may_fail_during_a_repair_and_all_reads_as_before() {
    let damages: [fn(&MemoryStorage); 2] = [
        |store| {
            store.set_len(DATA + 5 * 512 + 100).expect("memory can be cut");
            store.write_at(HostOffset(1056 + 12), &[0xF2]).expect("a write");
        },
        |store| store.set_len(DATA + 51200 + 1000).expect("memory grows"),
    ];
    let content = |store| {
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let request = OpenRequest::new(store, &location, &limits);
        contents(&Disk::new(COW.open(request).expect("it opens").image))
    };
    for damage in damages {
        let store = small();
        damage(&store);
        let before = content(store.clone() as Arc<dyn Storage>);
        let crash = CrashStorage::over(store.to_vec());
        check_any(Arc::new(crash.clone()), Repair::All);
        for state in crash.torn_states(200, 1) {
            let store: Arc<dyn Storage> = state.storage();
            assert!(content(store.clone()) == before, "{state}");
            check_any(store.clone(), Repair::All);
            assert!(content(store.clone()) == before, "{state}");
            let (report, lines) = check_any(store, Repair::Nothing);
            assert!(report.is_clean(), "{lines:?}\n{state}");
        }
    }
}
