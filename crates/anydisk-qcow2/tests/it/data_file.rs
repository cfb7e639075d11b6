//! External data files: what is data lies in the other file where the guest has it, and the tables
//! say so only when it is there.

use std::path::Path;
use std::sync::Arc;

use crate::common::{Dump, Given, disk, memory, range, save};
use anydisk_core::{
    Access, Companions, CreateRequest, Disk, Error, Format, GuestOffset, HostOffset, Image, Limits,
    Located, Location, NoSecrets, OpenRequest, Options, Reference, Resolver, Result, Role, Source,
    Storage, StorageExt,
};
use anydisk_qcow2::QCOW2;
use anydisk_qcow2::layout::extension;
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions};
use anydisk_testkit::double::{CrashStorage, FaultStorage, Kind};
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{Aim, ByteModel, Operation, Random};

/// The data file, whoever asks for it.
#[derive(Clone, Debug)]
struct Beside(Arc<dyn Storage>);

impl Beside {
    fn give(&self, reference: &Reference) -> Result<Located> {
        assert_eq!((reference.role, &*reference.name), (Role::DataFile, &b"data"[..]));
        Ok(Located { store: Arc::clone(&self.0), location: Location::Other("data".into()) })
    }
}

impl Resolver for Beside {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        self.give(reference)
    }
}

impl Companions for Beside {
    fn make(&self, reference: &Reference) -> Result<Located> {
        self.give(reference)
    }
}

fn try_create(
    store: &Arc<dyn Storage>,
    data: &Beside,
    size: u64,
    given: Given<'_>,
) -> Result<Arc<dyn Image>> {
    let mut options = Options::of(&QCOW2);
    for (name, value) in given {
        options.set(name, value)?;
    }
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let request = CreateRequest::new(Arc::clone(store), &location, size, &options, &limits);
    QCOW2.create(CreateRequest { companions: data, ..request })
}

fn create(store: &Arc<dyn Storage>, data: &Beside, size: u64, given: Given<'_>) -> Arc<dyn Image> {
    let given = [&[("data_file", "data")], given].concat();
    let image = try_create(store, data, size, &given).expect("an image can be made");
    image.writer().expect("open for writing").flush().expect("flushed");
    image
}

fn try_open(
    store: &Arc<dyn Storage>,
    resolver: &dyn Resolver,
    access: Access,
) -> Result<Arc<dyn Image>> {
    let request = OpenRequest {
        store: Arc::clone(store),
        location: &Location::Other("image".into()),
        access,
        resolver,
        limits: &Limits::default(),
        secrets: &NoSecrets,
    };
    Ok(QCOW2.open(request)?.image)
}

fn bytes_of(store: &dyn Storage, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    store.read_padded_at(HostOffset(at), &mut bytes).expect("it can be read");
    bytes
}

fn contents(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it reads");
    bytes
}

#[test]
fn data_lies_in_the_other_file_where_the_guest_has_it_and_costs_the_image_nothing() {
    let (store, data) = (memory(), Beside(memory()));
    let image = create(&store, &data, 1 << 20, &[("cluster_size", "4k")]);
    let disk = disk(&image, None);
    let before = store.len().expect("a length");
    disk.write(GuestOffset(100), b"first").expect("written");
    disk.write(GuestOffset(512 << 10), &[7; 64 << 10]).expect("written");
    disk.flush().expect("flushed");
    assert_eq!(data.0.len().expect("a length"), 1 << 20);
    assert_eq!(bytes_of(&*data.0, 100, 5), b"first");
    assert_eq!(bytes_of(&*data.0, 512 << 10, 64 << 10), [7; 64 << 10]);
    let grown = store.len().expect("a length") - before;
    assert!(grown <= 2 * 4096, "one L2 table, not {grown} bytes");
    let found = image.map(range(0, 1 << 20)).expect("it maps");
    assert!(matches!(found.source, Source::Data { at: HostOffset(0), shared: false, .. }));
    assert_eq!(found.len, 4096);
}

#[test]
fn the_name_is_asked_of_the_resolver_and_the_image_without_its_data_is_refused() {
    let (store, data) = (memory(), Beside(memory()));
    create(&store, &data, 1 << 20, &[]);
    let error = try_open(&store, &anydisk_core::NoReferences, Access::Read).unwrap_err();
    assert!(matches!(error.kind(), Error::Denied { role: "data file", .. }), "{error}");
}

#[test]
fn an_image_that_names_itself_as_its_data_is_refused() {
    let store = memory();
    create(&store, &Beside(memory()), 1 << 20, &[]);
    let itself = Beside(Arc::clone(&store));
    let error = try_open(&store, &itself, Access::Read).unwrap_err();
    assert!(error.to_string().contains("it is the image itself"), "{error}");
}

