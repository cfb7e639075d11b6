//! Power failures during every operation on an image as a whole: all subsets of the writes that were
//! not flushed, for each operation alone; some of them for random sequences, and for two threads.
//!
//! What is asked of each state that may be left: it opens for writing; disk, snapshots and bitmaps
//! are as before or as after the operation; nothing is damaged, here and for qemu-img; and the
//! image can be used on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread;

use anydisk_core::{
    Access, AmendRequest, Bitmaps, CheckReport, CheckRequest, Disk, Format, GuestOffset,
    HostOffset, Image, Layer, Limits, Location, NewBitmap, NewSnapshot, OpenRequest, Options,
    Preallocation, Repair, SnapshotRef, Snapshots, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::Random;
use anydisk_testkit::contents;
use anydisk_testkit::double::{CrashState, CrashStorage};
use anydisk_testkit::oracle::Qemu;

use crate::common::{Dump, Given, create, memory, open, range, save, try_open};

const SIZE: u64 = 24 << 10;
const SECTOR: u64 = 512;
/// All subsets of so many writes.
const ALL: usize = 12;

/// What there is in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    disk: Vec<u8>,
    /// ID, name and content.
    snapshots: Vec<(String, String, Vec<u8>)>,
    bitmaps: Vec<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    name: String,
    enabled: bool,
    /// `None`: it says itself that it cannot be relied on.
    ranges: Option<Vec<(u64, u64)>>,
}

fn snapshots(image: &Arc<dyn Image>) -> &dyn Snapshots {
    image.snapshots().expect("qcow2 has snapshots")
}

fn bitmaps(image: &Arc<dyn Image>) -> &dyn Bitmaps {
    image.bitmaps().expect("qcow2 has bitmaps")
}

impl State {
    fn of(image: &Arc<dyn Image>) -> Self {
        let kept = snapshots(image).list().expect("a list").into_iter().map(|info| {
            let view = snapshots(image).open(&SnapshotRef::Id(info.id.clone())).expect("it opens");
            (info.id, info.name, contents(&Disk::new(view)))
        });
        let told = bitmaps(image).list().expect("a list").into_iter().map(|info| {
            let ranges = (!info.inconsistent).then(|| ranges(image, &info.name));
            Told { name: info.name, enabled: info.enabled, ranges }
        });
        let disk = contents(&Disk::new(Arc::clone(image)));
        Self { disk, snapshots: kept.collect(), bitmaps: told.collect() }
    }

    /// Whether it is `before` or `after`, as a power failure may leave it. With `in_parts` each
    /// sector of the disk is one or the other by itself.
    fn fits(&self, before: &Self, after: &Self, in_parts: bool) -> bool {
        let snapshots = [before, after].map(|state| state.snapshots == self.snapshots);
        let disks = [before, after].map(|state| state.disk == self.disk);
        let disk = match in_parts {
            true => self.is_mixed(before, after),
            // What is the disk's and what the snapshots' changes at once.
            false => (0..2).any(|which| disks[which] && snapshots[which]),
        };
        disk && snapshots.contains(&true) && self.bitmaps_fit(before, after)
    }

    fn is_mixed(&self, before: &Self, after: &Self) -> bool {
        let sector = |state: &Self, at: usize| state.disk.get(at..at + 512).map(<[u8]>::to_vec);
        let len = self.disk.len();
        [before, after].iter().any(|state| state.disk.len() == len)
            && (0..len).step_by(512).all(|at| {
                let (found, was, is) = (sector(self, at), sector(before, at), sector(after, at));
                // What a shrink drops may be gone before the end moves.
                found == was || found == is || is.is_none() && found == Some(vec![0; 512])
            })
    }

    /// A bitmap that can be relied on tells what it told before or tells after, and all that has
    /// changed in any case.
    fn bitmaps_fit(&self, before: &Self, after: &Self) -> bool {
        let one_of = |told: &Told| {
            let twins = [before, after]
                .map(|state| state.bitmaps.iter().find(|twin| twin.name == told.name).cloned());
            let fits = |twin: &Told| told.ranges.is_none() || told.ranges == twin.ranges;
            let has_changed = self.disk != before.disk && told.enabled;
            match twins {
                [Some(_), Some(after)] if has_changed => fits(&after),
                twins => twins.iter().flatten().any(fits),
            }
        };
        let names = |state: &Self| -> Vec<String> {
            state.bitmaps.iter().map(|told| told.name.clone()).collect()
        };
        let known = [names(before), names(after)].contains(&names(self));
        known && self.bitmaps.iter().all(one_of)
    }
}

