//! Persistent dirty bitmaps: what was written is told, whoever wrote it and whenever the power
//! fails; at worst a bitmap says of itself that it cannot be trusted.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::common::{
    create, disk, load, memory, open, range, save, try_create, try_open, write_packed,
};
use anydisk_core::{
    Access, Bitmaps, Changes, Error, GuestOffset, GuestRange, Image, NewBitmap, Storage,
};
use anydisk_testkit::contents;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::golden;
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{Aim, Operation, Random};

const SIZE: u64 = 2 << 20;

fn bitmaps(image: &Arc<dyn Image>) -> &dyn Bitmaps {
    image.bitmaps().expect("qcow2 has bitmaps")
}

fn new(name: &str, granularity: u64, enabled: bool) -> NewBitmap {
    NewBitmap { name: name.into(), granularity: Some(granularity), enabled }
}

fn add(image: &Arc<dyn Image>, name: &str, granularity: u64) {
    bitmaps(image).add(&new(name, granularity, true)).expect("added");
}

/// All ranges, as start and end.
fn ranges(changes: &mut dyn Changes) -> Vec<(u64, u64)> {
    let (mut found, mut from) = (Vec::new(), GuestOffset(0));
    while let Some(range) = changes.next(from).expect("it reads") {
        found.push((range.start().get(), range.end().get()));
        from = range.end();
    }
    found
}

fn told(image: &Arc<dyn Image>, name: &str) -> Vec<(u64, u64)> {
    ranges(&mut *bitmaps(image).changes(name).expect("a good bitmap"))
}

fn flush(image: &Arc<dyn Image>) {
    image.writer().expect("open for writing").flush().expect("flushed");
}

/// What a bitmap should tell: a flag for each piece of the disk.
#[derive(Clone)]
struct Model {
    granularity: u64,
    dirty: Vec<bool>,
}

impl Model {
    fn new(granularity: u64) -> Self {
        let count = usize::try_from(SIZE.div_ceil(granularity)).expect("small");
        Self { granularity, dirty: vec![false; count] }
    }

    fn mark(&mut self, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        let index = |at: u64| usize::try_from(at).expect("small");
        self.dirty[index(at / self.granularity)..index((at + len).div_ceil(self.granularity))]
            .fill(true);
    }

    fn ranges(&self) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for (number, _) in (0..).zip(&self.dirty).filter(|(_, dirty)| **dirty) {
            let (start, end): (u64, u64) =
                (number * self.granularity, (number + 1) * self.granularity);
            match found.last_mut() {
                Some(last) if last.1 == start => last.1 = end.min(SIZE),
                _ => found.push((start, end.min(SIZE))),
            }
        }
        found
    }
}

#[test]
fn a_bitmap_tells_what_was_written_since_it_was_added_and_still_does_when_opened_again() {
    for (cluster, granularity) in [("512", 512), ("64k", 512), ("64k", 65536), ("4k", 1 << 20)] {
        let store = memory();
        let image = create(&store, SIZE, &[("cluster_size", cluster)]);
        let top = disk(&image, None);
        top.write(GuestOffset(0), &[9; 5000]).expect("written");
        add(&image, "one", granularity);
        assert!(told(&image, "one").is_empty(), "what was written before is not told");
        let mut model = Model::new(granularity);
        for (at, len) in [(700, 5), (300_000, 70_000), (SIZE - 1, 1)] {
            top.write(GuestOffset(at), &vec![1; usize::try_from(len).expect("small")])
                .expect("written");
            model.mark(at, len);
            assert_eq!(told(&image, "one"), model.ranges(), "{cluster}, {granularity}");
        }
        flush(&image);
        assert_eq!(told(&image, "one"), model.ranges());
        for access in [Access::Read, Access::ReadWrite] {
            let again = try_open(&store, access).expect("it opens");
            assert_eq!(told(&again, "one"), model.ranges(), "{cluster}, {granularity}");
        }
    }
}

