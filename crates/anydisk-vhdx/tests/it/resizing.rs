//! Changing the size.

use std::sync::Arc;

use anydisk_core::{
    Access, Disk, Error, GuestOffset, HostOffset, Preallocation, Repair, Storage, StorageExt,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::{CrashStorage, FaultStorage, Kind};
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{ByteModel, ImageFolder, MemoryFolder, contents, play};
use anydisk_vhdx::VHDX;

use crate::common::{MIB, check, create, damage, open_alone, open_in, reference_to};

fn new(size: u64, given: &[(&str, &str)]) -> (Arc<MemoryStorage>, Disk) {
    let store = Arc::new(MemoryStorage::default());
    let disk = create(store.clone(), size, given, None).expect("it can be made");
    (store, disk)
}

fn opened(store: Arc<dyn Storage>) -> Disk {
    Disk::new(open_alone(store, Access::ReadWrite).expect("it opens").image)
}

/// Bytes 5, 6 and 7 at the start, in the middle and at the end of what was there before.
fn marks(disk: &Disk, old: u64) -> [u8; 3] {
    [0, old / 2, old - 1].map(|at| {
        let mut byte = [0];
        disk.read(GuestOffset(at), &mut byte).expect("it can be read");
        byte[0]
    })
}

fn mark(disk: &Disk) {
    for (at, byte) in [(0, 5), (disk.size() / 2, 6), (disk.size() - 1, 7)] {
        disk.write(GuestOffset(at), &[byte]).expect("a write");
    }
    disk.flush().expect("a flush");
}

#[test]
fn a_table_that_is_too_long_for_its_region_gets_another_one() {
    // A region of 1 MiB holds the entries of 128 GiB in blocks of 1 MiB.
    let old = 100 << 30;
    let (store, disk) = new(old, &[("block_size", "1M")]);
    mark(&disk);
    let before = store.len().expect("memory");
    for size in [300_u64 << 30, 900 << 30] {
        disk.resize(size, Preallocation::Off).expect("it can grow");
        assert_eq!(disk.size(), size);
        assert_eq!(marks(&disk, old), [5, 6, 7]);
        disk.write(GuestOffset(size - MIB), &[8; 100]).expect("a write");
        disk.flush().expect("a flush");
        let again = opened(store.clone());
        assert_eq!((again.size(), marks(&again, old)), (size, [5, 6, 7]));
        let mut bytes = [0; 101];
        again.read(GuestOffset(size - MIB), &mut bytes).expect("a read");
        assert_eq!((bytes[99], bytes[100]), (8, 0));
        assert_eq!(damage(store.clone()), Ok(()));
    }
    assert!(store.len().expect("memory") < before + 16 * MIB);
}

#[test]
fn after_any_crash_while_the_table_moves_the_disk_has_the_old_size_or_the_new_one() {
    let (old, new_size) = (100 << 30, 200 << 30);
    let (store, disk) = new(old, &[("block_size", "1M")]);
    mark(&disk);
    drop(disk);
    let crash = CrashStorage::over(store.to_vec());
    opened(Arc::new(crash.clone())).resize(new_size, Preallocation::Off).expect("it can grow");
    crash.mark();
    let mut sizes = std::collections::BTreeSet::new();
    for state in crash.torn_states(120, 3) {
        let disk = opened(state.storage());
        assert_eq!(marks(&disk, old), [5, 6, 7], "{state}");
        assert_eq!(damage(state.storage()), Ok(()), "{state}");
        sizes.insert(disk.size());
    }
    assert_eq!(Vec::from_iter(sizes), [old, new_size]);
}

/// The log may hold the new place of the table, and the next opening then goes by it.
#[test]
fn what_is_flushed_after_a_move_of_the_table_that_failed_is_there() {
    let (store, disk) = new(100 << 30, &[("block_size", "1M")]);
    mark(&disk);
    drop(disk);
    let bytes = store.to_vec();
    for number in 0..100 {
        let memory = Arc::new(MemoryStorage::new(bytes.clone()));
        let faults = FaultStorage::new(memory.clone());
        let disk = opened(Arc::new(faults.clone()));
        faults.fail_from(Kind::Flush, number);
        if disk.resize(200 << 30, Preallocation::Off).is_ok() {
            return;
        }
        faults.heal();
        let written = disk.write(GuestOffset(7 << 30), &[9; 512]).and_then(|()| disk.flush());
        let again = opened(Arc::new(MemoryStorage::new(memory.to_vec())));
        assert_eq!(marks(&again, 100 << 30), [5, 6, 7], "{number}");
        let mut bytes = [0; 512];
        again.read(GuestOffset(7 << 30), &mut bytes).expect("a read");
        assert!(written.is_err() || bytes == [9; 512], "{number}");
    }
    panic!("the table never moves");
}

#[test]
fn what_a_smaller_disk_lost_is_given_back_and_does_not_come_back() {
    let (store, disk) = new(8 * MIB, &[("block_size", "1M")]);
    disk.write(GuestOffset::ZERO, &vec![9; 8 << 20]).expect("a write");
    disk.flush().expect("a flush");
    disk.resize(2 * MIB + 512, Preallocation::Off).expect("it can shrink");
    assert_eq!(store.len().expect("memory"), 7 * MIB);
    disk.resize(8 * MIB, Preallocation::Off).expect("it can grow");
    let mut expected = vec![9; (2 << 20) + 512];
    expected.resize(8 << 20, 0);
    assert!(contents(&disk) == expected);
    drop(disk);
    assert!(contents(&opened(store.clone())) == expected);
    let (report, found) = check(store, Repair::Nothing).expect("it can be checked");
    assert!(report.is_clean() && found.is_empty(), "{found:?}");
}

/// The blocks that a smaller disk keeps may lie behind those that it loses, which then look like those
/// of a table that was lost.
#[test]
fn a_disk_that_lost_most_of_its_blocks_is_sound() {
    let (store, disk) = new(40 * MIB, &[("block_size", "1M")]);
    disk.write(GuestOffset(MIB), &vec![9; 39 << 20]).expect("a write");
    disk.write(GuestOffset::ZERO, &vec![8; 1 << 20]).expect("a write");
    disk.resize(MIB, Preallocation::Off).expect("it can shrink");
    assert_eq!(damage(store.clone()), Ok(()));
    drop(disk);
    let disk = opened(store.clone());
    disk.resize(9 * MIB, Preallocation::Off).expect("it can grow");
    disk.write(GuestOffset(MIB), &[7; 512]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(damage(store), Ok(()));
}

#[test]
fn what_is_new_gets_space_if_it_is_asked_for_and_always_in_a_fixed_disk() {
    for (given, how, blocks) in [
        (&[("block_size", "1M")][..], Preallocation::Off, 0),
        (&[("block_size", "1M")], Preallocation::Metadata, 3),
        (&[("block_size", "1M")], Preallocation::Falloc, 3),
        (&[("block_size", "1M")], Preallocation::Full, 3),
        (&[("block_size", "1M"), ("subformat", "fixed")], Preallocation::Off, 3),
    ] {
        let (store, disk) = new(MIB, given);
        let before = store.len().expect("memory");
        disk.resize(4 * MIB, how).expect("it can grow");
        disk.flush().expect("a flush");
        assert_eq!(store.len().expect("memory"), before + blocks * MIB, "{how:?}");
        assert_eq!(damage(store), Ok(()));
    }
}

#[test]
fn a_child_keeps_its_size() {
    let folder = MemoryFolder::default();
    let parent = create(folder.make_file("parent").expect("new"), MIB, &[], None).expect("made");
    parent.flush().expect("a flush");
    let reference = reference_to(&parent, "parent");
    let store = folder.make_file("child").expect("new");
    create(store, MIB, &[], Some(&reference)).and_then(|child| child.flush()).expect("made");
    drop(parent);
    let child = open_in(&folder, "child", Access::ReadWrite).expect("it opens");
    let error = child.resize(2 * MIB, Preallocation::Off).unwrap_err();
    assert!(matches!(error.kind(), Error::Unsupported { .. }), "{error}");
}

#[test]
fn qemu_reads_disks_of_every_size_that_one_had() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = ImageFolder::new(&VHDX);
    let disk = folder.create("disk.vhdx", 5 * MIB, &[("block_size", "1M")], None);
    let mut model = ByteModel::new(5 * MIB);
    for (size, seed) in [(20 * MIB + 512, 1), (3 * MIB, 2), (9 * MIB - 512, 3)] {
        disk.resize(size, Preallocation::Off).expect("it can");
        model.resize(size);
        play(&disk, &mut model, MIB, seed, 30);
        disk.flush().expect("a flush");
        let raw = folder.path("model.raw");
        std::fs::write(&raw, model.contents()).expect("a file");
        std::fs::copy(folder.path("disk.vhdx"), folder.path("copy.vhdx")).expect("a file");
        let clean = Ok(Checked { leaks: 0, corruptions: 0 });
        assert_eq!(qemu.check(&folder.path("copy.vhdx"), "vhdx"), clean);
        qemu.assert_same((&folder.path("copy.vhdx"), "vhdx"), (&raw, "raw"));
    }
}

#[test]
fn what_qemu_made_is_resized() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = ImageFolder::new(&VHDX);
    let path = folder.path("disk.vhdx");
    qemu.create("vhdx", &["block_size=1M"], &path, "3145728");
    qemu.io(&path, "vhdx", &["write -P 7 1M 2M"]);
    let disk = folder.open("disk.vhdx", Access::ReadWrite);
    let mut model = ByteModel::of(&contents(&disk), disk.size());
    for size in [7 * MIB, 2 * MIB + 512, 4 * MIB] {
        disk.resize(size, Preallocation::Off).expect("it can");
        model.resize(size);
    }
    drop(disk);
    let raw = folder.path("model.raw");
    std::fs::write(&raw, model.contents()).expect("a file");
    qemu.assert_same((&path, "vhdx"), (&raw, "raw"));
}