fn ranges(image: &Arc<dyn Image>, name: &str) -> Vec<(u64, u64)> {
    let mut changes = bitmaps(image).changes(name).expect("it can be read");
    let (mut told, mut from) = (Vec::new(), GuestOffset(0));
    while let Some(range) = changes.next(from).expect("it can be read") {
        from = range.end();
        told.push((range.start().get(), from.get()));
    }
    told
}

/// Something done to the image in a store, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Apply,
    Delete,
    Rename,
    AddBitmap,
    RemoveBitmap,
    ClearBitmap,
    SwitchBitmap,
    Merge,
    Write,
    Discard,
    Grow,
    Shrink,
    Lazy,
    Wider,
    Compact,
    Repair,
}

use Step::{
    AddBitmap, Apply, ClearBitmap, Compact, Create, Delete, Discard, Grow, Lazy, Merge,
    RemoveBitmap, Rename, Shrink, SwitchBitmap, Wider, Write,
};

impl Step {
    const ALL: [Self; 17] = [
        Create,
        Apply,
        Delete,
        Rename,
        AddBitmap,
        RemoveBitmap,
        ClearBitmap,
        SwitchBitmap,
        Merge,
        Write,
        Discard,
        Grow,
        Shrink,
        Lazy,
        Wider,
        Compact,
        Self::Repair,
    ];

    /// Whether a part of it may be done.
    fn is_in_parts(self) -> bool {
        matches!(self, Write | Discard | Shrink)
    }

    fn take(self, store: &Arc<dyn Storage>, number: u64) {
        match self {
            Lazy => {
                amend(store, "lazy_refcounts", if number.is_multiple_of(2) { "on" } else { "off" })
            }
            Wider => amend(store, "refcount_bits", ["8", "32", "16"][usize_of(number % 3)]),
            Compact => {
                let image = open(store);
                let compactor = image.compactor().expect("it is open for writing");
                compactor.compact(&|_, _| true).expect("compacted");
            }
            Self::Repair => repair(store),
            _ => {
                let image = open(store);
                self.take_in(&image, number);
                Disk::new(image).flush().expect("flushed");
            }
        }
    }

    fn take_in(self, image: &Arc<dyn Image>, number: u64) {
        let disk = Disk::new(Arc::clone(image));
        let first = snapshots(image).list().expect("a list").first().map(|info| info.id.clone());
        let first = first.map(SnapshotRef::Id);
        let bitmap = bitmaps(image).list().expect("a list").first().cloned();
        match (self, first, bitmap) {
            (Create, ..) => {
                let new = NewSnapshot { name: format!("s{number}"), date: (1, 2) };
                snapshots(image).create(&new).expect("created");
            }
            (Apply, Some(first), _) => snapshots(image).apply(&first).expect("applied"),
            (Delete, Some(first), _) => snapshots(image).delete(&first).expect("deleted"),
            (Rename, Some(first), _) => {
                snapshots(image).rename(&first, &format!("r{number}")).expect("renamed");
            }
            (AddBitmap, ..) => {
                let name = format!("b{number}");
                let new = NewBitmap { name, granularity: Some(512), enabled: true };
                bitmaps(image).add(&new).expect("added");
            }
            (RemoveBitmap, _, Some(first)) => bitmaps(image).remove(&first.name).expect("removed"),
            (ClearBitmap, _, Some(first)) => bitmaps(image).clear(&first.name).expect("cleared"),
            (SwitchBitmap, _, Some(first)) => {
                bitmaps(image).set_enabled(&first.name, !first.enabled).expect("switched");
            }
            (Merge, _, Some(first)) => {
                let last = bitmaps(image).list().expect("a list").pop().expect("the same at least");
                let mut changes = bitmaps(image).changes(&last.name).expect("it can be read");
                bitmaps(image).merge(&first.name, &mut *changes).expect("merged");
            }
            (Write, ..) => {
                let data = noise(number + 1, 2 * SECTOR);
                let at = number * 5 % (disk.size() / SECTOR - 2) * SECTOR;
                disk.write(GuestOffset(at), &data).expect("written");
            }
            (Discard, ..) => disk.discard(range(0, 4 * SECTOR)).expect("discarded"),
            (Grow, ..) => resize(&disk, disk.size() + 9 * SECTOR),
            (Shrink, ..) => resize(&disk, disk.size() / 2 / SECTOR * SECTOR + 4 * SECTOR),
            _ => {}
        }
    }
}

