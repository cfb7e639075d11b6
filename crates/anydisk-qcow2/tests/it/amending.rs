//! Amending images: version, width of refcounts, flags, against qemu-img and at power loss.

use std::path::Path;
use std::sync::Arc;

use crate::common::{Dump, Given, create, disk, load, memory, save, try_open};
use anydisk_core::{
    Access, AmendRequest, CheckRequest, Disk, Error, Format, GuestOffset, Limits, Location,
    OpenRequest, Options, Repair, Result, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::golden::cases;
use anydisk_testkit::oracle::{Checked, Qemu};

fn amend(store: &Arc<dyn Storage>, given: Given<'_>) -> Result<()> {
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
    open.access = Access::ReadWrite;
    let mut options = Options::to_amend(&QCOW2);
    for (name, value) in given {
        options.set(name, value)?;
    }
    QCOW2.amend(AmendRequest { open, options: &options, force: false })
}

fn check(store: &Arc<dyn Storage>, repair: Repair) -> anydisk_core::CheckReport {
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(repair);
    QCOW2.check(&request, &mut |_| {}).expect("it can be checked")
}

/// What the top image holds; what lies below is zero here.
fn contents(store: &Arc<dyn Storage>) -> Vec<u8> {
    let disk = Disk::new(try_open(store, Access::Read).expect("it opens"));
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it reads");
    bytes
}

fn golden(name: &str) -> Arc<dyn Storage> {
    let case = cases("qcow2").into_iter().find(|case| case.name == name).expect("it is there");
    load(&case.unpack().path)
}

/// Data, kept zeroes and plain ones, with or without a name of something below.
fn image(given: Given<'_>) -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, 1 << 20, given);
    let disk = disk(&image, None);
    for (at, len) in [(0, 9000), (70_000, 3000), (500_000, 100_000)] {
        disk.write(GuestOffset(at), &vec![7; len]).expect("a write to memory");
    }
    for (at, unmap) in [(4096, false), (512_000, true), (900_000, true)] {
        disk.zero(crate::common::range(at, 8192), unmap).expect("a write to memory");
    }
    disk.flush().expect("a flush of memory");
    store
}

const BASE: (&str, &str) = ("backing_file", "below.raw");
const RAW: (&str, &str) = ("backing_fmt", "raw");

fn assert_clean(qemu: Option<&Qemu>, path: &Path, store: &Arc<dyn Storage>, context: &str) {
    assert!(check(store, Repair::Nothing).is_clean(), "{context}");
    if let Some(qemu) = qemu {
        save(&**store, path);
        assert_eq!(
            qemu.check(path, "qcow2"),
            Ok(Checked { leaks: 0, corruptions: 0 }),
            "{context}"
        );
    }
}

#[test]
fn an_image_goes_down_a_version_and_up_again_and_holds_the_same() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("below.raw"), vec![9; 1 << 20]).expect("a file");
    let path = folder.path().join("amended.qcow2");
    for cluster in ["512", "4096", "65536"] {
        for backing in [&[BASE, RAW][..], &[]] {
            let given = [&[("cluster_size", cluster)], backing].concat();
            let store = image(&given);
            let before = contents(&store);
            amend(&store, &[("compat", "0.10")]).expect("version 2 can say all of it");
            assert_eq!(Dump::of(&*store).header.version, 2);
            assert_eq!(contents(&store), before, "{given:?}");
            assert_clean(qemu.as_ref(), &path, &store, &format!("down, {given:?}"));
            amend(&store, &[("compat", "1.1"), ("lazy_refcounts", "on")]).expect("version 3 too");
            let header = Dump::of(&*store).header;
            assert!(header.version == 3 && header.has_lazy_refcounts());
            assert_eq!(contents(&store), before, "{given:?}");
            assert_clean(qemu.as_ref(), &path, &store, &format!("up, {given:?}"));
        }
    }
}

