//! Repairing images: what is mended, what is left alone, and that nothing good is harmed.

use std::sync::Arc;

use crate::common::{Dump, Given, create, disk, load, memory, save, try_open};
use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Finding, Format, GuestOffset, HostOffset, Limits,
    Location, OpenRequest, Repair, Result, Severity, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::golden::{Case, cases};
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::repair::{Trials, Word};

pub(crate) fn check(
    store: &Arc<dyn Storage>,
    repair: Repair,
) -> Result<(CheckReport, Vec<Finding>)> {
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(repair);
    let mut found = Vec::new();
    let report = QCOW2.check(&request, &mut |finding| found.push(finding))?;
    Ok((report, found))
}

/// What the disk holds, sector by sector, where it can be read. Absent is shown as zero.
pub(crate) fn contents(store: &Arc<dyn Storage>) -> Vec<Option<Vec<u8>>> {
    let Ok(image) = try_open(store, Access::Read) else { return Vec::new() };
    let size = image.size().min(8 << 20);
    let disk = Disk::new(image);
    let sector = |at: u64| {
        let mut bytes = vec![0; 512];
        disk.read(GuestOffset(at), &mut bytes).ok().map(|()| bytes)
    };
    (0..size).step_by(512).map(sector).collect()
}

/// Whether everything that could be read before reads the same.
pub(crate) fn is_kept(before: &[Option<Vec<u8>>], after: &[Option<Vec<u8>>]) -> bool {
    before.is_empty()
        || before.len() == after.len()
            && before.iter().zip(after).all(|(old, new)| old.is_none() || old == new)
}

/// Golden images that something is wrong with.
fn damaged() -> impl Iterator<Item = Case> {
    let small = |case: &Case| case.files[0].size <= 1 << 20;
    let wrong = |case: &Case| {
        let store = load(&case.unpack().path);
        check(&store, Repair::Nothing).is_ok_and(|(_, found)| !found.is_empty())
    };
    cases("qcow2").into_iter().filter(small).filter(wrong)
}

/// What qemu-img repairs and we do not, and why.
const LEFT: &[(&str, &str)] = &[
    ("compressed-offset-0", "data in the header's cluster: writing it would destroy the image"),
    ("data-is-l2-loop", "data in its own table: qemu-img changes what the guest reads"),
    ("hdr-snap-offset-eof", "a table that is not there: qemu-img makes up a snapshot"),
];

