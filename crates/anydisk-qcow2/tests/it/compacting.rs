//! Compacting files: shorter, the same content, also at power loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::common::{Given, create, disk, load, memory, range, save, try_open, write_packed};
use anydisk_core::{
    Access, CheckRequest, Disk, Format, GuestOffset, GuestRange, HostOffset, Image, Limits,
    Location, NewBitmap, NewSnapshot, OpenRequest, Repair, Result, SnapshotRef, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::Random;
use anydisk_testkit::double::{Call, CrashStorage, Kind, Ruling, Tap, Tapped};
use anydisk_testkit::golden::cases;
use anydisk_testkit::oracle::{Checked, Qemu};

fn shorten(store: &Arc<dyn Storage>) -> Result<u64> {
    let image = try_open(store, Access::ReadWrite)?;
    image.compactor().expect("it is open for writing").compact(&|_, _| true)
}

fn check(store: &Arc<dyn Storage>, repair: Repair) -> anydisk_core::CheckReport {
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(repair);
    QCOW2.check(&request, &mut |_| {}).expect("it can be checked")
}

fn contents(store: &Arc<dyn Storage>) -> Option<Vec<u8>> {
    let disk = Disk::new(try_open(store, Access::Read).ok()?);
    let mut bytes = vec![0; usize::try_from(disk.size()).ok().filter(|size| *size < 64 << 20)?];
    disk.read(GuestOffset(0), &mut bytes).ok()?;
    Some(bytes)
}

fn bytes_of(store: &Arc<dyn Storage>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(HostOffset::ZERO, &mut bytes).expect("a read of memory");
    bytes
}

/// Much was written in random order, and most of it given back.
fn holey(given: Given<'_>, size: u64, pieces: u64) -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, size, given);
    let disk = disk(&image, None);
    let mut random = Random::new(5);
    let piece = size / pieces;
    let mut order: Vec<u64> = (0..pieces).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.index(last + 1));
    }
    for number in &order {
        let byte = u8::try_from(number % 251 + 1).expect("a byte");
        let len = usize::try_from(piece).expect("small");
        disk.write(GuestOffset(number * piece), &vec![byte; len]).expect("a write to memory");
    }
    disk.flush().expect("a flush of memory");
    for number in order.iter().skip(3).filter(|number| *number % 4 != 0) {
        disk.discard(range(number * piece, piece)).expect("a discard in memory");
    }
    disk.flush().expect("a flush of memory");
    store
}

#[test]
fn a_file_with_gaps_becomes_as_short_as_what_it_holds() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("short.qcow2");
    for given in [
        &[("cluster_size", "512")][..],
        &[("cluster_size", "4096"), ("refcount_bits", "64")],
        &[("cluster_size", "16384"), ("extended_l2", "on")],
        &[],
    ] {
        let store = holey(given, 8 << 20, 128);
        let (before, len) = (contents(&store), store.len().expect("a length"));
        let gained = shorten(&store).expect("it is in order");
        assert_eq!(store.len().expect("a length"), len - gained, "{given:?}");
        assert!(gained > len / 3, "{given:?}: {gained} of {len}");
        assert!(contents(&store) == before, "{given:?}");
        assert!(check(&store, Repair::Nothing).is_clean(), "{given:?}");
        assert_eq!(shorten(&store).expect("it is in order"), 0, "{given:?}: twice");
        if let Some(qemu) = &qemu {
            save(&*store, &path);
            let clean = Checked { leaks: 0, corruptions: 0 };
            assert_eq!(qemu.check(&path, "qcow2"), Ok(clean), "{given:?}");
        }
    }
}

/// Packed data, half of which was given back.
fn packed(given: Given<'_>, size: u64) -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, size, given);
    let unit = image.writer().and_then(|writer| writer.packing()).expect("it packs").unit;
    let mut random = Random::new(8);
    for at in (0..size).step_by(usize::try_from(unit).expect("small")) {
        let mut bytes = vec![7; usize::try_from(unit).expect("small")];
        let noise = random.index(bytes.len() / 2);
        random.fill(&mut bytes[..noise]);
        write_packed(&*image, at, &bytes);
    }
    let disk = disk(&image, None);
    disk.flush().expect("a flush of memory");
    disk.discard(range(size / 8, size / 2)).expect("a discard in memory");
    disk.flush().expect("a flush of memory");
    store
}

