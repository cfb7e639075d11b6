//! Power failure at any moment: qemu finds no damage in what is left, at worst lost clusters.
//!
//! That what was flushed is there, the behaviour suite shows; this is about the refcounts. Where
//! qemu is not installed these tests say so and pass.

use std::sync::Arc;

use crate::common::{create, disk, load, open, range, save, write_packed};
use anydisk_core::{Disk, GuestOffset, Storage};
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{Aim, Operation, Random};

const SIZE: u64 = 100 << 10;

fn step(disk: &Disk, operation: &Operation, random: &mut Random, cluster: u64) {
    match *operation {
        Operation::Write { at, .. } => {
            disk.write(GuestOffset(at), &operation.data()).expect("written");
        }
        Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap).expect("zeroed"),
        Operation::Discard { at, len } => disk.discard(range(at, len)).expect("discarded"),
        Operation::Read { .. } => {
            let at = random.below(SIZE) / cluster * cluster;
            let mut data = vec![0; usize::try_from(cluster).expect("small")];
            let noise = random.index(data.len() / 2);
            random.fill(&mut data[..noise]);
            write_packed(disk.top(), at, &data);
        }
        Operation::Flush | Operation::Reopen => disk.flush().expect("flushed"),
    }
}

/// Plays a history, with a flush for every few operations, and checks some of the states that a
/// power failure may leave.
fn play(qemu: &Qemu, store: CrashStorage, disk: &Disk, cluster: u64, seed: u64) {
    let mut random = Random::new(seed);
    for operation in Aim::at(SIZE, cluster).operations(seed).take(60) {
        step(disk, &operation, &mut random, cluster);
        if random.chance(1, 6) {
            disk.flush().expect("flushed");
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    let states: Vec<_> = store.torn_states(12, seed).collect();
    // A process for each state: a sample of them is enough.
    for state in states.iter().filter(|_| random.chance(60, states.len().max(60) as u64)) {
        save(&*state.storage(), &path);
        let checked = qemu.check(&path, "qcow2");
        let damage = checked.as_ref().map(|checked| checked.corruptions);
        assert_eq!(damage, Ok(0), "seed {seed}: {checked:?} {} flushes", state.flushes());
    }
}

#[test]
fn no_power_failure_leaves_damage() {
    let Some(qemu) = Qemu::find() else { return };
    let kinds: [crate::common::Given<'_>; 5] = [
        &[("cluster_size", "512")],
        &[("cluster_size", "1k"), ("refcount_bits", "64")],
        &[("cluster_size", "4k"), ("refcount_bits", "1")],
        &[("cluster_size", "4k"), ("compat", "0.10")],
        &[("cluster_size", "16k"), ("extended_l2", "on")],
    ];
    for (number, given) in kinds.into_iter().enumerate() {
        let crash = CrashStorage::new();
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let image = create(&store, SIZE, given);
        image.writer().expect("open for writing").flush().expect("flushed");
        let cluster = 1 << crate::common::Dump::of(&crash).header.cluster_bits;
        let fresh = crash_of(&crash);
        let store: Arc<dyn Storage> = Arc::new(fresh.clone());
        play(&qemu, fresh, &disk(&open(&store), None), cluster, number as u64);
    }
}

/// A store with the same bytes on its medium, and nothing remembered.
fn crash_of(store: &dyn Storage) -> CrashStorage {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(anydisk_core::HostOffset(0), &mut bytes).expect("read");
    CrashStorage::over(bytes)
}

#[test]
fn no_power_failure_damages_an_image_with_a_snapshot() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    for (number, cluster) in ["512", "4k"].into_iter().enumerate() {
        let options = format!("cluster_size={cluster}");
        qemu.create("qcow2", &[&options], &path, &SIZE.to_string());
        qemu.io(&path, "qcow2", &["write -P 1 0 60k", "write -c -P 2 64k 8k", "write -z 80k 4k"]);
        let mut command = std::process::Command::new("qemu-img");
        let status = command.args(["snapshot", "-c", "one"]).arg(&path).status();
        assert!(status.expect("it was found").success());
        let crash = crash_of(&*load(&path));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let cluster = 1 << crate::common::Dump::of(&crash).header.cluster_bits;
        play(&qemu, crash, &disk(&open(&store), None), cluster, 70 + number as u64);
    }
}
