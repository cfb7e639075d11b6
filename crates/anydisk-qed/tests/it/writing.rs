//! What is refused, and what stands where in the file.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Disk, Error, Format, GuestOffset, HostOffset, Layer, Limits, Location,
    OpenRequest, Preallocation, Reference, Role, Source, Storage,
};
use anydisk_qed::QED;
use anydisk_raw::RawImage;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::kill_first_write;

use crate::common::{create, in_memory, range, read};

const SMALL: [(&str, &str); 2] = [("cluster_size", "4k"), ("table_size", "2")];

fn open(store: Arc<dyn Storage>) -> anydisk_core::Result<(Disk, Option<Reference>)> {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest::new(store, &location, &limits);
    let opened = QED.open(OpenRequest { access: Access::ReadWrite, ..request })?;
    Ok((Disk::new(opened.image), opened.backing))
}

fn word(store: &MemoryStorage, at: u64) -> u64 {
    let mut bytes = [0; 8];
    store.read_at(HostOffset(at), &mut bytes).expect("memory");
    u64::from_le_bytes(bytes)
}

/// QEMU fills the rest of such a cluster from the backing file.
#[test]
fn a_write_of_a_part_of_a_zero_cluster_leaves_zeroes_in_the_rest_of_it() {
    let store = Arc::new(MemoryStorage::default());
    let top = create(store.clone(), 1 << 20, &SMALL, Some("base.raw")).expect("an image");
    let below = Arc::new(MemoryStorage::new(vec![0x42; 1 << 20]));
    let below = RawImage::open(below, false).expect("a raw image");
    let layers = vec![Layer::new(top, "top"), Layer::new(Arc::new(below), "base")];
    let disk = Disk::from_layers(layers, &Limits::default());
    disk.zero(range(0, 8192), true).expect("a zeroing");
    let found = disk.top().map(range(0, 8192)).expect("a map");
    assert!(matches!(found.source, Source::Zero { .. }) && found.len == 8192);
    drop(found);
    disk.write(GuestOffset(512), &[9; 512]).expect("a write");
    let mut expected = vec![0; 8192];
    expected[512..1024].fill(9);
    assert!(read(&disk, 0, 8192) == expected);
    assert_eq!(read(&disk, 8192, 1), [0x42]);
    disk.flush().expect("a flush");
    assert_eq!(word(&store, 0x3000), 0x5000);
    assert_eq!(word(&store, 0x3008), 1);
}

/// Data and tables reach the medium in an order that needs no check after a crash.
#[test]
fn an_image_is_never_marked_as_one_that_needs_a_check() {
    let (store, disk) = in_memory(1 << 20, &SMALL);
    for number in 0..4 {
        disk.write(GuestOffset(number << 14), &[1; 100]).expect("a write");
        assert_eq!(word(&store, 16) & 2, 0);
        disk.flush().expect("a flush");
        assert_eq!(word(&store, 16) & 2, 0);
    }
    assert!(store.len().expect("memory").is_multiple_of(4096), "the file ends with a cluster");
}

