//! What only qcow does when it is written: copying up, streams that make room, images refused.

use std::sync::Arc;

use crate::common::{Folder, create, in_memory, range, read};
use anydisk_core::{
    Access, CheckRequest, Disk, Format, GuestOffset, HostOffset, Limits, Location, MeasureRequest,
    OpenRequest, Options, Placement, Reference, Result, Role, Source, Storage,
};
use anydisk_qcow::QCOW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::digest::{Reading, content_sha256};
use anydisk_testkit::double::{Kind, RecordingStorage};
use anydisk_testkit::golden::cases;
use anydisk_testkit::kill_first_write;

fn open(bytes: Vec<u8>, access: Access) -> Result<Disk> {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let store = Arc::new(MemoryStorage::new(bytes));
    let request = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
    Ok(Disk::new(QCOW.open(request)?.image))
}

/// An image of 1 MiB with clusters of 4 KiB, the first two of them written: header and L1 table,
/// at 0x1000 the data, at 0x3000 the L2 table.
fn small() -> Vec<u8> {
    let (store, disk) = in_memory(1 << 20, &[]);
    disk.write(GuestOffset(0), &[7; 8192]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    store.to_vec()
}

fn with_word(at: usize, word: u64) -> Vec<u8> {
    let mut bytes = small();
    bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    bytes
}

fn refusal(bytes: Vec<u8>) -> String {
    open(bytes.clone(), Access::Read).expect("it can be read");
    open(bytes, Access::ReadWrite).unwrap_err().to_string()
}

#[test]
fn a_write_of_a_part_of_a_cluster_keeps_the_rest_of_the_backing_file() {
    let case = cases("qcow").into_iter().find(|case| case.name == "backing-4k").expect("there");
    let folder = Folder::new();
    let unpacked = case.unpack();
    for file in &case.files {
        std::fs::copy(unpacked.file(&file.name), folder.path(&file.name)).expect("a copy");
    }
    let disk = folder.open(&case.open, Access::ReadWrite);
    disk.write(GuestOffset(512), &[1; 512]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let found = content_sha256(&folder.open(&case.open, Access::Read), Reading::Large);
    let expected = case.json["writer_test"]["content_sha256_after"].as_str().expect("a hash");
    assert_eq!(found.expect("a read"), expected);
}

#[test]
fn an_image_with_metadata_on_metadata_is_not_written() {
    // The L1 table names itself, and a table in the header.
    assert_eq!(
        refusal(with_word(48, 0x30)),
        "qcow: the image needs repair: metadata at 0x30 lies on that at \
         0x30"
    );
    assert_eq!(
        refusal(with_word(48, 0x8)),
        "qcow: the image needs repair: metadata at 0x8 lies on that at 0x0"
    );
}

/// What is said when an image is written whose cluster 5 cannot be: in place, anew, by giving space
/// back, and by naming another image. Nothing of it is written.
fn refusal_of_writing(word: u64) -> String {
    let store = Arc::new(MemoryStorage::new(with_word(0x1000 + 8 * 5, word)));
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest::new(store.clone(), &location, &limits);
    let opened = QCOW.open(OpenRequest { access: Access::ReadWrite, ..request }).expect("it opens");
    let disk = Disk::new(opened.image.clone());
    let link = opened.image.backing_link().expect("open for writing");
    let refusals = [
        disk.write(GuestOffset(0x5000), &[9; 512]),
        disk.write(GuestOffset(0x9000), &[9; 512]),
        disk.discard(range(0, 4096)),
        link.set_backing(Some(&Reference::new(Role::Backing, "below.raw"))),
    ]
    .map(|refused| refused.unwrap_err().to_string());
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
    disk.flush().expect("nothing to be written");
    assert!(store.to_vec() == with_word(0x1000 + 8 * 5, word), "it was written");
    refusals[0].clone()
}

#[test]
fn an_image_with_a_cluster_in_its_metadata_is_not_written() {
    for place in [0x1000, 0x1e00, 0x0e00] {
        let error = refusal_of_writing(place);
        let place = format!("the cluster at {place:#x} lies on metadata at 0x1000");
        assert!(error.ends_with(&place), "{error}");
    }
    // A stream that ends where the table begins does not.
    let write = |word: u64| {
        let disk = open(with_word(0x1000 + 8 * 5, word), Access::ReadWrite).expect("it opens");
        disk.write(GuestOffset(0x9000), &[9; 512])
    };
    write(1 << 63 | 9 << 51 | 0xff7).expect("a write");
    let error = write(1 << 63 | 10 << 51 | 0xff7).unwrap_err().to_string();
    assert!(error.ends_with("the cluster at 0xff7 lies on metadata at 0x1000"), "{error}");
}

#[test]
fn an_image_that_names_what_lies_behind_the_end_of_its_file_is_not_written() {
    let end = 0x4000;
    let error = refusal_of_writing(end + 512);
    assert!(
        error.ends_with("a cluster at 0x4200 lies behind the end of the file at 0x4000"),
        "{error}"
    );
    // A program that died named a place at the end and did not write it: nobody else gets it.
    let bytes = with_word(0x1000 + 8 * 5, end);
    let disk = open(bytes, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0x9000), &[9; 4096]).expect("a write");
    assert_eq!(read(&disk, 0x5000, 4096), [0; 4096]);
    let found = disk.map(range(0x9000, 4096)).expect("a map").extent;
    let Source::Data { at, .. } = found.source else { panic!("{:?}", found.source) };
    assert_eq!(at, HostOffset(end + 4096));
}

/// The L1 table says where the metadata is. All entries are read once, before the first write, to know
/// what is named, and that nothing is named twice.
#[test]
fn opening_for_writing_does_not_read_all_tables_and_writing_reads_them_once() {
    const TABLES: u64 = 600;
    let size = TABLES << 21;
    let (store, disk) = in_memory(size, &[]);
    for table in 0..TABLES {
        disk.write(GuestOffset(table << 21), &[7; 4096]).expect("a write");
    }
    disk.flush().expect("a flush");
    drop(disk);
    let recorder = RecordingStorage::new(store);
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest::new(Arc::new(recorder.clone()), &location, &limits);
    let opened = QCOW.open(OpenRequest { access: Access::ReadWrite, ..request }).expect("it opens");
    let disk = Disk::new(opened.image);
    let read_since = || -> u64 { recorder.take_kind(Kind::Read).iter().map(|call| call.len).sum() };
    let opening = read_since();
    assert!(opening < 2 * TABLES * 8, "{opening} bytes were read to open it");
    disk.write(GuestOffset(0), &[8; 4096]).expect("a write in place");
    let writing = read_since();
    assert!((TABLES * 4096..TABLES * 4096 + (16 << 10)).contains(&writing), "{writing}");
    disk.write(GuestOffset(4096), &[8; 4096]).expect("a write to a new cluster");
    disk.write(GuestOffset(8192), &[8; 4096]).expect("a write to a new cluster");
    assert_eq!(read_since(), 0);
}

/// The offsets of two entries, and what they become: both name one cluster, or one has a stream where the
/// other has something.
#[test]
fn what_two_entries_name_is_not_written_in_place_or_elsewhere_and_not_given_back() {
    let packed = |at: u64, len: u64| 1 << 63 | len << 51 | at;
    let (table, first) = (0x1000, 0x2000);
    for (number, words, expected) in [
        (0, [first, first], "names the cluster at 0x2000, as another one"),
        (1, [first, packed(first + 4000, 200)], "two L2 entries name what lies at 0x2fa0"),
        (2, [packed(0x3800, 200), packed(0x38c7, 9)], "two L2 entries name what lies at 0x38c7"),
    ] {
        let mut bytes = small();
        for (entry, word) in (0..).zip(words) {
            bytes[table + 8 * entry..][..8].copy_from_slice(&word.to_be_bytes());
        }
        bytes[table + 16..table + 32].fill(0);
        bytes.resize(0x4000, 0);
        let store = Arc::new(MemoryStorage::new(bytes.clone()));
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let open = OpenRequest::new(store.clone(), &location, &limits);
        let open = OpenRequest { access: Access::ReadWrite, ..open };
        let disk = Disk::new(QCOW.open(open).expect("it opens").image);
        for at in [0, 0x5000] {
            let error = disk.write(GuestOffset(at), &[9; 512]).expect_err("refused").to_string();
            assert!(error.contains(expected), "{number}: {error}");
        }
        let error = disk.discard(range(0, 4096)).expect_err("refused").to_string();
        assert!(error.contains(expected), "{number}: {error}");
        assert!(store.to_vec() == bytes, "{number}");
    }
    // Streams that follow each other are as they should be.
    let mut bytes = small();
    for (entry, word) in (0..).zip([packed(0x3800, 200), packed(0x38c8, 9)]) {
        bytes[table + 8 * entry..][..8].copy_from_slice(&u64::to_be_bytes(word));
    }
    let disk = open(bytes, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0x5000), &[9; 512]).expect("a write");
}

