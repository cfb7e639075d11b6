//! Changing the size.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Disk, Error, Format, GuestOffset, Limits, Location, OpenRequest,
    Preallocation, Storage,
};
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions};
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{ByteModel, ImageFolder, MemoryFolder, contents, play};
use anydisk_vhd::VHD;

use crate::common::{create, open_in, reference_to};

const MIB: u64 = 1 << 20;

fn assert_in_order(store: Arc<dyn Storage>) {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = CheckRequest::new(OpenRequest::new(store, &here, &limits));
    let report = VHD.check(&request, &mut |finding| eprintln!("{finding:?}"));
    assert!(report.expect("it can be checked").is_clean());
}

#[test]
fn disks_of_both_kinds_have_every_size_with_what_is_on_both_and_zeroes_behind() {
    for given in [&[("force_size", "on"), ("block_size", "64k")][..], &[("subformat", "fixed")]] {
        let folder = MemoryFolder::default();
        let store = folder.make_file("disk.vhd").expect("a new file");
        let disk = create(store.clone(), 3 * MIB, given, None).expect("it can be made");
        let mut model = ByteModel::new(disk.size());
        for (size, seed) in [(9 * MIB + 512, 1), (700 << 10, 2), (5 * MIB, 3), (60 * MIB, 4)] {
            play(&disk, &mut model, 64 << 10, seed, 40);
            disk.resize(size, Preallocation::Off).expect("it can");
            model.resize(size);
            assert!(contents(&disk) == model.contents(), "{given:?} {size}");
            disk.flush().expect("a flush");
            let again = open_in(&folder, "disk.vhd", Access::ReadWrite).expect("it opens");
            assert!(contents(&again) == model.contents(), "{given:?} {size}");
            assert!(again.layers()[0].warnings.is_empty());
            assert_in_order(store.clone());
        }
        if given[0].0 == "subformat" {
            assert_eq!(store.len().expect("memory"), 60 * MIB + 512);
        }
    }
}

#[test]
fn what_a_smaller_disk_lost_is_given_back() {
    let store = Arc::new(MemoryStorage::default());
    let given = [("force_size", "on"), ("block_size", "64k")];
    let disk = create(store.clone(), MIB, &given, None).expect("it can be made");
    disk.write(GuestOffset::ZERO, &vec![9; 1 << 20]).expect("a write");
    disk.flush().expect("a flush");
    let before = store.len().expect("memory");
    disk.resize(MIB / 2, Preallocation::Off).expect("it can shrink");
    assert_eq!(store.len().expect("memory"), before - 8 * (68 << 10));
    disk.resize(MIB, Preallocation::Off).expect("it can grow");
    let mut expected = vec![9; 1 << 19];
    expected.resize(1 << 20, 0);
    assert!(contents(&disk) == expected);
    assert_in_order(store);
}

