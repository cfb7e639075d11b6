//! Copies between raw disks: the same bytes, sparse where the source is, the same for any number of
//! threads, and nothing under the final name unless it is whole.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_convert::{
    Comparison, Error, NewImage, Settings, Sources, Strictness, Unwatched, compare, copy_to_disk,
    copy_to_file,
};
use anydisk_core::{Disk, Format, GuestOffset, Options};
use anydisk_raw::{RAW, RawImage};
use anydisk_storage::{FileStorage, HostOffset, MemoryStorage, OpenOptions, Storage};
use anydisk_testkit::double::{Call, Kind, Ruling, Tap, Tapped};

const MIB: u64 = 1 << 20;

fn raw(path: &Path) -> Disk {
    let store = FileStorage::open(path, &OpenOptions::new()).expect("an existing file");
    Disk::new(Arc::new(RawImage::open(Arc::new(store), false).expect("raw opens")))
}

/// 40 MiB and a bit, with data here and there, also across the borders of windows.
fn source_in(folder: &Path) -> PathBuf {
    let path = folder.join("source.raw");
    let options = OpenOptions::new().write(true).create_new(true);
    let store = FileStorage::open(&path, &options).expect("a new file");
    store.set_len(40 * MIB + 1536).expect("room");
    for (at, len, byte) in
        [(0, 4096, 1), (2 * MIB - 512, 1024, 2), (9 * MIB + 100, 5000, 3), (40 * MIB, 1536, 4)]
    {
        store.write_at(HostOffset(at), &vec![byte; len]).expect("written");
    }
    // Zeroes that are written, not holes.
    store.write_at(HostOffset(20 * MIB), &vec![0; 1 << 20]).expect("written");
    path
}

fn copy(
    from: &Disk,
    to: &Path,
    settings: &Settings,
) -> anydisk_convert::Result<anydisk_convert::Report> {
    let options = Options::of(&RAW);
    let image = NewImage::new(&RAW, &options, from.size());
    copy_to_file(&Sources::one(from), to, &image, settings, &Unwatched)
}

#[test]
fn a_copy_has_the_same_bytes_for_any_number_of_threads_and_is_as_sparse() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = source_in(folder.path());
    let wanted = std::fs::read(&source).expect("read");
    for threads in [1, 2, 5] {
        let target = folder.path().join(format!("{threads}.raw"));
        let mut settings = Settings::default();
        settings.threads = threads;
        let report = copy(&raw(&source), &target, &settings).expect("copied");
        assert!(std::fs::read(&target).expect("read") == wanted, "{threads} threads");
        assert_eq!(report.data + report.zero, report.size);
        let blocks = std::fs::metadata(&target).expect("exists").blocks() * 512;
        assert!(blocks <= 64 << 10, "{blocks} bytes on disk");
    }
}

#[test]
fn a_copy_without_zero_detection_is_fully_allocated() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = source_in(folder.path());
    let target = folder.path().join("full.raw");
    let mut settings = Settings::default();
    settings.zero_run = 0;
    copy(&raw(&source), &target, &settings).expect("copied");
    let found = std::fs::metadata(&target).expect("exists");
    assert!(found.blocks() * 512 >= found.len());
    assert!(std::fs::read(&target).expect("read") == std::fs::read(&source).expect("read"));
}