#[test]
fn the_space_of_compressed_clusters_is_used_again() {
    let (store, disk) = in_memory(1 << 20, &[]);
    let writer = disk.top().writer().expect("open for writing");
    let pack = |number: u64| {
        let place = writer.place_encoded(range(number * 4096, 4096), 1000).expect("room");
        let Placement::Fresh(taken) = place else { panic!("packed bytes are new") };
        taken.store().write_at(taken.at(), &[1; 1000]).expect("a write");
        taken.commit().expect("a commit");
    };
    let round = || {
        (0..8).for_each(pack);
        disk.flush().expect("a flush");
        disk.discard(range(0, 8 * 4096)).expect("a discard");
        disk.flush().expect("a flush");
    };
    (0..3).for_each(|_| round());
    let before = store.len().expect("memory has a length");
    (0..50).for_each(|_| round());
    let after = store.len().expect("memory has a length");
    assert!(after <= before + 4096, "the file grew from {before} to {after}");
}

#[test]
fn a_stream_that_is_no_smaller_than_its_cluster_is_refused() {
    let (_, disk) = in_memory(1 << 20, &[]);
    let writer = disk.top().writer().expect("open for writing");
    assert!(writer.place_encoded(range(0, 4096), 4095).is_ok());
    for (unit, len) in [(range(4096, 4096), 4096), (range(4096, 4096), 0), (range(4096, 512), 9)] {
        writer.place_encoded(unit, len).unwrap_err();
    }
}

