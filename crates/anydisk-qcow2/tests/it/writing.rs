//! Random histories of writing, and what qemu says of the images that come out.
//!
//! Where qemu is not installed these tests say so and pass.

use std::path::Path;
use std::sync::Arc;

use crate::common::{create, disk, load, memory, open, range, save, write_packed};
use anydisk_core::{Disk, GuestOffset, Image, Storage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{Aim, ByteModel, Operation, PlainImage, Random};

const CLEAN: Checked = Checked { leaks: 0, corruptions: 0 };

struct Kind {
    options: &'static [(&'static str, &'static str)],
    clusters: u64,
}

const KINDS: [Kind; 13] = [
    Kind { options: &[("cluster_size", "512")], clusters: 700 },
    Kind { options: &[("cluster_size", "512"), ("refcount_bits", "64")], clusters: 5000 },
    Kind { options: &[("cluster_size", "1k"), ("refcount_bits", "1")], clusters: 500 },
    Kind { options: &[("cluster_size", "2k"), ("refcount_bits", "2")], clusters: 500 },
    Kind { options: &[("cluster_size", "4k"), ("refcount_bits", "4")], clusters: 200 },
    Kind { options: &[("cluster_size", "4k"), ("refcount_bits", "8")], clusters: 200 },
    Kind { options: &[("cluster_size", "4k"), ("compat", "0.10")], clusters: 200 },
    Kind { options: &[("cluster_size", "4k"), ("compression_type", "zstd")], clusters: 200 },
    Kind { options: &[("cluster_size", "16k"), ("extended_l2", "on")], clusters: 60 },
    Kind {
        options: &[("cluster_size", "32k"), ("extended_l2", "on"), ("compression_type", "zstd")],
        clusters: 40,
    },
    Kind { options: &[("refcount_bits", "32")], clusters: 40 },
    Kind { options: &[("lazy_refcounts", "on")], clusters: 40 },
    Kind { options: &[("cluster_size", "2M")], clusters: 4 },
];

impl Kind {
    fn cluster(&self) -> u64 {
        let size = self.options.iter().find(|(name, _)| *name == "cluster_size");
        anydisk_core::parse_size(size.map_or("64k", |(_, size)| size)).expect("a size")
    }

    /// A disk that ends in the middle of a cluster.
    fn size(&self) -> u64 {
        (self.clusters * self.cluster() - self.cluster() / 2).next_multiple_of(512)
    }
}

/// A disk and what it should hold.
struct Played {
    store: Arc<dyn Storage>,
    disk: Disk,
    model: ByteModel,
    cluster: u64,
}

impl Played {
    fn step(&mut self, operation: Operation, random: &mut Random) {
        match operation {
            Operation::Read { .. } if random.chance(1, 2) => self.pack(random),
            Operation::Read { at, len } => {
                assert!(self.read(at, len) == self.model.read(at, len), "{operation:?}");
            }
            Operation::Write { at, .. } => {
                self.disk.write(GuestOffset(at), &operation.data()).expect("written");
            }
            Operation::Zero { at, len, unmap } => {
                self.disk.zero(range(at, len), unmap).expect("zeroed");
            }
            Operation::Discard { at, len } => {
                self.disk.discard(range(at, len)).expect("discarded");
                let after = self.read(at, len);
                self.model.write(at, &after);
            }
            Operation::Flush | Operation::Reopen => self.disk.flush().expect("flushed"),
        }
        self.model.apply(&operation);
    }

    /// Writes a random cluster packed.
    fn pack(&mut self, random: &mut Random) {
        let at = random.below(self.disk.size()) / self.cluster * self.cluster;
        let mut data = vec![0; usize::try_from(self.cluster).expect("small")];
        let noise = random.index(data.len());
        random.fill(&mut data[..noise]);
        if write_packed(self.disk.top(), at, &data) {
            let inside = usize::try_from(self.disk.size() - at).unwrap_or(data.len());
            self.model.write(at, &data[..inside.min(data.len())]);
        }
    }

    fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![1; usize::try_from(len).expect("small")];
        self.disk.read(GuestOffset(at), &mut bytes).expect("read");
        bytes
    }

    fn play(&mut self, seed: u64, count: usize) {
        let mut random = Random::new(seed);
        let aim = Aim::at(self.disk.size(), self.cluster);
        for operation in aim.operations(seed ^ 0x5EED).take(count) {
            self.step(operation, &mut random);
        }
        self.disk.flush().expect("flushed");
        assert!(self.read(0, self.disk.size()) == self.model.contents(), "seed {seed}");
    }
}

fn check(qemu: &Qemu, played: &Played, path: &Path, case: &str) {
    save(&*played.store, path);
    let checked = qemu.check(path, "qcow2").unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(checked, CLEAN, "{case}");
    let raw = path.with_extension("raw");
    std::fs::write(&raw, played.model.contents()).expect("there is room");
    qemu.assert_same((path, "qcow2"), (&raw, "raw"));
}