#[test]
fn what_two_entries_name_keeps_an_image_from_being_written() {
    let (store, disk) = in_memory(1 << 20, &SMALL);
    disk.write(GuestOffset(0), &[1; 8192]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    for (at, entry, expected) in [
        (0x3008, 0x5000_u64, "names the cluster at 0x5000, as another one"),
        (0x3008, 0x1000, "the cluster at 0x1000 lies on metadata at 0x1000"),
        (0x3008, 0x4000, "the cluster at 0x4000 lies on metadata at 0x3000"),
        (0x3008, 0x8000, "the L2 entry at 0x3008 is 0x8000"),
        (0x1008, 0x4000, "metadata at 0x4000 lies on that at 0x3000"),
        (0x1008, 0x1000, "metadata at 0x1000 lies on that at 0x1000"),
        (0x1008, 0x9000, "the L1 entry at 0x1008 is 0x9000"),
    ] {
        let damaged = Arc::new(MemoryStorage::new(store.to_vec()));
        damaged.write_at(HostOffset(at), &entry.to_le_bytes()).expect("memory");
        let error = open(damaged).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn features_that_nobody_knows_are_cleared_or_keep_the_name_of_the_backing_file() {
    let (store, disk) = in_memory(1 << 20, &SMALL);
    drop(disk);
    store.write_at(HostOffset(24), &[4]).expect("memory");
    store.write_at(HostOffset(32), &[1]).expect("memory");
    let (disk, _) = open(store.clone()).expect("it opens");
    assert_eq!((word(&store, 24), word(&store, 32)), (4, 0));
    let link = disk.top().backing_link().expect("open for writing");
    let named = Reference::new(Role::Backing, "other");
    let error = link.set_backing(Some(&named)).expect_err("refused");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn whenever_power_fails_while_another_image_is_named_one_of_the_two_is() {
    let store = Arc::new(MemoryStorage::default());
    create(store.clone(), 1 << 20, &SMALL, Some("the first name")).expect("an image");
    let crash = CrashStorage::over(store.to_vec());
    let (disk, named) = open(Arc::new(crash.clone())).expect("it opens");
    assert_eq!(named.expect("a name").name, b"the first name");
    let link = disk.top().backing_link().expect("open for writing");
    let mut raw = Reference::new(Role::Backing, "a second name");
    raw.format = Some("raw".into());
    let third = Reference::new(Role::Backing, "3".repeat(1023));
    for backing in [Some(&raw), Some(&third), None] {
        link.set_backing(backing).expect("it can be named");
        crash.mark();
    }
    let known = ["the first name".to_owned(), "a second name".into(), "3".repeat(1023)];
    let known: Vec<_> = known.into_iter().map(Some).chain([None]).collect();
    for state in crash.torn_states(200, 1) {
        let (_, named) = open(state.storage()).expect("it opens");
        let is_raw = named.as_ref().is_some_and(|named| named.format.is_some());
        let name = named.map(|named| String::from_utf8(named.name).expect("text"));
        let done = state.marks();
        assert!(known[done..known.len().min(done + 2)].contains(&name), "{name:?}\n{state}");
        assert_eq!(is_raw, name.as_deref() == Some("a second name"), "{state}");
    }
    for bad in ["", &"x".repeat(1024), "a\0b"] {
        let named = Reference::new(Role::Backing, bad);
        assert!(link.set_backing(Some(&named)).is_err(), "{bad:?}");
    }
}

#[test]
fn what_the_tables_cannot_map_is_refused_with_its_size() {
    // 1024 entries twice, clusters of 4 KiB.
    let most = 4_u64 << 30;
    let too_large = create(Arc::new(MemoryStorage::default()), most + 512, &SMALL, None);
    let error = too_large.expect_err("too large").to_string();
    assert!(error.contains("a disk of 4294967808 bytes, with tables of this size"), "{error}");
    let (_, disk) = in_memory(1 << 20, &SMALL);
    disk.resize(most, Preallocation::Off).expect("it can be so large");
    disk.write(GuestOffset(most - 512), &[9; 512]).expect("a write");
    assert_eq!(read(&disk, most - 512, 512), [9; 512]);
    let error = disk.resize(most + 512, Preallocation::Off).expect_err("too large").to_string();
    assert!(error.contains("with tables of this size"), "{error}");
    assert_eq!(disk.size(), most);
}

#[test]
fn options_that_make_no_image_that_others_open_are_refused() {
    for (name, value) in [("table_size", "1"), ("table_size", "3"), ("table_size", "32")] {
        let made = create(Arc::new(MemoryStorage::default()), 1 << 20, &[(name, value)], None);
        assert!(made.is_err(), "{name}={value}");
    }
    for size in ["2k", "12k", "128M"] {
        let given = [("cluster_size", size)];
        assert!(create(Arc::new(MemoryStorage::default()), 1 << 20, &given, None).is_err());
    }
}

#[test]
fn an_emptied_image_is_as_short_as_a_new_one_and_names_what_lay_below() {
    let store = Arc::new(MemoryStorage::default());
    let image = create(store.clone(), 4 << 20, &SMALL, Some("base.raw")).expect("an image");
    let before = store.len().expect("memory");
    let disk = Disk::new(image);
    disk.write(GuestOffset(0), &vec![7; 3 << 20]).expect("a write");
    disk.flush().expect("a flush");
    disk.top().backing_link().expect("open for writing").make_empty().expect("emptied");
    assert_eq!(store.len().expect("memory"), before);
    drop(disk);
    let (disk, named) = open(store).expect("it opens");
    assert_eq!(named.expect("a name").name, b"base.raw");
    let found = disk.top().map(range(0, 4 << 20)).expect("a map");
    assert!(matches!(found.source, Source::Absent { .. }));
}

/// Entries behind the end of the disk, which others may have left, do not show when it grows.
#[test]
fn what_entries_behind_the_end_name_does_not_come_to_light() {
    let (store, disk) = in_memory(8192, &SMALL);
    disk.write(GuestOffset(0), &[7; 8192]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    store.write_at(HostOffset(0x30), &4096_u64.to_le_bytes()).expect("memory");
    let (disk, _) = open(store.clone()).expect("it opens");
    assert_eq!(disk.size(), 4096);
    disk.resize(1 << 20, Preallocation::Off).expect("it grows");
    assert!(read(&disk, 4096, 8192) == [0; 8192]);
    assert_eq!(read(&disk, 0, 1), [7]);
    disk.flush().expect("a flush");
    assert_eq!(word(&store, 0x3008), 0);
}

#[test]
fn a_new_image_is_as_large_as_measured() {
    let data = [range(0, 1), range(100_000, 200_000), range(5 << 20, 4096)];
    let options = anydisk_core::Options::of(&QED);
    let request = anydisk_core::MeasureRequest { size: 9 << 20, data: &data, options: &options };
    let measured = QED.measure(&request).expect("it can be told");
    let (store, disk) = in_memory(9 << 20, &[]);
    for part in data {
        let bytes = vec![1; usize::try_from(part.len()).expect("small")];
        disk.write(part.start(), &bytes).expect("a write");
    }
    disk.flush().expect("a flush");
    assert_eq!(measured.required, store.len().expect("memory"));
}

/// Power, or the process, may go at any moment of a first long write that nobody flushes: what it leaves
/// was told as lost tables, which no repair could end.
#[test]
fn a_first_long_write_that_is_killed_leaves_no_lost_tables() {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let make = || -> Arc<dyn Storage> { in_memory(128 << 20, &[]).0 };
    let open = |store| open(store).expect("it opens").0;
    kill_first_write(make, open, 64 << 20, |store, when| {
        let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
        let report = QED.check(&request, &mut |_| {}).expect("it can be checked");
        assert_eq!(report.corruptions, 0, "{when}");
    });
}
