//! Growing and shrinking, with what lies below, with snapshots, with space for what is new; qemu
//! judges, where it is installed.

use std::sync::Arc;

use crate::common::{Dump, create, disk, load, memory, open, range, save};
use anydisk_core::{GuestOffset, Image, NewSnapshot, Preallocation, Source, Storage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::contents;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{ByteModel, PlainImage, Random};

const KIB: u64 = 1 << 10;
const CLEAN: Result<Checked, String> = Ok(Checked { leaks: 0, corruptions: 0 });

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    Random::new(seed).fill(&mut bytes);
    bytes
}

fn assert_clean(qemu: &Qemu, store: &dyn Storage) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    save(store, file.path());
    assert_eq!(qemu.check(file.path(), "qcow2"), CLEAN);
}

#[test]
fn random_sizes_and_writes_equal_a_byte_vector_and_leave_nothing_behind() {
    let kinds: [crate::common::Given<'_>; 5] = [
        &[("cluster_size", "512")],
        &[("cluster_size", "1k"), ("refcount_bits", "64")],
        &[("cluster_size", "4k"), ("refcount_bits", "1")],
        &[("cluster_size", "512"), ("compat", "0.10")],
        &[("cluster_size", "16k"), ("extended_l2", "on")],
    ];
    for (seed, given) in (0..).zip(kinds) {
        let store = memory();
        let mut image = create(&store, 40 * KIB, given);
        let mut model = ByteModel::new(40 * KIB);
        let mut random = Random::new(seed);
        for step in 0..60 {
            let disk = disk(&image, None);
            match random.below(4) {
                0 => {
                    let size = random.below(400) * 512;
                    let how = [Preallocation::Off, Preallocation::Off, Preallocation::Metadata];
                    let how =
                        if step % 7 == 0 { Preallocation::Full } else { how[random.index(3)] };
                    disk.resize(size, how).expect("a resize in memory");
                    model.resize(size);
                }
                1 if step % 5 == 0 => {
                    disk.flush().expect("a flush in memory");
                    drop(disk);
                    image = open(&store);
                    continue;
                }
                _ if model.size() > 0 => {
                    let at = random.below(model.size());
                    let data = noise(random.next(), random.below(9000).min(model.size() - at));
                    disk.write(GuestOffset(at), &data).expect("a write to memory");
                    model.write(at, &data);
                }
                _ => {}
            }
            assert!(contents(&disk) == model.contents(), "{given:?}, step {step}");
        }
        disk(&image, None).flush().expect("a flush in memory");
        assert!(contents(&disk(&open(&store), None)) == model.contents(), "opened again");
        if let Some(qemu) = Qemu::find() {
            assert_clean(&qemu, &*store);
        }
    }
}

#[test]
fn bytes_that_another_program_left_behind_the_end_do_not_come_back() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    qemu.create("qcow2", &[], &path, "128k");
    qemu.io(&path, "qcow2", &["write -P 7 0 128k", "truncate 32k"]);
    let store = load(&path);
    let disk = disk(&open(&store), None);
    disk.resize(128 * KIB, Preallocation::Off).expect("it grows");
    let found = contents(&disk);
    assert!(found[..32 << 10].iter().all(|byte| *byte == 7));
    assert!(found[32 << 10..].iter().all(|byte| *byte == 0), "old bytes are seen again");
    disk.flush().expect("flushed");
    assert_clean(&qemu, &*store);
}

#[test]
fn the_l1_table_moves_when_it_grows_and_its_old_place_is_free() {
    let Some(qemu) = Qemu::find() else { return };
    let store = memory();
    let image = create(&store, 64 * KIB, &[("cluster_size", "512")]);
    let before = Dump::of(&*store).header;
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &noise(1, 64 * KIB)).expect("written");
    disk.resize(64 << 20, Preallocation::Off).expect("it grows");
    disk.write(GuestOffset((64 << 20) - 512), &noise(3, 512)).expect("written");
    disk.flush().expect("flushed");
    let after = Dump::of(&*store).header;
    assert_eq!((before.l1_size, after.l1_size), (2, 2048));
    assert_ne!(before.l1_table_offset, after.l1_table_offset);
    assert_clean(&qemu, &*store);
}

