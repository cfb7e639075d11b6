//! Snapshots: histories against a model, power failures, errors, threads, and qemu as the judge of
//! both directions, where it is installed.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::common::{Dump, create, disk, load, memory, open, range, save, try_open};
use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Error, Format, GuestOffset, HostOffset, Image, Limits,
    Location, NewSnapshot, OpenRequest, Preallocation, SnapshotRef, Snapshots, Storage,
};
use anydisk_qcow2::{QCOW2, Qcow2Image, WritableImage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::{CrashStorage, FaultStorage};
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{Aim, ByteModel, Operation, Random};

const KIB: u64 = 1 << 10;

fn snapshots(image: &Arc<dyn Image>) -> &dyn Snapshots {
    image.snapshots().expect("qcow2 has snapshots")
}

fn named(name: &str) -> NewSnapshot {
    NewSnapshot { name: name.to_owned(), date: (1_700_000_000, 5) }
}

fn id(id: &str) -> SnapshotRef {
    SnapshotRef::Id(id.to_owned())
}

fn contents(image: Arc<dyn Image>) -> Vec<u8> {
    let disk = Disk::new(image);
    let mut bytes = vec![0x5a; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it can be read");
    bytes
}

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    Random::new(seed).fill(&mut bytes);
    bytes
}

fn checked(store: Arc<dyn Storage>) -> (CheckReport, String) {
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    let mut told = String::new();
    let report = QCOW2.check(&request, &mut |found| {
        told += &format!("{} at {}: {}\n", found.kind, found.at, found.text);
    });
    (report.expect("it can be checked"), told)
}

fn assert_clean(store: &Arc<dyn Storage>, when: &dyn std::fmt::Debug) {
    let (report, told) = checked(Arc::clone(store));
    assert!(report.is_clean(), "{when:?}: {told}");
}

fn bytes_of(store: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(HostOffset(0), &mut bytes).expect("read");
    bytes
}

fn qemu_snapshot(arguments: &[&str], path: &std::path::Path) -> String {
    let output = Command::new("qemu-img").arg("snapshot").args(arguments).arg(path).output();
    let output = output.expect("it was found");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const KINDS: [crate::common::Given<'_>; 6] = [
    &[("cluster_size", "512")],
    &[("cluster_size", "1k"), ("refcount_bits", "64")],
    &[("cluster_size", "4k"), ("refcount_bits", "4")],
    &[("cluster_size", "512"), ("compat", "0.10")],
    &[("cluster_size", "16k"), ("extended_l2", "on")],
    &[("cluster_size", "4k"), ("refcount_bits", "8"), ("compression_type", "zstd")],
];

/// An image, what its disk should hold, and what each snapshot should, by its ID.
struct History {
    given: crate::common::Given<'static>,
    store: Arc<dyn Storage>,
    image: Arc<dyn Image>,
    model: ByteModel,
    kept: Vec<(String, ByteModel)>,
    random: Random,
}

impl History {
    fn new(given: crate::common::Given<'static>, seed: u64) -> Self {
        let store = memory();
        let image = create(&store, 100 * KIB, given);
        let (model, kept) = (ByteModel::new(100 * KIB), Vec::new());
        Self { given, store, image, model, kept, random: Random::new(seed) }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..3 => self.keep(),
            3..5 => self.go_back(),
            5..7 => self.forget(),
            7 => self.rename(),
            8 => self.resize(),
            9 => self.reopen(),
            10 => self.pack(),
            _ => self.change(),
        }
    }

    fn keep(&mut self) {
        let name = format!("name {}", self.random.below(5));
        match snapshots(&self.image).create(&named(&name)) {
            Ok(info) => self.kept.push((info.id, self.model.clone())),
            // Narrow refcounts.
            Err(Error::Limit { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn some(&mut self) -> Option<usize> {
        (!self.kept.is_empty()).then(|| self.random.index(self.kept.len()))
    }

    fn go_back(&mut self) {
        let Some(index) = self.some() else { return };
        match snapshots(&self.image).apply(&id(&self.kept[index].0)) {
            Ok(()) => self.model = self.kept[index].1.clone(),
            Err(Error::Limit { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn forget(&mut self) {
        let Some(index) = self.some() else { return };
        let (gone, _) = self.kept.remove(index);
        snapshots(&self.image).delete(&id(&gone)).expect("it is there");
    }

    fn rename(&mut self) {
        let Some(index) = self.some() else { return };
        snapshots(&self.image).rename(&id(&self.kept[index].0), "other").expect("it is there");
    }

    fn resize(&mut self) {
        let size = self.random.below(300) * 512;
        match disk(&self.image, None).resize(size, Preallocation::Off) {
            Ok(()) => self.model.resize(size),
            Err(Error::Unsupported { .. }) => assert!(self.given.contains(&("compat", "0.10"))),
            Err(error) => panic!("{error}"),
        }
    }

    fn reopen(&mut self) {
        disk(&self.image, None).flush().expect("a flush in memory");
        self.image = open(&self.store);
    }

    fn pack(&mut self) {
        let cluster = self.image.info().cluster_size.expect("qcow2 has clusters");
        if self.model.size() < cluster {
            return;
        }
        let at = self.random.below(self.model.size() / cluster) * cluster;
        let mut data = noise(at, cluster);
        data[usize::try_from(cluster / 2).expect("small")..].fill(1);
        if crate::common::write_packed(&*self.image, at, &data) {
            self.model.write(at, &data);
        }
    }

    fn change(&mut self) {
        if self.model.size() == 0 {
            return;
        }
        let cluster = self.image.info().cluster_size.expect("qcow2 has clusters");
        let operation = Aim::at(self.model.size(), cluster).random_operation(&mut self.random);
        let disk = disk(&self.image, None);
        match operation {
            Operation::Write { at, .. } => disk.write(GuestOffset(at), &operation.data()),
            Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap),
            Operation::Discard { at, len } => disk.zero(range(at, len), true),
            _ => disk.flush(),
        }
        .expect("an operation in memory");
        match operation {
            Operation::Discard { at, len } => self.model.zero(at, len),
            _ => self.model.apply(&operation),
        }
    }

    fn assert_holds(&self, when: &dyn std::fmt::Debug) {
        assert!(contents(Arc::clone(&self.image)) == self.model.contents(), "{when:?}");
        let listed = snapshots(&self.image).list().expect("a list");
        let ids: Vec<_> = listed.iter().map(|info| info.id.as_str()).collect();
        assert_eq!(ids, self.kept.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
        for (name, model) in &self.kept {
            let view = snapshots(&self.image).open(&id(name)).expect("it opens");
            let found = contents(view);
            assert!(found == model.contents(), "{when:?}: snapshot {name}");
        }
    }
}

#[test]
fn random_histories_with_snapshots_equal_byte_vectors_and_leave_nothing_behind() {
    for (seed, given) in (0..).zip(KINDS) {
        let mut history = History::new(given, seed);
        for step in 0..120 {
            history.step();
            let when = (seed, given, step);
            if step % 8 == 0 {
                history.assert_holds(&when);
            }
            if step % 24 == 0 {
                disk(&history.image, None).flush().expect("a flush in memory");
                assert_clean(&history.store, &when);
            }
        }
        history.reopen();
        history.assert_holds(&"opened again");
        assert_clean(&history.store, &given);
        if let Some(qemu) = Qemu::find() {
            let file = tempfile::NamedTempFile::new().expect("a file");
            save(&*history.store, file.path());
            assert_eq!(qemu.check(file.path(), "qcow2"), Ok(Checked { leaks: 0, corruptions: 0 }));
        }
    }
}

/// What a disk and its snapshots hold.
type State = (Vec<u8>, Vec<(String, Vec<u8>)>);

fn state_of(image: &Arc<dyn Image>) -> State {
    let list = snapshots(image).list().expect("a list");
    let kept = list.into_iter().map(|info| {
        let view = snapshots(image).open(&id(&info.id)).expect("it opens");
        (format!("{}/{}", info.id, info.name), contents(view))
    });
    (contents(Arc::clone(image)), kept.collect())
}

#[test]
fn after_a_power_failure_each_operation_is_done_or_not_begun_and_nothing_is_damaged() {
    let qemu = Qemu::find();
    for given in [KINDS[0], KINDS[2], KINDS[4]] {
        let made = memory();
        let image = create(&made, 60 * KIB, given);
        disk(&image, None).write(GuestOffset(0), &noise(1, 40 * KIB)).expect("written");
        disk(&image, None).flush().expect("flushed");
        drop(image);
        let crash = CrashStorage::over(bytes_of(&*made));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let image = open(&store);
        let mut states = vec![state_of(&image)];
        let mut after = |what: &str| {
            match what {
                "create" => drop(snapshots(&image).create(&named("x")).expect("created")),
                "rename" => snapshots(&image).rename(&id("1"), "other").expect("renamed"),
                "apply" => snapshots(&image).apply(&id("1")).expect("applied"),
                "delete" => snapshots(&image).delete(&id("1")).expect("deleted"),
                _ => {
                    disk(&image, None)
                        .write(GuestOffset(3000), &noise(7, 9 * KIB))
                        .expect("written");
                    disk(&image, None).flush().expect("flushed");
                }
            }
            crash.mark();
            states.push(state_of(&image));
        };
        let steps = ["create", "write", "create", "apply", "rename", "write", "delete", "create"];
        steps.into_iter().for_each(&mut after);
        for (number, state) in crash.torn_states(32, 3).enumerate() {
            let left: Arc<dyn Storage> = state.storage();
            let (report, told) = checked(Arc::clone(&left));
            assert_eq!((report.corruptions, report.check_errors), (0, 0), "{told}\n{state}");
            let found = state_of(&open(&left));
            let done = state.marks();
            // A write is not one step: its clusters are old or new, each for itself.
            let may_be = &states[done..=(done + 1).min(states.len() - 1)];
            let is_write = steps.get(done) == Some(&"write");
            let fits = may_be.contains(&found) || is_write && may_be[0].1 == found.1;
            assert!(fits, "{given:?}: after {done} steps\n{state}");
            if let Some(qemu) = &qemu
                && number % 64 == 0
            {
                assert_eq!(qemu.check_store(&left, "qcow2"), Ok(()), "{state}");
            }
        }
    }
}

#[test]
fn an_error_of_any_call_leaves_the_image_as_it_was() {
    let made = memory();
    let image = create(&made, 60 * KIB, KINDS[0]);
    disk(&image, None).write(GuestOffset(0), &noise(1, 40 * KIB)).expect("written");
    snapshots(&image).create(&named("first")).expect("created");
    disk(&image, None).write(GuestOffset(5000), &noise(3, 10 * KIB)).expect("written");
    disk(&image, None).flush().expect("flushed");
    drop(image);
    let bytes = bytes_of(&*made);
    for what in ["create", "apply", "delete", "rename"] {
        for call in 0.. {
            let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes.clone()));
            let faults = FaultStorage::new(Arc::clone(&inner));
            let store: Arc<dyn Storage> = Arc::new(faults.clone());
            let image = open(&store);
            let before = state_of(&image);
            faults.fail_call(call);
            let all = snapshots(&image);
            let done = match what {
                "create" => all.create(&named("second")).map(drop),
                "apply" => all.apply(&id("1")),
                "delete" => all.delete(&id("1")),
                _ => all.rename(&id("1"), "other"),
            };
            faults.heal();
            if done.is_ok() {
                assert!(call > 3, "{what}: nothing was asked of the store");
                break;
            }
            let now = state_of(&image);
            assert!(now == before || now == state_of(&open(&inner)), "{what}, call {call}");
            let _ = disk(&image, None).flush();
            drop(image);
            let (report, told) = checked(inner);
            assert_eq!((report.corruptions, report.check_errors), (0, 0), "{what} {call}: {told}");
        }
    }
}

#[test]
fn a_count_that_would_not_fit_is_refused_and_everything_is_as_before() {
    let full = [("1", 1), ("2", 3), ("4", 15)];
    for (bits, most) in full {
        let store = memory();
        let image = create(&store, 64 * KIB, &[("cluster_size", "4k"), ("refcount_bits", bits)]);
        disk(&image, None).write(GuestOffset(0), &noise(1, 20 * KIB)).expect("written");
        // The disk itself is the first reference.
        for number in 1..most {
            snapshots(&image).create(&named(&number.to_string())).expect("one more fits");
        }
        disk(&image, None).flush().expect("flushed");
        let (before, file) = (state_of(&image), bytes_of(&*store));
        let error = snapshots(&image).create(&named("one too many")).unwrap_err();
        let expected = format!(" is {}, more than the limit of {most}", most + 1);
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert_eq!(state_of(&image), before);
        // Room was taken before, and nobody gave it back who ended without a flush.
        assert!(bytes_of(&*store) == file, "{bits}: the file is another one");
        assert_clean(&store, &bits);
    }
}

#[test]
fn a_snapshot_that_is_open_is_neither_deleted_nor_renamed() {
    let image = create(&memory(), 64 * KIB, &[]);
    disk(&image, None).write(GuestOffset(0), &[1; 512]).expect("written");
    snapshots(&image).create(&named("kept")).expect("created");
    let view = snapshots(&image).open(&id("1")).expect("it opens");
    let refusal = "snapshot \"kept\" cannot be used: it is open";
    assert_eq!(snapshots(&image).delete(&id("1")).unwrap_err().to_string(), refusal);
    assert_eq!(snapshots(&image).rename(&id("1"), "x").unwrap_err().to_string(), refusal);
    drop(view);
    snapshots(&image).delete(&id("1")).expect("nobody reads it any more");
    let missing = snapshots(&image).apply(&SnapshotRef::Name("kept".into())).unwrap_err();
    assert_eq!(missing.to_string(), "there is no snapshot \"kept\"");
}

#[test]
fn a_disk_at_a_snapshot_is_read_over_the_layers_below_while_the_disk_goes_on() {
    let base = create(&memory(), 64 * KIB, &[]);
    disk(&base, None).write(GuestOffset(0), &[9; 8]).expect("it can be written");
    let image = create(&memory(), 64 * KIB, &[("cluster_size", "4096")]);
    let now = disk(&image, Some(base));
    now.write(GuestOffset(4096), &[1; 8]).expect("it can be written");
    snapshots(&image).create(&named("kept")).expect("a snapshot can be made");
    let then = now.at_snapshot(&SnapshotRef::Name("kept".into())).expect("it opens");
    now.write(GuestOffset(0), &[2; 8]).expect("it can be written");
    now.write(GuestOffset(4096), &[2; 8]).expect("it can be written");
    let first = |disk: &Disk, at| {
        let mut byte = [0];
        disk.read(GuestOffset(at), &mut byte).map(|()| byte[0]).expect("it can be read")
    };
    assert_eq!([first(&then, 0), first(&then, 4096)], [9, 1]);
    assert_eq!([first(&now, 0), first(&now, 4096)], [2, 2]);
    assert!(!then.is_writable());
}

#[test]
fn an_image_opened_for_reading_lists_and_opens_and_changes_nothing() {
    let store = memory();
    let image = create(&store, 64 * KIB, &[]);
    snapshots(&image).create(&named("kept")).expect("created");
    let before = bytes_of(&*store);
    let image = try_open(&store, Access::Read).expect("it opens");
    let all = snapshots(&image);
    assert_eq!(all.list().expect("a list").len(), 1);
    assert_eq!(all.open(&id("1")).expect("it opens").size(), 64 * KIB);
    assert!(matches!(all.create(&named("x")), Err(Error::ReadOnly { .. })));
    assert!(matches!(all.apply(&id("1")), Err(Error::ReadOnly { .. })));
    assert!(matches!(all.delete(&id("1")), Err(Error::ReadOnly { .. })));
    assert!(matches!(all.rename(&id("1"), "x"), Err(Error::ReadOnly { .. })));
    assert!(bytes_of(&*store) == before);
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn writers_in_flight_write_wholly_before_or_wholly_after_a_snapshot() {
    let store = memory();
    let image = create(&store, 256 * KIB, &[("cluster_size", "4k")]);
    let writing = disk(&image, None);
    writing.write(GuestOffset(0), &vec![1; 256 << 10]).expect("written");
    let (stop, last) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (writing, stop, last) = (&writing, &stop, &last);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                // One number over whole pieces: a piece of two numbers was cut in two.
                while !stop.load(Relaxed) {
                    let byte = u8::try_from(last.fetch_add(1, Relaxed) % 200 + 1).expect("small");
                    let at = (thread * 16 + random.below(16)) * 4 * KIB;
                    writing.write(GuestOffset(at), &[byte; 4096]).expect("written");
                    if random.chance(1, 50) {
                        writing.flush().expect("flushed");
                    }
                }
            });
        }
        // However this ends, the writers must.
        let _ending = Ending(&stop);
        let mut views = std::collections::VecDeque::new();
        for number in 0..30 {
            let info = snapshots(&image).create(&named(&number.to_string())).expect("created");
            let view = snapshots(&image).open(&id(&info.id)).expect("it opens");
            views.push_back((info.id, contents(Arc::clone(&view)), view));
            if number % 10 == 9 {
                let (old, ..) = views.pop_front().expect("there are some");
                snapshots(&image).delete(&id(&old)).expect("nobody reads it");
            }
        }
        stop.store(true, Relaxed);
        for (_, before, view) in views {
            let now = contents(view);
            assert!(now == before, "a snapshot changed after it was made");
            let pieces = now.chunks(4096);
            let whole = pieces.into_iter().all(|piece| piece.iter().all(|byte| *byte == piece[0]));
            assert!(whole, "a snapshot holds half a write");
        }
    });
    writing.flush().expect("flushed");
    assert_clean(&store, &"after all");
}

#[test]
fn machine_state_and_unknown_extra_data_are_kept_and_can_be_read() {
    let golden = |name: &str| {
        let cases = anydisk_testkit::golden::cases("qcow2");
        let case = cases.iter().find(|case| case.name == name).expect("a golden image");
        load(&case.unpack().path)
    };
    let store = golden("snap-vmstate");
    let image = WritableImage::open(Arc::clone(&store), &Limits::default()).expect("it opens");
    let before = image.vm_state(&id("1")).expect("it can be read").expect("there is one");
    assert_eq!(before.size(), 600);
    let before = contents(before);
    assert!(before.iter().any(|byte| *byte != 0));
    let image: Arc<dyn Image> = Arc::new(image);
    snapshots(&image).create(&named("another")).expect("created");
    snapshots(&image).rename(&id("1"), "renamed").expect("renamed");
    snapshots(&image).apply(&id("1")).expect("applied");
    disk(&image, None).write(GuestOffset(0), &[9; 4096]).expect("written");
    disk(&image, None).flush().expect("flushed");
    drop(image);
    let image = Qcow2Image::open(Arc::clone(&store), &Limits::default()).expect("it opens");
    let after = image.vm_state(&id("1")).expect("it can be read").expect("it is still there");
    assert!(contents(after) == before);
    assert_eq!(Snapshots::list(&image).expect("a list")[0].vm_state_size, 600);
    assert_clean(&store, &"with machine state");

    let store = golden("snap-extra-40");
    let image = open(&store);
    let extra = |store: &dyn Storage| {
        let at = Dump::of(store).header.snapshots_offset;
        let mut bytes = vec![0; 40];
        store.read_at(at.saturating_add(40), &mut bytes).expect("read");
        bytes
    };
    let before = extra(&*store);
    snapshots(&image).rename(&id("1"), "renamed").expect("renamed");
    assert_eq!(extra(&*store), before);
}

#[test]
fn what_we_keep_qemu_applies_and_what_qemu_keeps_we_apply() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    let clean = Ok(Checked { leaks: 0, corruptions: 0 });
    for (number, options) in
        ["cluster_size=512", "cluster_size=4k,compat=0.10", "extended_l2=on"].iter().enumerate()
    {
        qemu.create("qcow2", &[options], &path, "300k");
        qemu.io(&path, "qcow2", &["write -P 1 0 100k", "write -c -P 2 128k 64k"]);
        qemu_snapshot(&["-c", "theirs"], &path);
        qemu.io(&path, "qcow2", &["write -P 3 50k 20k", "discard 0 30k"]);
        let store = load(&path);
        let image = open(&store);
        let before = contents(Arc::clone(&image));
        let ours = snapshots(&image).create(&named("ours")).expect("created");
        assert_eq!((&*ours.id, ours.size), ("2", 300 * KIB));
        snapshots(&image).apply(&SnapshotRef::Name("theirs".into())).expect("applied");
        assert!(contents(Arc::clone(&image))[..100 << 10].iter().all(|byte| *byte == 1));
        disk(&image, None).write(GuestOffset(10_000), &[5; 3000]).expect("written");
        disk(&image, None).flush().expect("flushed");
        save(&*store, &path);
        assert_eq!(qemu.check(&path, "qcow2"), clean, "{options}");
        let listed = qemu_snapshot(&["-l"], &path);
        assert!(listed.contains("theirs") && listed.contains("ours"), "{listed}");
        qemu_snapshot(&["-a", "ours"], &path);
        assert!(contents(open(&load(&path))) == before, "{options}");
        qemu_snapshot(&["-d", "theirs"], &path);
        assert_eq!(qemu.check(&path, "qcow2"), clean, "{options}");
        let store = load(&path);
        let image = open(&store);
        snapshots(&image).delete(&id("2")).expect("deleted");
        assert!(contents(Arc::clone(&image)) == before, "{number}");
        save(&*store, &path);
        assert_eq!(qemu.check(&path, "qcow2"), clean, "{options}");
    }
}

#[test]
fn many_snapshots_of_an_image_cost_no_more_each_than_the_first() {
    let store = memory();
    let image = create(&store, 8 << 20, &[("cluster_size", "4k")]);
    disk(&image, None).write(GuestOffset(0), &noise(1, 4 << 20)).expect("written");
    for number in 0..300 {
        let at = number * 7919 % 1000 * 4096;
        disk(&image, None).write(GuestOffset(at), &[7; 4096]).expect("written");
        snapshots(&image).create(&named(&number.to_string())).expect("created");
    }
    let grown = store.len().expect("a length");
    // 4 MiB of data, and for each snapshot a cluster of data and two of tables; tables that are
    // written anew use the places of those before.
    assert!(grown < (4 << 20) + 300 * 4 * 4096 + (1 << 20), "{grown} bytes");
    for number in (0..300).step_by(2) {
        let which = SnapshotRef::Name(number.to_string());
        snapshots(&image).delete(&which).expect("deleted");
    }
    assert_eq!(snapshots(&image).list().expect("a list").len(), 150);
    assert_clean(&store, &"after all");
}

/// The format and all its readers know no more than 65,536.
#[test]
fn more_snapshots_than_the_format_knows_are_refused_with_both_numbers() {
    let store = memory();
    create(&store, 1 << 20, &[]);
    let end = store.len().expect("a length").next_multiple_of(1 << 16);
    let mut table = Vec::new();
    for number in 1..=65_536_u32 {
        let id = number.to_string();
        let strings = [u16::try_from(id.len()).expect("short"), 0].map(u16::to_be_bytes).concat();
        table.extend([&[0; 12][..], &strings, &[0; 20], &16_u32.to_be_bytes()].concat());
        table.extend([[0; 8], (1_u64 << 20).to_be_bytes()].concat());
        table.extend(id.as_bytes());
        table.resize(table.len().next_multiple_of(8), 0);
    }
    store.write_at(HostOffset(end), &table).expect("a write to memory");
    let named = [&65_536_u32.to_be_bytes()[..], &end.to_be_bytes()].concat();
    store.write_at(HostOffset(60), &named).expect("a write to memory");
    let image = open(&store);
    let snapshots = image.snapshots().expect("qcow2 has snapshots");
    assert_eq!(snapshots.list().expect("a list").len(), 65_536);
    let one_more = NewSnapshot { name: "one more".into(), ..NewSnapshot::default() };
    let error = snapshots.create(&one_more).expect_err("there are too many");
    let told = "qcow2: number of snapshots is 65537, more than the limit of 65536";
    assert_eq!(error.to_string(), told);
    assert_eq!(Dump::of(&*store).header.nb_snapshots, 65_536);
    // One that says that it has more is not opened.
    store.write_at(HostOffset(60), &65_537_u32.to_be_bytes()).expect("a write to memory");
    let error = try_open(&store, Access::Read).expect_err("there are too many");
    assert_eq!(error.to_string(), told);
}
