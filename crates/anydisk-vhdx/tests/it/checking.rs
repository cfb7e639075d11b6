//! Checking and repairing.

use std::sync::Arc;

use anydisk_core::{Access, Disk, GuestOffset, GuestRange, HostOffset, Repair, Severity, Storage};
use anydisk_storage::{MemoryStorage, Space};
use anydisk_testkit::Random;
use anydisk_testkit::contents;
use anydisk_testkit::repair::{Trials, Word, shows_nothing_elsewhere};
use anydisk_vhdx::VHDX;

use crate::common::{
    MIB, TABLE, check, create, entry, file_of, open_alone, reference_to, set_entry,
};

/// A disk of six blocks of 1 MiB, of which the first four are there.
fn image() -> Arc<MemoryStorage> {
    let store = Arc::new(MemoryStorage::default());
    let disk = create(store.clone(), 6 * MIB, &[("block_size", "1M")], None).expect("it is made");
    for block in 0..4 {
        let byte = u8::try_from(block + 1).expect("small");
        disk.write(GuestOffset(block * MIB), &vec![byte; 1 << 20]).expect("a write");
    }
    disk.flush().expect("a flush");
    store
}

fn content(store: &Arc<MemoryStorage>) -> Vec<u8> {
    let opened = open_alone(store.clone(), Access::ReadWrite).expect("it can be written");
    contents(&Disk::new(opened.image))
}

fn kinds(store: &Arc<MemoryStorage>, repair: Repair) -> Vec<&'static str> {
    let (_, found) = check(store.clone(), repair).expect("it can be checked");
    found.iter().map(|found| found.kind).collect()
}

#[test]
fn a_new_image_and_one_that_was_written_are_in_order() {
    let store = image();
    let (report, found) = check(store.clone(), Repair::Nothing).expect("it can be checked");
    assert!(report.is_clean() && found.is_empty(), "{found:?}");
    let before = store.to_vec();
    check(store.clone(), Repair::All).expect("it can be checked");
    assert!(store.to_vec() == before, "nothing was to be mended");
}

