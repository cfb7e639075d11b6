//! Writing where little is as it should be: caches that are always full, space that is not zero,
//! stores that fail.

use std::sync::Arc;

use crate::common::{create, disk, memory, range, save, write_packed};
use anydisk_core::{Disk, GuestOffset, HostOffset, Image, Limits, Storage};
use anydisk_qcow2::WritableImage;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{Aim, ByteModel, Operation, Random};

const KINDS: [crate::common::Given<'static>; 6] = [
    // A block of refcounts takes two slices of a table cache, and counts 8 MiB.
    &[("cluster_size", "8k"), ("refcount_bits", "64")],
    &[("cluster_size", "512"), ("refcount_bits", "64")],
    &[("cluster_size", "1k")],
    &[("cluster_size", "4k"), ("compat", "0.10")],
    &[("cluster_size", "16k"), ("extended_l2", "on")],
    &[("cluster_size", "64k")],
];

fn cluster_size(store: &dyn Storage) -> u64 {
    1 << crate::common::Dump::of(store).header.cluster_bits
}

/// Plays a history on a part of the disk that many tables map, and compares everything.
fn play(disk: &Disk, cluster: u64, seed: u64, count: usize) -> ByteModel {
    let mut random = Random::new(seed);
    let mut model = ByteModel::new(disk.size());
    let whole = Aim::at(disk.size(), cluster);
    for operation in whole.operations(seed).take(count) {
        match operation {
            Operation::Write { at, .. } => {
                disk.write(GuestOffset(at), &operation.data()).expect("written");
            }
            Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap).expect("zeroed"),
            Operation::Discard { at, len } => {
                disk.discard(range(at, len)).expect("discarded");
                model.write(at, &read(disk, at, len));
            }
            Operation::Read { .. } => {
                let at = random.below(disk.size()) / cluster * cluster;
                let data = vec![7; usize::try_from(cluster).expect("small")];
                write_packed(disk.top(), at, &data);
                let inside = usize::try_from(disk.size() - at).unwrap_or(data.len());
                model.write(at, &data[..inside.min(data.len())]);
            }
            Operation::Flush | Operation::Reopen => {}
        }
        model.apply(&operation);
    }
    assert!(read(disk, 0, disk.size()) == model.contents(), "seed {seed}");
    model
}

fn read(disk: &Disk, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![1; usize::try_from(len).expect("small")];
    disk.read(GuestOffset(at), &mut bytes).expect("read");
    bytes
}

fn assert_clean(store: &dyn Storage, model: &ByteModel, case: &str) {
    let again: Arc<dyn Image> = crate::common::try_open(&copy(store), anydisk_core::Access::Read)
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(read(&disk(&again, None), 0, model.size()) == model.contents(), "{case}");
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    save(store, &path);
    assert_eq!(qemu.check(&path, "qcow2"), Ok(Checked { leaks: 0, corruptions: 0 }), "{case}");
}

fn copy(store: &dyn Storage) -> Arc<dyn Storage> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(HostOffset::ZERO, &mut bytes).expect("read");
    Arc::new(MemoryStorage::new(bytes))
}

#[test]
fn caches_that_are_always_full_only_cost_time() {
    for (number, given) in KINDS.into_iter().enumerate() {
        let store = memory();
        drop(create(&store, 16 << 20, given));
        let mut limits = Limits::default();
        limits.table_cache = 1;
        let image = WritableImage::open(Arc::clone(&store), &limits).expect("it opens");
        let image: Arc<dyn Image> = Arc::new(image);
        let disk = disk(&image, None);
        let model = play(&disk, cluster_size(&*store), number as u64, 1500);
        disk.flush().expect("flushed");
        assert_clean(&*store, &model, &format!("{given:?}"));
    }
}

/// As on a block device that held something else: behind the image lies garbage.
#[test]
fn old_bytes_of_the_store_never_show() {
    for (number, given) in KINDS.into_iter().enumerate() {
        let store = memory();
        drop(create(&store, 14 << 20, given));
        let end = store.len().expect("a length").next_multiple_of(cluster_size(&*store));
        store.write_at(HostOffset(end), &vec![0xAA; 20 << 20]).expect("written");
        let disk = disk(&crate::common::open(&store), None);
        // Enough that refcounts need more than one block.
        disk.write(GuestOffset(0), &vec![1; 9 << 20]).expect("written");
        disk.zero(range(0, 9 << 20), false).expect("zeroed");
        let model = play(&disk, cluster_size(&*store), 10 + number as u64, 400);
        disk.flush().expect("flushed");
        assert_clean(&*store, &model, &format!("{given:?}"));
    }
}