#[test]
fn over_a_backing_file_zeroes_are_written_and_a_discard_changes_nothing() {
    let store = Arc::new(MemoryStorage::default());
    let image = create(store, 1 << 20, &[], Some("below.raw")).expect("an image");
    // Nobody says what lies below: the header does.
    let disk = Disk::new(image);
    disk.write(GuestOffset(0), &[7; 4096]).expect("a write");
    disk.discard(range(0, 4096)).expect("a discard");
    assert_eq!(read(&disk, 0, 4096), [7; 4096]);
    disk.zero(range(0, 8192), true).expect("a zeroing");
    for at in [0, 4096] {
        let found = disk.map(range(at, 4096)).expect("a map").extent;
        assert!(matches!(found.source, Source::Data { .. }), "{:?}", found.source);
    }
}

#[test]
fn the_name_of_the_backing_file_is_durable_before_the_header_points_to_it() {
    let store = Arc::new(MemoryStorage::new(small()));
    let recorder = RecordingStorage::new(store.clone());
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest::new(Arc::new(recorder.clone()), &location, &limits);
    let opened = QCOW.open(OpenRequest { access: Access::ReadWrite, ..request }).expect("it opens");
    let link = opened.image.backing_link().expect("open for writing");
    let _ = recorder.take();
    let below = Reference::new(Role::Backing, "below.raw");
    link.set_backing(Some(&below)).expect("a name");
    let calls: Vec<String> = recorder
        .take()
        .iter()
        .filter(|call| !matches!(call.kind, Kind::Len | Kind::Read | Kind::Holes))
        .map(ToString::to_string)
        .collect();
    assert_eq!(calls, ["write 0x9 at 0x4000", "flush", "write 0xc at 0x8", "flush"]);
    let backing = || {
        let request = OpenRequest::new(store.clone(), &location, &limits);
        QCOW.open(request).expect("it opens").backing
    };
    assert_eq!(backing(), Some(below));
    // What is absent shows the image below now, so a cluster cannot be made absent to be zero.
    let disk = Disk::new(opened.image.clone());
    disk.discard(range(0, 4096)).expect("a discard");
    assert_eq!(read(&disk, 0, 4096), [7; 4096]);
    link.set_backing(None).expect("no name");
    assert_eq!(backing(), None);
    disk.discard(range(0, 4096)).expect("a discard");
    assert_eq!(read(&disk, 0, 4096), [0; 4096]);
    for name in [&b""[..], b"a\0b", &[b'n'; 1024]] {
        link.set_backing(Some(&Reference::new(Role::Backing, name))).unwrap_err();
    }
}