#[test]
fn a_data_file_that_can_only_be_read_keeps_the_image_from_being_written() {
    let (store, data) = (memory(), Beside(memory()));
    create(&store, &data, 1 << 20, &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    save(&*data.0, &path);
    let file = FileStorage::open(&path, &OpenOptions::new()).expect("it is there");
    let error = try_open(&store, &Beside(Arc::new(file)), Access::ReadWrite).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
}

#[test]
fn nothing_is_compressed_beside_a_data_file() {
    let (store, data) = (memory(), Beside(memory()));
    let image = create(&store, &data, 1 << 20, &[]);
    let writer = image.writer().expect("open for writing");
    assert!(writer.packing().is_none());
    let error = writer.place_encoded(range(0, 65536), 100).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refused = |given: Given<'_>| {
        try_create(&memory(), &Beside(memory()), 1 << 20, given).unwrap_err().to_string()
    };
    assert!(refused(&[("data_file", "")]).contains("data_file=: expected a name"));
    assert!(refused(&[("data_file_raw", "on")]).contains("off without data_file"));
    let old = refused(&[("data_file", "data"), ("compat", "v2")]);
    assert!(old.contains("none with compat=v2"), "{old}");
    let over = [("data_file", "data"), ("data_file_raw", "on"), ("backing_file", "x")];
    assert!(refused(&over).contains("off with a backing file"));
}

#[test]
fn a_raw_data_file_is_the_disk_after_every_write_zero_and_discard() {
    let (store, data) = (memory(), Beside(memory()));
    let given: Given<'_> = &[("data_file_raw", "on"), ("cluster_size", "4k")];
    let image = create(&store, &data, 256 << 10, given);
    assert!(Dump::of(&*store).header.has_raw_data_file());
    let disk = disk(&image, None);
    let mut random = Random::new(5);
    for operation in Aim::at(256 << 10, 4096).operations(5).take(120) {
        apply(&disk, &operation, 1);
        if random.chance(1, 8) {
            assert_eq!(bytes_of(&*data.0, 0, 256 << 10), contents(&disk), "{operation:?}");
        }
    }
    disk.flush().expect("flushed");
    for cluster in 0..64 {
        let entry = Dump::of(&*store).entry(cluster * 4096);
        assert_eq!(entry.word, (1 << 63) | (cluster * 4096), "every cluster is mapped");
    }
}

/// Only whole clusters of `unit` are discarded, so that what is read afterwards is certain.
fn apply(disk: &Disk, operation: &Operation, unit: u64) {
    match *operation {
        Operation::Write { at, .. } => {
            disk.write(GuestOffset(at), &operation.data()).expect("written");
        }
        Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap).expect("zeroed"),
        Operation::Discard { at, len } if at % unit == 0 && len % unit == 0 => {
            disk.discard(range(at, len)).expect("discarded");
        }
        Operation::Flush => disk.flush().expect("flushed"),
        _ => {}
    }
}

/// A history on images with and without subclusters against bytes in memory, opened again now and
/// then, judged by qemu at the end.
#[test]
fn a_long_history_reads_like_a_byte_vector_also_for_qemu() {
    let qemu = Qemu::find();
    let kinds: [Given<'_>; 3] = [
        &[("cluster_size", "512")],
        &[("cluster_size", "64k")],
        &[("cluster_size", "16k"), ("extended_l2", "on")],
    ];
    for (seed, given) in (0..).zip(kinds) {
        let (store, data) = (memory(), Beside(memory()));
        let size = 600 << 10;
        let mut top = disk(&create(&store, &data, size, given), None);
        let unit = 1 << Dump::of(&*store).header.cluster_bits;
        let mut model = ByteModel::new(size);
        for operation in Aim::at(size, unit).operations(seed).take(150) {
            match operation {
                Operation::Reopen => {
                    top.flush().expect("flushed");
                    let image = try_open(&store, &data, Access::ReadWrite).expect("it opens");
                    top = disk(&image, None);
                }
                Operation::Discard { at, len } if at % unit != 0 || len % unit != 0 => continue,
                _ => apply(&top, &operation, unit),
            }
            if let Operation::Discard { at, len } = operation {
                model.zero(at, len);
            } else {
                model.apply(&operation);
            }
        }
        top.flush().expect("flushed");
        assert!(contents(&top) == model.contents(), "{given:?}");
        if let Some(qemu) = &qemu {
            judge(qemu, &*store, &*data.0, &model.contents());
        }
    }
}

fn judge(qemu: &Qemu, store: &dyn Storage, data: &dyn Storage, expected: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    save(store, &path("image.qcow2"));
    save(data, &path("data"));
    // qemu looks for the file in its own folder, not in the image's.
    let mut header = Dump::of(store).header;
    let name = path("data").display().to_string().into_bytes();
    let names = header.extensions.iter_mut().filter(|one| one.kind == extension::DATA_FILE);
    names.for_each(|one| one.data.clone_from(&name));
    let mut bytes = std::fs::read(path("image.qcow2")).expect("it is there");
    let head = header.to_bytes().expect("it fits");
    bytes[..head.len()].copy_from_slice(&head);
    std::fs::write(path("image.qcow2"), bytes).expect("there is room");
    std::fs::write(path("expected"), expected).expect("there is room");
    qemu.assert_undamaged(&path("image.qcow2"), "qcow2");
    qemu.assert_same((&path("image.qcow2"), "qcow2"), (&path("expected"), "raw"));
}