/// What the tables say is free, and holds metadata: nothing is written there.
#[test]
fn refcounts_that_call_metadata_free_end_in_an_error_and_change_nothing() {
    for given in KINDS {
        let store = memory();
        let image = create(&store, 1 << 20, given);
        let before = disk(&image, None);
        before.write(GuestOffset(0), &[1; 512]).expect("written");
        before.flush().expect("flushed");
        drop((before, image));
        let header = crate::common::Dump::of(&*store).header;
        // The block counts the clusters from the header on; forget them all.
        let block = header.refcount_table_offset.get() + header.cluster_size();
        let zeroes = vec![0; usize::try_from(header.cluster_size()).expect("small")];
        store.write_at(HostOffset(block), &zeroes).expect("written");
        let metadata = |store: &dyn Storage| {
            let mut bytes = vec![0; usize::try_from(header.cluster_size() * 4).expect("small")];
            store.read_at(HostOffset::ZERO, &mut bytes).expect("read");
            bytes
        };
        let expected = metadata(&*store);
        let disk = disk(&crate::common::open(&store), None);
        let error = disk.write(GuestOffset(512 << 10), &[2; 4096]).unwrap_err();
        let needs_repair = matches!(error.kind(), anydisk_core::Error::NeedsRepair { .. });
        assert!(needs_repair, "{given:?}: {error}");
        disk.flush().expect("flushed");
        assert!(metadata(&*store) == expected, "{given:?}");
        assert_eq!(read(&disk, 0, 512), [1; 512]);
    }
}

/// An L2 entry that names the L1 table as its cluster, with the flag that allows writing there.
#[test]
fn a_write_in_place_does_not_land_in_metadata() {
    for (place, name) in [(0, "header"), (1, "refcount table"), (2, "refcount block"), (3, "L1")] {
        let store = memory();
        let image = create(&store, 1 << 20, &[]);
        let before = disk(&image, None);
        before.write(GuestOffset(0), &[1; 512]).expect("written");
        before.flush().expect("flushed");
        drop((before, image));
        let dump = crate::common::Dump::of(&*store);
        let table = dump.word(dump.header.l1_table_offset.get()) & !(1 << 63);
        let entry = 1_u64 << 63 | place << 16;
        store.write_at(HostOffset(table + 8), &entry.to_be_bytes()).expect("written");
        let disk = disk(&crate::common::open(&store), None);
        if place == 0 {
            // Offset 0 means that there is no cluster.
            disk.write(GuestOffset(65536), &[2; 512]).expect("written");
            disk.flush().expect("flushed");
            assert_eq!(crate::common::Dump::of(&*store).header, dump.header);
            continue;
        }
        let error = disk.write(GuestOffset(65536), &[2; 512]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn tables_that_overlap_are_not_written() {
    let store = memory();
    let image = create(&store, 1 << 20, &[]);
    drop(image);
    let dump = crate::common::Dump::of(&*store);
    let entry = 1_u64 << 63 | dump.header.refcount_table_offset.get();
    store.write_at(dump.header.l1_table_offset, &entry.to_be_bytes()).expect("written");
    let error = crate::common::try_open(&store, anydisk_core::Access::ReadWrite).unwrap_err();
    assert!(matches!(error.kind(), anydisk_core::Error::NeedsRepair { .. }), "{error}");
    assert!(error.to_string().contains("refcount table"), "{error}");
}

/// Bits of all metadata are turned at random: there may be errors, never a panic, and the header
/// stays whole.
#[test]
fn damaged_images_are_written_without_a_panic() {
    let store = memory();
    let first = disk(&create(&store, 1 << 20, &[("cluster_size", "4k")]), None);
    play(&first, 4096, 3, 60);
    first.flush().expect("flushed");
    let header = crate::common::Dump::of(&*store).header;
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let damaged = copy(&*store);
        for _ in 0..1 + random.below(8) {
            let at = 4096 + random.below(8 * 4096);
            let mut byte = [0];
            damaged.read_at(HostOffset(at), &mut byte).expect("read");
            byte[0] ^= 1 << random.below(8);
            damaged.write_at(HostOffset(at), &byte).expect("written");
        }
        let Ok(image) = crate::common::try_open(&damaged, anydisk_core::Access::ReadWrite) else {
            continue;
        };
        let disk = disk(&image, None);
        for operation in Aim::at(1 << 20, 4096).operations(seed).take(40) {
            let _ = match operation {
                Operation::Write { at, .. } => disk.write(GuestOffset(at), &operation.data()),
                Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap),
                Operation::Discard { at, len } => disk.discard(range(at, len)),
                _ => disk.flush(),
            };
        }
        let _ = disk.flush();
        let after = crate::common::Dump::of(&*damaged).header;
        assert_eq!(after.l1_table_offset, header.l1_table_offset, "seed {seed}");
    }
}
