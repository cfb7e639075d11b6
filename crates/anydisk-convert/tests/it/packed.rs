//! Compressed conversions into formats that are written in place.

use std::path::Path;
use std::sync::Arc;

use anydisk_convert::{
    Comparison, NewImage, Settings, Sources, Strictness, Unwatched, compare, copy_to_disk,
    copy_to_file,
};
use anydisk_core::{
    Access, Disk, Format, GuestOffset, Located, Location, NoReferences, Opener, Options, Registry,
};
use anydisk_qcow::QCOW;
use anydisk_qcow2::QCOW2;
use anydisk_raw::RawImage;
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions};

fn open(path: &Path) -> Disk {
    open_as(path, Access::Read)
}

fn open_as(path: &Path, access: Access) -> Disk {
    let options = OpenOptions::new().write(access == Access::ReadWrite);
    let store = Arc::new(FileStorage::open(path, &options).expect("a file"));
    let registry = Registry::new(&[&QCOW, &QCOW2]);
    let file = Located { store, location: Location::Path(path.to_owned()) };
    Opener::new(&registry, &NoReferences).open(file, None, access).expect("it opens")
}

#[test]
fn units_of_every_size_are_packed_and_a_disk_may_end_inside_a_sector() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes: Vec<u8> =
        (0..3_000_123_u32).map(|n| u8::try_from(n / 700 % 251).expect("small")).collect();
    let store = Arc::new(MemoryStorage::new(bytes.clone()));
    let source = Disk::new(Arc::new(RawImage::open(store, false).expect("raw opens")));
    for (number, format) in [&QCOW as &dyn Format, &QCOW2].into_iter().enumerate() {
        for unit in ["512", "4096", "65536"] {
            let target = folder.path().join(format!("{number}-{unit}"));
            let mut options = Options::of(format);
            options.set("cluster_size", unit).expect("an option");
            let image = NewImage::new(format, &options, source.size());
            let mut settings = Settings::default();
            settings.compress = true;
            copy_to_file(&Sources::one(&source), &target, &image, &settings, &Unwatched)
                .expect("copied");
            let written = std::fs::metadata(&target).expect("a file").len();
            assert!(written < 1_500_000, "{written} bytes with units of {unit}");
            let target = open(&target);
            let found = compare(&source, &target, Strictness::Content, &settings, &Unwatched);
            // Sizes of these formats are whole sectors.
            let same = Comparison::Identical { sizes_differ: true };
            assert_eq!(found.expect("compared"), same, "units of {unit}");
        }
    }
}

#[test]
fn what_a_larger_target_holds_behind_the_source_stays_in_the_last_unit_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let raw = |bytes: Vec<u8>| {
        let store = Arc::new(MemoryStorage::new(bytes));
        Disk::new(Arc::new(RawImage::open(store, false).expect("raw opens")))
    };
    let mut settings = Settings::default();
    settings.compress = true;
    let made = |name: &str, source: &Disk| {
        let options = Options::of(&QCOW2);
        let image = NewImage::new(&QCOW2, &options, source.size());
        let path = folder.path().join(name);
        copy_to_file(&Sources::one(source), &path, &image, &settings, &Unwatched).expect("copied");
        path
    };
    let plain = raw(vec![5; 100 << 10]);
    for source in [open(&made("packed", &plain)), plain] {
        let path = made("target", &raw(vec![7; 1 << 20]));
        let target = open_as(&path, Access::ReadWrite);
        copy_to_disk(&Sources::one(&source), &target, &settings, &Unwatched).expect("copied");
        let mut bytes = vec![0; 1 << 20];
        target.read(GuestOffset(0), &mut bytes).expect("read");
        let (copied, kept) = bytes.split_at(100 << 10);
        assert!(copied.iter().all(|byte| *byte == 5), "the source's bytes");
        assert!(kept.iter().all(|byte| *byte == 7), "the target's bytes");
    }
}