fn resize(disk: &Disk, size: u64) {
    disk.resize(size, Preallocation::Off).expect("it has another size");
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize_of(len)];
    Random::new(seed).fill(&mut bytes);
    bytes
}

fn with_request<R>(store: &Arc<dyn Storage>, run: impl FnOnce(OpenRequest<'_>) -> R) -> R {
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let mut request = OpenRequest::new(Arc::clone(store), &location, &limits);
    request.access = Access::ReadWrite;
    run(request)
}

fn amend(store: &Arc<dyn Storage>, name: &str, value: &str) {
    let mut options = Options::to_amend(&QCOW2);
    options.set(name, value).expect("an option");
    with_request(store, |open| QCOW2.amend(AmendRequest { open, options: &options, force: false }))
        .expect("amended");
}

/// Loses the cluster behind the end of the file, and repairs that.
fn repair(store: &Arc<dyn Storage>) {
    let dump = Dump::of(&**store);
    let (size, bytes) = (dump.header.cluster_size(), u64::from(dump.header.refcount_bits() / 8));
    let lost = store.len().expect("a length").div_ceil(size);
    let per_block = size / bytes;
    let table = dump.header.refcount_table_offset.get();
    let block = dump.word(table + lost / per_block * 8);
    if block != 0 {
        store.set_len((lost + 1) * size).expect("it grows");
        let at = HostOffset(block + lost % per_block * bytes);
        store.write_at(at, &1_u64.to_be_bytes()[usize_of(8 - bytes)..]).expect("written");
        store.flush().expect("flushed");
    }
    assert!(mend(store).is_clean());
}

/// An image with data, two snapshots and two bitmaps.
fn prepared(given: Given<'_>) -> Vec<u8> {
    let store = memory();
    let image = create(&store, SIZE, given);
    let disk = Disk::new(Arc::clone(&image));
    disk.write(GuestOffset(1024), &noise(1, 6 << 10)).expect("written");
    Create.take_in(&image, 100);
    disk.write(GuestOffset(3000), &noise(2, 2 << 10)).expect("written");
    AddBitmap.take_in(&image, 100);
    Create.take_in(&image, 101);
    AddBitmap.take_in(&image, 101);
    disk.write(GuestOffset(5000), &noise(3, 700)).expect("written");
    disk.flush().expect("flushed");
    bytes_of(&*store)
}

fn bytes_of(store: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize_of(store.len().expect("a length"))];
    store.read_at(HostOffset(0), &mut bytes).expect("read");
    bytes
}

/// The image that a power failure left, which must open and be undamaged.
fn survivor(state: &CrashState, when: &dyn std::fmt::Debug) -> Arc<dyn Image> {
    let store: Arc<dyn Storage> = state.storage();
    let mut told = String::new();
    let report = with_request(&store, |open| {
        QCOW2.check(&CheckRequest::new(open), &mut |found| told += &found.text)
    });
    let report = report.unwrap_or_else(|error| panic!("{when:?}: {error}\n{state}"));
    let damage = (report.corruptions, report.check_errors);
    assert!(damage == (0, 0) || Dump::of(&*store).header.is_dirty(), "{when:?}: {told}\n{state}");
    try_open(&store, Access::ReadWrite).unwrap_or_else(|e| panic!("{when:?}: {e}\n{state}"))
}

