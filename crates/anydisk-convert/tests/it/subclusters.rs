//! Targets whose clusters have parts with places of their own, where a copy changes some of them.

use std::path::Path;
use std::sync::Arc;

use anydisk_convert::{
    NewImage, Settings, Sources, Unwatched, copy_to_disk, copy_to_file, copy_to_overlay,
    create_file,
};
use anydisk_core::{
    Access, Disk, Format, Located, Location, NoReferences, Opener, Options, Reference, Registry,
    Role,
};
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::Random;
use anydisk_testkit::contents;
use anydisk_testkit::oracle::Qemu;
use anydisk_vmdk::VMDK;

fn open(path: &Path, format: &'static dyn Format, access: Access) -> Disk {
    let options = OpenOptions::new().write(access == Access::ReadWrite);
    let store = Arc::new(FileStorage::open(path, &options).expect("a file"));
    let registry = Registry::new(&[format]);
    let file = Located { store, location: Location::Path(path.to_owned()) };
    let opener = Opener::new(&registry, &NoReferences);
    let layer = opener.open_one(file, Some(format.name()), access).expect("it opens");
    Disk::from_layers(vec![layer], &anydisk_core::Limits::default())
}

/// 4 KiB pieces of noise and of zeroes, in no order.
fn pieces(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; len];
    for piece in bytes.chunks_mut(4096) {
        if random.chance(2, 3) {
            random.fill(piece);
        }
    }
    bytes
}

#[test]
fn parts_of_one_cluster_are_copied_zeroed_and_left_by_any_number_of_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (first, second) = (pieces(1, 3 << 20), pieces(2, 3 << 20));
    std::fs::write(path("first"), &first).expect("written");
    std::fs::write(path("second"), &second).expect("written");
    let (one, two) =
        (open(&path("first"), &RAW, Access::Read), open(&path("second"), &RAW, Access::Read));
    for cluster in ["16k", "64k", "128k"] {
        for threads in [1, 3] {
            let mut options = Options::of(&QCOW2);
            options.set("extended_l2", "on").expect("an option");
            options.set("cluster_size", cluster).expect("an option");
            let image = NewImage::new(&QCOW2, &options, one.size());
            let mut settings = Settings::default();
            settings.threads = threads;
            let target = path("target.qcow2");
            create_file(&target, &image).expect("made");
            let disk = open(&target, &QCOW2, Access::ReadWrite);
            for (source, expected) in [(&one, &first), (&two, &second), (&one, &first)] {
                copy_to_disk(&Sources::one(source), &disk, &settings, &Unwatched).expect("copied");
                assert!(contents(&disk) == *expected, "{cluster}, {threads} threads");
            }
            disk.flush().expect("flushed");
            drop(disk);
            if let Some(qemu) = Qemu::find() {
                qemu.assert_undamaged(&target, "qcow2");
                qemu.assert_same((&target, "qcow2"), (&path("first"), "raw"));
            }
            let mut reference = Reference::new(Role::Backing, "second");
            reference.format = Some("raw".into());
            let image = NewImage { backing: Some(&reference), ..image };
            let (over, below) = (path("over.qcow2"), two.layers());
            copy_to_overlay(&Sources::one(&one), &over, &image, below, &settings, &Unwatched)
                .expect("copied");
            if let Some(qemu) = Qemu::find() {
                qemu.assert_undamaged(&over, "qcow2");
                qemu.assert_same((&over, "qcow2"), (&path("first"), "raw"));
            }
        }
    }
}

#[test]
fn what_is_written_in_one_pass_lies_over_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("disk"), pieces(1, 1 << 20)).expect("written");
    let source = open(&path("disk"), &RAW, Access::Read);
    let mut options = Options::of(&VMDK);
    options.set("subformat", "streamOptimized").expect("an option");
    let reference = Reference::new(Role::Backing, "disk");
    let image = NewImage::new(&VMDK, &options, source.size());
    let image = NewImage { backing: Some(&reference), ..image };
    let target = path("a.vmdk");
    let (sources, settings) = (Sources::one(&source), Settings::default());
    let copied = copy_to_file(&sources, &target, &image, &settings, &Unwatched);
    assert!(copied.expect_err("refused").to_string().contains("a backing file"));
    assert!(create_file(&target, &image).is_err());
    assert!(!target.exists());
}