#[test]
fn zeroes_discards_and_packed_clusters_are_told_as_well() {
    let image = create(&memory(), SIZE, &[]);
    let top = disk(&image, None);
    top.write(GuestOffset(0), &vec![9; 1 << 20]).expect("written");
    add(&image, "one", 65536);
    top.zero(range(65536, 65536), false).expect("zeroed");
    top.discard(range(4 * 65536, 65536)).expect("discarded");
    assert!(write_packed(&*image, 20 * 65536, &[3; 65536]));
    let expected = [1, 4, 20].map(|cluster| (cluster * 65536, (cluster + 1) * 65536));
    assert_eq!(told(&image, "one"), expected);
}

#[test]
fn a_bitmap_that_is_not_stored_says_so_when_the_image_is_opened_again() {
    let store = memory();
    let image = create(&store, SIZE, &[]);
    add(&image, "one", 65536);
    bitmaps(&image).add(&new("resting", 65536, false)).expect("added");
    disk(&image, None).write(GuestOffset(0), b"x").expect("written");
    drop(image);
    let again = open(&store);
    let list = bitmaps(&again).list().expect("a list");
    let state: Vec<_> =
        list.iter().map(|one| (&*one.name, one.enabled, one.inconsistent)).collect();
    assert_eq!(state, [("one", true, true), ("resting", false, false)]);
    let unusable = |done: anydisk_core::Result<()>| {
        assert!(matches!(done.unwrap_err(), Error::Unusable { what: "bitmap", .. }));
    };
    unusable(bitmaps(&again).changes("one").map(drop));
    unusable(bitmaps(&again).clear("one"));
    unusable(bitmaps(&again).set_enabled("one", false));
    // Writing goes on without it, and it can be removed.
    disk(&again, None).write(GuestOffset(0), b"y").expect("written");
    bitmaps(&again).remove("one").expect("removed");
    assert_eq!(bitmaps(&again).list().expect("a list").len(), 1);
}

#[test]
fn writing_where_all_is_told_already_marks_nothing() {
    let store = memory();
    let image = create(&store, SIZE, &[]);
    let top = disk(&image, None);
    add(&image, "one", 65536);
    top.write(GuestOffset(0), &[1; 100]).expect("written");
    flush(&image);
    top.write(GuestOffset(50), &[2; 100]).expect("written");
    let other = try_open(&store, Access::Read).expect("it opens");
    assert!(!bitmaps(&other).list().expect("a list")[0].inconsistent);
}

#[test]
fn changes_of_a_longer_disk_are_those_of_another_one() {
    let (large, small) = (create(&memory(), 2 * SIZE, &[]), create(&memory(), SIZE, &[]));
    [&large, &small].iter().for_each(|image| add(image, "b", 65536));
    let mut changes = bitmaps(&large).changes("b").expect("there");
    let refused = bitmaps(&small).merge("b", &mut *changes).expect_err("another disk");
    assert!(matches!(refused, Error::Unusable { .. }), "{refused}");
    let mut changes = bitmaps(&small).changes("b").expect("there");
    bitmaps(&large).merge("b", &mut *changes).expect("the disk may have grown since");
}

