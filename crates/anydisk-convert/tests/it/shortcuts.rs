//! What is not moved: blocks that files share, and units that are packed already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_convert::{
    Comparison, NewImage, Offload, Report, Settings, Sources, Strictness, Unwatched, compare,
    copy_to_file,
};
use anydisk_core::{
    Access, Disk, Format, Located, Location, NoReferences, Opener, Options, Registry,
};
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_storage::{FileStorage, HostOffset, OpenOptions, Storage};
use anydisk_testkit::Random;
use anydisk_testkit::mounted::Mount;
use anydisk_testkit::oracle::Qemu;
use anydisk_vmdk::VMDK;

const MIB: u64 = 1 << 20;

fn open(path: &Path, format: &dyn Format) -> Disk {
    let store = Arc::new(FileStorage::open(path, &OpenOptions::new()).expect("a file"));
    let registry = Registry::new(&[&QCOW2, &VMDK, &RAW]);
    let file = Located { store, location: Location::Path(path.to_owned()) };
    let opener = Opener::new(&registry, &NoReferences);
    opener.open(file, Some(format.name()), Access::Read).expect("it opens")
}

fn convert(
    from: &Disk,
    to: &Path,
    format: &dyn Format,
    options: &[(&str, &str)],
    settings: &Settings,
) -> Report {
    let mut given = Options::of(format);
    for (name, value) in options {
        given.set(name, value).expect("an option");
    }
    let image = NewImage::new(format, &given, from.size());
    copy_to_file(&Sources::one(from), to, &image, settings, &Unwatched).expect("copied")
}

fn assert_same(left: &Disk, right: &Disk) {
    let same = compare(left, right, Strictness::Content, &Settings::default(), &Unwatched);
    assert_eq!(same.expect("compared"), Comparison::Identical { sizes_differ: false });
}

/// Half noise and half text, with holes, and an end inside a block.
fn raw_in(folder: &Path) -> PathBuf {
    let path = folder.join("source.raw");
    let options = OpenOptions::new().write(true).create_new(true);
    let store = FileStorage::open(&path, &options).expect("a new file");
    let mut random = Random::new(7);
    for (at, len) in [(0, 3 * MIB), (7 * MIB, MIB + 4096), (20 * MIB, 300_544)] {
        let len = usize::try_from(len).expect("small");
        let bytes: Vec<u8> = (0..len)
            .map(|n| {
                if n / 65536 % 2 == 0 {
                    (n / 1000).to_le_bytes()[0]
                } else {
                    random.index(256).to_le_bytes()[0]
                }
            })
            .collect();
        store.write_at(HostOffset(at), &bytes).expect("written");
    }
    store.flush().expect("flushed");
    path
}

#[test]
fn on_a_file_system_that_shares_no_byte_is_moved_between_raw_and_qcow2() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mount) = Mount::sharing(dir.path()) else { return };
    let source = open(&raw_in(mount.path()), &RAW);
    let mut of_threads = Vec::new();
    for threads in [1, 4] {
        let mut settings = Settings::default();
        settings.threads = threads;
        let there = mount.path().join(format!("{threads}.qcow2"));
        let report = convert(&source, &there, &QCOW2, &[], &settings);
        // One unit is part data and part hole, and the end of the disk fills no block.
        let by_hand = report.data - report.offloaded;
        assert!((1..=65536 + 4096).contains(&by_hand), "{report:?}");
        assert_same(&source, &open(&there, &QCOW2));
        if let Some(qemu) = Qemu::find() {
            qemu.assert_undamaged(&there, "qcow2");
        }
        let back = mount.path().join(format!("{threads}.raw"));
        let report = convert(&open(&there, &QCOW2), &back, &RAW, &[], &settings);
        assert!(report.data - report.offloaded <= 65536, "{report:?}");
        assert_same(&source, &open(&back, &RAW));
        of_threads.push(std::fs::read(&there).expect("read"));
    }
    assert!(of_threads[0] == of_threads[1], "the file depends on the number of threads");
}

