//! Compacting images that are open: others read, writing goes on afterwards, and at power loss the
//! disk holds what was flushed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::common::{Given, create, disk, memory, open, range, save, try_open};
use anydisk_core::{
    Access, CheckRequest, Disk, Error, Extent, Format, GuestOffset, HostOffset, Image, Limits,
    Location, NewSnapshot, OpenRequest, SnapshotRef, Source, Storage, StorageExt,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::Random;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::oracle::{Checked, Qemu};

const SIZE: u64 = 4 << 20;
const PIECE: u64 = 64 << 10;

fn compact(image: &Arc<dyn Image>) -> u64 {
    let compactor = image.compactor().expect("it is open for writing");
    compactor.compact(&|_, _| true).expect("it is in order")
}

fn is_clean(store: &Arc<dyn Storage>) -> bool {
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let request = CheckRequest::new(OpenRequest::new(Arc::clone(store), &location, &limits));
    QCOW2.check(&request, &mut |_| {}).expect("it can be checked").is_clean()
}

fn whole(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it can be read");
    bytes
}

/// Writes pieces in random order, and gives three of four back.
fn make_holey(disk: &Disk, seed: u64) {
    let mut random = Random::new(seed);
    let mut order: Vec<u64> = (0..SIZE / PIECE).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.index(last + 1));
    }
    for number in &order {
        let byte = u8::try_from((number + seed) % 251 + 1).expect("a byte");
        let len = usize::try_from(PIECE).expect("small");
        disk.write(GuestOffset(number * PIECE), &vec![byte; len]).expect("a write to memory");
    }
    disk.flush().expect("a flush of memory");
    for number in order.iter().skip(3).filter(|number| *number % 4 != 0) {
        disk.discard(range(number * PIECE, PIECE)).expect("a discard in memory");
    }
}

const KINDS: [Given<'static>; 4] = [
    &[("cluster_size", "512")],
    &[("cluster_size", "4096"), ("refcount_bits", "64")],
    &[("cluster_size", "16384"), ("extended_l2", "on")],
    &[],
];

#[test]
fn an_open_image_becomes_as_short_as_what_it_holds_and_is_written_on() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("short.qcow2");
    for given in KINDS {
        let store = memory();
        let image = create(&store, SIZE, given);
        let disk = disk(&image, None);
        make_holey(&disk, 1);
        let snapshots = image.snapshots().expect("qcow2 has snapshots");
        snapshots.create(&NewSnapshot { name: "one".into(), date: (1, 2) }).expect("a snapshot");
        make_holey(&disk, 2);
        let before = whole(&disk);
        let (len, gained) = (store.len().expect("a length"), compact(&image));
        assert_eq!(store.len().expect("a length"), len - gained, "{given:?}");
        assert!(gained > len / 4, "{given:?}: {gained} of {len}");
        assert!(whole(&disk) == before, "{given:?}");
        assert!(is_clean(&store), "{given:?}");
        // What memory says of the file must be true: all of it is changed once more.
        make_holey(&disk, 3);
        let after = whole(&disk);
        disk.flush().expect("a flush of memory");
        assert!(is_clean(&store), "{given:?}: written on");
        compact(&image);
        snapshots.apply(&SnapshotRef::Name("one".into())).expect("it is there");
        snapshots.delete(&SnapshotRef::Name("one".into())).expect("it is there");
        let applied = whole(&disk);
        compact(&image);
        assert!(whole(&disk) == applied && applied != after, "{given:?}");
        assert!(is_clean(&store), "{given:?}: at the end");
        drop((disk, image));
        let again = Disk::new(try_open(&store, Access::Read).expect("it opens"));
        assert!(whole(&again) == applied, "{given:?}: opened again");
        if let Some(qemu) = &qemu {
            save(&*store, &path);
            let clean = Checked { leaks: 0, corruptions: 0 };
            assert_eq!(qemu.check(&path, "qcow2"), Ok(clean), "{given:?}");
        }
    }
}

/// Moves all data: what a snapshot shares is written elsewhere, and the old places become free.
fn move_all(image: &Arc<dyn Image>, disk: &Disk, expected: &[u8]) {
    let snapshots = image.snapshots().expect("qcow2 has snapshots");
    snapshots.create(&NewSnapshot { name: "old".into(), date: (1, 2) }).expect("a snapshot");
    let len = usize::try_from(PIECE).expect("small");
    for (at, bytes) in (0..SIZE).step_by(len).zip(expected.chunks(len)) {
        if bytes[0] != 0 {
            disk.write(GuestOffset(at), bytes).expect("a write to memory");
        }
    }
    snapshots.delete(&SnapshotRef::Name("old".into())).expect("it is there");
    disk.flush().expect("a flush of memory");
}