/// Streams lie side by side, and across the borders of clusters.
#[test]
fn packed_data_moves_stream_by_stream() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("short.qcow2");
    for given in [
        &[][..],
        &[("cluster_size", "4096")],
        &[("cluster_size", "512")],
        &[("refcount_bits", "1"), ("cluster_size", "4096")],
        &[("compression_type", "zstd"), ("cluster_size", "16384"), ("extended_l2", "on")],
    ] {
        let store = packed(given, 2 << 20);
        let (before, len) = (contents(&store), store.len().expect("a length"));
        let gained = shorten(&store).expect("it is in order");
        assert!(gained > len / 12, "{given:?}: {gained} of {len}");
        assert!(contents(&store) == before, "{given:?}");
        assert!(check(&store, Repair::Nothing).is_clean(), "{given:?}");
        if let Some(qemu) = &qemu {
            save(&*store, &path);
            let clean = Checked { leaks: 0, corruptions: 0 };
            assert_eq!(qemu.check(&path, "qcow2"), Ok(clean), "{given:?}");
        }
    }
}

/// What a bitmap says has changed.
fn changes(image: &Arc<dyn Image>, name: &str) -> Vec<GuestRange> {
    let bitmaps = image.bitmaps().expect("qcow2 has bitmaps");
    let mut changes = bitmaps.changes(name).expect("it can be read");
    let (mut ranges, mut from) = (Vec::new(), GuestOffset(0));
    while let Some(range) = changes.next(from).expect("it can be read") {
        from = range.end();
        ranges.push(range);
    }
    ranges
}

/// Data at the beginning that is given back at last; behind it everything else there is: bitmaps with
/// bits, snapshots, tables.
fn with_everything_at_the_end(given: Given<'_>, size: u64) -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, size / 2, given);
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &vec![1; usize::try_from(size / 2).expect("small")])
        .expect("written");
    disk.resize(size, anydisk_core::Preallocation::Off).expect("resized");
    let bitmaps = image.bitmaps().expect("qcow2 has bitmaps");
    for (name, granularity) in [("fine", 512), ("coarse", 65536)] {
        let new = NewBitmap { name: name.into(), granularity: Some(granularity), enabled: true };
        bitmaps.add(&new).expect("a bitmap");
    }
    let snapshots = image.snapshots().expect("qcow2 has snapshots");
    for name in ["one", "two"] {
        disk.write(GuestOffset(size / 2 + 1024), name.as_bytes()).expect("written");
        disk.flush().expect("flushed");
        let kept = NewSnapshot { name: name.into(), ..NewSnapshot::default() };
        snapshots.create(&kept).expect("a snapshot");
    }
    disk.write(GuestOffset(size - 512), &[3; 512]).expect("written");
    for name in ["one", "two"] {
        snapshots.delete(&SnapshotRef::Name(name.into())).expect("it is there");
        let kept = NewSnapshot { name: name.into(), ..NewSnapshot::default() };
        disk.discard(range(0, size / 2)).expect("discarded");
        snapshots.create(&kept).expect("a snapshot");
    }
    disk.flush().expect("flushed");
    store
}

#[test]
fn bitmaps_and_snapshots_at_the_end_move_too() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("short.qcow2");
    for given in [&[("cluster_size", "512")][..], &[("cluster_size", "4096")], &[]] {
        let store = with_everything_at_the_end(given, 8 << 20);
        let told = || {
            let image = try_open(&store, Access::Read).expect("it opens");
            ["fine", "coarse"].map(|name| changes(&image, name))
        };
        let (before, of_bitmaps, len) = (contents(&store), told(), store.len().expect("a length"));
        assert!(of_bitmaps.iter().all(|ranges| !ranges.is_empty()));
        let gained = shorten(&store).expect("it is in order");
        assert!(gained > len * 3 / 4, "{given:?}: {gained} of {len}");
        assert!(contents(&store) == before && told() == of_bitmaps, "{given:?}");
        assert!(check(&store, Repair::Nothing).is_clean(), "{given:?}");
        if let Some(qemu) = &qemu {
            save(&*store, &path);
            let clean = Checked { leaks: 0, corruptions: 0 };
            assert_eq!(qemu.check(&path, "qcow2"), Ok(clean), "{given:?}");
            let info = qemu.info(&path, "qcow2").to_string();
            assert!(info.contains("fine") && info.contains("coarse") && !info.contains("in-use"));
        }
        // While it is open: what is recorded then goes where the bitmaps are now.
        let image = try_open(&store, Access::ReadWrite).expect("it opens");
        image
            .compactor()
            .expect("it is open for writing")
            .compact(&|_, _| true)
            .expect("compacted");
        let disk = disk(&image, None);
        disk.write(GuestOffset(5 << 20), &[9; 512]).expect("written");
        disk.flush().expect("flushed");
        assert!(changes(&image, "fine").contains(&range(5 << 20, 512)));
        assert!(check(&store, Repair::Nothing).is_clean(), "{given:?}: written on");
        drop((disk, image));
        let again = try_open(&store, Access::Read).expect("it opens");
        assert!(changes(&again, "fine").contains(&range(5 << 20, 512)), "{given:?}: opened again");
    }
}

