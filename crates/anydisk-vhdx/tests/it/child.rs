//! Differencing disks: made, written, given another parent, emptied.

use std::collections::BTreeSet;
use std::sync::Arc;

use anydisk_core::{
    Access, Disk, Error, GuestOffset, GuestRange, HostOffset, Repair, Source, Storage, StorageExt,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::{ByteModel, MemoryFolder, contents, play};

use crate::common::{
    MIB, check, create, damage, entry, folder_of, open_alone, open_in, reference_to,
};

const SIZE: u64 = 6 * MIB;

/// A parent of which the first 4 MiB hold ones, and a child of it.
fn family(folder: &MemoryFolder, given: &[(&str, &str)]) -> Disk {
    let parent = folder.make_file("parent.vhdx").expect("a new file");
    let disk = create(parent, SIZE, &[("block_size", "2M")], None).expect("it can be made");
    disk.write(GuestOffset::ZERO, &vec![1; 4 << 20]).expect("a write");
    disk.flush().expect("a flush");
    let reference = reference_to(&disk, "parent.vhdx");
    drop(disk);
    let child = folder.make_file("child.vhdx").expect("a new file");
    let made = create(child, SIZE, given, Some(&reference));
    made.and_then(|child| child.flush()).expect("it can be made");
    open_in(folder, "child.vhdx", Access::ReadWrite).expect("it opens")
}

fn expected() -> Vec<u8> {
    let mut bytes = vec![1; 4 << 20];
    bytes.resize(6 << 20, 0);
    bytes
}

fn own_bytes(disk: &Disk) -> u64 {
    let (mut own, mut rest) = (0, GuestRange::whole(disk.size()));
    while !rest.is_empty() {
        let found = disk.top().map(rest).expect("a map");
        own += if matches!(found.source, Source::Data { .. }) { found.len } else { 0 };
        rest = rest.skip(found.len);
    }
    own
}

#[test]
fn a_child_holds_the_sectors_that_were_written_and_shows_the_parent_in_all_others() {
    for (sector, own) in [("512", 512 * 5), ("4096", 4096 * 3)] {
        let folder = MemoryFolder::default();
        let given = [("block_size", "1M"), ("logical_sector_size", sector)];
        let child = family(&folder, &given);
        child.write(GuestOffset(4096 * 9 + 100), &[2; 1000]).expect("a write");
        child.write(GuestOffset(MIB - 512), &[3; 1024]).expect("a write over two blocks");
        child.flush().expect("a flush");
        let mut expected = expected();
        expected[4096 * 9 + 100..][..1000].fill(2);
        expected[(1 << 20) - 512..][..1024].fill(3);
        drop(child);
        let child = open_in(&folder, "child.vhdx", Access::Read).expect("it opens again");
        assert!(contents(&child) == expected);
        assert_eq!(own_bytes(&child), own);
        let file = folder.file("child.vhdx").expect("it is there");
        assert_eq!([0, 1, 2].map(|number| entry(&*file, number) & 7), [7, 7, 0]);
        let (report, found) = check(file, Repair::Nothing).expect("it can be checked");
        assert!(report.is_clean() && found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_block_that_is_written_as_a_whole_or_was_zero_is_there_as_a_whole() {
    let folder = MemoryFolder::default();
    let child = family(&folder, &[("block_size", "1M")]);
    child.write(GuestOffset(MIB), &vec![4; 1 << 20]).expect("a write");
    let block =
        |number| GuestRange::between(GuestOffset(number * MIB), GuestOffset((number + 1) * MIB));
    child.zero(block(2), true).expect("it can");
    child.zero(block(3), true).expect("it can");
    child.write(GuestOffset(3 * MIB + 700), &[5; 10]).expect("a write");
    child.flush().expect("a flush");
    let file = folder.file("child.vhdx").expect("it is there");
    assert_eq!([0, 1, 2, 3].map(|number| entry(&*file, number) & 7), [0, 6, 2, 6]);
    let mut expected = expected();
    expected[1 << 20..2 << 20].fill(4);
    expected[2 << 20..4 << 20].fill(0);
    expected[(3 << 20) + 700..][..10].fill(5);
    assert!(contents(&child) == expected);
    assert_eq!(damage(file), Ok(()));
}

#[test]
fn bits_of_large_blocks_fill_several_sectors_and_those_of_small_ones_a_part_of_one() {
    let folder = MemoryFolder::default();
    let parent = folder.make_file("parent.vhdx").expect("a new file");
    let size = 5 << 30;
    let disk = create(parent, size, &[], None).expect("it can be made");
    disk.flush().expect("a flush");
    let reference = reference_to(&disk, "parent.vhdx");
    for (name, block) in [("a", "64M"), ("b", "1M"), ("c", "16M")] {
        let store = folder.make_file(name).expect("a new file");
        let child = create(store, size, &[("block_size", block)], Some(&reference)).expect("made");
        // In two chunks.
        let places = [5 << 20, 40 << 20, (63 << 20) + 512, (4 << 30) + (17 << 20), (5 << 30) - 512];
        for (at, byte) in places.into_iter().zip(1..) {
            child.write(GuestOffset(at), &[byte; 512]).expect("a write");
        }
        child.flush().expect("a flush");
        drop(child);
        let child = open_in(&folder, name, Access::ReadWrite).expect("it opens");
        assert_eq!(own_bytes(&child), 5 * 512, "{name}");
        for (at, byte) in places.into_iter().zip(1..) {
            let mut bytes = [0; 512];
            child.read(GuestOffset(at), &mut bytes).expect("a read");
            assert_eq!(bytes, [byte; 512], "{name}");
        }
        assert_eq!(damage(folder.file(name).expect("it is there")), Ok(()));
    }
}

#[test]
fn a_child_that_another_program_made_is_written_and_its_bits_are_kept() {
    let (folder, name) = folder_of("differencing");
    let disk = open_in(&folder, &name, Access::ReadWrite).expect("it opens");
    let bytes = contents(&disk);
    let mut model = ByteModel::of(&bytes, disk.size());
    play(&disk, &mut model, 4096, 3, 80);
    disk.flush().expect("a flush");
    drop(disk);
    let disk = open_in(&folder, &name, Access::Read).expect("it opens");
    assert!(contents(&disk) == model.contents());
    assert_eq!(damage(folder.file(&name).expect("it is there")), Ok(()));
}

#[test]
fn a_parent_that_was_written_since_is_refused_and_can_be_named_anew() {
    let folder = MemoryFolder::default();
    let child = family(&folder, &[]);
    child.write(GuestOffset(MIB), &[7; 100]).expect("a write");
    child.flush().expect("a flush");
    drop(child);
    let parent = open_in(&folder, "parent.vhdx", Access::ReadWrite).expect("it opens");
    parent.write(GuestOffset(5 * MIB), &[8; 10]).expect("a write");
    parent.flush().expect("a flush");
    let error = open_in(&folder, "child.vhdx", Access::Read).unwrap_err();
    assert!(matches!(error.kind(), Error::Denied { .. }), "{error}");
    let file = folder.file("child.vhdx").expect("it is there");
    let alone = open_alone(file.clone(), Access::ReadWrite).expect("it opens alone").image;
    let link = alone.backing_link().expect("it has one");
    link.set_backing(Some(&reference_to(&parent, "parent.vhdx"))).expect("it can");
    drop((alone, parent));
    let child = open_in(&folder, "child.vhdx", Access::Read).expect("it opens");
    let mut expected = expected();
    expected[1 << 20..][..100].fill(7);
    expected[5 << 20..][..10].fill(8);
    assert!(contents(&child) == expected);
    let (report, found) = check(file, Repair::Nothing).expect("it can be checked");
    assert!(report.is_clean() && found.is_empty(), "{found:?}");
}

#[test]
fn names_of_parents_are_changed_again_and_again_and_take_no_more_room() {
    let folder = MemoryFolder::default();
    let child = family(&folder, &[]);
    let link = child.top().backing_link().expect("it has one");
    let parent = open_in(&folder, "parent.vhdx", Access::Read).expect("it opens");
    for number in 0..2000 {
        let name = format!("{}.vhdx", "x".repeat(number % 700));
        link.set_backing(Some(&reference_to(&parent, &name))).expect("it can");
    }
    let opened = open_alone(folder.file("child.vhdx").expect("there"), Access::Read);
    let named = opened.expect("it opens").backing.expect("a parent");
    assert_eq!(named.display_name().len(), 1999 % 700 + 5);
}

#[test]
fn without_a_parent_its_own_sectors_stay_and_all_others_are_zero() {
    let folder = MemoryFolder::default();
    let child = family(&folder, &[("block_size", "1M")]);
    child.write(GuestOffset(700), &[2; 700]).expect("a write");
    child.write(GuestOffset(3 * MIB), &vec![3; 1 << 20]).expect("a write");
    child.top().backing_link().expect("it has one").set_backing(None).expect("it can");
    // Also through the image that was open meanwhile.
    child.write(GuestOffset(5 * MIB + 9), &[4; 9]).expect("a write");
    child.write(GuestOffset(512), &[5; 100]).expect("a write");
    child.flush().expect("a flush");
    let file = folder.file("child.vhdx").expect("it is there");
    drop(child);
    let mut expected = vec![0; 6 << 20];
    expected[512..1536].fill(1);
    expected[700..1400].fill(2);
    expected[512..612].fill(5);
    expected[3 << 20..4 << 20].fill(3);
    expected[(5 << 20) + 9..][..9].fill(4);
    let opened = open_alone(file.clone(), Access::ReadWrite).expect("it opens");
    assert!(opened.backing.is_none());
    let disk = Disk::new(opened.image);
    assert!(contents(&disk) == expected);
    let (report, found) = check(file, Repair::Nothing).expect("it can be checked");
    assert!(report.is_clean(), "{found:?}");
    assert!(found.is_empty(), "{found:?}");
}

/// The parents that are named in the states that a power failure may leave, none of which is
/// damaged.
fn parents_after_crashes(crash: &CrashStorage) -> BTreeSet<String> {
    let parents = crash.torn_states(400, 1).map(|state| {
        let opened = open_alone(state.storage(), Access::ReadWrite);
        let opened = opened.unwrap_or_else(|error| panic!("{error}\n{state}"));
        assert_eq!(damage(state.storage()), Ok(()), "{state}");
        let disk = Disk::new(opened.image);
        let mut bytes = [0; 700];
        disk.read(GuestOffset(700), &mut bytes).expect("it can be read");
        assert_eq!(bytes, [2; 700], "{state}");
        opened.backing.map_or("none".to_owned(), |parent| parent.display_name())
    });
    parents.collect()
}

/// A child on a store that may lose power.
fn fragile() -> (CrashStorage, Arc<dyn anydisk_core::Image>) {
    let folder = MemoryFolder::default();
    let child = family(&folder, &[("block_size", "1M")]);
    child.write(GuestOffset(700), &[2; 700]).expect("a write");
    child.write(GuestOffset(3 * MIB), &vec![3; 1 << 20]).expect("a write");
    child.flush().expect("a flush");
    drop(child);
    let crash = CrashStorage::over(folder.file("child.vhdx").expect("it is there").to_vec());
    let image = open_alone(Arc::new(crash.clone()), Access::ReadWrite).expect("it opens").image;
    (crash, image)
}

#[test]
fn after_any_crash_while_another_parent_is_named_the_child_has_the_one_or_the_other() {
    let (crash, image) = fragile();
    let parent = anydisk_core::Reference::new(anydisk_core::Role::Backing, "other.vhdx");
    image.backing_link().expect("it has one").set_backing(Some(&parent)).expect("it can");
    crash.mark();
    let both = ["other.vhdx", "parent.vhdx"].map(str::to_owned);
    assert_eq!(parents_after_crashes(&crash), BTreeSet::from(both));
}

#[test]
fn after_any_crash_while_a_child_loses_its_parent_it_has_that_or_none() {
    let (crash, image) = fragile();
    image.backing_link().expect("it has one").set_backing(None).expect("it can");
    crash.mark();
    let both = ["none", "parent.vhdx"].map(str::to_owned);
    assert_eq!(parents_after_crashes(&crash), BTreeSet::from(both));
}

#[test]
fn bitmaps_of_a_child_that_are_wrong_are_told_and_not_guessed() {
    for (change, kind) in [
        ((|_| 0) as fn(u64) -> u64, "bitmap-missing"),
        (|_| 900 << 20 | 6, "bitmap-behind-end"),
        (|_| 2 << 20 | 6, "bitmap-on-metadata"),
        (|old| old | 7, "entry-state"),
    ] {
        let folder = MemoryFolder::default();
        let child = family(&folder, &[("block_size", "64M")]);
        child.write(GuestOffset(700), &[2; 700]).expect("a write");
        child.flush().expect("a flush");
        drop(child);
        let file = folder.file("child.vhdx").expect("it is there");
        let at = HostOffset(2 * MIB + 8 * 64);
        let mut bytes = [0; 8];
        file.read_exact_at(at, &mut bytes).expect("memory");
        let new = change(u64::from_le_bytes(bytes));
        file.write_at(at, &new.to_le_bytes()).expect("memory");
        let before = file.to_vec();
        let (report, found) = check(file.clone(), Repair::All).expect("it can be checked");
        assert_eq!((found[0].kind, report.corruptions, report.corruptions_fixed), (kind, 1, 0));
        assert!(file.to_vec() == before, "{kind}");
    }
}

#[test]
fn what_cannot_be_made_is_refused_with_the_option() {
    let parent = anydisk_core::Reference::new(anydisk_core::Role::Backing, "parent.vhdx");
    let refused = |given: &[(&str, &str)]| {
        let store = Arc::new(MemoryStorage::default());
        create(store, SIZE, given, Some(&parent)).unwrap_err().to_string()
    };
    let told = refused(&[("subformat", "fixed")]);
    assert!(told.contains("dynamic for a disk over another one"), "{told}");
    let mut other = parent.clone();
    other.format = Some("qcow2".to_owned());
    let store = Arc::new(MemoryStorage::default());
    let told = create(store, SIZE, &[], Some(&other)).unwrap_err().to_string();
    assert!(told.contains("a parent of another format"), "{told}");
}