#[test]
fn a_shrunk_disk_gives_its_clusters_back_and_keeps_those_of_snapshots() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    qemu.create("qcow2", &["cluster_size=512"], &path, "200k");
    qemu.io(&path, "qcow2", &["write -P 1 0 200k"]);
    let snapshot = |argument: &str| {
        let mut command = std::process::Command::new("qemu-img");
        let status = command.args(["snapshot", argument, "one"]).arg(&path).status();
        assert!(status.expect("it was found").success());
    };
    snapshot("-c");
    qemu.io(&path, "qcow2", &["write -P 2 100k 50k"]);
    let store = load(&path);
    let disk = disk(&open(&store), None);
    disk.resize(40 * KIB + 512, Preallocation::Off).expect("it shrinks");
    disk.flush().expect("flushed");
    assert_clean(&qemu, &*store);
    save(&*store, &path);
    snapshot("-a");
    qemu.io(&path, "qcow2", &["read -P 1 0 200k"]);
}

/// Whether the image in the store opens, is clean, and holds this.
fn assert_holds(store: &Arc<dyn Storage>, expected: &[u8], what: &str) {
    assert!(contents(&disk(&open(store), None)) == expected, "{what}");
    if let Some(qemu) = Qemu::find() {
        assert_clean(&qemu, &**store);
    }
}

/// Refcount blocks that count nothing any more go too, or the file would end behind the last of them.
#[test]
fn the_file_of_a_disk_that_shrinks_gets_shorter_by_what_is_free_at_its_end() {
    let kinds: [crate::common::Given<'_>; 5] = [
        &[],
        &[("cluster_size", "512")],
        &[("cluster_size", "4k"), ("refcount_bits", "64")],
        &[("cluster_size", "4k"), ("refcount_bits", "1")],
        &[("cluster_size", "512"), ("compat", "0.10")],
    ];
    for given in kinds {
        let store = memory();
        let top = disk(&create(&store, 4 << 20, given), None);
        let data = noise(7, 4 << 20);
        top.write(GuestOffset(0), &data).expect("written");
        top.flush().expect("flushed");
        top.resize(256 * KIB, Preallocation::Off).expect("it shrinks");
        let len = store.len().expect("a length");
        assert!(len < 704 * KIB, "{given:?}: {len}");
        assert_holds(&store, &data[..256 << 10], "shrunk");
        // What is written then goes where the file was cut.
        top.resize(2 << 20, Preallocation::Off).expect("it grows");
        let more = noise(8, 1 << 20);
        top.write(GuestOffset(512 * KIB), &more).expect("written");
        top.flush().expect("flushed");
        drop(top);
        let zeroes = |len: usize| vec![0; len << 10];
        let expected = [data[..256 << 10].to_vec(), zeroes(256), more, zeroes(512)].concat();
        assert_holds(&store, &expected, "grown");
    }
}

/// Whoever looked before the shrink may still be reading where it looked.
#[test]
fn a_file_is_not_cut_where_somebody_may_be_reading() {
    let store = memory();
    let image = create(&store, 1 << 20, &[("cluster_size", "4k")]);
    let top = disk(&image, None);
    let data = noise(7, 1 << 20);
    top.write(GuestOffset(0), &data).expect("written");
    top.flush().expect("flushed");
    let last = image.map(range((1 << 20) - 4096, 4096)).expect("it is mapped");
    top.resize(64 * KIB, Preallocation::Off).expect("it shrinks");
    let Source::Data { store: data_store, at, .. } = &last.source else { panic!("it is data") };
    let mut bytes = vec![0; 4096];
    let count = data_store.read_at(*at, &mut bytes).expect("read");
    assert!(count == 4096 && bytes == data[(1 << 20) - 4096..]);
    drop(last);
    top.resize(60 * KIB, Preallocation::Off).expect("it shrinks");
    assert!(store.len().expect("a length") < 256 * KIB);
}