/// The longer the file, the more is read and written; no more than that.
#[test]
fn the_work_grows_with_what_moves_and_no_faster() {
    #[derive(Debug, Default)]
    struct Counts(Arc<AtomicU64>);
    impl Tap for Counts {
        fn rule(&self, call: &Call) -> Ruling {
            if call.kind == Kind::Read {
                self.0.fetch_add(call.len, Relaxed);
            }
            Ruling::Pass
        }
    }
    let work = |size: u64| {
        let store = holey(&[("cluster_size", "512")], size, size >> 14);
        let len = store.len().expect("a length");
        let read = Arc::new(AtomicU64::new(0));
        let tapped: Arc<dyn Storage> =
            Arc::new(Tapped::with_tap(Arc::clone(&store), Counts(Arc::clone(&read))));
        assert!(shorten(&tapped).expect("it is in order") > len / 3);
        read.load(Relaxed) * 100 / len
    };
    let (small, large) = (work(2 << 20), work(32 << 20));
    assert!(large < small * 5 / 4, "{small} and {large} hundredths of the file are read");
    assert!(large < 200, "{large} hundredths of the file are read");
}

/// A file may have more clusters than memory holds counts: then its end moves in parts.
#[test]
fn with_little_memory_a_file_becomes_as_short_in_several_passes() {
    let little = |store: &Arc<dyn Storage>| {
        let mut limits = Limits::default();
        limits.table_cache = 64 << 10;
        let image = anydisk_qcow2::WritableImage::open(Arc::clone(store), &limits);
        let image: Arc<dyn Image> = Arc::new(image.expect("it opens"));
        image.compactor().expect("it is open for writing").compact(&|_, _| true)
    };
    let given: Given<'_> = &[("cluster_size", "512")];
    for store in [
        holey(given, 16 << 20, 1024),
        packed(given, 6 << 20),
        with_everything_at_the_end(given, 12 << 20),
    ] {
        let other: Arc<dyn Storage> = of_bytes(&bytes_of(&store));
        let before = contents(&store);
        little(&store).expect("it is in order");
        assert!(contents(&store) == before && check(&store, Repair::Nothing).is_clean());
        shorten(&other).expect("it is in order");
        let lengths = [&store, &other].map(|store| store.len().expect("a length"));
        assert!(lengths[0] <= lengths[1] + lengths[1] / 50, "{lengths:?}");
    }
}

#[test]
fn whoever_stops_it_finds_nothing_lost_and_is_told_how_far_it_is() {
    let store = holey(&[("cluster_size", "4096")], 8 << 20, 128);
    let before = contents(&store);
    let told = std::cell::RefCell::new(Vec::new());
    let compact = |stops_at: u64| {
        let image = try_open(&store, Access::ReadWrite).expect("it opens");
        let progress = |done: u64, all: u64| {
            told.borrow_mut().push((done, all));
            done < stops_at
        };
        image.compactor().expect("it is open for writing").compact(&progress)
    };
    let error = compact(300_000).expect_err("it was told to stop");
    assert!(matches!(error, anydisk_core::Error::Cancelled), "{error}");
    assert!(contents(&store) == before && check(&store, Repair::Nothing).is_clean());
    told.borrow_mut().clear();
    assert!(compact(u64::MAX).expect("it goes on") > 0);
    let told = told.into_inner();
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{told:?}");
    assert!(told.last().is_some_and(|(done, all)| done == all && *all > 300_000), "{told:?}");
    assert!(contents(&store) == before);
}

/// Snapshots, bitmaps, streams, encryption, data files: what can be moved is, the rest stays.
#[test]
fn no_golden_image_holds_something_else_afterwards() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("short.qcow2");
    let mut count = 0;
    for case in cases("qcow2").iter().filter(|case| case.files[0].size <= 2 << 20) {
        let store = load(&case.unpack().path);
        let (before, bytes) = (contents(&store), bytes_of(&store));
        if shorten(&store).is_err() {
            continue;
        }
        assert!(contents(&store) == before, "{case}");
        assert!(check(&store, Repair::Nothing).is_clean(), "{case}");
        if let Some(qemu) = qemu.as_ref().filter(|_| bytes_of(&store) != bytes) {
            save(&*store, &path);
            if case.json["data_file"].is_null() && case.json["backing_file"].is_null() {
                let clean = Checked { leaks: 0, corruptions: 0 };
                assert_eq!(qemu.check(&path, "qcow2"), Ok(clean), "{case}");
            }
        }
        count += 1;
    }
    assert!(count > 80, "{count} compacted");
}

