//! Checking, repairing, naming another parent, emptying.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Finding, Format, GuestOffset, HostOffset, Limits,
    Location, OpenRequest, Opened, Repair, Result, Storage,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::golden::cases;
use anydisk_testkit::repair::{Trials, Word, shows_nothing_elsewhere};
use anydisk_testkit::{MemoryFolder, Random, contents};
use anydisk_vhd::VHD;

use crate::common::{create, open_in, reference_to};

fn check(store: Arc<dyn Storage>, repair: Repair) -> Result<(CheckReport, Vec<Finding>)> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = OpenRequest::new(store, &here, &limits);
    request.access = Access::ReadWrite;
    let mut found = Vec::new();
    let request = CheckRequest::new(request).repairing(repair);
    let report = VHD.check(&request, &mut |finding| found.push(finding))?;
    Ok((report, found))
}

fn file_of(case: &str) -> Arc<MemoryStorage> {
    let cases = cases("vhd");
    let case = cases.iter().find(|found| found.name == case).expect("a golden image");
    case.in_memory().file("disk.vhd").expect("it is there")
}

#[test]
fn each_kind_of_damage_is_found_told_and_mended() {
    let kinds = [
        ("hostile-bat-shared", "block-shared"),
        ("footer-lost", "footer-missing"),
        ("header-copy-lost", "footer-copy-damaged"),
    ];
    for (case, kind) in kinds {
        let store = file_of(case);
        let (told, mut found) = check(store.clone(), Repair::Nothing).expect("it can be checked");
        // The block whose entry is lost.
        found.retain(|found| found.kind != "space-unnamed");
        assert_eq!(found.first().map(|found| found.kind), Some(kind), "{case}");
        assert!(found.iter().all(|found| !found.repaired && found.remedy.is_some()), "{case}");
        let (mended, mut found) = check(store.clone(), Repair::All).expect("it can be repaired");
        found.retain(|found| found.kind != "space-unnamed");
        assert!(mended.is_clean() && found.iter().all(|found| found.repaired), "{case}");
        assert_eq!(mended.corruptions_fixed, told.corruptions, "{case}");
        let (again, mut found) = check(store.clone(), Repair::Nothing).expect("it can be checked");
        found.retain(|found| found.kind != "space-unnamed");
        assert!(again.is_clean() && found.is_empty(), "{case}: {found:?}");
        let folder = MemoryFolder::default();
        folder.put("disk.vhd", store.to_vec());
        let disk = open_in(&folder, "disk.vhd", Access::ReadWrite).expect("it can be written");
        assert!(disk.layers()[0].warnings.is_empty(), "{case}");
    }
}

#[test]
fn an_entry_whose_block_is_lost_is_emptied_if_nothing_is_in_the_file_that_it_may_have_meant() {
    for (sector, kind) in [(0x0FFF_FFFF_u32, "block-behind-end"), (1, "block-on-metadata")] {
        for (number, is_lost) in [(1_u64, false), (5, true)] {
            let store = Arc::new(MemoryStorage::default());
            let given = [("force_size", "on"), ("block_size", "64k")];
            let disk = create(store.clone(), 512 << 10, &given, None).expect("it can be made");
            disk.write(GuestOffset::ZERO, &[1; 256 << 10]).expect("a write");
            disk.flush().expect("a flush");
            let at = HostOffset(0x600 + 4 * number);
            store.write_at(at, &sector.to_be_bytes()).expect("memory");
            let before = store.to_vec();
            let (_, found) = check(store.clone(), Repair::Nothing).expect("it can be checked");
            assert_eq!((found[0].kind, found[0].remedy.is_some()), (kind, is_lost));
            let (report, _) = check(store.clone(), Repair::All).expect("it can be repaired");
            assert_eq!(
                (report.corruptions, report.corruptions_fixed),
                if is_lost { (0, 1) } else { (1, 0) }
            );
            assert_eq!(store.to_vec() == before, !is_lost);
        }
    }
}