#[test]
fn a_cancelled_copy_leaves_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = raw(&source_in(folder.path()));
    let target = folder.path().join("target.raw");
    std::fs::write(&target, b"old").expect("written");
    let options = Options::of(&RAW as &dyn Format);
    let image = NewImage::new(&RAW, &options, source.size());
    let stop = |done: u64, total: u64| {
        if done * 2 > total { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let copied = copy_to_file(&Sources::one(&source), &target, &image, &Settings::default(), &stop);
    assert!(matches!(copied, Err(Error::Cancelled)), "{copied:?}");
    assert_eq!(std::fs::read(&target).expect("read"), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2);
}

#[test]
fn several_sources_are_laid_end_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = [folder.path().join("a"), folder.path().join("b")];
    std::fs::write(&paths[0], vec![1; 3 << 20]).expect("written");
    std::fs::write(&paths[1], vec![2; 700]).expect("written");
    let disks = paths.each_ref().map(|path| raw(path));
    let sources = Sources::concatenated(&disks);
    let options = Options::of(&RAW);
    let image = NewImage::new(&RAW, &options, sources.size());
    let target = folder.path().join("both");
    copy_to_file(&sources, &target, &image, &Settings::default(), &Unwatched).expect("copied");
    let mut wanted = vec![1; 3 << 20];
    wanted.resize((3 << 20) + 700, 2);
    assert!(std::fs::read(&target).expect("read") == wanted);
}

#[test]
fn a_comparison_finds_the_first_byte_that_differs() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = source_in(folder.path());
    let other = folder.path().join("other.raw");
    copy(&raw(&source), &other, &Settings::default()).expect("copied");
    let judge = |strictness| {
        compare(&raw(&source), &raw(&other), strictness, &Settings::default(), &Unwatched)
            .expect("compared")
    };
    assert_eq!(judge(Strictness::Content), Comparison::Identical { sizes_differ: false });
    // The source has written zeroes where the copy has a hole.
    assert_eq!(judge(Strictness::Allocation), Comparison::AllocationDiffers(GuestOffset(20 * MIB)));
    let store = FileStorage::open(&other, &OpenOptions::new().write(true)).expect("opened");
    for at in [30 * MIB + 7, 9 * MIB + 4000] {
        store.write_at(HostOffset(at), b"x").expect("written");
    }
    drop(store);
    assert_eq!(judge(Strictness::Content), Comparison::ContentDiffers(GuestOffset(9 * MIB + 4000)));
}

/// A medium whose driver dies at the first read.
#[derive(Debug)]
struct Dying;

impl Tap for Dying {
    fn rule(&self, call: &Call) -> Ruling {
        assert!(call.kind != Kind::Read || call.at != HostOffset(0), "the driver dies");
        Ruling::Pass
    }
}

#[test]
fn a_source_that_panics_ends_the_copy_on_all_threads() {
    let (ended, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let store = Arc::new(MemoryStorage::new(vec![1; 16 << 20]));
        let source = Tapped::with_tap(store, Dying);
        let source = Disk::new(Arc::new(RawImage::open(Arc::new(source), false).expect("raw")));
        let target = Arc::new(MemoryStorage::new(vec![0; 16 << 20]));
        let target = Disk::new(Arc::new(RawImage::open(target, true).expect("raw")));
        let mut settings = Settings::default();
        settings.threads = 4;
        let copy = || copy_to_disk(&Sources::one(&source), &target, &settings, &Unwatched);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(copy));
        ended.send(result.is_err()).expect("the test waits");
    });
    let panicked = wait.recv_timeout(std::time::Duration::from_secs(60));
    assert!(panicked.expect("the copy must not wait for ever"), "the panic is passed on");
}

#[test]
fn whoever_watches_is_told_of_progress_that_never_falls() {
    let store = Arc::new(MemoryStorage::new(vec![1; 32 << 20]));
    let disk = Disk::new(Arc::new(RawImage::open(store, false).expect("raw opens")));
    let again = Arc::new(MemoryStorage::new(vec![1; 32 << 20]));
    let again = Disk::new(Arc::new(RawImage::open(again, false).expect("raw opens")));
    let mut settings = Settings::default();
    settings.threads = 4;
    let last = std::sync::Mutex::new(0);
    let watch = |done: u64, total: u64| {
        let mut last = last.lock().expect("one at a time");
        assert!(*last <= done && done <= total, "{done} behind {last}");
        *last = done;
        ControlFlow::Continue(())
    };
    compare(&disk, &again, Strictness::Content, &settings, &watch).expect("compared");
    assert_eq!(*last.lock().expect("nobody panicked"), disk.size());
}
