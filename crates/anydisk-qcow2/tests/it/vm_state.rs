//! The state of a machine, kept with a snapshot: the same bytes whatever is done beside it, by us or
//! by qemu-img, encrypted or not.
//!
//! qemu-img makes no such snapshot, so they are made by hand as qemu makes them: the state lies
//! behind the disk, from the next L2 table on, when the snapshot is kept.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, HostOffset, Image, Limits, Location,
    NewSnapshot, OpenRequest, Options, Preallocation, SnapshotRef, Snapshots, Storage, StorageExt,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{Random, secrets};

use crate::common::{Dump, Given, memory, save};

const PASSPHRASE: &str = "correct horse";
/// As much as an L2 table of clusters of 512 bytes maps, twice.
const SIZE: u64 = 64 << 10;
const STATE: u64 = 9001;

const KINDS: [Given<'_>; 3] = [
    &[("cluster_size", "512")],
    &[("cluster_size", "512"), ("encrypt.format", "aes")],
    &[("cluster_size", "512"), ("encrypt.format", "luks"), ("encrypt.iter-time", "0")],
];

fn open(store: &Arc<dyn Storage>) -> Arc<dyn Image> {
    let request = OpenRequest {
        store: Arc::clone(store),
        location: &Location::Other("image".into()),
        access: Access::ReadWrite,
        resolver: &anydisk_core::NoReferences,
        limits: &Limits::default(),
        secrets: &*secrets(Some(PASSPHRASE)),
    };
    QCOW2.open(request).expect("it opens").image
}

fn snapshots(image: &Arc<dyn Image>) -> &dyn Snapshots {
    image.snapshots().expect("qcow2 has snapshots")
}

fn id(id: &str) -> SnapshotRef {
    SnapshotRef::Id(id.to_owned())
}

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    Random::new(seed).fill(&mut bytes);
    bytes
}

fn contents(image: &Arc<dyn Image>) -> Vec<u8> {
    let disk = Disk::new(Arc::clone(image));
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it reads");
    bytes
}

/// An image whose first snapshot has the state of a machine: [`noise`] of 7.
fn with_state(given: Given<'_>) -> Arc<dyn Storage> {
    let mut options = Options::of(&QCOW2);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let store = memory();
    let request = CreateRequest::new(Arc::clone(&store), &location, SIZE, &options, &limits);
    let secrets = secrets(Some(PASSPHRASE));
    let request = CreateRequest { secrets: &*secrets, ..request };
    let image = QCOW2.create(request).expect("an image in memory");
    let disk = Disk::new(Arc::clone(&image));
    disk.write(GuestOffset(1000), &noise(1, 20_000)).expect("written");
    disk.resize(SIZE + (32 << 10), Preallocation::Off).expect("grown");
    disk.write(GuestOffset(SIZE), &noise(7, STATE)).expect("written");
    let new = NewSnapshot { name: "running".into(), date: (1, 2) };
    snapshots(&image).create(&new).expect("created");
    disk.resize(SIZE, Preallocation::Off).expect("shrunk");
    disk.flush().expect("flushed");
    drop((disk, image));
    // The entry says that what lies behind the disk is the machine's (qcow2, "Snapshots").
    let at = Dump::of(&*store).header.snapshots_offset;
    store.write_at(at.saturating_add(40), &STATE.to_be_bytes()).expect("vm_state_size");
    store.write_at(at.saturating_add(48), &SIZE.to_be_bytes()).expect("disk_size");
    store
}

#[track_caller]
fn assert_kept(store: &Arc<dyn Storage>, when: &dyn std::fmt::Debug) {
    let image = open(store);
    let list = snapshots(&image).list().expect("a list");
    let first = list.iter().find(|one| one.id == "1").expect("the first");
    assert_eq!((first.size, first.vm_state_size), (SIZE, STATE), "{when:?}");
    let state = snapshots(&image).vm_state(&id("1")).expect("it opens").expect("there is one");
    assert_eq!(state.size(), STATE);
    assert!(contents(&state) == noise(7, STATE), "{when:?}");
    let view = snapshots(&image).open(&id("1")).expect("it opens");
    let disk = contents(&view);
    assert!(disk.len() == 64 << 10 && disk[1000..21_000] == noise(1, 20_000), "{when:?}");
}

#[test]
fn the_state_of_a_machine_stays_the_same_whatever_we_do_beside_it() {
    for given in KINDS {
        let store = with_state(given);
        assert_kept(&store, &given);
        let image = open(&store);
        let disk = Disk::new(Arc::clone(&image));
        let none = snapshots(&image).vm_state(&id("7"));
        assert!(none.is_err());
        snapshots(&image).create(&NewSnapshot::default()).expect("created");
        assert!(snapshots(&image).vm_state(&id("2")).expect("it is there").is_none());
        disk.write(GuestOffset(500), &noise(3, 40_000)).expect("written");
        snapshots(&image).apply(&id("1")).expect("applied");
        disk.write(GuestOffset(0), &noise(4, SIZE)).expect("written");
        snapshots(&image).apply(&id("2")).expect("applied");
        snapshots(&image).delete(&id("2")).expect("deleted");
        disk.resize(3 * SIZE, Preallocation::Off).expect("grown");
        disk.write(GuestOffset(SIZE), &noise(5, 2 * SIZE)).expect("written");
        disk.flush().expect("flushed");
        drop((disk, image));
        assert_kept(&store, &given);
    }
}

const OBJECT: &str = "secret,id=s,data=correct horse";

fn opts(path: &Path, given: Given<'_>) -> String {
    let secret = if given.len() > 1 { ",encrypt.key-secret=s" } else { "" };
    format!("driver=qcow2,file.filename={}{secret}", path.display())
}

fn qemu_img(arguments: &[&str], image: &str) {
    let mut command = Command::new("qemu-img");
    command.args(arguments).args(["--object", OBJECT, "--image-opts", image]);
    let output = command.output().expect("it was found");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "{arguments:?} {image}: {told}");
}

#[test]
fn the_state_of_a_machine_survives_qemu_img_and_what_we_do_then() {
    let Some(_) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    let file = || -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(&path, &OpenOptions::new().write(true)).expect("a file"))
    };
    for given in KINDS {
        save(&*with_state(given), &path);
        let image = opts(&path, given);
        for arguments in [
            &["check", "-q"][..],
            &["snapshot", "-c", "two"],
            &["snapshot", "-a", "running"],
            &["snapshot", "-c", "three"],
            &["snapshot", "-d", "two"],
            &["check", "-q"],
        ] {
            qemu_img(arguments, &image);
            assert_kept(&file(), &(given, arguments));
        }
        // qemu-img leaves the state in the tables of the disk when it applies a snapshot.
        qemu_img(&["snapshot", "-a", "running"], &image);
        let ours = open(&file());
        let disk = Disk::new(Arc::clone(&ours));
        let mut first = [0; 512];
        disk.read(GuestOffset(1024), &mut first).expect("it reads");
        assert!(first[..] == noise(1, 20_000)[24..536], "{given:?}");
        snapshots(&ours).create(&NewSnapshot::default()).expect("created");
        disk.resize(2 * SIZE, Preallocation::Off).expect("grown");
        assert!(contents(&ours)[64 << 10..].iter().all(|byte| *byte == 0), "{given:?}");
        disk.flush().expect("flushed");
        drop((disk, ours));
        assert_kept(&file(), &given);
        qemu_img(&["check", "-q"], &image);
        let mut word = [0; 8];
        file().read_padded_at(HostOffset(24), &mut word).expect("it reads");
        assert_eq!(u64::from_be_bytes(word), 2 * SIZE);
    }
}
