//! qemu-img and qemu-io as judges, both ways.
//!
//! Where qemu is not installed these tests say so and pass; the golden images stand for them.

use crate::common::{Folder, range};
use anydisk_core::{Access, GuestOffset, OneSecret, Placement, Secret};
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
        ours.create("disk.qcow", size, &[], below);
        let option = below.map(|below| format!("backing_file={below}"));
        let mut options: Vec<&str> = option.iter().map(String::as_str).collect();
        if let Some(below) = below {
            theirs.write_raw(below, &[0; 512]);
            options.push("backing_fmt=raw");
        }
        qemu.create("qcow", &options, &theirs.path("disk.qcow"), &size.to_string());
        let bytes = |folder: &Folder| std::fs::read(folder.path("disk.qcow")).expect("an image");
        assert!(bytes(&ours) == bytes(&theirs), "{size} {below:?}");
    }
}

#[test]
fn qemu_reads_what_random_histories_leave() {
    let Some(qemu) = Qemu::find() else { return };
    for (seed, cluster) in ["512", "4k", "64k"].into_iter().enumerate() {
        let folder = Folder::new();
        let size = (5 << 20) + 512 * 77;
        folder.create("disk.qcow", size, &[("cluster_size", cluster)], None);
        let mut model = ByteModel::new(size);
        for round in 0..3 {
            let disk = folder.open("disk.qcow", Access::ReadWrite);
            play_bytes(&disk, &mut model, seed as u64 + 10 * round, 100);
            disk.flush().expect("a flush");
        }
        let raw = folder.write_raw("disk.raw", &model.contents());
        qemu.assert_same((&folder.path("disk.qcow"), "qcow"), (&raw, "raw"));
        assert!(contents(&folder.open("disk.qcow", Access::Read)) == model.contents());
    }
}

#[test]
fn what_qemu_wrote_is_read_and_written_on() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = Folder::new();
    let path = folder.path("disk.qcow");
    qemu.create("qcow", &[], &path, "9M");
    qemu.io(&path, "qcow", &["write -P 7 100k 300k", "write -P 9 5M 1", "write -z 150k 64k"]);
    let disk = folder.open("disk.qcow", Access::ReadWrite);
    let mut model = ByteModel::of(&contents(&disk), disk.size());
    assert_eq!(model.read(100 << 10, 1), [7]);
    assert_eq!(model.read(5 << 20, 2), [9, 0]);
    assert_eq!(model.read(150 << 10, 1), [0]);
    play_bytes(&disk, &mut model, 5, 200);
    disk.flush().expect("a flush");
    drop(disk);
    // And once more by qemu, whose new clusters must not land on ours.
    qemu.io(&path, "qcow", &["write -P 5 1M 2M", "write -P 6 8M 3k"]);
    model.write(1 << 20, &vec![5; 2 << 20]);
    model.write(8 << 20, &[6; 3 << 10]);
    let raw = folder.write_raw("disk.raw", &model.contents());
    qemu.assert_same((&path, "qcow"), (&raw, "raw"));
}

#[test]
fn overlays_over_the_images_of_the_other_show_them() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = Folder::new();
    let mut base = vec![0; 3 << 20];
    Random::new(1).fill(&mut base);
    folder.write_raw("base.raw", &base);
    let options = ["backing_file=base.raw", "backing_fmt=raw"];
    qemu.create("qcow", &options, &folder.path("a.qcow"), "3M");
    qemu.io(&folder.path("a.qcow"), "qcow", &["write -P 1 1k 1M"]);
    base[1 << 10..(1 << 20) + (1 << 10)].fill(1);
    // Clusters of 4 KiB: a write of a part copies the rest of its cluster up.
    folder.create("b.qcow", 3 << 20, &[("cluster_size", "4k")], Some("a.qcow"));
    let mut model = ByteModel::of(&base, 3 << 20);
    let disk = folder.open("b.qcow", Access::ReadWrite);
    assert_eq!(disk.layers().len(), 3);
    play_bytes(&disk, &mut model, 9, 100);
    disk.flush().expect("a flush");
    drop(disk);
    let raw = folder.write_raw("disk.raw", &model.contents());
    qemu.assert_same((&folder.path("b.qcow"), "qcow"), (&raw, "raw"));
}