/// Space that somebody may still be reading has no count, and keeps the refcount block that says so:
/// without it, it would be the place for a new one.
#[test]
fn space_that_is_still_read_is_not_written_after_a_shrink() {
    let store = memory();
    let image = create(&store, 2 << 20, &[("cluster_size", "512"), ("refcount_bits", "64")]);
    let top = disk(&image, None);
    let data = noise(7, 2 << 20);
    top.write(GuestOffset(0), &data).expect("written");
    top.flush().expect("flushed");
    let places: Vec<u64> = (0..(2 << 20) / 512).step_by(7).map(|number| number * 512).collect();
    let read: Vec<_> =
        places.iter().map(|at| image.map(range(*at, 512)).expect("it is mapped")).collect();
    top.resize(4 * KIB, Preallocation::Off).expect("it shrinks");
    top.resize(2 << 20, Preallocation::Off).expect("it grows");
    top.write(GuestOffset(0), &noise(8, 1 << 20)).expect("written");
    top.flush().expect("flushed");
    for (at, found) in places.iter().zip(&read).skip(8) {
        let Source::Data { store: data_store, at: place, .. } = &found.source else {
            panic!("it is data")
        };
        let mut bytes = vec![0; 512];
        data_store.read_at(*place, &mut bytes).expect("read");
        let old = &data[usize::try_from(*at).expect("small")..][..512];
        assert!(bytes == old, "{at:#x} at {place}");
    }
    drop(read);
    top.write(GuestOffset(1 << 20), &noise(9, 1 << 20)).expect("written");
    top.flush().expect("flushed");
    drop(top);
    assert_holds(&store, &[noise(8, 1 << 20), noise(9, 1 << 20)].concat(), "afterwards");
}

/// Compacting moves refcount blocks into the ranges of others, which go after them.
#[test]
fn a_compacted_image_that_shrinks_is_written_on() {
    for given in [
        [("cluster_size", "512"), ("refcount_bits", "64")],
        [("cluster_size", "512"), ("refcount_bits", "16")],
    ] {
        let store = memory();
        let image = create(&store, 4 << 20, &given);
        let top = disk(&image, None);
        top.write(GuestOffset(0), &noise(7, 4 << 20)).expect("written");
        top.flush().expect("flushed");
        top.discard(range(64 * KIB, 3 << 20)).expect("discarded");
        top.flush().expect("flushed");
        let compactor = image.compactor().expect("it can be compacted");
        compactor.compact(&|_, _| true).expect("compacted");
        top.resize(16 * KIB, Preallocation::Off).expect("it shrinks");
        top.resize(1 << 20, Preallocation::Off).expect("it grows");
        top.write(GuestOffset(16 * KIB), &noise(8, 512 * KIB)).expect("written");
        top.flush().expect("flushed");
        let mut expected = noise(7, 16 * KIB);
        expected.extend(noise(8, 512 * KIB));
        expected.resize(1 << 20, 0);
        drop((top, image));
        assert_holds(&store, &expected, "written on");
    }
}

#[test]
fn what_is_new_has_the_space_that_was_asked_for() {
    let Some(qemu) = Qemu::find() else { return };
    for how in [Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image.qcow2");
        qemu.create("qcow2", &["cluster_size=4k"], &path, "64k");
        qemu.io(&path, "qcow2", &["write -P 7 0 64k", "discard 0 32k"]);
        let options = anydisk_storage::OpenOptions::new().write(true);
        let file = anydisk_storage::FileStorage::open(&path, &options).expect("it opens");
        let store: Arc<dyn Storage> = Arc::new(file);
        let disk = disk(&open(&store), None);
        disk.resize(256 * KIB, how).expect("it grows");
        disk.flush().expect("flushed");
        drop((disk, store));
        assert_eq!(qemu.check(&path, "qcow2"), CLEAN, "{how:?}");
        qemu.io(&path, "qcow2", &["read -P 0 64k 192k"]);
        let mapped = qemu.map(&path, "qcow2");
        let has_place = |run: &&anydisk_testkit::oracle::MappedByQemu| run.offset.is_some();
        let placed: u64 = mapped.iter().filter(has_place).map(|run| run.length).sum();
        assert_eq!(placed, (32 + 192) * KIB, "{how:?}");
    }
}

/// An image of version 2 that gets a snapshot.
const SNAPSHOT: crate::common::Given<'_> = &[("compat", "0.10"), ("cluster_size", "32k")];