#[test]
fn a_new_image_is_as_large_as_measured() {
    let options = Options::of(&QCOW);
    let (store, disk) = in_memory(5 << 20, &[]);
    let data = [range(0, 10_000), range(3 << 20, 1)];
    let request = MeasureRequest { size: 5 << 20, options: &options, data: &data };
    let measured = QCOW.measure(&request).expect("a measure");
    for part in data {
        let len = usize::try_from(part.len()).expect("small");
        disk.write(part.start(), &vec![1; len]).expect("a write");
    }
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory has a length"), measured.required);
    let len = usize::try_from(disk.size()).expect("small");
    disk.write(GuestOffset(0), &vec![2; len]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory has a length"), measured.fully_allocated);
}

#[test]
fn names_and_sizes_that_the_header_cannot_hold_are_refused() {
    let try_create = |size, below: Option<&str>| {
        let store = Arc::new(MemoryStorage::default());
        create(store, size, &[], below).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(try_create(1 << 20, Some(&"n".repeat(1023))), Ok(()));
    assert!(
        try_create(1 << 20, Some(&"n".repeat(1024))).unwrap_err().contains("at most 1023 bytes")
    );
    assert!(try_create(1 << 20, Some("a\0b")).unwrap_err().contains("none of them 0"));
    assert_eq!(try_create(0, None).unwrap_err(), "qcow: a disk of 0 bytes is not supported");
    assert!(try_create(1 << 60, None).unwrap_err().contains("more than the limit of 268435455"));
}

#[test]
fn an_emptied_image_is_as_short_as_a_new_one_and_names_what_lay_below() {
    let store = Arc::new(MemoryStorage::default());
    let image = create(store.clone(), 64 << 20, &[], Some("below.raw")).expect("an image");
    let new = store.to_vec();
    let disk = Disk::new(image);
    for megabyte in [0, 7, 40] {
        disk.write(GuestOffset(megabyte << 20), &[7; 70_000]).expect("a write");
    }
    disk.flush().expect("a flush");
    let link = disk.top().backing_link().expect("open for writing");
    link.make_empty().expect("it can be emptied");
    assert!(store.to_vec() == new);
    // A name that lies behind the table stays where it is; what was before it is a hole.
    disk.write(GuestOffset(0), &[7; 70_000]).expect("a write");
    let name = "n".repeat(1000);
    link.set_backing(Some(&Reference::new(Role::Backing, &*name))).expect("a name");
    link.make_empty().expect("it can be emptied");
    let bytes = store.to_vec();
    assert!(bytes.ends_with(name.as_bytes()));
    assert!(bytes[new.len()..bytes.len() - name.len()].iter().all(|byte| *byte == 0));
}

/// What is written to one would be in both; and a write that needs new space and is refused changes nothing,
/// wherever the entry is that forbids it.
#[test]
fn a_write_that_needs_new_space_in_an_image_in_which_something_is_wrong_changes_nothing() {
    let word = |bytes: &[u8], at: u64| {
        let at = usize::try_from(at).expect("small");
        u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
    };
    for is_far in [false, true] {
        let bytes = small();
        let table = word(&bytes, 48);
        let first = word(&bytes, table);
        let (entry, value, expected) = match is_far {
            false => (table + 8, first, format!("names the cluster at {first:#x}, as another one")),
            true => (table + 72, 0x900_0000, "a cluster at 0x9000000 lies behind".to_owned()),
        };
        let store = Arc::new(MemoryStorage::new(bytes));
        store.write_at(HostOffset(entry), &value.to_be_bytes()).expect("a write");
        let before = store.to_vec();
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let open = OpenRequest::new(store.clone(), &location, &limits);
        let open = OpenRequest { access: Access::ReadWrite, ..open };
        let disk = Disk::new(QCOW.open(open).expect("it opens").image);
        for _ in 0..2 {
            let error = disk.write(GuestOffset(0), &[9; 16384]).expect_err("refused").to_string();
            assert!(error.contains(&expected), "{error}");
        }
        assert!(store.to_vec() == before, "{expected}");
    }
}

/// Power, or the process, may go at any moment of a first long write that nobody flushes: what it leaves
/// was told as lost tables, which no repair could end.
#[test]
fn a_first_long_write_that_is_killed_leaves_no_lost_tables() {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let make = || -> Arc<dyn Storage> { in_memory(64 << 20, &[]).0 };
    let open = |store| {
        let request = OpenRequest::new(store, &location, &limits);
        let request = OpenRequest { access: Access::ReadWrite, ..request };
        Disk::new(QCOW.open(request).expect("it opens").image)
    };
    kill_first_write(make, open, 0, |store, when| {
        let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
        let report = QCOW.check(&request, &mut |_| {}).expect("it can be checked");
        assert_eq!(report.corruptions, 0, "{when}");
    });
}
