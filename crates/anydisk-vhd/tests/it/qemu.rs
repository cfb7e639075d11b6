//! qemu-img as a judge, in both directions.

use anydisk_core::Access;
use anydisk_testkit::ByteModel;
use anydisk_testkit::oracle::Qemu;

use crate::common::{Folder, contents, play};

fn assert_qemu_agrees(qemu: &Qemu, folder: &Folder, name: &str, model: &ByteModel) {
    let raw = folder.path("model.raw");
    std::fs::write(&raw, model.contents()).expect("a file");
    qemu.assert_same((&folder.path(name), "vpc"), (&raw, "raw"));
}

#[test]
fn qemu_reads_what_random_histories_leave() {
    let Some(qemu) = Qemu::find() else { return };
    let kinds = [
        &[("force_size", "on")][..],
        &[("force_size", "on"), ("subformat", "fixed")],
        &[("force_size", "on"), ("block_size", "512k")],
    ];
    for (options, seed) in kinds.into_iter().zip(0..) {
        let folder = Folder::new();
        let size = (13 << 20) + 512 * 77;
        let disk = folder.create("disk.vhd", size, options);
        let mut model = ByteModel::new(size);
        play(&disk, &mut model, 1 << 20, seed, 60);
        disk.flush().expect("a flush");
        drop(disk);
        assert_qemu_agrees(&qemu, &folder, "disk.vhd", &model);
        let disk = folder.open("disk.vhd", Access::ReadWrite);
        play(&disk, &mut model, 1 << 20, 100 + seed, 40);
        disk.flush().expect("a flush");
        drop(disk);
        assert_qemu_agrees(&qemu, &folder, "disk.vhd", &model);
        assert!(contents(&folder.open("disk.vhd", Access::Read)) == model.contents());
    }
}

#[test]
fn what_qemu_wrote_is_read_and_written_on_and_qemu_goes_on_with_it() {
    let Some(qemu) = Qemu::find() else { return };
    for options in [&[][..], &["subformat=fixed"], &["force_size=on"]] {
        let folder = Folder::new();
        let path = folder.path("disk.vhd");
        qemu.create("vpc", options, &path, "5251072");
        qemu.io(&path, "vpc", &["write -P 7 100k 300k", "write -P 9 4M 1"]);
        let disk = folder.open("disk.vhd", Access::ReadWrite);
        let mut model = ByteModel::of(&contents(&disk), disk.size());
        assert_eq!(model.read(100 << 10, 1), [7], "{options:?}");
        assert_eq!(model.read(4 << 20, 2), [9, 0], "{options:?}");
        play(&disk, &mut model, 1 << 20, 5, 60);
        disk.flush().expect("a flush");
        drop(disk);
        assert_qemu_agrees(&qemu, &folder, "disk.vhd", &model);
        qemu.io(&path, "vpc", &["write -P 3 0 64k", "write -P 4 3M 64k"]);
        model.write(0, &[3; 64 << 10]);
        model.write(3 << 20, &[4; 64 << 10]);
        assert!(contents(&folder.open("disk.vhd", Access::Read)) == model.contents());
    }
}

#[test]
fn a_new_image_has_the_size_that_qemu_sees_and_gives() {
    let Some(qemu) = Qemu::find() else { return };
    for size in [1, 5 << 20, 1 << 30, 127 << 30, 200 << 30, 2040_u64 << 30] {
        let folder = Folder::new();
        qemu.create("vpc", &[], &folder.path("theirs.vhd"), &size.to_string());
        let theirs = qemu.info(&folder.path("theirs.vhd"), "vpc")["virtual-size"].clone();
        let disk = folder.create("ours.vhd", size, &[]);
        disk.flush().expect("a flush");
        assert_eq!(disk.size(), theirs, "{size}");
        drop(disk);
        assert_eq!(folder.open("theirs.vhd", Access::Read).size(), theirs, "{size}");
        assert_eq!(qemu.info(&folder.path("ours.vhd"), "vpc")["virtual-size"], theirs, "{size}");
        let exact = folder.create("exact.vhd", size, &[("force_size", "on")]);
        exact.flush().expect("a flush");
        drop(exact);
        let seen = qemu.info(&folder.path("exact.vhd"), "vpc");
        assert_eq!(seen["virtual-size"], size.next_multiple_of(512));
    }
}