#[test]
fn what_is_cleared_disabled_enabled_and_merged_is_as_it_is_said() {
    let store = memory();
    let image = create(&store, SIZE, &[("cluster_size", "4k")]);
    let top = disk(&image, None);
    let write = |at| top.write(GuestOffset(at), b"x").expect("written");
    add(&image, "one", 4096);
    bitmaps(&image).add(&new("two", 65536, false)).expect("added");
    write(0);
    bitmaps(&image).set_enabled("one", false).expect("disabled");
    write(40960);
    assert_eq!(told(&image, "one"), [(0, 4096)]);
    bitmaps(&image).set_enabled("one", true).expect("enabled");
    write(81920);
    let both = [(0, 4096), (81920, 86016)];
    assert_eq!(told(&image, "one"), both);
    let mut changes = bitmaps(&image).changes("one").expect("good");
    bitmaps(&image).merge("two", &mut *changes).expect("merged");
    drop(changes);
    assert_eq!(told(&image, "two"), [(0, 131_072)], "in pieces of 64 KiB");
    bitmaps(&image).clear("one").expect("cleared");
    assert!(told(&image, "one").is_empty());
    write(SIZE - 1);
    flush(&image);
    let again = open(&store);
    assert_eq!(told(&again, "one"), [(SIZE - 4096, SIZE)]);
    assert_eq!(told(&again, "two"), [(0, 131_072)]);
    let flags: Vec<_> =
        bitmaps(&again).list().expect("a list").iter().map(|one| one.enabled).collect();
    assert_eq!(flags, [true, false]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let image = create(&memory(), SIZE, &[]);
    add(&image, "one", 65536);
    let error = bitmaps(&image).add(&new("one", 512, true)).unwrap_err();
    assert!(matches!(error, Error::Exists { what: "bitmap", .. }), "{error}");
    for granularity in [0, 256, 3 << 10, 4 << 30] {
        let error = bitmaps(&image).add(&new("two", granularity, true)).unwrap_err();
        assert!(error.to_string().contains("a power of two, 512 bytes to 2 GiB"), "{error}");
    }
    for name in ["", &"x".repeat(1024)] {
        let error = bitmaps(&image).add(&new(name, 512, true)).unwrap_err();
        assert!(error.to_string().contains("a name has 1 to 1023 bytes"), "{error}");
    }
    for result in [
        bitmaps(&image).remove("none"),
        bitmaps(&image).clear("none"),
        bitmaps(&image).set_enabled("none", true),
        bitmaps(&image).changes("none").map(drop),
    ] {
        assert_eq!(result.unwrap_err().to_string(), "there is no bitmap \"none\"");
    }
    let old = create(&memory(), SIZE, &[("compat", "v2")]);
    let error = bitmaps(&old).add(&new("one", 65536, true)).unwrap_err();
    assert!(error.to_string().contains("keeping dirty bitmaps is not supported"), "{error}");
    let store = memory();
    create(&store, SIZE, &[]);
    let reader = try_open(&store, Access::Read).expect("it opens");
    let error = bitmaps(&reader).add(&new("one", 65536, true)).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    let huge = try_create(memory(), 1 << 40, &[]).expect("made");
    let error = bitmaps(&huge).add(&new("fine", 512, true)).map(drop);
    assert!(error.is_ok(), "256 MiB of bits are few enough, and none is written");
}

#[test]
fn bitmaps_of_golden_images_tell_what_an_independent_reader_found() {
    let case =
        golden::cases("qcow2").into_iter().find(|case| case.name == "bitmaps").expect("there");
    let unpacked = case.unpack();
    let image = try_open(&load(&unpacked.path), Access::Read).expect("it opens");
    for bitmap in case.json["bitmaps"].as_array().expect("a list") {
        let name = bitmap["name"].as_str().expect("a name");
        let expected: Vec<(u64, u64)> = bitmap["dirty_ranges"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|range| (range[0].as_u64().expect("a start"), range[1].as_u64().expect("an end")))
            .collect();
        assert_eq!(told(&image, name), expected, "{name}");
    }
    let ones = golden::cases("qcow2").into_iter().find(|case| case.name == "bitmap-entry-all-ones");
    let unpacked = ones.expect("there").unpack();
    let image = try_open(&load(&unpacked.path), Access::Read).expect("it opens");
    let name = &bitmaps(&image).list().expect("a list")[0].name;
    assert_eq!(told(&image, name), [(0, image.size())]);
}

/// A random history against a flag for each piece, with a bitmap that begins, is cleared, rests,
/// and the image opened again; then judged by qemu.
#[test]
fn a_long_history_is_told_exactly_and_qemu_finds_the_image_in_order() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let kinds: [(crate::common::Given<'_>, u64); 4] = [
        (&[("cluster_size", "512")], 4096),
        (&[("cluster_size", "64k")], 512),
        (&[("cluster_size", "16k"), ("extended_l2", "on")], 16384),
        (&[("cluster_size", "4k"), ("refcount_bits", "1")], 65536),
    ];
    for (seed, (given, granularity)) in (0..).zip(kinds) {
        let store = memory();
        let mut image = create(&store, SIZE, given);
        let mut top = disk(&image, None);
        let unit = 1 << crate::common::Dump::of(&*store).header.cluster_bits;
        let mut random = Random::new(seed);
        let mut model = Model::new(granularity);
        add(&image, "one", granularity);
        for operation in Aim::at(SIZE, unit).operations(seed).take(120) {
            match operation {
                Operation::Write { at, .. } => {
                    let data = operation.data();
                    top.write(GuestOffset(at), &data).expect("written");
                    model.mark(at, data.len() as u64);
                }
                Operation::Zero { at, len, unmap } => {
                    // Already zero is no change; what is certain to be one is made so first.
                    top.write(GuestOffset(at), &vec![7; usize::try_from(len).expect("small")])
                        .expect("written");
                    top.zero(range(at, len), unmap).expect("zeroed");
                    model.mark(at, len);
                }
                Operation::Flush => flush(&image),
                Operation::Reopen => {
                    flush(&image);
                    image = open(&store);
                    top = disk(&image, None);
                }
                _ if random.chance(1, 6) => {
                    bitmaps(&image).clear("one").expect("cleared");
                    model = Model::new(granularity);
                }
                _ => {}
            }
            let found = told(&image, "one");
            let covers = |(start, end): &(u64, u64)| {
                found.iter().any(|range| range.0 <= *start && *end <= range.1)
            };
            assert!(model.ranges().iter().all(covers), "{given:?}: {operation:?}");
        }
        flush(&image);
        let found = told(&image, "one");
        if let Some(qemu) = &qemu {
            let path = folder.path().join("image.qcow2");
            save(&*store, &path);
            qemu.assert_undamaged(&path, "qcow2");
            assert_eq!(copied_by_qemu(&path, "one"), found, "{given:?}");
        }
    }
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().expect("it was found");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// What a bitmap tells after qemu has read it and written it into another image.
fn copied_by_qemu(path: &Path, name: &str) -> Vec<(u64, u64)> {
    let copy = path.with_extension("copy");
    let (from, to) = (path.display().to_string(), copy.display().to_string());
    qemu_img(&["convert", "--bitmaps", "-O", "qcow2", &from, &to]);
    told(&try_open(&load(&copy), Access::Read).expect("it opens"), name)
}

#[test]
fn bitmaps_go_back_and_forth_between_here_and_qemu() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    let name = path.display().to_string();
    qemu.create("qcow2", &["cluster_size=4k"], &path, "2M");
    qemu_img(&["bitmap", "--add", "-g", "4k", &name, "theirs"]);
    qemu.io(&path, "qcow2", &["write 0 8k", "write 1M 4k"]);
    let store = load(&path);
    let image = open(&store);
    assert_eq!(told(&image, "theirs"), [(0, 8192), (1 << 20, (1 << 20) + 4096)]);
    add(&image, "ours", 8192);
    disk(&image, None).write(GuestOffset(65536), &[5; 4096]).expect("written");
    flush(&image);
    save(&*store, &path);
    qemu.assert_undamaged(&path, "qcow2");
    let info = qemu.info(&path, "qcow2");
    let listed = &info["format-specific"]["data"]["bitmaps"];
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["theirs", "ours"]);
    assert_eq!(listed[1]["granularity"], 8192);
    qemu.io(&path, "qcow2", &["write 128k 4k"]);
    qemu_img(&["bitmap", "--merge", "theirs", &name, "ours"]);
    let image = open(&load(&path));
    let theirs = [(0, 8192), (65536, 69632), (131_072, 135_168), (1 << 20, (1 << 20) + 4096)];
    assert_eq!(told(&image, "theirs"), theirs);
    let ours = [(0, 8192), (65536, 73728), (131_072, 139_264), (1 << 20, (1 << 20) + 8192)];
    assert_eq!(told(&image, "ours"), ours);
    // Our changes of the directory, read by qemu.
    let store = load(&path);
    let image = open(&store);
    bitmaps(&image).remove("theirs").expect("removed");
    bitmaps(&image).set_enabled("ours", false).expect("disabled");
    save(&*store, &path);
    qemu.assert_undamaged(&path, "qcow2");
    let info = qemu.info(&path, "qcow2");
    let listed = info["format-specific"]["data"]["bitmaps"].as_array().expect("a list").clone();
    assert_eq!((listed.len(), &listed[0]["flags"]), (1, &serde_json::json!([])));
    bitmaps(&image).remove("ours").expect("removed");
    save(&*store, &path);
    qemu.assert_undamaged(&path, "qcow2");
    assert!(qemu.info(&path, "qcow2")["format-specific"]["data"]["bitmaps"].is_null());
}