/// A disk of eight blocks of 64 KiB, of which the first four are there.
fn four_blocks() -> Vec<u8> {
    let store = Arc::new(MemoryStorage::default());
    let given = [("force_size", "on"), ("block_size", "64k")];
    let disk = create(store.clone(), 512 << 10, &given, None).expect("it can be made");
    for block in 0..4_u8 {
        disk.write(GuestOffset(u64::from(block) << 16), &[block + 1; 1 << 16]).expect("a write");
    }
    disk.flush().expect("a flush");
    store.to_vec()
}

#[test]
fn a_repair_of_any_damage_keeps_what_is_right() {
    let sound = four_blocks();
    let end = sound.len() as u64 / 512;
    let trials = Trials {
        format: &VHD,
        sound: &sound,
        unit: 512,
        // The table; fields of the header and the footers.
        areas: &[0x600..0x620, 0x600..0x620, 0x600..0x620, 0x200..0x228, 0..0x40],
        word: Word::Big32,
        nasty: &[0, 1, 3, 4, 8, end - 1, end, end + 1, 0x0FFF_FFFF, 0xFFFF_FFFE, 0xFFFF_FFFF],
        count: 200,
    };
    trials.run(&mut Random::new(5));
}

/// Copies go to where the file ends, which is where a damaged entry leads.
#[test]
fn a_repair_shows_no_block_in_another_whenever_power_fails() {
    let sound = four_blocks();
    let entry = |block: usize| 0x600 + 4 * block;
    let end = u32::try_from((sound.len() - 512) / 512).expect("small");
    // Whether nothing is left over that an entry may have meant before it was damaged.
    for (shared, behind, left) in [(5, 6, 0), (6, 5, 0), (5, 2, 2), (2, 3, 2)] {
        let mut bytes = sound.clone();
        bytes.copy_within(entry(0)..entry(1), entry(shared));
        bytes[entry(behind)..entry(behind + 1)].copy_from_slice(&end.to_be_bytes());
        assert_eq!(shows_nothing_elsewhere(&VHD, &bytes, 1 << 16), left, "{shared}, {behind}");
    }
}

#[test]
fn a_block_that_is_shared_gets_a_copy_and_both_read_as_before() {
    let store = file_of("hostile-bat-shared");
    let folder = MemoryFolder::default();
    folder.put("before.vhd", store.to_vec());
    check(store.clone(), Repair::All).expect("it can be repaired");
    folder.put("after.vhd", store.to_vec());
    let before = contents(&open_in(&folder, "before.vhd", Access::Read).expect("it opens"));
    let after = open_in(&folder, "after.vhd", Access::ReadWrite).expect("it opens");
    assert!(contents(&after) == before);
}

#[test]
fn a_finding_names_the_entry_the_block_and_the_part_of_the_disk() {
    let (_, found) = check(file_of("hostile-bat-beyond-eof"), Repair::Nothing).expect("checked");
    let found = &found[0];
    assert!(found.text.contains("of the disk is at sector"), "{}", found.text);
    assert_eq!(found.guest.map(|range| range.len()), Some(2 << 20));
    assert!(found.at.get() >= 0x600);
}

/// A parent of 64 KiB of ones, and an open child of it over what is below.
fn family(folder: &MemoryFolder) -> (Disk, Vec<u8>) {
    let parent = folder.make_file("parent.vhd").expect("a new file");
    let exact = [("force_size", "on"), ("block_size", "4k")];
    let disk = create(parent, 64 << 10, &exact, None).expect("it can be made");
    disk.write(GuestOffset::ZERO, &[1; 60 << 10]).expect("a write");
    disk.flush().expect("a flush");
    let reference = reference_to(&disk, "parent.vhd");
    let child = folder.make_file("child.vhd").expect("a new file");
    create(child, 64 << 10, &[("block_size", "4k")], Some(&reference))
        .and_then(|child| child.flush())
        .expect("it can be made");
    let child = open_in(folder, "child.vhd", Access::ReadWrite).expect("it opens");
    let mut expected = contents(&child);
    for at in [700_u64, 9000, 30_000] {
        child.write(GuestOffset(at), &[2; 700]).expect("a write");
        let at = usize::try_from(at).expect("small");
        expected[at..at + 700].fill(2);
    }
    child.flush().expect("a flush");
    (child, expected)
}