#[test]
fn images_of_every_kind_are_clean_and_hold_what_was_written() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for (number, kind) in KINDS.iter().enumerate() {
        let store = memory();
        let image = create(&store, kind.size(), kind.options);
        let model = ByteModel::new(kind.size());
        let cluster = kind.cluster();
        let mut played = Played { disk: disk(&image, None), store, model, cluster };
        drop(image);
        for round in 0..6 {
            played.play(number as u64 * 100 + round, 150);
            let case = format!("{:?}, round {round}", kind.options);
            check(&qemu, &played, &folder.path().join("image.qcow2"), &case);
            let again = open(&played.store);
            played.disk = disk(&again, None);
        }
    }
}

#[test]
fn images_over_another_are_clean_and_hold_what_was_written() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let below_path = folder.path().join("below.raw");
    for (number, kind) in KINDS.iter().enumerate() {
        let mut below = vec![0; usize::try_from(kind.size() - 1024).expect("small")];
        Random::new(number as u64).fill(&mut below);
        std::fs::write(&below_path, &below).expect("there is room");
        let backing = [("backing_file", "below.raw"), ("backing_fmt", "raw")];
        let store = memory();
        let image = create(&store, kind.size(), &[kind.options, &backing].concat());
        let lower = Arc::new(MemoryStorage::new(below.clone()));
        let lower: Arc<dyn Image> = Arc::new(PlainImage::new(lower).expect("a length"));
        let model = ByteModel::of(&below, kind.size());
        let cluster = kind.cluster();
        let mut played = Played { disk: disk(&image, Some(lower)), store, model, cluster };
        played.play(1000 + number as u64, 300);
        let case = format!("{:?}", kind.options);
        check(&qemu, &played, &folder.path().join("image.qcow2"), &case);
    }
}

#[test]
fn what_a_snapshot_shares_is_kept_for_it() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    for (number, kind) in KINDS.iter().enumerate() {
        let too_narrow = |(name, bits): &(&str, &str)| *name == "refcount_bits" && bits.len() == 1;
        if kind.options.iter().any(too_narrow) {
            continue; // Packed clusters leave no room to count what snapshots share.
        }
        let store = memory();
        let image = create(&store, kind.size(), kind.options);
        let model = ByteModel::new(kind.size());
        let cluster = kind.cluster();
        let mut played = Played { disk: disk(&image, None), store, model, cluster };
        let mut kept = Vec::new();
        for snapshot in ["one", "two"] {
            played.play(2000 + number as u64 + kept.len() as u64 * 50, 100);
            check(&qemu, &played, &path, &format!("{:?} before {snapshot}", kind.options));
            kept.push((snapshot, played.model.clone()));
            qemu_img(&["snapshot", "-c", snapshot], &path);
            played.store = load(&path);
            played.disk = disk(&open(&played.store), None);
        }
        played.play(3000 + number as u64, 200);
        check(&qemu, &played, &path, &format!("{:?} at the end", kind.options));
        for (snapshot, model) in kept {
            qemu_img(&["snapshot", "-a", snapshot], &path);
            let raw = path.with_extension("raw");
            std::fs::write(&raw, model.contents()).expect("there is room");
            qemu.assert_same((&path, "qcow2"), (&raw, "raw"));
            assert_eq!(qemu.check(&path, "qcow2"), Ok(CLEAN), "{:?} {snapshot}", kind.options);
        }
    }
}

fn qemu_img(arguments: &[&str], path: &Path) {
    let output = std::process::Command::new("qemu-img").args(arguments).arg(path).output();
    let output = output.expect("it was found");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn four_threads_leave_a_clean_image() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for kind in KINDS.iter().filter(|kind| kind.clusters >= 40) {
        let store = memory();
        let size = kind.size();
        let disk = disk(&create(&store, size, kind.options), None);
        std::thread::scope(|scope| {
            for part in 0..4_u64 {
                let disk = &disk;
                // Parts that meet inside clusters, so that claims meet too.
                let (start, end) = (size / 4 * part, size / 4 * (part + 1));
                scope.spawn(move || write_a_part(disk, start, end - start, part));
            }
        });
        disk.flush().expect("flushed");
        let path = folder.path().join("image.qcow2");
        save(&*store, &path);
        let checked = qemu.check(&path, "qcow2");
        assert_eq!(checked, Ok(CLEAN), "{:?}", kind.options);
    }
}

fn write_a_part(disk: &Disk, start: u64, len: u64, seed: u64) {
    let mut model = ByteModel::new(len);
    for operation in Aim::at(len, 4096).operations(seed).take(400) {
        match operation {
            Operation::Write { at, .. } => {
                disk.write(GuestOffset(start + at), &operation.data()).expect("written");
            }
            Operation::Zero { at, len, unmap } => {
                disk.zero(range(start + at, len), unmap).expect("zeroed");
            }
            Operation::Flush => disk.flush().expect("flushed"),
            _ => continue,
        }
        model.apply(&operation);
    }
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    disk.read(GuestOffset(start), &mut bytes).expect("read");
    assert!(bytes == model.contents(), "part {seed}");
}
