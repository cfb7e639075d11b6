//! Salvaging damaged disks: all that can be read, and a true account of the rest.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use anydisk_convert::{
    Error, NewImage, Salvaged, Settings, Sources, Unwatched, copy_to_disk, copy_to_file, salvage,
};
use anydisk_core::{Disk, GuestOffset, GuestRange, HostOffset, Limits, Options, Source, Storage};
use anydisk_qcow2::{QCOW2, Qcow2Image};
use anydisk_raw::RawImage;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::{Call, Kind, Ruling, Tap, Tapped};
use anydisk_testkit::golden::{ReadVerdict, cases};

fn raw(store: Arc<dyn Storage>, writable: bool) -> Disk {
    Disk::new(Arc::new(RawImage::open(store, writable).expect("raw opens")))
}

/// Salvages a disk: the bytes that came out, what is said of them, and what is lost.
fn salvaged(source: &Disk) -> (Vec<u8>, Salvaged, Vec<GuestRange>) {
    let store = Arc::new(MemoryStorage::default());
    store.set_len(source.size()).expect("memory is sparse");
    let target = raw(Arc::clone(&store) as Arc<dyn Storage>, true);
    let mut lost = Vec::new();
    let told = salvage(source, &target, &mut |one| lost.push(one.range), &Unwatched);
    (store.to_vec(), told.expect("a write to memory"), lost)
}

/// What a copy makes of a disk, if it is to salvage what it can.
fn copied(source: &Disk) -> Vec<u8> {
    let store = Arc::new(MemoryStorage::default());
    store.set_len(source.size()).expect("memory is sparse");
    let target = raw(Arc::clone(&store) as Arc<dyn Storage>, true);
    let ignored = |_: GuestRange, _: &Error| {};
    let sources = Sources::one(source).salvaging(&ignored);
    copy_to_disk(&sources, &target, &Settings::default(), &Unwatched).expect("a write to memory");
    store.to_vec()
}

#[test]
fn of_damaged_images_all_that_can_be_read_is_there_and_the_rest_is_told() {
    let mut count = 0;
    let broken = |case: &anydisk_testkit::golden::Case| case.expect.read == ReadVerdict::Error;
    for case in cases("qcow2").iter().filter(|case| broken(case)) {
        let bytes = std::fs::read(&case.unpack().path).expect("it was unpacked");
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
        let Ok(image) = Qcow2Image::open(store, &Limits::default()) else { continue };
        let source = Disk::new(Arc::new(image));
        let (bytes, told, lost) = salvaged(&source);
        assert!(told.lost > 0 && !lost.is_empty(), "{case}");
        assert_eq!(told.data + told.zero + told.lost, source.size(), "{case}");
        assert_eq!(told.lost, lost.iter().map(|range| range.len()).sum::<u64>(), "{case}");
        for (at, found) in (0..).step_by(512).zip(bytes.chunks(512)) {
            let mut sector = vec![0; found.len()];
            let readable = source.read(GuestOffset(at), &mut sector).is_ok();
            let sector_at = GuestRange::new(GuestOffset(at), 512).expect("small");
            let is_lost = lost.iter().any(|range| range.overlaps(sector_at));
            assert!(readable != is_lost, "{case}: {at:#x}");
            assert!(is_lost || sector == found, "{case}: {at:#x}");
        }
        assert!(bytes == copied(&source), "{case}: a copy salvages otherwise");
        count += 1;
    }
    assert!(count >= 8, "{count} images");
}

#[test]
fn of_sound_images_nothing_is_lost() {
    let mut count = 0;
    let sound = |case: &anydisk_testkit::golden::Case| {
        case.expect.check == "clean" && case.expect.read == ReadVerdict::Ok
    };
    for case in cases("qcow2").iter().filter(|case| sound(case)) {
        let bytes = std::fs::read(&case.unpack().path).expect("it was unpacked");
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
        let Ok(image) = Qcow2Image::open(store, &Limits::default()) else { continue };
        let source = Disk::new(Arc::new(image));
        if source.size() > 64 << 20 || source.top().info().encrypted {
            continue;
        }
        let (_, _, lost) = salvaged(&source);
        assert_eq!(lost, [], "{case}");
        count += 1;
    }
    assert!(count > 40, "{count} images");
}

/// A medium that cannot be read in one place.
#[derive(Debug)]
struct BadPlace(HostOffset, u64);

impl Tap for BadPlace {
    fn rule(&self, call: &Call) -> Ruling {
        if call.kind == Kind::Read && call.touches(self.0, self.1) {
            return Ruling::Fail { after: 0, errno: 5 };
        }
        Ruling::Pass
    }
}

