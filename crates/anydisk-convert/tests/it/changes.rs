//! Incremental backups: a full copy and what changed since make the disk as it is.

use std::ops::ControlFlow;
use std::sync::Arc;

use anydisk_convert::{
    Change, Error, NewImage, Settings, Unwatched, copy_changes, copy_changes_to_overlay,
    visit_changes,
};
use anydisk_core::{
    Bitmaps, Changes, CreateRequest, Disk, Format, GuestOffset, GuestRange, Image, Layer, Limits,
    Location, Members, NewBitmap, Options, Reference, Role,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::{MemoryStorage, Storage};
use anydisk_testkit::contents;
use anydisk_testkit::double::{FaultStorage, Kind};
use anydisk_testkit::lvm;
use proptest::prelude::*;

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
        let report = copy_changes(&disk, &mut *changes, &overlay, &Unwatched).expect("copied");
        assert!(contents(&overlay) == contents(&disk), "{cluster}");
        assert_eq!(report.data + report.zero + report.left, SIZE);
        // Clusters of 2 MiB are all touched.
        assert!(cluster == "2M" || report.left > 3 << 20, "only what changed: {report:?}");
        assert!(contents(&Disk::from_layers(vec![layer], &Limits::default())) == before);
    }
}

#[test]
fn a_chain_of_overlays_with_changes_is_the_disk_at_each_moment() {
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
    let settings = Settings::default();
    copy_changes_to_overlay(&disk, &mut *changes, &path, &new, below, &settings, &Unwatched)
        .expect("copied");
    let store = anydisk_storage::FileStorage::open(&path, &anydisk_storage::OpenOptions::new());
    let top = anydisk_qcow2::Qcow2Image::open(Arc::new(store.expect("there")), &Limits::default());
    let monday = full.overlaid(Layer::new(Arc::new(top.expect("it opens")), "monday"));
    assert!(contents(&monday) == contents(&disk));
}

#[test]
fn an_increment_that_is_stopped_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _) = disk_with_changes();
    let options = Options::of(&QCOW2);
    let new = NewImage::new(&QCOW2, &options, SIZE);
    let path = folder.path().join("monday.qcow2");
    let mut changes = bitmaps(&disk).changes("since").expect("good");
    let stop = |_: u64, _: u64| ControlFlow::Break(());
    let settings = Settings::default();
    let stopped = copy_changes_to_overlay(&disk, &mut *changes, &path, &new, &[], &settings, &stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert!(!path.exists());
}

/// Ranges of a list, as changes.
#[derive(Debug)]
struct Ranges(Vec<GuestRange>);

impl Changes for Ranges {
    fn size(&self) -> u64 {
        SIZE
    }

    fn next(&mut self, from: GuestOffset) -> anydisk_core::Result<Option<GuestRange>> {
        let rest =
            self.0.iter().map(|range| GuestRange::between(range.start().max(from), range.end()));
        Ok(rest.filter(|range| !range.is_empty()).min_by_key(|range| range.start()))
    }
}

fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(start), len).expect("small")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_changed_the_overlay_is_the_disk_and_nothing_below_it_was_read(
        writes in proptest::collection::vec((0..SIZE - 1, 1..300_000_u64, 0..3_u8), 0..12),
        cluster in proptest::sample::select(vec!["512", "4k", "64k", "1M"]),
    ) {
        let mut ranges = Vec::new();
        let disk = Disk::new(image("4k"));
        disk.write(GuestOffset(0), &vec![7; 2 << 20]).expect("written");
        let before = contents(&disk);
        for (start, len, byte) in writes {
            let changed = range(start, len.min(SIZE - start));
            ranges.push(changed);
            match byte {
                0 => disk.zero(changed, true).expect("zeroed"),
                _ => {
                    let bytes = vec![byte; usize::try_from(changed.len()).expect("small")];
                    disk.write(changed.start(), &bytes).expect("written");
                }
            }
        }
        let faults = Arc::new(FaultStorage::new(Arc::new(MemoryStorage::new(before))));
        let raw = anydisk_raw::RawImage::open(Arc::clone(&faults) as Arc<dyn Storage>, false);
        let older = Disk::new(Arc::new(raw.expect("any file is raw")));
        let overlay = older.overlaid(Layer::new(image(cluster), "overlay"));
        faults.fail_from(Kind::Read, 0);
        copy_changes(&disk, &mut Ranges(ranges), &overlay, &Unwatched).expect("nothing is read");
        faults.heal();
        prop_assert!(contents(&overlay) == contents(&disk));
    }
}

/// A volume of eight extents as it was (`vg/monday`) and as it is (`vg/data`), which differ in the
/// third.
fn volumes() -> anydisk_lvm2::VolumeGroups {
    const ID: &str = "0123456789abcdefghijklmnopqrstuv";
    const EXTENT: usize = 64 << 10;
    let mut extents: Vec<u8> = (0..8_u8).flat_map(|number| [number; EXTENT]).collect();
    let mut store = vec![0; 4 * EXTENT];
    store[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\x80\0\0\0");
    // Chunk 2 of the origin is chunk 2 of the store.
    store[EXTENT] = 2;
    store[EXTENT + 8] = 2;
    store[2 * EXTENT..3 * EXTENT].fill(2);
    extents[2 * EXTENT..3 * EXTENT].fill(0xEE);
    extents.extend(store);
    let tie = "type = \"snapshot\" chunk_size = 128 origin = \"data\" cow_store = \"monday\"";
    let text = lvm::linear("data", 8, "pv0", 0)
        + &lvm::linear("monday", 4, "pv0", 8)
        + &lvm::volume("snapshot0", 8, tie);
    let disk = lvm::device(ID, &lvm::text(&[ID], 1, &text), &extents);
    let groups = anydisk_lvm2::VolumeGroups::open(
        &[Arc::new(MemoryStorage::new(disk)) as Arc<dyn Storage>],
        &Limits::default(),
    );
    groups.expect("the group opens")
}

#[test]
fn what_changed_on_a_logical_volume_is_copied_in_the_same_way() {
    let groups = volumes();
    let disk = |name: &str| {
        let store = Members::open(&groups, name).expect("it opens");
        Disk::new(Arc::new(anydisk_raw::RawImage::open(store, false).expect("any store is raw")))
    };
    let (then, now) = (disk("vg/monday"), disk("vg/data"));
    let before = contents(&then);
    let overlay = then.overlaid(Layer::new(image("64k"), "overlay"));
    let mut changes = groups.changes("vg/monday", "vg/data").expect("of one origin");
    let report = copy_changes(&now, &mut *changes, &overlay, &Unwatched).expect("copied");
    assert_eq!((report.data, report.zero, report.left), (64 << 10, 0, 7 * (64 << 10)));
    let (mut found, expected) = (contents(&overlay), contents(&now));
    assert!(before != expected);
    // The overlay has the size of the other tests.
    found.truncate(expected.len());
    assert!(found == expected);
}