/// Damage to an entry, what it is called, and what the disk has in that block after the repair;
/// `None`: it stays as it is.
type Entry = (u64, fn(u64) -> u64, &'static str, Option<u8>);

#[test]
fn damaged_entries_are_told_and_mended_where_no_good_data_can_be_lost() {
    let cases: &[Entry] = &[
        (1, |_| 900 << 20 | 6, "block-behind-end", None),
        (1, |_| TABLE | 6, "block-on-metadata", None),
        (1, |_| 6, "block-on-metadata", None),
        (4, |_| 900 << 20 | 6, "block-behind-end", Some(0)),
        (4, |_| TABLE | 6, "block-on-metadata", Some(0)),
        (4, |_| 4 << 20 | 6, "block-shared", Some(1)),
        (1, |old| old | 8, "entry-reserved-bits", Some(2)),
        (4, |old| old | 1 << 19, "entry-reserved-bits", Some(0)),
        (1, |old| old & !7 | 5, "entry-state", None),
        (1, |old| old | 7, "entry-state", None),
        (1, |old| old & !4, "place-without-block", None),
    ];
    for (number, change, kind, after) in cases {
        let store = image();
        set_entry(&*store, *number, change(entry(&*store, *number)));
        let before = store.to_vec();
        let (told, found) = check(store.clone(), Repair::Nothing).expect("it can be checked");
        let told_of = found.iter().find(|found| found.kind == *kind);
        let told_of = told_of.unwrap_or_else(|| panic!("{kind}: {found:?}"));
        assert_eq!(told_of.at, HostOffset(TABLE + 8 * number), "{kind}");
        let guest = GuestRange::new(GuestOffset(number * MIB), MIB);
        assert_eq!(told_of.guest, guest, "{kind}");
        assert_eq!(told_of.remedy.is_some(), after.is_some(), "{kind}");
        assert!(store.to_vec() == before, "{kind}: a check writes nothing");
        let (mended, _) = check(store.clone(), Repair::All).expect("it can be repaired");
        match after {
            None => assert!(store.to_vec() == before, "{kind}: it cannot be mended"),
            Some(byte) => {
                assert_eq!(mended.corruptions_fixed, told.corruptions, "{kind}");
                let (again, found) = check(store.clone(), Repair::Nothing).expect("checked");
                assert!(again.is_clean() && found.is_empty(), "{kind}: {found:?}");
                let bytes = content(&store);
                let expected: Vec<u8> = [1, 2, 3, 4, 0, 0]
                    .into_iter()
                    .zip(0..)
                    .flat_map(|(old, block)| {
                        vec![if block == *number { *byte } else { old }; 1 << 20]
                    })
                    .collect();
                assert!(bytes == expected, "{kind}");
            }
        }
    }
}

#[test]
fn a_repair_of_any_damage_keeps_what_is_right() {
    repairs_of_any_damage(&image().to_vec());
}

#[test]
fn a_repair_of_an_image_over_another_uncovers_nothing() {
    let given = [("block_size", "1M")];
    let below = create(Arc::new(MemoryStorage::default()), 6 * MIB, &given, None).expect("made");
    let store = Arc::new(MemoryStorage::default());
    let below = reference_to(&below, "below.vhdx");
    let disk = create(store.clone(), 6 * MIB, &given, Some(&below)).expect("it is made");
    disk.write(GuestOffset(0), &vec![1; 1 << 20]).expect("a write");
    disk.write(GuestOffset(2 * MIB), &vec![3; 1 << 20]).expect("a write");
    disk.write(GuestOffset(3 * MIB), &vec![4; 1 << 19]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    repairs_of_any_damage(&store.to_vec());
}

fn repairs_of_any_damage(sound: &[u8]) {
    let table = usize::try_from(TABLE).expect("small");
    let trials = Trials {
        format: &VHDX,
        sound,
        unit: 4096,
        areas: &[table..table + 24, table + 24..table + 48],
        word: Word::Little64,
        nasty: &[0, 2, 3, 6, 7, 1 << 20 | 6, 2 << 20 | 6, sound.len() as u64 | 6, 900 << 20 | 6],
        count: 60,
    };
    trials.run(&mut Random::new(5));
}

/// Copies go to where the file ends, which is where a damaged entry leads.
#[test]
fn a_repair_shows_no_block_in_another_whenever_power_fails() {
    let len = image().len().expect("memory");
    // The second pair: block 1 is left over, which the damaged entry may have meant.
    for (shared, behind, left) in [(4, 5, 0), (5, 4, 0), (4, 1, 2), (1, 4, 2)] {
        let store = image();
        set_entry(&*store, shared, entry(&*store, 0));
        set_entry(&*store, behind, len | 6);
        let left_over = shows_nothing_elsewhere(&VHDX, &store.to_vec(), MIB);
        assert_eq!(left_over, left, "{shared}, {behind}");
    }
}

#[test]
fn a_block_that_the_file_ends_in_is_filled_up_and_only_what_was_lost_is_zero() {
    let store = image();
    store.set_len(8 * MIB - 5000).expect("memory");
    assert_eq!(kinds(&store, Repair::Nothing), ["file-not-aligned", "block-cut"]);
    check(store.clone(), Repair::All).expect("it can be repaired");
    assert_eq!(kinds(&store, Repair::Nothing), [""; 0]);
    let bytes = content(&store);
    assert!(bytes[3 << 20..][..(1 << 20) - 5000].iter().all(|byte| *byte == 4));
    assert!(bytes[(4 << 20) - 5000..].iter().all(|byte| *byte == 0));
}

#[test]
fn one_of_two_headers_or_region_tables_is_enough_and_the_other_is_written_anew() {
    for (at, kind) in [
        (64 << 10, "header-damaged"),
        (128 << 10, "header-damaged"),
        (192 << 10, "region-table-damaged"),
        (256 << 10, "region-table-damaged"),
    ] {
        let store = image();
        let before = content(&store);
        store.write_at(HostOffset(at + 9), &[0xEE; 5]).expect("memory");
        assert_eq!(kinds(&store, Repair::Nothing), [kind]);
        let (report, found) = check(store.clone(), Repair::All).expect("it can be repaired");
        assert!(report.is_clean() && found[0].repaired);
        assert_eq!(kinds(&store, Repair::Nothing), [""; 0], "{kind} at {at:#x}");
        assert!(content(&store) == before);
    }
}

#[test]
fn headers_with_one_number_are_told_and_renewed() {
    let store = file_of("headers-identical");
    assert!(kinds(&store, Repair::All).contains(&"headers-same-number"));
    assert_eq!(kinds(&store, Repair::Nothing), [""; 0]);
}

#[test]
fn a_log_is_replayed_by_any_repair_and_counted_as_qemu_does() {
    for case in ["log-one-entry", "log-wraps", "log-extends-file", "log-two-sequences"] {
        for repair in [Repair::Leaks, Repair::All] {
            let store = file_of(case);
            let read = open_alone(store.clone(), Access::Read).expect("it opens");
            let before = contents(&Disk::new(read.image));
            let (report, found) = check(store.clone(), Repair::Nothing).expect("checked");
            assert_eq!(found[0].kind, "log-to-replay", "{case}");
            assert_eq!((report.corruptions, report.corruptions_fixed), (0, 0), "{case}");
            let (report, _) = check(store.clone(), repair).expect("it can be repaired");
            assert_eq!(report.corruptions_fixed, 1, "{case}");
            assert!(!kinds(&store, Repair::Nothing).contains(&"log-to-replay"), "{case}");
            let read = open_alone(store.clone(), Access::Read).expect("it opens");
            assert!(read.warnings.is_empty() && contents(&Disk::new(read.image)) == before);
        }
    }
}

#[test]
fn a_log_without_an_entry_is_forgotten_and_one_that_is_damaged_is_kept() {
    let store = file_of("hostile-log-guid-no-entry");
    assert!(open_alone(store.clone(), Access::Read).is_err());
    let (report, found) = check(store.clone(), Repair::Nothing).expect("it can be checked");
    assert_eq!((found[0].kind, report.corruptions), ("log-without-entry", 1));
    check(store.clone(), Repair::All).expect("it can be repaired");
    assert!(open_alone(store, Access::Read).is_ok());

    let store = file_of("hostile-log-bad-crc");
    let before = store.to_vec();
    let (report, found) = check(store.clone(), Repair::All).expect("it can be checked");
    assert_eq!((found[0].kind, report.corruptions), ("log-damaged", 1));
    assert!(store.to_vec() == before);
}

#[test]
fn golden_images_with_blocks_on_others_can_be_written_after_a_repair() {
    for case in ["hostile-bat-shared", "hostile-truncated-payload"] {
        let store = file_of(case);
        let (report, found) = check(store.clone(), Repair::All).expect("it can be repaired");
        assert!(report.corruptions == 0 && report.corruptions_fixed > 0, "{case}: {found:#?}");
        assert!(open_alone(store, Access::ReadWrite).is_ok(), "{case}");
    }
}

#[test]
fn the_end_of_a_file_that_nothing_names_is_a_leak_and_cut_off() {
    let store = image();
    store.set_len(11 * MIB).expect("memory");
    let (report, found) = check(store.clone(), Repair::Nothing).expect("it can be checked");
    assert_eq!((found[0].severity, report.leaks), (Severity::Leak, 3));
    let (report, _) = check(store.clone(), Repair::Leaks).expect("it can be repaired");
    assert_eq!((report.leaks, report.leaks_fixed), (0, 3));
    assert_eq!(store.len().expect("memory"), 8 * MIB);
}

#[test]
fn space_is_not_given_back_where_anything_else_is_wrong() {
    let store = image();
    set_entry(&*store, 3, 0);
    store.write_at(HostOffset(64 << 10), b"x").expect("memory");
    let len = store.len().expect("memory");
    check(store.clone(), Repair::All).expect("it can be checked");
    assert_eq!(store.len().expect("memory"), len, "in the run that mends the header");
    let (report, _) = check(store.clone(), Repair::All).expect("it can be checked");
    assert_eq!((report.leaks, store.len().expect("memory")), (1, len), "it holds data");
    store.zero(HostOffset(len - MIB), MIB, true).expect("memory");
    check(store.clone(), Repair::All).expect("it can be checked");
    assert_eq!(store.len().expect("memory"), len - MIB, "nothing is lost");
}

#[test]
fn a_table_that_was_lost_is_damage_and_no_leak_and_its_blocks_are_not_written_over() {
    let store = Arc::new(MemoryStorage::default());
    let size = 24 * MIB;
    let disk = create(store.clone(), size, &[("block_size", "1M")], None).expect("it is made");
    disk.write(GuestOffset::ZERO, &vec![7; 20 << 20]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    store.write_at(HostOffset(TABLE), &[0; 4096]).expect("memory");
    let before = store.to_vec();
    let (report, found) = check(store.clone(), Repair::All).expect("it can be checked");
    assert_eq!((found[0].kind, report.corruptions, report.leaks), ("table-lost", 1, 0));
    assert!(store.to_vec() == before);
    let disk = Disk::new(open_alone(store.clone(), Access::ReadWrite).expect("it opens").image);
    disk.write(GuestOffset(5 * MIB), &[1; 512]).expect("a write");
    disk.flush().expect("a flush");
    let after = store.to_vec();
    assert!(after[4 << 20..before.len()] == before[4 << 20..]);
}

#[test]
fn a_disk_that_was_discarded_is_no_table_that_was_lost_and_its_space_is_used_again() {
    let store = Arc::new(MemoryStorage::default());
    let size = 24 * MIB;
    let given = [("block_size", "1M"), ("block_state_zero", "off")];
    let disk = create(store.clone(), size, &given, None).expect("it is made");
    disk.write(GuestOffset::ZERO, &vec![7; 24 << 20]).expect("a write");
    disk.flush().expect("a flush");
    disk.discard(GuestRange::whole(23 * MIB)).expect("it can");
    disk.flush().expect("a flush");
    drop(disk);
    let len = store.len().expect("memory");
    let (report, _) = check(store.clone(), Repair::Nothing).expect("it can be checked");
    assert!(report.is_clean());
    let disk = Disk::new(open_alone(store.clone(), Access::ReadWrite).expect("it opens").image);
    disk.write(GuestOffset::ZERO, &vec![8; 20 << 20]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory"), len);
}

#[test]
fn the_file_becomes_shorter_when_its_last_blocks_are_discarded() {
    let store = image();
    let disk = Disk::new(open_alone(store.clone(), Access::ReadWrite).expect("it opens").image);
    disk.discard(GuestRange::between(GuestOffset(2 * MIB), GuestOffset(4 * MIB))).expect("it can");
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory"), 6 * MIB);
    assert_eq!(kinds(&store, Repair::Nothing), [""; 0]);
    disk.write(GuestOffset(3 * MIB), &[5; 512]).expect("a write");
    disk.flush().expect("a flush");
    let bytes = content(&store);
    assert_eq!((bytes[3 << 20], bytes[(3 << 20) + 512]), (5, 0));
}

#[test]
fn the_entry_of_a_bitmap_in_a_disk_without_a_parent_is_cleared_if_its_block_is_not_lost() {
    // Chunks of blocks of 256 MiB have 16 of them.
    let store = Arc::new(MemoryStorage::default());
    let size = 17 << 28;
    let disk = create(store.clone(), size, &[("block_size", "64M")], None).expect("it is made");
    disk.flush().expect("a flush");
    drop(disk);
    set_entry(&*store, 64, 7 << 20 | 6);
    assert_eq!(kinds(&store, Repair::Nothing), ["bitmap-without-parent"]);
    check(store.clone(), Repair::All).expect("it can be repaired");
    assert_eq!(entry(&*store, 64), 0);
}

#[test]
fn a_check_can_be_stopped() {
    use anydisk_core::{CheckRequest, Error, Format, Limits, Location, OpenRequest};
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = CheckRequest::new(OpenRequest::new(image(), &here, &limits));
    request.progress = Some(&|_, _| false);
    let error = VHDX.check(&request, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
}