#[test]
fn of_a_medium_with_a_bad_place_only_its_sectors_are_lost() {
    let content: Vec<u8> = (0..3_u32 << 20).map(|at| (at / 7).to_le_bytes()[0] | 1).collect();
    let bad = BadPlace(HostOffset(1_500_001), 700);
    let inner = Arc::new(MemoryStorage::new(content.clone()));
    let source = raw(Arc::new(Tapped::with_tap(inner, bad)), false);
    let (bytes, told, lost) = salvaged(&source);
    let (start, end) = (1_499_648_u64, 1_501_184_u64);
    assert_eq!(lost, [GuestRange::between(GuestOffset(start), GuestOffset(end))]);
    assert_eq!((told.lost, told.data), (end - start, (3 << 20) - (end - start)));
    for (at, (found, was)) in (0..).zip(bytes.iter().zip(&content)) {
        let expected = if (start..end).contains(&at) { 0 } else { *was };
        assert!(*found == expected, "{at:#x}");
    }
}

#[test]
fn a_target_that_is_too_small_and_a_watcher_that_stops_end_it() {
    let memory = |len: usize| Arc::new(MemoryStorage::new(vec![1; len]));
    let (source, small) = (raw(memory(4096), false), raw(memory(512), true));
    let error = salvage(&source, &small, &mut |_| {}, &Unwatched).unwrap_err();
    assert!(matches!(error, Error::TargetTooSmall { .. }), "{error}");
    let target = raw(memory(4096), true);
    let stop = |_: u64, _: u64| ControlFlow::Break(());
    assert!(matches!(salvage(&source, &target, &mut |_| {}, &stop), Err(Error::Cancelled)));
}

/// Decoding it again for each sector would take minutes for a large unit, and find nothing.
#[test]
fn a_packed_unit_is_lost_as_a_whole() {
    let bytes: Vec<u8> = (0..1_u32 << 20).flat_map(|n| (n / 500).to_le_bytes()).collect();
    let source = raw(Arc::new(MemoryStorage::new(bytes)), false);
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let mut options = Options::of(&QCOW2);
    options.set("cluster_size", "2M").expect("an option");
    let image = NewImage::new(&QCOW2, &options, source.size());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("packed");
    let mut compress = Settings::default();
    compress.compress = true;
    copy_to_file(&Sources::one(&source), &path, &image, &compress, &Unwatched).expect("copied");
    store.write_at(HostOffset::ZERO, &std::fs::read(&path).expect("read")).expect("memory");
    let open = || {
        let image = Qcow2Image::open(Arc::clone(&store), &Limits::default());
        Disk::new(Arc::new(image.expect("it opens")))
    };
    let second = GuestRange::between(GuestOffset(2 << 20), GuestOffset(4 << 20));
    let at = match open().map(second).expect("mapped").extent.source {
        Source::Encoded(encoded) => encoded.at,
        other => panic!("not packed: {other:?}"),
    };
    store.write_at(at, &[0xFF; 16]).expect("memory");
    let lost = Mutex::new(Vec::new());
    let tell = |range: GuestRange, _: &Error| lost.lock().expect("no panic").push(range);
    let disk = open();
    let sources = Sources::one(&disk).salvaging(&tell);
    let target = raw(Arc::new(MemoryStorage::new(vec![0; 4 << 20])), true);
    copy_to_disk(&sources, &target, &Settings::default(), &Unwatched).expect("copied");
    assert_eq!(*lost.lock().expect("no panic"), [second]);
}

/// Counts what it is told.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicU64);

impl anydisk_convert::Watch for Counting {
    fn progress(&self, _: u64, _: u64) -> ControlFlow<()> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ControlFlow::Continue(())
    }
}

/// One wrong bit of a qcow's size makes a tebibyte of it, with data for tables: each of its clusters was tried.
#[test]
fn of_a_disk_that_is_absurdly_large_what_has_no_table_is_given_up_at_once() {
    let size = 1 << 40;
    let header = anydisk_qcow::Header {
        backing_file: None,
        mtime: 0,
        size,
        cluster_bits: 12,
        l2_bits: 9,
        encrypted: false,
        l1_table_offset: HostOffset(48),
    };
    let mut file = header.to_bytes().to_vec();
    let mut noise = vec![0; 16 << 10];
    anydisk_testkit::Random::new(1).fill(&mut noise);
    file.extend(noise);
    let image =
        anydisk_qcow::QcowImage::open(Arc::new(MemoryStorage::new(file)), &Limits::default());
    let source = Disk::new(Arc::new(image.expect("it opens")));
    let store = Arc::new(MemoryStorage::default());
    store.set_len(size).expect("memory is sparse");
    let target = raw(store, true);
    let steps = Counting::default();
    let mut ranges = 0;
    let told = salvage(&source, &target, &mut |_| ranges += 1, &steps).expect("a write to memory");
    assert_eq!((told.size, told.lost), (size, size));
    assert_eq!(ranges, 1);
    // One for each entry that is in the file, and one for all others.
    assert!(steps.0.into_inner() < 2100);
}
