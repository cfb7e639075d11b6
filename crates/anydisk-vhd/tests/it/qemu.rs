//! qemu-img as a judge, in both directions.

use anydisk_core::{Access, GuestOffset, GuestRange};
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{ByteModel, ImageFolder, contents, play};
use anydisk_vhd::VHD;

use crate::common::reference_to;

fn assert_qemu_agrees(qemu: &Qemu, folder: &ImageFolder, name: &str, model: &ByteModel) {
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
        let folder = ImageFolder::new(&VHD);
        let size = (13 << 20) + 512 * 77;
        let disk = folder.create("disk.vhd", size, options, None);
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
        let folder = ImageFolder::new(&VHD);
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

/// Lets qemu write to an image that we wrote, and looks whether all else stayed as it was.
fn assert_qemu_goes_on(folder: &ImageFolder, name: &str, model: &mut ByteModel, at: &[u64]) {
    let Some(qemu) = Qemu::find() else { return };
    for at in at {
        qemu.io(&folder.path(name), "vpc", &[&format!("write -P 5 {at} 512")]);
        model.write(*at, &[5; 512]);
        assert_qemu_agrees(&qemu, folder, name, model);
        assert!(contents(&folder.open(name, Access::Read)) == model.contents(), "{at}");
    }
}

#[test]
fn what_qemu_writes_to_an_empty_image_is_all_that_it_then_holds() {
    let parameters = [("block_size", "64k"), ("block_size", "2M"), ("block_size", "4k")];
    for given in parameters {
        let (folder, size) = (ImageFolder::new(&VHD), 9 << 20);
        let disk = folder.create("disk.vhd", size, &[given, ("force_size", "on")], None);
        disk.flush().expect("a flush");
        drop(disk);
        let mut model = ByteModel::new(size);
        assert_qemu_goes_on(&folder, "disk.vhd", &mut model, &[964_096, 5 << 20, 0]);
    }
}

#[test]
fn qemu_finds_nothing_of_what_was_freed_at_the_end_of_the_file() {
    let Some(qemu) = Qemu::find() else { return };
    for is_theirs in [false, true] {
        let (folder, size) = (ImageFolder::new(&VHD), 8 << 20);
        if is_theirs {
            qemu.create("vpc", &["force_size=on"], &folder.path("disk.vhd"), &size.to_string());
        } else {
            folder
                .create("disk.vhd", size, &[("force_size", "on")], None)
                .flush()
                .expect("a flush");
        }
        let disk = folder.open("disk.vhd", Access::ReadWrite);
        let mut model = ByteModel::new(size);
        disk.write(GuestOffset::ZERO, &vec![b'A'; 8 << 20]).expect("a write");
        disk.flush().expect("a flush");
        model.write(0, &vec![b'A'; 8 << 20]);
        // A block in the middle first: it is free when the end comes down to it.
        for at in [4_u64 << 20, 6 << 20, 2 << 20] {
            let range = GuestRange::new(GuestOffset(at), 2 << 20).expect("on it");
            disk.discard(range).expect("it can");
            model.write(at, &vec![0; 2 << 20]);
        }
        disk.flush().expect("a flush");
        drop(disk);
        let len = std::fs::metadata(folder.path("disk.vhd")).expect("it is there").len();
        assert!(len < 3 << 20, "{len}");
        assert_qemu_goes_on(&folder, "disk.vhd", &mut model, &[5 << 20, 2 << 20, 7 << 20]);
    }
}

#[test]
fn random_histories_that_qemu_writes_in_as_well_equal_a_byte_vector() {
    let Some(qemu) = Qemu::find() else { return };
    let kinds = ["4k", "64k", "2M"];
    for (block, seed) in kinds.into_iter().zip(0_u64..) {
        let (folder, size) = (ImageFolder::new(&VHD), 6 << 20);
        let given = [("force_size", "on"), ("block_size", block)];
        folder.create("disk.vhd", size, &given, None).flush().expect("a flush");
        let mut model = ByteModel::new(size);
        for round in 0..4 {
            let at = (seed * 7 + round * 5) % 12 * (512 << 10) + 512 * round;
            assert_qemu_goes_on(&folder, "disk.vhd", &mut model, &[at]);
            let disk = folder.open("disk.vhd", Access::ReadWrite);
            play(&disk, &mut model, 1 << 20, seed * 10 + round, 12);
            // A part at the end of the disk, and with it often the last blocks of the file.
            let start = size / 4 * (3 - round % 2);
            disk.discard(GuestRange::between(GuestOffset(start), GuestOffset(size)))
                .expect("it can");
            model.write(start, &vec![0; usize::try_from(size - start).expect("small")]);
            disk.flush().expect("a flush");
        }
        assert_qemu_agrees(&qemu, &folder, "disk.vhd", &model);
    }
}

#[test]
fn qemu_goes_on_with_a_child_that_lost_its_parent() {
    let folder = ImageFolder::new(&VHD);
    let exact = [("force_size", "on")];
    let parent = folder.create("parent.vhd", 6 << 20, &exact, None);
    let reference = reference_to(&parent, "parent.vhd");
    let mut other = reference.clone();
    other.name = format!("{}.vhd", "another name ".repeat(15)).into_bytes();
    for (renames, at) in [(0, 0), (1, 0), (2, 0), (2, 4 << 20)] {
        let child = folder.create("child.vhd", 6 << 20, &[], Some(&reference));
        let mut model = ByteModel::new(6 << 20);
        if at > 0 {
            child.write(GuestOffset(at), &[9; 700]).expect("a write");
            model.write(at, &[9; 700]);
        }
        let link = child.top().backing_link().expect("it has one");
        for to in [&other, &reference].into_iter().take(renames) {
            link.set_backing(Some(to)).expect("it can");
        }
        link.set_backing(None).expect("it can");
        drop(child);
        assert_qemu_goes_on(&folder, "child.vhd", &mut model, &[2 << 20, 0]);
        std::fs::remove_file(folder.path("child.vhd")).expect("it is there");
    }
}

#[test]
fn a_new_image_has_the_size_that_qemu_sees_and_gives() {
    let Some(qemu) = Qemu::find() else { return };
    for size in [1, 5 << 20, 1 << 30, 127 << 30, 200 << 30, 2040_u64 << 30] {
        let folder = ImageFolder::new(&VHD);
        qemu.create("vpc", &[], &folder.path("theirs.vhd"), &size.to_string());
        let theirs = qemu.info(&folder.path("theirs.vhd"), "vpc")["virtual-size"].clone();
        let disk = folder.create("ours.vhd", size, &[], None);
        disk.flush().expect("a flush");
        assert_eq!(disk.size(), theirs, "{size}");
        drop(disk);
        assert_eq!(folder.open("theirs.vhd", Access::Read).size(), theirs, "{size}");
        assert_eq!(qemu.info(&folder.path("ours.vhd"), "vpc")["virtual-size"], theirs, "{size}");
        let exact = folder.create("exact.vhd", size, &[("force_size", "on")], None);
        exact.flush().expect("a flush");
        drop(exact);
        let seen = qemu.info(&folder.path("exact.vhd"), "vpc");
        assert_eq!(seen["virtual-size"], size.next_multiple_of(512));
    }
}