#[test]
fn a_copy_lies_the_same_in_its_file_for_any_number_of_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = open(&raw_in(folder.path()), &RAW);
    let (small, packs) = ([("cluster_size", "4096")], [("cluster_size", "512")]);
    for (options, compress) in [(&[][..], false), (&small, false), (&packs, true)] {
        let copy = |threads: usize| {
            let mut settings = Settings::default();
            (settings.threads, settings.compress) = (threads, compress);
            let there = folder.path().join("copy.qcow2");
            convert(&source, &there, &QCOW2, options, &settings);
            std::fs::read(&there).expect("read")
        };
        let wanted = copy(1);
        (2..8)
            .for_each(|threads| assert!(copy(threads) == wanted, "{threads} threads, {options:?}"));
    }
}

#[test]
fn what_cannot_be_shared_is_copied_by_the_kernel_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = open(&raw_in(folder.path()), &RAW);
    for (offload, least) in [(Offload::No, 0), (Offload::Kernel, 4 * MIB)] {
        let target = folder.path().join(format!("{offload:?}.qcow2"));
        let mut settings = Settings::default();
        settings.offload = offload;
        let report = convert(&source, &target, &QCOW2, &[("cluster_size", "4096")], &settings);
        assert!(report.offloaded >= least, "{report:?}");
        assert!(offload != Offload::No || report.offloaded == 0, "{report:?}");
        assert_same(&source, &open(&target, &QCOW2));
    }
}

#[test]
fn packed_units_are_passed_on_where_the_target_packs_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let raw = raw_in(folder.path());
    let source = open(&raw, &RAW);
    let mut compress = Settings::default();
    compress.compress = true;
    let stream = ("subformat", "streamOptimized");
    for (format, options) in [
        (&QCOW2 as &dyn Format, vec![]),
        (&QCOW2, vec![("cluster_size", "4096")]),
        (&QCOW2, vec![("compression_type", "zstd")]),
        (&VMDK, vec![stream]),
    ] {
        let name = |which: &str| folder.path().join(format!("{which}-{}", options.len()));
        let (first, second) = (name("first"), name("second"));
        let report = convert(&source, &first, format, &options, &compress);
        let again = convert(&open(&first, format), &second, format, &options, &compress);
        assert!(report.packed > MIB && report.passed == 0, "{report:?}");
        assert_eq!(again.packed, report.packed, "{options:?}");
        // Of the last unit there may be less than a whole one.
        assert!(again.packed - again.passed < 65536, "{again:?}");
        assert_same(&source, &open(&second, format));
        if let Some(qemu) = Qemu::find() {
            qemu.assert_undamaged(&second, format.name());
            qemu.assert_same((&second, format.name()), (&raw, "raw"));
        }
    }
}

#[test]
fn a_packed_unit_that_cannot_be_decoded_is_not_passed_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = open(&raw_in(folder.path()), &RAW);
    let mut compress = Settings::default();
    compress.compress = true;
    let first = folder.path().join("first");
    convert(&source, &first, &QCOW2, &[], &compress);
    let packed = open(&first, &QCOW2);
    let unit = anydisk_core::GuestRange::new(anydisk_core::GuestOffset(0), 65536).expect("small");
    let at = match packed.map(unit).expect("mapped").extent.source {
        anydisk_core::Source::Encoded(encoded) => encoded.at,
        other => panic!("not packed: {other:?}"),
    };
    drop(packed);
    let store = FileStorage::open(&first, &OpenOptions::new().write(true)).expect("opened");
    store.write_at(at, &[0xFF; 64]).expect("written");
    drop(store);
    let options = Options::of(&QCOW2);
    let image = NewImage::new(&QCOW2, &options, source.size());
    let second = folder.path().join("second");
    let damaged = open(&first, &QCOW2);
    let copied = copy_to_file(&Sources::one(&damaged), &second, &image, &compress, &Unwatched);
    let error = copied.expect_err("refused").to_string();
    assert!(error.contains("guest range 0x0..0x10000"), "{error}");
    assert!(!second.exists());
}