#[test]
fn a_size_that_lies_across_two_sectors_is_changed_through_the_log() {
    let (store, disk) = new(2 * MIB, &[("block_size", "1M")]);
    disk.flush().expect("a flush");
    drop(disk);
    // The item is moved to the last bytes of a sector, where it does not fit.
    let entry = 3 * MIB + 2 * 32 + 16;
    let at = 3 * MIB + (65 << 10) + 508;
    store.write_at(HostOffset(at), &(2 * MIB).to_le_bytes()).expect("memory");
    store.write_at(HostOffset(entry), &((65_u32 << 10) + 508).to_le_bytes()).expect("memory");
    let crash = CrashStorage::over(store.to_vec());
    let disk = opened(Arc::new(crash.clone()));
    disk.resize(300 * MIB, Preallocation::Off).expect("it can grow");
    crash.mark();
    let sizes = crash.torn_states(300, 1).map(|state| opened(state.storage()).size());
    let sizes: std::collections::BTreeSet<u64> = sizes.collect();
    assert_eq!(Vec::from_iter(sizes), [2 * MIB, 300 * MIB]);
    let mut bytes = [0; 8];
    crash.read_exact_at(HostOffset(at), &mut bytes).expect("memory");
    assert_eq!(u64::from_le_bytes(bytes), 300 * MIB);
}