#[test]
fn what_is_new_gets_space_if_it_is_asked_for() {
    for (how, blocks) in [
        (Preallocation::Off, 0),
        (Preallocation::Metadata, 12),
        (Preallocation::Falloc, 12),
        (Preallocation::Full, 12),
    ] {
        let store = Arc::new(MemoryStorage::default());
        let given = [("force_size", "on"), ("block_size", "64k")];
        let disk = create(store.clone(), 4 << 16, &given, None).expect("it can be made");
        disk.flush().expect("a flush");
        disk.resize(16 << 16, how).expect("it can grow");
        disk.flush().expect("a flush");
        let len = store.len().expect("memory");
        assert!((blocks * (68 << 10)..(blocks + 1) * (68 << 10)).contains(&len), "{how:?}: {len}");
        assert!(contents(&disk).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_child_keeps_its_size() {
    let folder = MemoryFolder::default();
    let store = folder.make_file("parent").expect("a new file");
    let parent = create(store, MIB, &[], None).expect("it can be made");
    parent.flush().expect("a flush");
    let store = folder.make_file("child").expect("a new file");
    let reference = reference_to(&parent, "parent");
    let child = create(store, parent.size(), &[], Some(&reference)).expect("it can be made");
    let error = child.resize(2 * MIB, Preallocation::Off).unwrap_err();
    assert!(matches!(error.kind(), Error::Unsupported { .. }), "{error}");
}

#[test]
fn qemu_reads_a_disk_that_has_grown_and_puts_its_blocks_behind_the_table() {
    let Some(qemu) = Qemu::find() else { return };
    for options in [&[][..], &["subformat=fixed"]] {
        let folder = ImageFolder::new(&VHD);
        let (path, raw) = (folder.path("disk.vhd"), folder.path("model.raw"));
        qemu.create("vpc", options, &path, "3M");
        qemu.io(&path, "vpc", &["write -P 7 1M 1M"]);
        let disk = folder.open("disk.vhd", Access::ReadWrite);
        let mut model = ByteModel::of(&contents(&disk), disk.size());
        for size in [60 * MIB, 40 * MIB + 512] {
            disk.resize(size, Preallocation::Off).expect("it can");
            model.resize(size);
            disk.write(GuestOffset(size - MIB), &[3; 1 << 20]).expect("a write");
            model.write(size - MIB, &[3; 1 << 20]);
        }
        disk.flush().expect("a flush");
        drop(disk);
        if options.is_empty() {
            qemu.io(&path, "vpc", &["write -P 4 20M 3M", "write -P 5 10M 4k"]);
            model.write(20 * MIB, &vec![4; 3 << 20]);
            model.write(10 * MIB, &[5; 4096]);
        }
        std::fs::write(&raw, model.contents()).expect("a file");
        qemu.assert_same((&path, "vpc"), (&raw, "raw"));
        assert!(contents(&folder.open("disk.vhd", Access::ReadWrite)) == model.contents());
    }
}

#[test]
fn a_disk_whose_size_was_that_of_its_geometry_has_just_the_size_that_is_asked_for() {
    let folder = MemoryFolder::default();
    let cases = anydisk_testkit::golden::cases("vhd");
    let case = cases.iter().find(|found| found.name == "dynamic-qemu").expect("a golden image");
    let bytes = case.in_memory().file("disk.vhd").expect("it is there").to_vec();
    folder.put("disk.vhd", bytes);
    let disk = open_in(&folder, "disk.vhd", Access::ReadWrite).expect("it opens");
    disk.resize(7 * MIB + 512, Preallocation::Off).expect("it can grow");
    drop(disk);
    let disk: Disk = open_in(&folder, "disk.vhd", Access::Read).expect("it opens");
    assert_eq!(disk.size(), 7 * MIB + 512);
}

#[test]
fn the_next_block_of_qemu_begins_with_zeroes_behind_a_table_that_has_moved() {
    let Some(qemu) = Qemu::find() else { return };
    for (from, written) in [(6 * MIB, 0), (3 * MIB, 3 << 20)] {
        let folder = ImageFolder::new(&VHD);
        let (path, raw) = (folder.path("disk.vhd"), folder.path("model.raw"));
        let options = OpenOptions::new().write(true).create_new(true);
        let store = Arc::new(FileStorage::open(&path, &options).expect("a new file"));
        let disk = create(store, from, &[("force_size", "on")], None).expect("it can be made");
        let mut model = ByteModel::new(from);
        disk.write(GuestOffset::ZERO, &vec![1; written]).expect("a write");
        model.write(0, &vec![1; written]);
        disk.resize(39 * MIB, Preallocation::Off).expect("it can grow");
        model.resize(39 * MIB);
        disk.flush().expect("a flush");
        drop(disk);
        qemu.io(&path, "vpc", &["write -P 9 9M 512"]);
        model.write(9 * MIB, &[9; 512]);
        std::fs::write(&raw, model.contents()).expect("a file");
        qemu.assert_same((&path, "vpc"), (&raw, "raw"));
        assert!(contents(&folder.open("disk.vhd", Access::Read)) == model.contents());
    }
}