#[test]
fn qemu_reads_compressed_clusters_that_were_written_here() {
    let Some(qemu) = Qemu::find() else { return };
    for cluster in [512, 4096, 65536_u64] {
        let folder = Folder::new();
        let size = 20 * cluster + 512;
        let unit = cluster.to_string();
        folder.create("disk.qcow", size, &[("cluster_size", &unit)], None);
        let disk = folder.open("disk.qcow", Access::ReadWrite);
        let writer = disk.top().writer().expect("open for writing");
        let packing = writer.packing().expect("it packs");
        let mut model = ByteModel::new(size);
        let whole = usize::try_from(cluster).expect("small");
        for number in [0, 1, 2, 7, 20] {
            let mut bytes = vec![u8::try_from(number).expect("small"); whole];
            bytes[5] = 0xC3;
            let mut packed = Vec::new();
            assert!(packing.encoder.encode(&bytes, whole, &mut packed).expect("it packs"));
            let place = range(number * cluster, cluster.min(size - number * cluster));
            let Placement::Fresh(taken) = writer.place_encoded(place, packed.len()).expect("room")
            else {
                panic!("packed bytes do not go over plain ones")
            };
            taken.store().write_at(taken.at(), &packed).expect("a write");
            taken.commit().expect("a commit");
            model
                .write(place.start().get(), &bytes[..usize::try_from(place.len()).expect("small")]);
        }
        // A part of a compressed cluster: its rest is kept, in a cluster of its own.
        disk.write(GuestOffset(cluster + 100), &[0xEE; 200]).expect("a write");
        model.write(cluster + 100, &[0xEE; 200]);
        disk.flush().expect("a flush");
        drop(disk);
        let raw = folder.write_raw("disk.raw", &model.contents());
        qemu.assert_same((&folder.path("disk.qcow"), "qcow"), (&raw, "raw"));
        let map = qemu.map(&folder.path("disk.qcow"), "qcow");
        let packed: u64 = map.iter().filter(|run| run.compressed).map(|run| run.length).sum();
        assert_eq!(packed, 3 * cluster + 512, "{cluster}");
    }
}

/// What qemu needs to read or write an encrypted image.
fn with_passphrase(program: &str, arguments: &[&str]) -> String {
    // qemu-img takes it behind the command.
    let (first, rest) = arguments.split_at(usize::from(program == "qemu-img"));
    let output = std::process::Command::new(program)
        .args(first)
        .args(["--object", "secret,id=key,data=hunter2"])
        .args(rest)
        .output()
        .expect("it was found");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    assert!(!said.contains("Pattern verification failed"), "{said}");
    said
}

#[test]
fn encrypted_images_are_read_by_the_other() {
    if Qemu::find().is_none() {
        return;
    }
    let folder = Folder::new();
    let path = folder.path("disk.qcow");
    let secrets = OneSecret(Secret::new(b"hunter2".to_vec()));
    let given = [("encrypt.format", "aes")];
    let disk = folder.create_secret("disk.qcow", 3 << 20, &given, &secrets);
    let mut model = ByteModel::new(3 << 20);
    play_bytes(&disk, &mut model, 21, 100);
    disk.write(GuestOffset(70_000), &[0xA1; 9000]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let options = format!("driver=qcow,encrypt.key-secret=key,file.filename={}", path.display());
    let commands = ["-c", "read -P 0xa1 70000 9000", "-c", "write -P 0x5c 1M 70000"];
    with_passphrase("qemu-io", &[&["--image-opts", &options], &commands[..]].concat());
    model.write(70_000, &[0xA1; 9000]);
    model.write(1 << 20, &[0x5C; 70_000]);
    let disk = folder.open_secret("disk.qcow", &secrets);
    assert!(contents(&disk) == model.contents());
    let raw = folder.write_raw("disk.raw", &model.contents());
    let raw = format!("driver=raw,file.filename={}", raw.display());
    with_passphrase("qemu-img", &["compare", "--image-opts", &options, &raw]);
}