/// Whether the image can be used as if nothing had happened.
fn assert_goes_on(image: &Arc<dyn Image>, when: &dyn std::fmt::Debug) {
    let before = State::of(image);
    Create.take_in(image, 900);
    let disk = Disk::new(Arc::clone(image));
    disk.write(GuestOffset(0), &[9; 1024]).expect("written");
    Delete.take_in(image, 0);
    disk.flush().expect("flushed");
    let after = State::of(image);
    assert!(
        after.disk[1024..] == before.disk[1024..] && after.disk[..1024] == [9; 1024],
        "{when:?}"
    );
}

/// A judge that is asked now and then: it is a process of its own.
struct Judge {
    qemu: Option<Qemu>,
    folder: tempfile::TempDir,
    asked: u64,
}

impl Judge {
    fn new() -> Self {
        Self { qemu: Qemu::find(), folder: tempfile::tempdir().expect("a folder"), asked: 0 }
    }

    fn look(&mut self, state: &CrashState, often: u64, when: &dyn std::fmt::Debug) {
        self.asked += 1;
        let Some(qemu) = self.qemu.as_ref().filter(|_| self.asked.is_multiple_of(often)) else {
            return;
        };
        let path = self.folder.path().join("image.qcow2");
        save(&*state.storage(), &path);
        let damage = qemu.check(&path, "qcow2").map(|checked| checked.corruptions);
        assert_eq!(damage, Ok(0), "{when:?}\n{state}");
    }
}

#[test]
fn no_subset_of_the_writes_of_any_operation_is_anything_but_before_or_after() {
    let mut judge = Judge::new();
    for given in [&[("cluster_size", "512")][..], &[("cluster_size", "4k"), ("refcount_bits", "8")]]
    {
        let bytes = prepared(given);
        for step in Step::ALL {
            let crash = CrashStorage::over(bytes.clone());
            let store: Arc<dyn Storage> = Arc::new(crash.clone());
            let before = State::of(&open(&store));
            let crash = CrashStorage::over(bytes_of(&*store));
            let store: Arc<dyn Storage> = Arc::new(crash.clone());
            step.take(&store, 4);
            crash.mark();
            let after = State::of(&open(&store));
            let longest = crash.longest_stretch();
            assert!(longest <= ALL, "{step:?} writes {longest} times between two flushes");
            let when = (given, step);
            let mut states = 0;
            for state in crash.states(1 << ALL, 1) {
                let image = survivor(&state, &when);
                let found = State::of(&image);
                let fits = found.fits(&before, &after, step.is_in_parts());
                assert!(fits, "{when:?}\n{state}");
                assert!(state.marks() == 0 || found == after, "{when:?}: not durable\n{state}");
                if states % 16 == 0 {
                    assert_goes_on(&image, &(when, state.to_string()));
                }
                judge.look(&state, 97, &when);
                states += 1;
            }
            assert!(states > 1 || step == Compact, "{when:?}: nothing was written");
        }
    }
}

#[test]
fn no_power_failure_in_a_random_sequence_of_operations_loses_what_was_done() {
    let mut judge = Judge::new();
    for seed in 0..6 {
        let given: Given<'_> = match seed % 3 {
            0 => &[("cluster_size", "512")],
            1 => &[("cluster_size", "1k"), ("lazy_refcounts", "on")],
            _ => &[("cluster_size", "16k"), ("extended_l2", "on")],
        };
        let crash = CrashStorage::over(prepared(given));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let mut random = Random::new(seed);
        let mut states = vec![State::of(&open(&store))];
        let mut steps = Vec::new();
        for number in 0..8 {
            // Leaking something on purpose is for itself.
            let step = Step::ALL[random.index(Step::ALL.len() - 1)];
            step.take(&store, number);
            crash.mark();
            states.push(State::of(&open(&store)));
            steps.push(step);
        }
        for (number, state) in crash.torn_states(24, seed).enumerate() {
            let done = state.marks();
            let when = (seed, given, &steps, done);
            let image = survivor(&state, &when);
            let after = &states[(done + 1).min(states.len() - 1)];
            let in_parts = steps.get(done).is_some_and(|step| step.is_in_parts());
            let fits = State::of(&image).fits(&states[done], after, in_parts);
            assert!(fits, "{when:?}\n{state}");
            if number % 16 == 0 {
                assert_goes_on(&image, &when);
            }
            judge.look(&state, 61, &when);
        }
    }
}