/// A power failure at any moment of a life with bitmaps: the image opens, and whatever differs from
/// the state in which a bitmap began is told by it, if it says that it can be trusted.
#[test]
fn no_power_failure_leaves_a_bitmap_that_is_wrong_and_claims_to_be_right() {
    const SMALL: u64 = 64 << 10;
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    for (seed, cluster) in [(1, "512"), (2, "4k"), (3, "64k")] {
        let crash = CrashStorage::new();
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let image = create(&store, SMALL, &[("cluster_size", cluster)]);
        let top = disk(&image, None);
        top.write(GuestOffset(0), &[1; 32 << 10]).expect("written");
        flush(&image);
        let base = contents(&top);
        add(&image, "one", 512);
        crash.mark();
        let mut random = Random::new(seed);
        for step in 0..25_u8 {
            let at = random.below(SMALL - 600);
            match random.below(8) {
                0 => flush(&image),
                1 => bitmaps(&image).add(&new(&format!("n{step}"), 4096, true)).expect("added"),
                2 => {
                    let list = bitmaps(&image).list().expect("a list");
                    if let Some(last) = list.last().filter(|last| last.name != "one") {
                        bitmaps(&image).remove(&last.name).expect("removed");
                    }
                }
                3 => top.zero(range(at, 512), true).expect("zeroed"),
                _ => top.write(GuestOffset(at), &[100 + step; 600]).expect("written"),
            }
        }
        flush(&image);
        let states: Vec<_> = crash.torn_states(6, seed).filter(|state| state.marks() > 0).collect();
        let (mut trusted, count) = (0, states.len());
        for state in states {
            let after: Arc<dyn Storage> = state.storage();
            let image =
                try_open(&after, Access::ReadWrite).unwrap_or_else(|e| panic!("{state}: {e}"));
            let found = contents(&disk(&image, None));
            let list = bitmaps(&image).list().expect("a list");
            let one = list.iter().find(|one| one.name == "one");
            let one = one.unwrap_or_else(|| panic!("it was added durably: {state}"));
            if !one.inconsistent {
                trusted += 1;
                let told = told(&image, "one");
                for at in (0..SMALL).filter(|at| {
                    let at = usize::try_from(*at).expect("small");
                    found[at] != base[at]
                }) {
                    assert!(
                        told.iter().any(|range| range.0 <= at && at < range.1),
                        "{at}: {state}"
                    );
                }
            }
            if let Some(qemu) = qemu.as_ref().filter(|_| random.chance(20, count.max(20) as u64)) {
                save(&*after, &path);
                let checked = qemu.check(&path, "qcow2");
                let damage = checked.as_ref().map(|checked| checked.corruptions);
                assert_eq!(damage, Ok(0), "{state}: {checked:?}");
            }
        }
        assert!(trusted > 0, "some states are good");
    }
}