#[test]
fn at_any_power_failure_the_image_holds_the_same_and_at_worst_space_is_lost() {
    let mut states = 0;
    for original in [
        holey(&[("cluster_size", "512")], 64 << 10, 32),
        packed(&[("cluster_size", "4096")], 256 << 10),
        with_everything_at_the_end(&[("cluster_size", "512")], 64 << 10),
    ] {
        let told = |store: &Arc<dyn Storage>| -> Vec<Vec<GuestRange>> {
            let image = try_open(store, Access::Read).expect("it opens");
            let list = image.bitmaps().map(|bitmaps| bitmaps.list().expect("a list"));
            list.iter().flatten().map(|one| changes(&image, &one.name)).collect()
        };
        let (before, of_bitmaps) = (contents(&original), told(&original));
        let crash = CrashStorage::over(bytes_of(&original));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        assert!(shorten(&store).expect("it is in order") > 0);
        for state in crash.torn_states(60, 9) {
            let store: Arc<dyn Storage> = state.storage();
            assert!(contents(&store) == before, "{state}");
            assert!(told(&store) == of_bitmaps, "{state}");
            assert_eq!(check(&store, Repair::Nothing).corruptions, 0, "{state}");
            shorten(&store).unwrap_or_else(|error| panic!("{error}\n{state}"));
            assert!(contents(&store) == before, "then\n{state}");
            states += 1;
        }
    }
    assert!(states > 100, "{states} states");
}

#[test]
fn an_image_with_damage_is_not_compacted() {
    let case = cases("qcow2").into_iter().find(|case| case.name == "snap-l1-too-large");
    let store = load(&case.expect("it is there").unpack().path);
    let before = bytes_of(&store);
    let error = shorten(&store).expect_err("a table is damaged");
    assert!(error.to_string().contains("needs repair"), "{error}");
    assert!(bytes_of(&store) == before);
}

fn of_bytes(bytes: &[u8]) -> Arc<dyn Storage> {
    Arc::new(anydisk_storage::MemoryStorage::new(bytes.to_vec()))
}

/// A medium of which one read fails, once.
#[derive(Debug)]
struct FailsOnce {
    which: u64,
    reads: Arc<AtomicU64>,
}

impl Tap for FailsOnce {
    fn rule(&self, call: &Call) -> Ruling {
        let is_it = call.kind == Kind::Read && self.reads.fetch_add(1, Relaxed) == self.which;
        if is_it { Ruling::Fail { after: 0, errno: 5 } } else { Ruling::Pass }
    }
}

/// Does it on a copy of `bytes` with each read failing in turn, once. What the disk holds stays, and
/// nothing that is named is free.
fn survives_a_failed_read(bytes: &[u8], act: impl Fn(&Arc<dyn Storage>) -> bool) {
    let expected = contents(&of_bytes(bytes)).expect("it can be read");
    for which in 0.. {
        let (store, reads) = (of_bytes(bytes), Arc::new(AtomicU64::new(0)));
        let tap = FailsOnce { which, reads: Arc::clone(&reads) };
        let tapped: Arc<dyn Storage> = Arc::new(Tapped::with_tap(Arc::clone(&store), tap));
        let done = act(&tapped);
        assert!(contents(&store).as_ref() == Some(&expected), "read {which} failed");
        let found = check(&store, Repair::Nothing);
        assert_eq!(found.corruptions, 0, "read {which} failed: {found:?}");
        if reads.load(Relaxed) <= which {
            assert!(done, "no read failed");
            return;
        }
    }
}

#[test]
fn a_read_that_fails_once_makes_nothing_free_that_is_in_use() {
    let store = holey(&[("cluster_size", "512")], 256 << 10, 60);
    {
        let image = try_open(&store, Access::ReadWrite).expect("it opens");
        let snapshots = image.snapshots().expect("qcow2 has snapshots");
        let kept = NewSnapshot { name: "kept".into(), ..Default::default() };
        snapshots.create(&kept).expect("a snapshot");
        image.writer().expect("writable").flush().expect("flushed");
    }
    let bytes = bytes_of(&store);
    survives_a_failed_read(&bytes, |store| shorten(store).is_ok());
    survives_a_failed_read(&bytes, |store| {
        let (location, limits) = (Location::Other("test".into()), Limits::default());
        let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
        open.access = Access::ReadWrite;
        let request = CheckRequest::new(open).repairing(Repair::All);
        QCOW2.check(&request, &mut |_| {}).is_ok()
    });
}