#[test]
fn what_qemu_repairs_is_repaired_and_nothing_that_could_be_read_changes() {
    let mut wrong = Vec::new();
    for case in damaged() {
        let store = load(&case.unpack().path);
        let before = contents(&store);
        let (report, found) = check(&store, Repair::All).expect("it could be checked");
        let again = check(&store, Repair::Nothing).expect("it can still be checked").0;
        let clean = report.is_clean();
        let told: Vec<String> = found
            .iter()
            .map(|one| format!("\n    {} {}: {}", one.kind, one.repaired, one.text))
            .collect();
        if (again.corruptions, again.leaks, again.check_errors)
            != (report.corruptions, report.leaks, report.check_errors)
        {
            wrong.push(format!("{case}: reported {report:?}, is {again:?}"));
        }
        if !is_kept(&before, &contents(&store)) {
            wrong.push(format!("{case}: the content has changed{}", told.concat()));
        }
        let by_qemu = case.json["qemu"]["repair_all"]["recheck"]["exit"] == 0;
        let left = LEFT.iter().any(|(name, _)| *name == case.name);
        if !clean && by_qemu != left {
            wrong.push(format!("{case}: not clean: {report:?}{}", told.concat()));
        }
        if clean && left {
            wrong.push(format!("{case}: clean, take it off the list"));
        }
        if clean && found.iter().any(|one| !one.repaired && one.kind != "cut-off-inside") {
            wrong.push(format!("{case}: clean, and told otherwise{}", told.concat()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_clean_after_a_repair_is_clean_for_qemu() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("repaired.qcow2");
    let mut count = 0;
    for case in damaged() {
        let store = load(&case.unpack().path);
        if check(&store, Repair::All).expect("it could be checked").0.is_clean() {
            save(&*store, &path);
            let checked = qemu.check(&path, "qcow2");
            // An image with an external data file is not opened without it.
            if !case.name.starts_with("datafile") {
                assert_eq!(checked, Ok(Checked { leaks: 0, corruptions: 0 }), "{case}");
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count} repaired");
}

/// A repair of leaks frees nothing where a table is damaged: what it does not name any more may
/// still be wanted. qemu-img makes one corruption into eight of `snap-l1-too-large`.
#[test]
fn a_repair_of_leaks_touches_no_image_with_a_damaged_table() {
    let mut left = 0;
    for case in damaged() {
        let store = load(&case.unpack().path);
        let (before, found) = check(&store, Repair::Nothing).expect("it could be checked");
        let bytes = bytes_of(&store);
        let (after, told) = check(&store, Repair::Leaks).expect("it could be checked");
        let others = |one: &Finding| {
            !matches!(one.kind, "leak" | "copied-flag-wrong") && one.severity != Severity::Note
        };
        if found.iter().any(others) {
            assert_eq!(bytes_of(&store), bytes, "{case}");
            assert!(told.iter().all(|one| !one.repaired), "{case}");
            left += 1;
        } else {
            assert!(after.is_clean(), "{case}: {after:?} of {before:?}");
        }
    }
    assert!(left > 20, "{left} left alone");
}

pub(crate) fn bytes_of(store: &Arc<dyn Storage>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(HostOffset::ZERO, &mut bytes).expect("a read of memory");
    bytes
}

/// Kinds of damage that cannot be repaired by counting.
fn structural(store: &Arc<dyn Storage>) -> Vec<&'static str> {
    let (_, found) = check(store, Repair::Nothing).expect("it can be checked");
    let is_lasting = |one: &&Finding| one.remedy.is_none() && one.severity != Severity::Note;
    let lasting = found.iter().filter(is_lasting);
    let mut kinds: Vec<&str> = lasting.map(|one| one.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn a_repair_that_loses_power_leaves_nothing_worse_and_can_be_done_again() {
    let mut states = 0;
    for case in damaged() {
        let original = load(&case.unpack().path);
        let (before, lasting) = (contents(&original), structural(&original));
        let crash = CrashStorage::over(bytes_of(&original));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let done = check(&store, Repair::All).expect("it could be checked").0;
        for state in crash.torn_states(12, 5) {
            let store: Arc<dyn Storage> = state.storage();
            assert!(
                is_kept(&before, &contents(&store)),
                "{case}: the content has changed\n{state}"
            );
            let new = structural(&store).into_iter().find(|kind| !lasting.contains(kind));
            assert_eq!(new, None, "{case}\n{state}");
            let again = check(&store, Repair::All).expect("it can still be checked").0;
            assert!(again.is_clean() || !done.is_clean(), "{case}: {again:?}\n{state}");
            assert!(is_kept(&before, &contents(&store)), "{case}: then it has changed\n{state}");
            states += 1;
        }
    }
    assert!(states > 300, "{states} states");
}

/// An image with data, zeroes and streams in many places.
fn image(given: Given<'_>, size: u64) -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, size, given);
    let disk = disk(&image, None);
    let mut random = Random::new(3);
    for _ in 0..60 {
        let at = random.below(size - 9000);
        let byte = u8::try_from(random.below(256)).expect("a byte");
        disk.write(GuestOffset(at), &vec![byte; 9000]).expect("a write to memory");
    }
    disk.flush().expect("a flush of memory");
    store
}

#[test]
fn a_repair_of_any_damage_keeps_what_is_right() {
    let store = image(&[("cluster_size", "512")], 64 << 10);
    repairs_of_any_damage(&bytes_of(&store));
}

#[test]
fn a_repair_of_an_image_over_another_uncovers_nothing() {
    let mut sound = bytes_of(&image(&[("cluster_size", "512")], 64 << 10));
    // The name at the end of the first cluster.
    sound[8..16].copy_from_slice(&496_u64.to_be_bytes());
    sound[16..20].copy_from_slice(&8_u32.to_be_bytes());
    sound[496..504].copy_from_slice(b"base.raw");
    repairs_of_any_damage(&sound);
}

fn repairs_of_any_damage(sound: &[u8]) {
    let word = |at: usize| {
        let bytes = sound[at..].first_chunk().expect("in the file");
        usize::try_from(u64::from_be_bytes(*bytes) & ((1 << 56) - 512)).expect("small")
    };
    let (l1, counts) = (word(40), word(48));
    let (l2, block) = (word(l1), word(counts));
    let end = sound.len() as u64;
    let trials = Trials {
        format: &QCOW2,
        sound,
        unit: 512,
        areas: &[
            24..56,
            l1..l1 + 16,
            l2..l2 + 512,
            l2..l2 + 512,
            counts..counts + 16,
            block..block + 512,
        ],
        word: Word::Big64,
        nasty: &[
            0,
            1,
            512,
            1 << 63 | 512,
            l1 as u64,
            l2 as u64,
            block as u64,
            end,
            1 << 63 | end,
            (1 << 63) | (l2 as u64 + 512),
            1 << 62 | 512,
            1 << 40,
            u64::MAX,
        ],
        count: 300,
    };
    trials.run(&mut Random::new(5));
}

/// Lost refcounts are built anew, whatever their width.
#[test]
fn refcounts_that_are_lost_are_built_anew() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rebuilt.qcow2");
    for bits in ["1", "2", "4", "8", "16", "32", "64"] {
        for (cluster, size) in [("512", 4 << 20), ("4096", 16 << 20), ("65536", 64 << 20)] {
            let store = image(&[("refcount_bits", bits), ("cluster_size", cluster)], size);
            let before = contents(&store);
            let table = Dump::of(&*store).header.refcount_table_offset;
            store.write_at(table, &[0; 512]).expect("a write to memory");
            let (report, found) = check(&store, Repair::All).expect("it can be checked");
            assert!(
                report.is_clean() && report.corruptions_fixed > 0,
                "{bits} {cluster}: {report:?}"
            );
            assert!(found.iter().all(|one| one.repaired), "{bits} {cluster}");
            assert!(is_kept(&before, &contents(&store)), "{bits} {cluster}");
            if let Some(qemu) = &qemu {
                save(&*store, &path);
                let clean = Checked { leaks: 0, corruptions: 0 };
                assert_eq!(qemu.check(&path, "qcow2"), Ok(clean), "{bits} {cluster}");
            }
        }
    }
}

/// Refcounts that are wrong here and there are set right in their place.
#[test]
fn refcounts_that_are_wrong_are_set_right_in_their_place() {
    for bits in ["2", "16", "64"] {
        let store = image(&[("refcount_bits", bits), ("cluster_size", "512")], 4 << 20);
        let (before, len) = (contents(&store), store.len().expect("a length"));
        let header = Dump::of(&*store).header;
        let block = Dump::of(&*store).word(header.refcount_table_offset.get());
        let mut random = Random::new(9);
        for _ in 0..40 {
            let at = HostOffset(block + random.below(512));
            let mut byte = [0];
            store.read_at(at, &mut byte).expect("a read of memory");
            store.write_at(at, &[byte[0] ^ 1 << random.below(8)]).expect("a write to memory");
        }
        let (report, _) = check(&store, Repair::All).expect("it can be checked");
        assert!(report.is_clean() && report.corruptions_fixed > 0, "{bits}: {report:?}");
        assert!(is_kept(&before, &contents(&store)), "{bits}");
        assert_eq!(store.len().expect("a length"), len, "{bits}");
    }
}

/// Whatever bytes change, a repair leaves an image that reads as before where it could be read,
/// and says of it what the next check says.
#[test]
fn no_damage_makes_a_repair_change_what_can_be_read() {
    let mut random = Random::new(21);
    let (mut repaired, mut clean) = (0, 0);
    let small = |case: &&Case| (1..=128 << 10).contains(&case.files[0].size);
    for case in cases("qcow2").iter().filter(small) {
        let original = bytes_of(&load(&case.unpack().path));
        for _ in 0..12 {
            let mut bytes = original.clone();
            for _ in 0..=random.below(3) {
                let area = [112, 4096, 1 << 15, bytes.len()][random.index(4)].min(bytes.len());
                let at = random.index(area.max(1));
                bytes[at] ^= 1 << random.below(8);
            }
            let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
            let before = contents(&store);
            let Ok((report, _)) = check(&store, Repair::All) else { continue };
            let again = check(&store, Repair::Nothing).expect("it could be checked").0;
            let counts = |one: &CheckReport| (one.corruptions, one.leaks, one.check_errors);
            assert_eq!(counts(&again), counts(&report), "{case}");
            assert!(is_kept(&before, &contents(&store)), "{case}");
            clean += u64::from(again.is_clean());
            repaired += 1;
        }
    }
    assert!(repaired > 500 && clean > 300, "{repaired} repaired, {clean} clean");
}

/// Where a table of the disk and the counts have one place, raising a count would change an entry.
#[test]
fn no_count_is_written_where_something_else_lies() {
    let store = memory();
    let image = create(&store, 1 << 20, &[("cluster_size", "4k")]);
    let top = disk(&image, None);
    top.write(GuestOffset(0), &[7; 64 << 10]).expect("a write to memory");
    top.flush().expect("a flush of memory");
    drop((top, image));
    let header = Dump::of(&*store).header;
    let word = |at: HostOffset| {
        let mut bytes = [0; 8];
        store.read_at(at, &mut bytes).expect("a read of memory");
        u64::from_be_bytes(bytes)
    };
    let put = |at: HostOffset, word: u64| {
        store.write_at(at, &word.to_be_bytes()).expect("a write to memory");
    };
    let table = HostOffset(word(header.l1_table_offset) & 0x00FF_FFFF_FFFF_FE00);
    put(header.refcount_table_offset, table.get());
    // So that not all references are known, and the counts cannot be built anew.
    put(table.saturating_add(8 * 40), 1 << 63 | 0x123);
    let before = contents(&store);
    assert!(before.iter().take(128).all(Option::is_some), "data can be read");
    let (_, found) = check(&store, Repair::All).expect("it can be checked");
    let kinds: Vec<&str> = found.iter().map(|one| one.kind).collect();
    assert!(kinds.contains(&"refcount-block-shared"), "{kinds:?}");
    assert!(is_kept(&before, &contents(&store)));
}