/// Damage of refcounts and flags.
type Harm = (&'static str, fn(&dyn Storage));

const HARMS: [Harm; 4] = [
    ("a refcount table without its block", |store| {
        let table = Dump::of(store).header.refcount_table_offset;
        store.write_at(table, &[0; 8]).expect("written");
    }),
    ("a block of wrong refcounts", |store| {
        let block = Dump::of(store).word(Dump::of(store).header.refcount_table_offset.get());
        let wrong = [[0, 0], [0, 7], [0, 1]].concat();
        store.write_at(HostOffset(block + 20), &wrong.repeat(9)).expect("written");
    }),
    ("an L1 entry without its flag", |store| flip_copied(store, false)),
    ("an L2 entry with a flag that it should not have", |store| flip_copied(store, true)),
];

/// Changes the COPIED flag of the first entry of the first table, or of the L1 table.
fn flip_copied(store: &dyn Storage, below: bool) {
    let l1 = Dump::of(store).header.l1_table_offset.get();
    let table = Dump::of(store).word(l1) & 0x00ff_ffff_ffff_fe00;
    // The first clusters hold nothing: the third one does.
    let at = if below { table + 2 * 8 } else { l1 };
    let word = Dump::of(store).word(at) ^ (1 << 63);
    store.write_at(HostOffset(at), &word.to_be_bytes()).expect("written");
}

/// The state of an image that need not be in order.
fn read_only(store: &Arc<dyn Storage>) -> State {
    State::of(&try_open(store, Access::Read).expect("it opens for reading"))
}

/// A repair that is cut short anywhere leaves everything readable, and can be done again.
#[test]
fn no_subset_of_the_writes_of_a_repair_changes_what_can_be_read() {
    for (what, harm) in HARMS {
        let store = memory();
        store.write_at(HostOffset(0), &prepared(&[("cluster_size", "512")])).expect("written");
        let expected = read_only(&store);
        harm(&*store);
        assert!(read_only(&store) == expected, "{what}: nothing that can be read was harmed");
        let crash = CrashStorage::over(bytes_of(&*store));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let report = mend(&store);
        assert!(report.is_clean(), "{what}: {report:?}");
        let longest = crash.longest_stretch();
        assert!(longest <= ALL, "{what}: {longest} writes between two flushes");
        let mut states = 0;
        for state in crash.states(1 << ALL, 1) {
            let store: Arc<dyn Storage> = state.storage();
            assert!(read_only(&store) == expected, "{what}\n{state}");
            let again = mend(&store);
            assert!(again.is_clean(), "{what}: then {again:?}\n{state}");
            assert!(read_only(&store) == expected, "{what}, mended\n{state}");
            states += 1;
        }
        assert!(states > 1, "{what}: nothing was repaired");
    }
}

fn mend(store: &Arc<dyn Storage>) -> CheckReport {
    with_request(store, |open| {
        QCOW2.check(&CheckRequest::new(open).repairing(Repair::All), &mut |_| {})
    })
    .expect("it can be checked")
}

/// An overlay is committed: what it holds is written to the image below, which is flushed, and then
/// it is emptied. The chain holds the same at any moment.
#[test]
fn no_power_failure_while_an_overlay_is_committed_and_emptied_changes_what_the_chain_holds() {
    let over: Given<'_> =
        &[("cluster_size", "512"), ("backing_file", "below"), ("backing_fmt", "qcow2")];
    let (below, above) = (prepared(&[("cluster_size", "512")]), memory());
    let chain = |above: &Arc<dyn Storage>, below: &Arc<dyn Storage>| {
        let layers = [(open(above), "above"), (open(below), "below")];
        let layers = layers.map(|(image, name)| Layer::new(image, name));
        Disk::from_layers(layers.into(), &Limits::default())
    };
    drop(create(&above, SIZE, over));
    let lower: Arc<dyn Storage> = Arc::new(CrashStorage::over(below));
    let top = chain(&above, &lower);
    top.write(GuestOffset(700), &noise(7, 3000)).expect("written");
    top.zero(range(5 << 10, 2 << 10), true).expect("zeroed");
    top.flush().expect("flushed");
    let expected = contents(&top);
    drop(top);
    // Down.
    let crash = CrashStorage::over(bytes_of(&*lower));
    let lower: Arc<dyn Storage> = Arc::new(crash.clone());
    let base = Disk::new(open(&lower));
    base.write(GuestOffset(0), &expected).expect("written");
    base.flush().expect("flushed");
    drop(base);
    let mut states = 0;
    for state in crash.torn_states(1 << ALL, 3).step_by(7) {
        drop(survivor(&state, &"committed"));
        let lower: Arc<dyn Storage> = state.storage();
        assert!(contents(&chain(&above, &lower)) == expected, "{state}");
        states += 1;
    }
    // And emptied.
    let crash = CrashStorage::over(bytes_of(&*above));
    let upper: Arc<dyn Storage> = Arc::new(crash.clone());
    open(&upper).backing_link().expect("it has one").make_empty().expect("emptied");
    assert!(crash.longest_stretch() <= ALL);
    for state in crash.states(1 << ALL, 3) {
        drop(survivor(&state, &"emptied"));
        let upper: Arc<dyn Storage> = state.storage();
        assert!(contents(&chain(&upper, &lower)) == expected, "{state}");
        states += 1;
    }
    assert!(states > 50, "{states} states");
}

/// What a thread knows to be durable: at which mark, and the least number that each of its sectors
/// then had.
type Acknowledged = (usize, Vec<u8>);

/// Two threads write sectors of their own in the same clusters, and flush when they like. What a
/// flush of one of them had acknowledged is there, whatever the other was doing.
#[test]
fn what_either_of_two_threads_had_flushed_is_there_after_any_power_failure() {
    const SECTORS: u64 = 40;
    let mut judge = Judge::new();
    for (seed, cluster) in [(1, "1k"), (2, "4k"), (3, "16k")] {
        let made = memory();
        drop(create(&made, SECTORS * SECTOR, &[("cluster_size", cluster)]));
        let crash = CrashStorage::over(bytes_of(&*made));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let disk = Disk::new(open(&store));
        let known: [Mutex<Vec<Acknowledged>>; 2] = Default::default();
        thread::scope(|scope| {
            for thread in 0..2 {
                let (disk, crash, known) = (&disk, &crash, &known[usize_of(thread)]);
                scope.spawn(move || write_and_flush(disk, crash, thread, seed, known));
            }
        });
        let known = known.map(|known| known.into_inner().expect("no panic"));
        let mut seen = BTreeSet::new();
        for state in crash.torn_states(6, seed) {
            let image = survivor(&state, &(seed, cluster));
            let found = contents(&Disk::new(image));
            for (thread, known) in known.iter().enumerate() {
                let last = known.iter().rev().find(|(mark, _)| *mark <= state.marks());
                seen.extend(last.map(|(mark, _)| *mark));
                for (index, sector) in found.chunks(512).skip(thread).step_by(2).enumerate() {
                    assert!(sector.iter().all(|byte| *byte == sector[0]), "torn\n{state}");
                    let least = last.map_or(0, |(_, least)| least[index]);
                    let byte = sector[0];
                    assert!(byte >= least, "{byte} instead of {least} and later\n{state}");
                }
            }
            judge.look(&state, 40, &(seed, cluster));
        }
        assert!(seen.len() > 10, "{} flushes were looked at", seen.len());
    }
}

/// Writes rising numbers to sectors of one's own: every second one of the disk.
fn write_and_flush(
    disk: &Disk,
    crash: &CrashStorage,
    thread: u64,
    seed: u64,
    known: &Mutex<Vec<Acknowledged>>,
) {
    let mut random = Random::new(seed * 2 + thread);
    let mut now = vec![0_u8; 20];
    for number in 1..=120 {
        let index = random.below(20);
        let at = (index * 2 + thread) * SECTOR;
        disk.write(GuestOffset(at), &[number; 512]).expect("written");
        now[usize_of(index)] = number;
        if random.chance(1, 5) {
            disk.flush().expect("flushed");
            known.lock().expect("no panic").push((crash.mark(), now.clone()));
        }
    }
}