#[test]
fn what_the_format_cannot_do_is_refused_by_name_and_the_file_stays_as_it_is() {
    let refusal = |given: crate::common::Given<'_>, below: Option<u64>, size: u64| {
        let store = memory();
        let image = create(&store, 64 * KIB, given);
        let below = below.map(|len| -> Arc<dyn Image> {
            let bytes = vec![1; usize::try_from(len).expect("small")];
            Arc::new(PlainImage::new(Arc::new(MemoryStorage::new(bytes))).expect("it has a length"))
        });
        let disk = disk(&image, below);
        disk.write(GuestOffset(0), &[7; 5000]).expect("written");
        disk.flush().expect("flushed");
        if given == SNAPSHOT {
            let new = NewSnapshot { name: "one".into(), date: (0, 0) };
            image.snapshots().expect("qcow2 has them").create(&new).expect("a snapshot");
        }
        let before = crate::repair::bytes_of(&store);
        let error = disk.resize(size, Preallocation::Off).unwrap_err().to_string();
        assert_eq!(disk.size(), 64 * KIB);
        disk.flush().expect("flushed");
        assert!(crate::repair::bytes_of(&store) == before, "{error}");
        error
    };
    for size in [32 * KIB, 128 * KIB] {
        assert_eq!(
            refusal(SNAPSHOT, None, size),
            "qcow2: resizing an image of version 2 with snapshots, which record no size is not \
             supported"
        );
    }
    assert_eq!(
        refusal(&[], None, 1000),
        "qcow2: a size that is not a multiple of 512 bytes is not supported"
    );
    assert_eq!(
        refusal(&[("compat", "0.10")], Some(128 * KIB), 96 * KIB),
        "qcow2: growing an image of version 2 below the end of its backing file is not supported"
    );
    assert_eq!(
        refusal(&[("cluster_size", "512")], None, 1 << 40),
        "qcow2: L1 table of a disk of this size, in entries is 33554432, more than the limit of 4194304"
    );
}

/// After a power failure the disk has the old size or the new one, and holds what it should.
fn crash(given: crate::common::Given<'_>, sizes: &[u64]) {
    let made = memory();
    let first = create(&made, sizes[0], given);
    let full = noise(5, sizes[0]);
    disk(&first, None).write(GuestOffset(0), &full).expect("written");
    disk(&first, None).flush().expect("flushed");
    let mut bytes = vec![0; usize::try_from(made.len().expect("a length")).expect("small")];
    made.read_at(anydisk_core::HostOffset(0), &mut bytes).expect("read");
    let crash = CrashStorage::over(bytes);
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let disk_ = disk(&open(&store), None);
    let mut model = ByteModel::of(&full, sizes[0]);
    let mut states = vec![model.clone()];
    for size in &sizes[1..] {
        disk_.resize(*size, Preallocation::Off).expect("a resize in memory");
        model.resize(*size);
        states.push(model.clone());
    }
    let qemu = Qemu::find();
    let shrinks = sizes.windows(2).any(|pair| pair[1] < pair[0]);
    for (number, state) in crash.torn_states(300, 1).enumerate() {
        let found = contents(&disk(&open(&(state.storage() as Arc<dyn Storage>)), None));
        let mut allowed = states.iter().filter(|model| model.size() == found.len() as u64);
        let fits = allowed.any(|model| {
            let wanted = model.contents();
            // What a shrink drops may be gone before the end moves.
            let gone = |at: usize| shrinks && found[at] == 0;
            (0..found.len()).all(|at| found[at] == wanted[at] || gone(at))
        });
        assert!(fits, "{given:?}: a disk of {} bytes\n{state}", found.len());
        if let Some(qemu) = &qemu
            && number % 20 == 0
        {
            let checked = qemu.check_store(&(state.storage() as Arc<dyn Storage>), "qcow2");
            assert_eq!(checked, Ok(()), "{state}");
        }
    }
}

#[test]
fn no_power_failure_during_a_resize_shows_old_bytes_or_damages_the_image() {
    for given in [[("cluster_size", "512")], [("cluster_size", "4k")]] {
        crash(&given, &[20 * KIB + 512, 4 << 20]);
        crash(&given, &[64 * KIB, 10 * KIB + 512]);
        crash(&given, &[64 * KIB, 10 * KIB + 512, 48 * KIB]);
        // Refcount blocks and the end of the file go, and come again.
        crash(&given, &[500 * KIB, 10 * KIB, 300 * KIB]);
    }
}