#[test]
fn writers_in_many_threads_are_all_recorded_while_bitmaps_come_and_go() {
    let store = memory();
    let image = create(&store, SIZE, &[("cluster_size", "4k")]);
    let top = disk(&image, None);
    add(&image, "all", 4096);
    let pieces = SIZE / 4096;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let top = &top;
            scope.spawn(move || {
                let mut random = Random::new(thread);
                for piece in (thread..pieces).step_by(4).filter(|piece| piece % 3 != 0) {
                    top.write(GuestOffset(piece * 4096 + random.below(4000)), b"x")
                        .expect("written");
                }
            });
        }
        scope.spawn(|| {
            for number in 0..6 {
                let name = format!("short-lived {number}");
                bitmaps(&image).add(&new(&name, 512, true)).expect("added");
                top.flush().expect("flushed");
                bitmaps(&image).clear(&name).expect("cleared");
                bitmaps(&image).remove(&name).expect("removed");
            }
        });
    });
    let mut model = Model::new(4096);
    (0..pieces).filter(|piece| piece % 3 != 0).for_each(|piece| model.mark(piece * 4096, 1));
    assert_eq!(told(&image, "all"), model.ranges());
    flush(&image);
    assert_eq!(told(&open(&store), "all"), model.ranges());
}

#[test]
fn what_was_written_before_a_bitmap_began_is_on_the_disk_when_adding_it_returns() {
    let image = create(&memory(), SIZE, &[("cluster_size", "4k")]);
    let top = disk(&image, None);
    for round in 0..20_u8 {
        let name = format!("round {round}");
        let seen = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (0..64).for_each(|piece| {
                    top.write(GuestOffset(piece * 4096), &[round + 1; 4096]).expect("written");
                });
            });
            add(&image, &name, 4096);
            let seen = contents(&top);
            writer.join().expect("it writes");
            seen
        });
        let told = told(&image, &name);
        for piece in 0..64_u64 {
            let at = usize::try_from(piece * 4096).expect("small");
            let was_new = seen[at] == round + 1 && seen[at + 4095] == round + 1;
            let is_told = told.iter().any(|range| (range.0..range.1).contains(&(piece * 4096)));
            assert!(was_new || is_told, "piece {piece} is neither seen nor told");
        }
    }
}

