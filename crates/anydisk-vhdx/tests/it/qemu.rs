//! qemu-img as a judge, in both directions.

use std::sync::Arc;

use anydisk_core::{Access, GuestOffset, Repair};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{ByteModel, ImageFolder, contents, play};
use anydisk_vhdx::VHDX;

use crate::common::{check, reference_to};

fn assert_qemu_agrees(qemu: &Qemu, folder: &ImageFolder, name: &str, model: &ByteModel) {
    let raw = folder.path("model.raw");
    std::fs::write(&raw, model.contents()).expect("a file");
    let clean = Ok(Checked { leaks: 0, corruptions: 0 });
    assert_eq!(qemu.check(&folder.path(name), "vhdx"), clean);
    qemu.assert_same((&folder.path(name), "vhdx"), (&raw, "raw"));
}

#[test]
fn qemu_reads_what_random_histories_leave() {
    let Some(qemu) = Qemu::find() else { return };
    let kinds = [
        &[("block_size", "1M")][..],
        &[("block_size", "1M"), ("subformat", "fixed")],
        &[("block_state_zero", "off"), ("log_size", "2M")],
    ];
    for (options, seed) in kinds.into_iter().zip(0..) {
        let folder = ImageFolder::new(&VHDX);
        let size = (13 << 20) + 512 * 77;
        let disk = folder.create("disk.vhdx", size, options, None);
        let mut model = ByteModel::new(size);
        play(&disk, &mut model, 1 << 20, seed, 60);
        disk.flush().expect("a flush");
        drop(disk);
        assert_qemu_agrees(&qemu, &folder, "disk.vhdx", &model);
        let disk = folder.open("disk.vhdx", Access::ReadWrite);
        play(&disk, &mut model, 1 << 20, 100 + seed, 40);
        disk.flush().expect("a flush");
        drop(disk);
        assert_qemu_agrees(&qemu, &folder, "disk.vhdx", &model);
        assert!(contents(&folder.open("disk.vhdx", Access::Read)) == model.contents());
    }
}

#[test]
fn what_qemu_wrote_is_read_and_written_on_and_qemu_goes_on_with_it() {
    let Some(qemu) = Qemu::find() else { return };
    for options in [&[][..], &["subformat=fixed"], &["block_state_zero=off,block_size=1M"]] {
        let folder = ImageFolder::new(&VHDX);
        let path = folder.path("disk.vhdx");
        qemu.create("vhdx", options, &path, "5251072");
        qemu.io(&path, "vhdx", &["write -P 7 100k 300k", "write -P 9 4M 512"]);
        let disk = folder.open("disk.vhdx", Access::ReadWrite);
        let mut model = ByteModel::of(&contents(&disk), disk.size());
        assert_eq!(model.read(100 << 10, 1), [7], "{options:?}");
        play(&disk, &mut model, 1 << 20, 5, 60);
        disk.flush().expect("a flush");
        drop(disk);
        assert_qemu_agrees(&qemu, &folder, "disk.vhdx", &model);
        qemu.io(&path, "vhdx", &["write -P 3 0 64k", "write -P 4 3M 64k"]);
        model.write(0, &[3; 64 << 10]);
        model.write(3 << 20, &[4; 64 << 10]);
        assert!(contents(&folder.open("disk.vhdx", Access::Read)) == model.contents());
    }
}

#[test]
fn a_check_finds_nothing_in_what_qemu_wrote() {
    let Some(qemu) = Qemu::find() else { return };
    for options in [
        &["block_size=1M"][..],
        &["block_size=1M,block_state_zero=off"],
        &["subformat=fixed,block_size=1M"],
        &["subformat=fixed,block_size=1M,block_state_zero=off"],
        &[],
    ] {
        let folder = ImageFolder::new(&VHDX);
        let path = folder.path("disk.vhdx");
        qemu.create("vhdx", options, &path, "9M");
        for commands in
            [&[][..], &["write -P 7 100k 300k", "write -P 9 4M 512"], &["discard 4M 1M"]]
        {
            qemu.io(&path, "vhdx", commands);
            let store = Arc::new(MemoryStorage::new(std::fs::read(&path).expect("a file")));
            let (report, found) = check(store, Repair::Nothing).expect("it can be checked");
            assert!(report.is_clean() && found.is_empty(), "{options:?} {commands:?}: {found:?}");
        }
    }
}

#[test]
fn a_disk_of_several_chunks_has_its_blocks_where_qemu_looks_for_them() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = ImageFolder::new(&VHDX);
    // A chunk of blocks of 1 MiB has 4096 of them.
    let disk = folder.create("disk.vhdx", 9 << 30, &[("block_size", "1M")], None);
    for block in [4095_u64, 4096, 8191, 8192, 9000] {
        let byte = u8::try_from(block % 251).expect("small");
        disk.write(GuestOffset(block << 20), &[byte; 512]).expect("a write");
    }
    disk.flush().expect("a flush");
    drop(disk);
    for block in [4095_u64, 4096, 8191, 8192, 9000] {
        let command = format!("read -P {} {block}M 512", block % 251);
        let told = qemu.io(&folder.path("disk.vhdx"), "vhdx", &[&command]);
        assert!(!told.contains("verification failed"), "{told}");
    }
}

#[test]
fn qemu_opens_a_child_that_was_put_over_none() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = ImageFolder::new(&VHDX);
    let parent = folder.create("parent.vhdx", 5 << 20, &[("block_size", "1M")], None);
    parent.flush().expect("a flush");
    let below = reference_to(&parent, "parent.vhdx");
    drop(parent);
    let child = folder.create("child.vhdx", 5 << 20, &[("block_size", "1M")], Some(&below));
    let mut model = ByteModel::new(5 << 20);
    child.write(GuestOffset(700), &[2; 700]).expect("a write");
    child.top().backing_link().expect("it has one").set_backing(None).expect("it can");
    child.write(GuestOffset(3 << 20), &[3; 512]).expect("a write");
    child.flush().expect("a flush");
    drop(child);
    model.write(700, &[2; 700]);
    model.write(3 << 20, &[3; 512]);
    assert_qemu_agrees(&qemu, &folder, "child.vhdx", &model);
}