#[test]
fn what_qemu_writes_is_read_and_what_is_written_then_is_read_by_qemu() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (raw, extended) in [("off", "off"), ("on", "off"), ("off", "on")] {
        let data_file = path("data").display().to_string();
        let options = format!("data_file={data_file},data_file_raw={raw},extended_l2={extended}");
        qemu.create("qcow2", &[&options], &path("q.qcow2"), "2M");
        qemu.io(&path("q.qcow2"), "qcow2", &["write -P 9 3k 300k", "write -z 1M 128k"]);
        let open = |name: &str| -> Arc<dyn Storage> {
            let options = OpenOptions::new().write(true);
            Arc::new(FileStorage::open(path(name), &options).expect("it is there"))
        };
        let disk = open_named(open("q.qcow2"), &Named(open("data")));
        assert_eq!(contents(&disk)[3 << 10..][..300 << 10], vec![9; 300 << 10]);
        disk.write(GuestOffset(1 << 20), &[5; 100]).expect("written");
        disk.zero(range(64 << 10, 64 << 10), true).expect("zeroed");
        disk.flush().expect("flushed");
        let expected = contents(&disk);
        drop(disk);
        std::fs::write(path("expected"), expected).expect("there is room");
        qemu.assert_undamaged(&path("q.qcow2"), "qcow2");
        qemu.assert_same((&path("q.qcow2"), "qcow2"), (&path("expected"), "raw"));
        if raw == "on" {
            qemu.assert_same((&path("data"), "raw"), (&path("expected"), "raw"));
        }
        remove(&path("q.qcow2"), &path("data"));
    }
}

fn remove(a: &Path, b: &Path) {
    for path in [a, b] {
        std::fs::remove_file(path).expect("it was there");
    }
}

/// A data file under any name.
#[derive(Debug)]
struct Named(Arc<dyn Storage>);

impl Resolver for Named {
    fn resolve(&self, _: &Reference, _: &Location, _: Access) -> Result<Located> {
        Ok(Located { store: Arc::clone(&self.0), location: Location::Other("data".into()) })
    }
}

fn open_named(store: Arc<dyn Storage>, resolver: &dyn Resolver) -> Disk {
    disk(&try_open(&store, resolver, Access::ReadWrite).expect("it opens"), None)
}

#[test]
fn tables_name_no_data_that_is_not_on_its_medium() {
    let (store, data) = (memory(), FaultStorage::new(Arc::new(MemoryStorage::default())));
    let beside = Beside(Arc::new(data.clone()));
    let image = create(&store, &beside, 1 << 20, &[("cluster_size", "4k")]);
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &[1; 8192]).expect("written");
    data.fail_from(Kind::Flush, 0);
    disk.flush().expect_err("the data is not on its medium");
    assert_eq!(Dump::of(&*store).entry(0).word, 0);
    data.heal();
}

#[test]
fn no_power_failure_leaves_a_unit_that_is_neither_old_nor_new() {
    let (crash, data) = (CrashStorage::new(), Beside(memory()));
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let image = create(&store, &data, 64 << 10, &[("cluster_size", "4k")]);
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &[1; 16 << 10]).expect("written");
    disk.flush().expect("flushed");
    crash.mark();
    disk.write(GuestOffset(32 << 10), &[2; 8 << 10]).expect("written");
    disk.zero(range(0, 4 << 10), true).expect("zeroed");
    disk.flush().expect("flushed");
    for state in crash.torn_states(64, 3).filter(|state| state.marks() > 0) {
        let after: Arc<dyn Storage> = state.storage();
        let image = try_open(&after, &data, Access::ReadWrite).expect("it opens");
        let found = contents(&crate::common::disk(&image, None));
        assert!(found[..4096].iter().all(|byte| *byte == 0), "zeroed in both files");
        assert!(found[4096..16 << 10].iter().all(|byte| *byte == 1), "flushed: {state}");
        for unit in found[32 << 10..40 << 10].chunks(4096) {
            assert!(unit == [0; 4096] || unit == [2; 4096], "{state}");
        }
    }
}

#[test]
fn a_data_file_is_as_long_as_its_disk_and_shows_no_old_bytes_when_that_grows_again() {
    for raw in ["off", "on"] {
        let (store, data) = (memory(), Beside(memory()));
        let given: Given<'_> = &[("data_file_raw", raw), ("cluster_size", "4k")];
        let disk = disk(&create(&store, &data, 64 << 10, given), None);
        disk.write(GuestOffset(0), &[7; 64 << 10]).expect("written");
        for (size, kept) in [(30 << 10, 30 << 10), (128 << 10, 30 << 10), (1 << 20, 30 << 10)] {
            disk.resize(size, anydisk_core::Preallocation::Off).expect("it can");
            disk.flush().expect("flushed");
            assert_eq!(data.0.len().expect("a length"), size);
            let mut expected = vec![7; kept];
            expected.resize(usize::try_from(size).expect("small"), 0);
            assert!(contents(&disk) == expected, "raw {raw}, {size} bytes");
            if raw == "on" {
                assert!(bytes_of(&*data.0, 0, expected.len()) == expected, "{size} bytes");
            }
        }
    }
}