/// Bytes of extension, directory and tables changed at random: an answer or an error, at once.
#[test]
fn damaged_bitmaps_give_answers_or_errors() {
    let case =
        golden::cases("qcow2").into_iter().find(|case| case.name == "bitmaps").expect("there");
    let bytes = std::fs::read(case.unpack().path).expect("unpacked");
    let interesting: Vec<usize> =
        (112..144).chain(0xd000..0xd020).chain(0xe000..0xe008).chain(0x12000..0x12068).collect();
    let mut random = Random::new(7);
    for _ in 0..400 {
        let mut bytes = bytes.clone();
        for _ in 0..=random.below(2) {
            let at = interesting[random.index(interesting.len())];
            bytes[at] = u8::try_from(random.below(256)).expect("a byte");
        }
        for access in [Access::Read, Access::ReadWrite] {
            let store: Arc<dyn Storage> =
                Arc::new(anydisk_storage::MemoryStorage::new(bytes.clone()));
            let Ok(image) = try_open(&store, access) else { continue };
            for one in bitmaps(&image).list().expect("a list") {
                let Ok(mut changes) = bitmaps(&image).changes(&one.name) else { continue };
                let mut from = GuestOffset(0);
                while let Ok(Some(range)) = changes.next(from) {
                    assert!(range.start() >= from && !range.is_empty());
                    assert!(range.end().get() <= image.size());
                    from = range.end();
                }
            }
            if access == Access::ReadWrite {
                let _ = disk(&image, None).write(GuestOffset(0), b"x");
                let _ = image.writer().expect("open for writing").flush();
            }
        }
    }
}

#[test]
fn an_image_with_broken_bitmaps_is_read_with_a_warning_and_not_written() {
    use anydisk_core::{Format, Limits, Location, OpenRequest};
    let case = golden::cases("qcow2").into_iter().find(|case| case.name == "bitmap-type-2");
    let store = load(&case.expect("there").unpack().path);
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let request = OpenRequest::new(Arc::clone(&store), &location, &limits);
    let opened = anydisk_qcow2::QCOW2.open(request).expect("the data is there");
    assert_eq!(opened.warnings.len(), 1);
    assert!(opened.warnings[0].contains("kind at"), "{:?}", opened.warnings);
    let error = try_open(&store, Access::ReadWrite).unwrap_err();
    assert!(error.to_string().contains("kind at"), "{error}");
}

#[test]
fn a_range_may_be_asked_for_from_its_middle() {
    let image = create(&memory(), SIZE, &[]);
    add(&image, "one", 4096);
    disk(&image, None).write(GuestOffset(8192), &[1; 8192]).expect("written");
    let mut changes = bitmaps(&image).changes("one").expect("good");
    let from = |at: u64| GuestOffset(at);
    let next = GuestRange::new(from(10_000), 6384);
    assert_eq!(changes.next(from(10_000)).expect("it reads"), next);
    assert_eq!(changes.next(from(16_384)).expect("it reads"), None);
    assert_eq!(changes.size(), SIZE);
}