#[test]
fn an_emptied_child_shows_its_parent_and_takes_no_space() {
    let folder = MemoryFolder::default();
    let (child, _) = family(&folder);
    let file = folder.file("child.vhd").expect("it is there");
    let before = file.len().expect("memory");
    child.top().backing_link().expect("it has one").make_empty().expect("it can");
    let mut parent = vec![1; 60 << 10];
    parent.resize(64 << 10, 0);
    assert!(contents(&child) == parent);
    assert!(file.len().expect("memory") < before - (12 << 10));
    child.write(GuestOffset(5), &[3]).expect("a write");
    child.flush().expect("a flush");
    drop(child);
    parent[5] = 3;
    assert!(contents(&open_in(&folder, "child.vhd", Access::Read).expect("it opens")) == parent);
}

#[test]
fn another_parent_can_be_named_and_none() {
    let folder = MemoryFolder::default();
    let (child, expected) = family(&folder);
    let file = folder.file("parent.vhd").expect("it is there");
    folder.put("a parent with a long name.vhd", file.to_vec());
    let link = child.top().backing_link().expect("it has one");
    let parent = open_in(&folder, "parent.vhd", Access::Read).expect("it opens");
    let reference = reference_to(&parent, "a parent with a long name.vhd");
    link.set_backing(Some(&reference)).expect("it can");
    child.write(GuestOffset(50_000), &[1]).expect("it is written as before");
    child.flush().expect("a flush");
    drop(child);
    let child = open_in(&folder, "child.vhd", Access::ReadWrite).expect("it opens");
    let named = child.layers()[0].backing.as_ref().expect("a parent").display_name();
    assert_eq!(named, "a parent with a long name.vhd");
    assert!(contents(&child) == expected);

    // Without a parent its own sectors stay, and all others are zero.
    child.top().backing_link().expect("it has one").set_backing(None).expect("it can");
    drop(child);
    let alone = open_in(&folder, "child.vhd", Access::ReadWrite).expect("it opens");
    assert!(alone.layers()[0].backing.is_none());
    let bytes = contents(&alone);
    assert_eq!((bytes[0], bytes[512], bytes[700]), (0, 1, 2));
    let is_own = |at: usize| bytes[at / 512 * 512..][..512].iter().any(|byte| *byte != 0);
    let expected: Vec<u8> =
        (0..bytes.len()).map(|at| if is_own(at) { expected[at] } else { 0 }).collect();
    assert!(bytes == expected);
    alone.write(GuestOffset(700), &[9; 9000]).expect("it is a dynamic disk now");
    alone.flush().expect("a flush");
    let (report, found) =
        check(folder.file("child.vhd").expect("it is there"), Repair::Nothing).expect("checked");
    assert!(report.is_clean() && found.is_empty(), "{found:?}");
}

#[test]
fn after_any_crash_while_another_parent_is_named_the_child_has_the_one_or_the_other() {
    let folder = MemoryFolder::default();
    let (child, _) = family(&folder);
    drop(child);
    let before = folder.file("child.vhd").expect("it is there").to_vec();
    let parent = open_in(&folder, "parent.vhd", Access::Read).expect("it opens");
    let crash = CrashStorage::over(before);
    let image = open_alone(Arc::new(crash.clone())).expect("it opens").image;
    let reference = reference_to(&parent, "other.vhd");
    let link = image.backing_link().expect("it has one");
    link.set_backing(Some(&reference)).expect("it can");
    crash.mark();
    assert_eq!(parents_after_crashes(&crash), ["other.vhd", "parent.vhd"]);
}

#[test]
fn after_any_crash_while_a_child_loses_its_parent_it_has_that_or_none() {
    let folder = MemoryFolder::default();
    drop(family(&folder));
    let before = folder.file("child.vhd").expect("it is there").to_vec();
    let crash = CrashStorage::over(before);
    let image = open_alone(Arc::new(crash.clone())).expect("it opens").image;
    image.backing_link().expect("it has one").set_backing(None).expect("it can");
    crash.mark();
    assert_eq!(parents_after_crashes(&crash), ["none", "parent.vhd"]);
}

