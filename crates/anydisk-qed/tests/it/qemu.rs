//! qemu-img and qemu-io as judges, both ways.
//!
//! Where qemu is not installed these tests say so and pass; the golden images stand for them.

use crate::common::Folder;
use anydisk_core::Access;
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{ByteModel, Random, contents, play_bytes};

#[test]
fn a_new_image_is_the_one_that_qemu_makes() {
    let Some(qemu) = Qemu::find() else { return };
    for (size, below) in [
        (512, None),
        (5_267_456, None),
        (5 << 30, None),
        (3 << 40, None),
        (65536, Some("base.raw")),
        (200 << 30, Some("a name of 21 bytes.raw")),
    ] {
        let (ours, theirs) = (Folder::new(), Folder::new());
        ours.create("disk.qed", size, &[], below);
        let option = below.map(|below| format!("backing_file={below}"));
        let mut options: Vec<&str> = option.iter().map(String::as_str).collect();
        if let Some(below) = below {
            theirs.write_raw(below, &[0; 512]);
            options.push("backing_fmt=raw");
        }
        qemu.create("qed", &options, &theirs.path("disk.qed"), &size.to_string());
        let bytes = |folder: &Folder| std::fs::read(folder.path("disk.qed")).expect("an image");
        assert!(bytes(&ours) == bytes(&theirs), "{size} {below:?}");
    }
}

#[test]
fn qemu_reads_what_random_histories_leave() {
    let Some(qemu) = Qemu::find() else { return };
    for (seed, cluster) in ["4k", "64k"].into_iter().enumerate() {
        let folder = Folder::new();
        let size = (5 << 20) + 512 * 77;
        folder.create("disk.qed", size, &[("cluster_size", cluster)], None);
        let mut model = ByteModel::new(size);
        for round in 0..3 {
            let disk = folder.open("disk.qed", Access::ReadWrite);
            play_bytes(&disk, &mut model, seed as u64 + 10 * round, 100);
            disk.flush().expect("a flush");
        }
        let raw = folder.write_raw("disk.raw", &model.contents());
        qemu.assert_same((&folder.path("disk.qed"), "qed"), (&raw, "raw"));
        assert!(contents(&folder.open("disk.qed", Access::Read)) == model.contents());
    }
}

#[test]
fn what_qemu_wrote_is_read_and_written_on() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = Folder::new();
    let path = folder.path("disk.qed");
    qemu.create("qed", &[], &path, "9M");
    qemu.io(&path, "qed", &["write -P 7 100k 300k", "write -P 9 5M 1", "write -z 150k 64k"]);
    let disk = folder.open("disk.qed", Access::ReadWrite);
    let mut model = ByteModel::of(&contents(&disk), disk.size());
    assert_eq!(model.read(100 << 10, 1), [7]);
    assert_eq!(model.read(5 << 20, 2), [9, 0]);
    assert_eq!(model.read(150 << 10, 1), [0]);
    play_bytes(&disk, &mut model, 5, 200);
    disk.flush().expect("a flush");
    drop(disk);
    // And once more by qemu, whose new clusters must not land on ours.
    qemu.io(&path, "qed", &["write -P 5 1M 2M", "write -P 6 8M 3k"]);
    model.write(1 << 20, &vec![5; 2 << 20]);
    model.write(8 << 20, &[6; 3 << 10]);
    let raw = folder.write_raw("disk.raw", &model.contents());
    qemu.assert_same((&path, "qed"), (&raw, "raw"));
}

#[test]
fn overlays_over_the_images_of_the_other_show_them() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = Folder::new();
    let mut base = vec![0; 3 << 20];
    Random::new(1).fill(&mut base);
    folder.write_raw("base.raw", &base);
    let options = ["backing_file=base.raw", "backing_fmt=raw"];
    qemu.create("qed", &options, &folder.path("a.qed"), "3M");
    qemu.io(&folder.path("a.qed"), "qed", &["write -P 1 1k 1M"]);
    base[1 << 10..(1 << 20) + (1 << 10)].fill(1);
    // Clusters of 4 KiB: a write of a part copies the rest of its cluster up.
    folder.create("b.qed", 3 << 20, &[("cluster_size", "4k"), ("table_size", "2")], Some("a.qed"));
    let mut model = ByteModel::of(&base, 3 << 20);
    let disk = folder.open("b.qed", Access::ReadWrite);
    assert_eq!(disk.layers().len(), 3);
    play_bytes(&disk, &mut model, 9, 100);
    disk.flush().expect("a flush");
    drop(disk);
    let raw = folder.write_raw("disk.raw", &model.contents());
    qemu.assert_same((&folder.path("b.qed"), "qed"), (&raw, "raw"));
}

#[test]
fn qemus_check_finds_nothing_wrong_with_what_random_histories_leave() {
    let Some(qemu) = Qemu::find() else { return };
    for seed in 0..3 {
        let folder = Folder::new();
        folder.write_raw("base.raw", &[0x42; 3 << 20]);
        let given = [("cluster_size", "4k"), ("table_size", "2")];
        folder.create("disk.qed", 3 << 20, &given, Some("base.raw"));
        let mut model = ByteModel::of(&[0x42; 3 << 20], 3 << 20);
        let disk = folder.open("disk.qed", Access::ReadWrite);
        play_bytes(&disk, &mut model, 70 + seed, 120);
        disk.resize(5 << 20, anydisk_core::Preallocation::Off).expect("it grows");
        model.resize(5 << 20);
        play_bytes(&disk, &mut model, 80 + seed, 60);
        disk.flush().expect("a flush");
        drop(disk);
        let raw = folder.write_raw("disk.raw", &model.contents());
        qemu.assert_same((&folder.path("disk.qed"), "qed"), (&raw, "raw"));
        qemu.assert_undamaged(&folder.path("disk.qed"), "qed");
        // And the other way round: qemu grows it, and writes on.
        let commands = ["truncate 7M", "write -P 5 1M 100k", "write -z 3M 64k", "write -P 6 6M 3k"];
        qemu.io(&folder.path("disk.qed"), "qed", &commands);
        model.resize(7 << 20);
        model.write(1 << 20, &vec![5; 100 << 10]);
        model.write(3 << 20, &vec![0; 64 << 10]);
        model.write(6 << 20, &vec![6; 3 << 10]);
        let disk = folder.open("disk.qed", Access::ReadWrite);
        assert!(contents(&disk) == model.contents());
        play_bytes(&disk, &mut model, 90 + seed, 60);
        assert!(contents(&disk) == model.contents());
    }
}