#[test]
fn bitmaps_follow_a_disk_that_grows_and_shrinks_also_for_qemu() {
    use anydisk_core::Preallocation::Off;
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    for cluster in ["512", "4k", "64k"] {
        let store = memory();
        let image = create(&store, SIZE, &[("cluster_size", cluster)]);
        let top = disk(&image, None);
        add(&image, "one", 512);
        bitmaps(&image).add(&new("resting", 4096, false)).expect("added");
        for at in [0, 5000, SIZE - 512] {
            top.write(GuestOffset(at), &[1; 512]).expect("written");
        }
        let start = [(0, 512), (4608, 5632)];
        let end = (SIZE - 512, SIZE);
        top.resize(3 * SIZE, Off).expect("grown");
        assert_eq!(told(&image, "one"), [&start[..], &[end]].concat(), "{cluster}");
        top.write(GuestOffset(3 * SIZE - 100), &[2; 100]).expect("written");
        flush(&image);
        let last = (3 * SIZE - 512, 3 * SIZE);
        assert_eq!(told(&open(&store), "one"), [&start[..], &[end, last]].concat(), "{cluster}");
        top.resize(5120, Off).expect("shrunk");
        top.resize(SIZE, Off).expect("grown again");
        flush(&image);
        // What was recorded before the new end stays; behind it only what growing had to zero is.
        let found = told(&open(&store), "one");
        assert_eq!((found[0], found[1].0), ((0, 512), 4608), "{cluster}");
        assert!(found[1].1 >= 5120 && found.iter().all(|range| range.1 <= 1 << 20), "{cluster}");
        assert!(told(&open(&store), "resting").is_empty());
        if let Some(qemu) = &qemu {
            save(&*store, &path);
            qemu.assert_undamaged(&path, "qcow2");
            assert_eq!(copied_by_qemu(&path, "one"), told(&image, "one"), "{cluster}");
        }
    }
}

#[test]
fn a_power_failure_while_the_size_changes_leaves_no_bitmap_that_does_not_fit() {
    use anydisk_core::Preallocation::Off;
    let crash = CrashStorage::new();
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let image = create(&store, 256 << 10, &[("cluster_size", "512")]);
    let top = disk(&image, None);
    add(&image, "one", 512);
    top.write(GuestOffset(1024), &[1; 512]).expect("written");
    flush(&image);
    crash.mark();
    top.resize(4 << 20, Off).expect("grown");
    top.resize(128 << 10, Off).expect("shrunk");
    flush(&image);
    for state in crash.torn_states(8, 5).filter(|state| state.marks() > 0) {
        let after: Arc<dyn Storage> = state.storage();
        let image = try_open(&after, Access::ReadWrite).unwrap_or_else(|e| panic!("{state}: {e}"));
        let list = bitmaps(&image).list().expect("a list");
        assert_eq!(list.len(), 1, "{state}");
        if !list[0].inconsistent {
            assert_eq!(told(&image, "one"), [(1024, 1536)], "{state}");
        }
    }
}

#[test]
fn going_back_to_a_snapshot_is_told_as_a_change_of_everything() {
    let store = memory();
    let image = create(&store, SIZE, &[]);
    disk(&image, None).write(GuestOffset(0), b"before").expect("written");
    let snapshots = image.snapshots().expect("qcow2 has snapshots");
    let new = anydisk_core::NewSnapshot { name: "before".into(), ..Default::default() };
    snapshots.create(&new).expect("created");
    add(&image, "one", 65536);
    let which = anydisk_core::SnapshotRef::Name("before".into());
    snapshots.apply(&which).expect("applied");
    assert_eq!(told(&image, "one"), [(0, SIZE)]);
    assert_eq!(told(&open(&store), "one"), [(0, SIZE)], "durably");
}