fn open_to_read(store: Arc<dyn Storage>) -> Result<Opened> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    VHD.open(OpenRequest::new(store, &here, &limits))
}

fn open_alone(store: Arc<dyn Storage>) -> Result<Opened> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = OpenRequest::new(store, &here, &limits);
    request.access = Access::ReadWrite;
    VHD.open(request)
}

/// The parents that are named in the states that a power failure may leave.
fn parents_after_crashes(crash: &CrashStorage) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    for state in crash.torn_states(600, 1) {
        let opened = open_alone(state.storage());
        let opened = opened.unwrap_or_else(|error| panic!("{error}\n{state}"));
        let named = opened.backing.map(|parent| parent.display_name());
        seen.insert(named.unwrap_or_else(|| "none".to_owned()));
    }
    Vec::from_iter(seen)
}

#[test]
fn after_any_crash_of_a_write_or_repair_an_image_with_a_damaged_copy_opens() {
    for entries in [&[][..], &[0, 0]] {
        let store = disk_of_4_blocks();
        store.write_at(HostOffset(100), &[1]).expect("memory");
        let mut bytes = store.to_vec();
        for (number, other) in entries.iter().enumerate() {
            let from: [u8; 4] = bytes[0x600 + 4 * other..][..4].try_into().expect("four");
            bytes[0x600 + 4 * number..][..4].copy_from_slice(&from);
        }
        let is_shared = !entries.is_empty();
        let crash = CrashStorage::over(bytes);
        if is_shared {
            check(Arc::new(crash.clone()), Repair::All).expect("it can be repaired");
        } else {
            let disk = Disk::new(open_alone(Arc::new(crash.clone())).expect("it opens").image);
            disk.write(GuestOffset(256 << 10), &[7; 64 << 10]).expect("a write");
            disk.flush().expect("a flush");
        }
        crash.mark();
        for state in crash.torn_states(500, 1) {
            let opened = open_to_read(state.storage());
            let disk = Disk::new(opened.unwrap_or_else(|error| panic!("{error}\n{state}")).image);
            assert!(contents(&disk)[..256 << 10].iter().all(|byte| *byte == 1), "{state}");
        }
    }
}

/// A disk of 4 blocks, of 64 KiB each.
fn disk_of_4_blocks() -> Arc<MemoryStorage> {
    let store = Arc::new(MemoryStorage::default());
    let given = [("force_size", "on"), ("block_size", "64k")];
    let disk = create(store.clone(), 384 << 10, &given, None).expect("it can be made");
    disk.write(GuestOffset::ZERO, &[1; 256 << 10]).expect("a write");
    disk.flush().expect("a flush");
    store
}

#[test]
fn blocks_that_no_entry_names_are_told_with_their_size() {
    let store = disk_of_4_blocks();
    store.write_at(HostOffset(0x604), &[0xFF; 8]).expect("memory");
    let (report, found) = check(store.clone(), Repair::All).expect("it can be checked");
    assert!(report.is_clean());
    assert_eq!(found.first().map(|found| found.kind), Some("space-unnamed"));
    assert!(found[0].text.contains("room for 2 blocks"), "{}", found[0].text);
}

#[test]
fn entries_of_a_damaged_table_are_not_emptied_while_the_blocks_are_in_the_file() {
    for damage in [[0; 16], [0xEE; 16]] {
        let store = disk_of_4_blocks();
        store.write_at(HostOffset(0x600), &damage).expect("memory");
        let before = store.to_vec();
        let (report, found) = check(store.clone(), Repair::All).expect("it can be checked");
        assert_eq!((report.corruptions, report.corruptions_fixed), (4, 0));
        assert!(found.iter().all(|found| !found.repaired && found.remedy.is_none()));
        assert!(store.to_vec() == before);
    }
}
