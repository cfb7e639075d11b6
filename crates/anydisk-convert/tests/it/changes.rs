//! Incremental backups: a full copy and what changed since make the disk as it is.

use std::ops::ControlFlow;
use std::sync::Arc;

use anydisk_convert::{
    Change, Error, NewImage, Settings, Unwatched, copy_changes, export_changes, visit_changes,
};
use anydisk_core::{
    Bitmaps, CreateRequest, Disk, Format, GuestOffset, GuestRange, Image, Layer, Limits, Location,
    NewBitmap, Options, Reference, Role,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::MemoryStorage;

const SIZE: u64 = 5 << 20;

fn image(cluster: &str) -> Arc<dyn Image> {
    let mut options = Options::of(&QCOW2);
    options.set("cluster_size", cluster).expect("an option");
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let store = Arc::new(MemoryStorage::default());
    let request = CreateRequest::new(store, &location, SIZE, &options, &limits);
    QCOW2.create(request).expect("an image")
}

fn bitmaps(disk: &Disk) -> &dyn Bitmaps {
    disk.top().bitmaps().expect("qcow2 has bitmaps")
}

fn begin(disk: &Disk, name: &str) {
    let new = NewBitmap { name: name.into(), granularity: Some(4096), enabled: true };
    bitmaps(disk).add(&new).expect("added");
}

fn contents(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it reads");
    bytes
}

/// A disk with data, a bitmap begun, and then changes; and its content when the bitmap began.
fn disk_with_changes() -> (Disk, Vec<u8>) {
    let disk = Disk::new(image("64k"));
    disk.write(GuestOffset(100_000), &vec![1; 3 << 20]).expect("written");
    begin(&disk, "since");
    let before = contents(&disk);
    disk.write(GuestOffset(5000), b"new").expect("written");
    disk.write(GuestOffset(1 << 20), &vec![2; 1_500_000]).expect("written");
    disk.zero(GuestRange::new(GuestOffset(3 << 20), 65536).expect("small"), true).expect("zeroed");
    disk.write(GuestOffset(SIZE - 7), b"the end").expect("written");
    (disk, before)
}

#[test]
fn an_older_copy_and_the_changes_make_the_disk_as_it_is() {
    let (disk, before) = disk_with_changes();
    let mut copy = before;
    let mut end = 0;
    let mut changes = bitmaps(&disk).changes("since").expect("good");
    visit_changes(&disk, &mut *changes, &mut |change| {
        let (start, len) = (change.range().start().get(), change.range().len());
        assert!(start >= end && len > 0, "in rising order");
        end = start + len;
        let part =
            &mut copy[usize::try_from(start).expect("small")..usize::try_from(end).expect("small")];
        match change {
            Change::Data { bytes, .. } => part.copy_from_slice(bytes),
            Change::Zero { .. } => part.fill(0),
        }
        Ok(())
    })
    .expect("shown");
    assert!(copy == contents(&disk));
}

#[test]
fn changes_are_written_into_a_copy_or_an_overlay() {
    for cluster in ["4k", "64k", "2M"] {
        let (disk, before) = disk_with_changes();
        let older = Disk::new(image("4k"));
        older.write(GuestOffset(0), &before).expect("written");
        let layer = older.layers()[0].clone();
        let overlay = older.overlaid(Layer::new(image(cluster), "overlay"));
        let mut changes = bitmaps(&disk).changes("since").expect("good");
        let copied = copy_changes(&disk, &mut *changes, &overlay, &Unwatched).expect("copied");
        assert!(contents(&overlay) == contents(&disk), "{cluster}");
        assert!(copied < 2 << 20, "only what changed: {copied}");
        assert!(contents(&Disk::from_layers(vec![layer], &Limits::default())) == before);
    }
}

#[test]
fn a_chain_of_exported_changes_is_the_disk_at_each_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, before) = disk_with_changes();
    let full = Disk::new(image("64k"));
    full.write(GuestOffset(0), &before).expect("written");
    let options = Options::of(&QCOW2);
    let mut reference = Reference::new(Role::Backing, "full.qcow2");
    reference.format = Some("qcow2".into());
    let new = NewImage { backing: Some(&reference), ..NewImage::new(&QCOW2, &options, SIZE) };
    let path = folder.path().join("monday.qcow2");
    let mut changes = bitmaps(&disk).changes("since").expect("good");
    let below = full.layers();
    export_changes(&disk, &mut *changes, &path, &new, below, &Settings::default(), &Unwatched)
        .expect("exported");
    let store = anydisk_storage::FileStorage::open(&path, &anydisk_storage::OpenOptions::new());
    let top = anydisk_qcow2::Qcow2Image::open(Arc::new(store.expect("there")), &Limits::default());
    let monday = full.overlaid(Layer::new(Arc::new(top.expect("it opens")), "monday"));
    assert!(contents(&monday) == contents(&disk));
}

#[test]
fn an_export_that_is_stopped_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _) = disk_with_changes();
    let options = Options::of(&QCOW2);
    let new = NewImage::new(&QCOW2, &options, SIZE);
    let path = folder.path().join("monday.qcow2");
    let mut changes = bitmaps(&disk).changes("since").expect("good");
    let stop = |_: u64, _: u64| ControlFlow::Break(());
    let stopped =
        export_changes(&disk, &mut *changes, &path, &new, &[], &Settings::default(), &stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert!(!path.exists());
}