/// A snapshot of each size, the names of which are these sizes, and a bitmap of each sort.
fn with_snapshots_of(sizes: &[u64], store: &Arc<dyn Storage>) -> Arc<dyn Image> {
    let image = create(store, SIZE, &[("cluster_size", "4k")]);
    let top = disk(&image, None);
    for size in sizes {
        top.resize(*size, anydisk_core::Preallocation::Off).expect("it has another size");
        top.write(GuestOffset(size - 512), &[1; 512]).expect("written");
        let new = anydisk_core::NewSnapshot { name: size.to_string(), ..Default::default() };
        image.snapshots().expect("qcow2 has snapshots").create(&new).expect("created");
    }
    add(&image, "one", 512);
    bitmaps(&image).add(&new("resting", 512, false)).expect("added");
    flush(&image);
    image
}

fn apply(image: &Arc<dyn Image>, size: u64) {
    let which = anydisk_core::SnapshotRef::Name(size.to_string());
    image.snapshots().expect("qcow2 has snapshots").apply(&which).expect("applied");
}

#[test]
fn going_back_to_a_snapshot_of_another_size_takes_the_bitmaps_along() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    let (small, large) = (40 << 10, 3 * SIZE);
    let store = memory();
    let image = with_snapshots_of(&[small, large], &store);
    for size in [small, large, small, SIZE, large] {
        if size == SIZE {
            let off = anydisk_core::Preallocation::Off;
            disk(&image, None).resize(size, off).expect("it has another size");
            continue;
        }
        apply(&image, size);
        assert_eq!(image.size(), size);
        for image in [&image, &open(&store)] {
            assert_eq!(told(image, "one"), [(0, size)], "of {size} bytes, durably");
            assert!(told(image, "resting").is_empty());
        }
        if let Some(qemu) = &qemu {
            save(&*store, &path);
            assert_eq!(
                qemu.check(&path, "qcow2"),
                Ok(anydisk_testkit::oracle::Checked { leaks: 0, corruptions: 0 })
            );
            assert_eq!(copied_by_qemu(&path, "one"), [(0, size)]);
        }
    }
}

#[test]
fn no_power_failure_while_a_snapshot_of_another_size_is_applied_leaves_a_wrong_bitmap() {
    let made = memory();
    drop(with_snapshots_of(&[40 << 10, 3 * SIZE], &made));
    let mut bytes = vec![0; usize::try_from(made.len().expect("a length")).expect("small")];
    made.read_at(anydisk_core::HostOffset(0), &mut bytes).expect("read");
    let crash = CrashStorage::over(bytes);
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    apply(&open(&store), 40 << 10);
    crash.mark();
    let mut seen = std::collections::BTreeSet::new();
    for state in crash.torn_states(1 << 10, 5) {
        let after: Arc<dyn Storage> = state.storage();
        let image = try_open(&after, Access::ReadWrite).unwrap_or_else(|e| panic!("{state}: {e}"));
        let is_new = image.size() == 40 << 10;
        assert!(is_new || image.size() == 3 * SIZE && state.marks() == 0, "{state}");
        let list = bitmaps(&image).list().expect("a list");
        seen.insert((is_new, list[0].inconsistent));
        if !list[0].inconsistent {
            let all = if is_new { vec![(0, 40 << 10)] } else { Vec::new() };
            assert_eq!(told(&image, "one"), all, "{state}");
        }
        assert!(state.marks() == 0 || !list[0].inconsistent, "{state}");
    }
    assert_eq!(seen.len(), 4, "old and new, before, between and after: {seen:?}");
}

#[test]
fn an_empty_disk_has_no_bitmaps_since_nobody_else_could_open_it() {
    let off = anydisk_core::Preallocation::Off;
    let image = create(&memory(), 0, &[]);
    let error = bitmaps(&image).add(&new("one", 512, true)).unwrap_err();
    assert_eq!(error.to_string(), "qcow2: a bitmap of a disk of 0 bytes is not supported");
    disk(&image, None).resize(SIZE, off).expect("it grows");
    add(&image, "one", 512);
    assert!(disk(&image, None).resize(0, off).is_err());
    assert_eq!(image.size(), SIZE);
    bitmaps(&image).remove("one").expect("removed");
    disk(&image, None).resize(0, off).expect("it shrinks");
}