#[test]
fn whoever_reads_meanwhile_sees_what_was_written() {
    let store = memory();
    let image = create(&store, SIZE, &[("cluster_size", "4096")]);
    let disk = disk(&image, None);
    make_holey(&disk, 1);
    let expected = whole(&disk);
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let read = |seed: u64| {
        let mut random = Random::new(seed);
        let mut bytes = vec![0; 8192];
        while !done.load(Relaxed) {
            let at = random.below(SIZE - 8192);
            disk.read(GuestOffset(at), &mut bytes).expect("it can be read");
            let from = usize::try_from(at).expect("small");
            assert!(bytes == expected[from..from + 8192], "at {at:#x}");
            rounds.fetch_add(1, Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let read = &read;
        (0..2).for_each(|seed| {
            scope.spawn(move || read(seed));
        });
        for number in 0..200 {
            compact(&image);
            move_all(&image, &disk, &expected);
            assert!(compact(&image) > 0, "round {number}");
            if number >= 5 && rounds.load(Relaxed) > 2000 {
                break;
            }
        }
        done.store(true, Relaxed);
    });
    assert!(rounds.load(Relaxed) > 100, "nobody read");
    assert!(whole(&disk) == expected && is_clean(&store));
}

#[test]
fn at_any_power_failure_the_disk_holds_what_was_flushed() {
    let store = memory();
    let image = create(&store, 256 << 10, &[("cluster_size", "512")]);
    let disk = disk(&image, None);
    for number in (0..64_u64).rev() {
        let byte = u8::try_from(number + 1).expect("a byte");
        disk.write(GuestOffset(number * 4096), &[byte; 2048]).expect("a write to memory");
    }
    disk.discard(range(32 << 10, 100 << 10)).expect("a discard in memory");
    disk.flush().expect("a flush of memory");
    let expected = whole(&disk);
    drop((disk, image));
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(HostOffset(0), &mut bytes).expect("a read of memory");
    let crash = CrashStorage::over(bytes);
    let opened = open(&(Arc::new(crash.clone()) as Arc<dyn Storage>));
    assert!(compact(&opened) > 0);
    let mut states = 0;
    for state in crash.torn_states(60, 3) {
        let store: Arc<dyn Storage> = state.storage();
        let again = Disk::new(try_open(&store, Access::Read).expect("it opens"));
        assert!(whole(&again) == expected, "{state}");
        states += 1;
    }
    assert!(states > 50, "{states} states");
}

#[test]
fn compacting_waits_for_no_snapshot_that_is_open() {
    let store = memory();
    let image = create(&store, SIZE, &[]);
    let snapshots = image.snapshots().expect("qcow2 has snapshots");
    snapshots.create(&NewSnapshot { name: "one".into(), date: (1, 2) }).expect("a snapshot");
    let view = snapshots.open(&SnapshotRef::Name("one".into())).expect("it is there");
    let compactor = image.compactor().expect("it is open for writing");
    let error = compactor.compact(&|_, _| true).expect_err("it is open");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    drop(view);
    compactor.compact(&|_, _| true).expect("it is closed");
    let error = compactor.compact(&|_, _| false).expect_err("it was told to stop");
    assert!(matches!(error, Error::Cancelled), "{error}");
    disk(&image, None).write(GuestOffset(0), &[1; 512]).expect("a write to memory");
}

/// Whoever maps a part of the disk and keeps it for longer than compacting waits.
#[test]
fn who_reads_all_the_while_ends_it_early_and_sees_what_was_there_while_others_write_on() {
    let store = memory();
    let image = create(&store, SIZE, &[("cluster_size", "4096")]);
    let disk = disk(&image, None);
    make_holey(&disk, 1);
    disk.flush().expect("a flush of memory");
    let expected = whole(&disk);
    let pieces = || (0..SIZE / PIECE).map(|number| range(number * PIECE, PIECE));
    let kept = std::cell::RefCell::new(Vec::new());
    let keep = |_, _| {
        let mut kept = kept.borrow_mut();
        if kept.is_empty() {
            let map = |piece| (piece, disk.map(piece).expect("it is mapped").extent);
            kept.extend(pieces().map(map));
        }
        true
    };
    let error = image.compactor().expect("it can").compact(&keep).expect_err("it is in use");
    assert!(error.to_string().contains("parts of the disk are in use"), "{error}");
    // What lies where it lay is written in place, whoever looks.
    let place = |extent: &Extent<'_>| match extent.source {
        Source::Data { at, .. } => Some(at),
        _ => None,
    };
    kept.borrow_mut().retain(|(piece, extent)| {
        let now = disk.map(*piece).expect("it is mapped").extent;
        place(extent).is_some() && place(extent) != place(&now)
    });
    assert!(kept.borrow().len() > 5, "{} have moved", kept.borrow().len());
    let check_kept = || {
        for (piece, extent) in kept.borrow().iter() {
            let Source::Data { store, at, .. } = &extent.source else { continue };
            let mut bytes = vec![0; usize::try_from(extent.len).expect("small")];
            store.read_padded_at(*at, &mut bytes).expect("a read of memory");
            let from = usize::try_from(piece.start().get()).expect("small");
            assert!(bytes == expected[from..from + bytes.len()], "{piece}");
        }
    };
    check_kept();
    assert!(whole(&disk) == expected && is_clean(&store));
    // Everything is written anew, and more than there was.
    for seed in 2..5 {
        make_holey(&disk, seed);
        disk.flush().expect("a flush of memory");
        check_kept();
    }
    let after = whole(&disk);
    kept.borrow_mut().clear();
    disk.flush().expect("a flush of memory");
    make_holey(&disk, 4);
    assert!(whole(&disk) == after);
    assert!(compact(&image) > 0);
    assert!(whole(&disk) == after && is_clean(&store));
    drop(kept);
    drop((disk, image));
    let again = Disk::new(try_open(&store, Access::Read).expect("it opens"));
    assert!(whole(&again) == after);
}