#[test]
fn snapshots_survive_a_change_of_version_and_of_width() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("amended.qcow2");
    for name in ["snapshots-v2", "snapshots", "snap-extra-40", "snap-vmstate"] {
        let store = golden(name);
        let before = contents(&store);
        amend(&store, &[("compat", "1.1")]).expect(name);
        assert_clean(qemu.as_ref(), &path, &store, name);
        for bits in ["2", "64", "8", "16"] {
            match amend(&store, &[("refcount_bits", bits)]) {
                Ok(()) => assert_eq!(Dump::of(&*store).header.refcount_bits().to_string(), bits),
                Err(error) => assert!(error.to_string().contains("is named"), "{name}: {error}"),
            }
            assert_clean(qemu.as_ref(), &path, &store, &format!("{name}, {bits}"));
            assert_eq!(contents(&store), before, "{name}, {bits}");
        }
    }
}

#[test]
fn refcounts_of_every_width_can_become_those_of_every_other() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("amended.qcow2");
    let store = image(&[("cluster_size", "512")]);
    let before = contents(&store);
    for bits in ["1", "64", "2", "32", "4", "16", "8", "1"] {
        amend(&store, &[("refcount_bits", bits)]).expect(bits);
        assert_eq!(contents(&store), before, "{bits}");
        assert_clean(qemu.as_ref(), &path, &store, bits);
    }
}

/// A name that no header has room for.
const LONG: &str = include_str!("amending.rs");

#[test]
fn what_an_image_cannot_become_is_refused_and_nothing_changes() {
    let refusals: &[(&str, Given<'_>, &str)] = &[
        ("snapshots", &[("refcount_bits", "1")], "refcount_bits=1"),
        ("refcount-bits-8", &[("compat", "0.10")], "16 bits for a refcount"),
        ("extl2-prealloc", &[("compat", "0.10")], "features that version 2 does not have"),
        ("snap-disk-size-differs", &[("compat", "0.10")], "snapshots of another size"),
        ("snapshots", &[("compat", "0.10"), ("size", "3M")], "snapshots of another size"),
        ("v2", &[("lazy_refcounts", "on")], "off in an image of version 2"),
        ("v2", &[("refcount_bits", "8")], "16 bits for a refcount"),
        ("v2", &[("refcount_bits", "3")], "a power of two"),
        ("cluster-4096", &[("backing_file", "x")], "rebase"),
        ("cluster-4096", &[("data_file", "x")], "an external data file"),
        ("cluster-4096", &[("data_file_raw", "on")], "cannot be switched on"),
        ("zstd-4096", &[("compat", "0.10")], "zstd"),
        ("leak-1", &[("compat", "1.1")], "needs repair"),
        ("leak-1", &[("size", "3M")], "needs repair"),
        ("refcount-low", &[("refcount_bits", "8")], "needs repair"),
        ("snapshots", &[("refcount_bits", "1"), ("lazy_refcounts", "on")], "refcount_bits=1"),
        ("cluster-4096", &[("backing_fmt", "raw")], "rebase"),
        ("cluster-4096", &[("size", "1000")], "a multiple of 512"),
        ("cluster-4096", &[("refcount_bits", "8"), ("size", "1000")], "a multiple of 512"),
        ("cluster-512", &[("lazy_refcounts", "on"), ("size", "1T")], "more than the limit"),
        ("v2", &[("compat", "1.1"), ("refcount_bits", "3")], "a power of two"),
        ("v2", &[("compat", "1.1"), ("size", "1000")], "a multiple of 512"),
        ("backing-json", &[("size", "64M")], "an image without a backing file"),
        ("data-file", &[("refcount_bits", "8"), ("data_file", LONG)], ""),
        ("data-file", &[("compat", "0.10")], "an external data file"),
        ("dirty-stale", &[("refcount_bits", "3")], "a power of two"),
        ("dirty-stale", &[("size", "1000")], "a multiple of 512"),
        ("cluster-4096", &[("state", "active"), ("new-secret", "x")], ""),
        ("cluster-4096", &[("state", "inactive"), ("keyslot", "0")], ""),
        ("corrupt-bit", &[("lazy_refcounts", "on")], "marked corrupt"),
    ];
    for (name, given, expected) in refusals {
        let store = golden(name);
        let mut before = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
        let mut after = before.clone();
        store.read_at(anydisk_core::HostOffset::ZERO, &mut before).expect("a read of memory");
        let Err(error) = amend(&store, given) else { panic!("{name} {given:.60?} was changed") };
        assert!(error.to_string().contains(expected), "{name}: {error}");
        store.read_at(anydisk_core::HostOffset::ZERO, &mut after).expect("a read of memory");
        assert!(before == after, "{name} {given:?}");
    }
    let wrong = golden("hdr-magic");
    assert!(matches!(amend(&wrong, &[]), Err(Error::Invalid(_))));
}

#[test]
fn the_external_data_file_gets_another_name_and_need_no_longer_be_raw() {
    let store = golden("data-file-raw");
    amend(&store, &[("data_file_raw", "off"), ("data_file", "elsewhere")]).expect("both can be");
    let header = Dump::of(&*store).header;
    let name = header.extension(anydisk_qcow2::layout::extension::DATA_FILE);
    assert_eq!((name, header.autoclear_features & 2), (Some(&b"elsewhere"[..]), 0));
}

#[test]
fn at_any_power_failure_the_image_holds_the_same_and_can_be_amended_again() {
    let changes: [(Given<'_>, Given<'_>); 4] = [
        (&[BASE, RAW], &[("compat", "0.10")]),
        (&[("compat", "0.10")], &[("compat", "1.1")]),
        (&[], &[("refcount_bits", "64")]),
        (&[("refcount_bits", "64")], &[("refcount_bits", "1"), ("lazy_refcounts", "on")]),
    ];
    let mut states = 0;
    for (given, change) in changes {
        let given = [&[("cluster_size", "4096")], given].concat();
        let original = image(&given);
        let before = contents(&original);
        let mut bytes = vec![0; usize::try_from(original.len().expect("a length")).expect("small")];
        original.read_at(anydisk_core::HostOffset::ZERO, &mut bytes).expect("a read of memory");
        let crash = CrashStorage::over(bytes);
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        amend(&store, change).expect("it can");
        for state in crash.torn_states(60, 3) {
            let store: Arc<dyn Storage> = state.storage();
            assert_eq!(contents(&store), before, "{change:?}\n{state}");
            let report = check(&store, Repair::Nothing);
            let dirty = Dump::of(&*store).header.is_dirty();
            assert!(dirty || report.corruptions == 0, "{change:?}: {report:?}\n{state}");
            check(&store, Repair::All);
            amend(&store, change).unwrap_or_else(|error| panic!("{change:?}: {error}\n{state}"));
            assert_eq!(contents(&store), before, "{change:?}, then\n{state}");
            assert!(check(&store, Repair::Nothing).is_clean(), "{change:?}, then\n{state}");
            states += 1;
        }
    }
    assert!(states > 100, "{states} states");
}

#[test]
fn the_size_is_amended_both_ways_and_left_alone_above_another_image() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("amended.qcow2");
    let store = image(&[("cluster_size", "4096")]);
    let mut before = contents(&store);
    amend(&store, &[("size", "3M"), ("lazy_refcounts", "on")]).expect("it grows");
    before.resize(3 << 20, 0);
    assert!(contents(&store) == before && Dump::of(&*store).header.has_lazy_refcounts());
    assert_clean(qemu.as_ref(), &path, &store, "grown");
    amend(&store, &[("size", "512k"), ("compat", "0.10")]).expect("it shrinks");
    before.truncate(512 << 10);
    assert!(contents(&store) == before);
    assert_clean(qemu.as_ref(), &path, &store, "shrunk");
    let error = amend(&store, &[("size", "1000")]).unwrap_err();
    assert!(error.to_string().contains("multiple of 512"), "{error}");
    let store = image(&[BASE, RAW]);
    amend(&store, &[("size", "1M")]).expect("it has this size");
    let error = amend(&store, &[("size", "2M")]).unwrap_err();
    assert!(error.to_string().contains("without a backing file"), "{error}");
}
