//! What writing does to a VHD beside the data, and what is refused.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Disk, Error, Format, GuestOffset, GuestRange, HostOffset, Limits,
    Location, OpenRequest, Reference, Source, Storage, StorageExt,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::{Kind, RecordingStorage};
use anydisk_testkit::golden::cases;
use anydisk_testkit::{MemoryFolder, contents, kill_first_write};
use anydisk_vhd::VHD;

use crate::common::{create, open_in, reference_to};

fn new(size: u64, given: &[(&str, &str)]) -> (Arc<MemoryStorage>, Disk) {
    let store = Arc::new(MemoryStorage::default());
    let disk = create(store.clone(), size, given, None).expect("it can be made");
    (store, disk)
}

fn bytes_at<const N: usize>(store: &dyn Storage, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    store.read_exact_at(HostOffset(at), &mut bytes).expect("it is in the file");
    bytes
}

fn number_at(store: &dyn Storage, at: u64) -> u32 {
    u32::from_be_bytes(bytes_at(store, at))
}

fn file_of(case: &str) -> MemoryFolder {
    let cases = cases("vhd");
    cases.iter().find(|found| found.name == case).expect("a golden image").in_memory()
}

#[test]
fn after_a_flush_the_file_ends_with_the_footer_that_it_begins_with() {
    let (store, disk) = new(20 << 20, &[]);
    for at in [9 << 20, 0, 5 << 20] {
        disk.write(GuestOffset(at), &[7; 9000]).expect("a write");
        disk.flush().expect("a flush");
        let end = store.len().expect("memory") - 512;
        assert_eq!(bytes_at::<512>(&*store, end), bytes_at::<512>(&*store, 0));
        assert_eq!(bytes_at(&*store, end), *b"conectix");
    }
}

#[test]
fn the_file_becomes_shorter_when_its_last_block_is_discarded() {
    let (store, disk) = new(20 << 20, &[]);
    disk.write(GuestOffset::ZERO, &[7; 512]).expect("a write");
    disk.flush().expect("a flush");
    let len = store.len().expect("memory");
    disk.write(GuestOffset(4 << 20), &[7; 512]).expect("a write");
    disk.flush().expect("a flush");
    assert!(store.len().expect("memory") > len);
    disk.discard(GuestRange::between(GuestOffset(4 << 20), GuestOffset(6 << 20))).expect("it can");
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory"), len);
}

#[test]
fn the_footer_of_an_image_without_blocks_is_right_behind_the_table() {
    for (size, given, end) in [(6 << 20, "2M", 0x800), (1 << 20, "4k", 0x600 + 1024)] {
        let (store, disk) = new(size, &[("force_size", "on"), ("block_size", given)]);
        assert_eq!(store.len().expect("memory"), end + 512);
        disk.write(GuestOffset(700), &[1]).expect("a write");
        disk.flush().expect("a flush");
        assert!(store.len().expect("memory") > end + 4096);
        disk.discard(GuestRange::whole(size)).expect("it can");
        disk.flush().expect("a flush");
        assert_eq!(store.len().expect("memory"), end + 512);
        assert_eq!(bytes_at(&*store, end), *b"conectix");
    }
}

#[test]
fn blocks_lie_on_boundaries_of_4_kib_and_all_their_bits_are_set() {
    let (store, disk) = new(20 << 20, &[("force_size", "on")]);
    for block in [3, 1] {
        disk.write(GuestOffset((block * 2) << 20), &[7]).expect("a write");
    }
    disk.flush().expect("a flush");
    for block in [3_u64, 1] {
        let bitmap = u64::from(number_at(&*store, 0x600 + 4 * block)) * 512;
        assert_eq!((bitmap + 512) % 4096, 0);
        assert_eq!(bytes_at(&*store, bitmap), [0xFF; 512]);
        assert_eq!(bytes_at(&*store, bitmap + 512), [7, 0]);
    }
    assert_eq!(number_at(&*store, 0x600), u32::MAX);
}

#[test]
fn blocks_of_others_get_all_their_bits_when_they_are_written() {
    let folder = file_of("dynamic-qemu");
    let store = folder.file("disk.vhd").expect("it is there");
    let bitmap = u64::from(number_at(&*store, 0x600)) * 512;
    store.write_at(HostOffset(bitmap), &[0xFE; 512]).expect("memory");
    let disk = open_in(&folder, "disk.vhd", Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(512 * 7), &[1; 512]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(bytes_at(&*store, bitmap), [0xFF; 512]);
}

#[test]
fn blocks_of_a_table_that_was_lost_are_neither_cut_off_nor_written_over() {
    let size = 18 << 20;
    let (store, disk) = new(size, &[("force_size", "on")]);
    disk.write(GuestOffset::ZERO, &vec![7; 18 << 20]).expect("a write");
    disk.flush().expect("a flush");
    store.write_at(HostOffset(0x600), &[0xFF; 4 * 9]).expect("memory");
    let before = store.to_vec();
    let end = before.len() - 512;
    let folder = MemoryFolder::default();
    folder.put("disk.vhd", before.clone());
    let disk = open_in(&folder, "disk.vhd", Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(5 << 20), &[1]).expect("a write");
    disk.flush().expect("a flush");
    let after = folder.file("disk.vhd").expect("it is there");
    let entry = u64::from(number_at(&*after, 0x600 + 4 * 2)) * 512;
    assert!(entry >= end as u64, "{entry:#x}");
    assert!(after.to_vec()[0x800..end] == before[0x800..end]);
    disk.discard(GuestRange::whole(size)).expect("it can");
    disk.flush().expect("a flush");
    assert_eq!(after.len().expect("memory"), before.len() as u64);
}

#[test]
fn a_footer_or_its_copy_that_was_lost_is_written_anew() {
    for case in ["footer-lost", "header-copy-lost"] {
        let folder = file_of(case);
        let store = folder.file("disk.vhd").expect("it is there");
        let disk = open_in(&folder, "disk.vhd", Access::ReadWrite).expect("it opens");
        let before = contents(&disk);
        disk.write(GuestOffset(0), &before[..512]).expect("a write");
        disk.flush().expect("a flush");
        let end = store.len().expect("memory") - 512;
        assert_eq!(bytes_at::<512>(&*store, end), bytes_at::<512>(&*store, 0), "{case}");
        let disk = open_in(&folder, "disk.vhd", Access::Read).expect("it opens");
        assert!(disk.layers()[0].warnings.is_empty() && contents(&disk) == before, "{case}");
    }
}

#[test]
fn a_disk_whose_blocks_lie_on_others_or_on_the_header_is_not_written() {
    for case in ["hostile-bat-shared", "hostile-bat-into-header", "hostile-bat-beyond-eof"] {
        let error = open_in(&file_of(case), "disk.vhd", Access::ReadWrite).unwrap_err();
        assert!(matches!(error.kind(), Error::NeedsRepair { .. }), "{case}: {error}");
    }
}

#[test]
fn a_child_holds_the_sectors_that_were_written_and_shows_the_parent_in_all_others() {
    let folder = MemoryFolder::default();
    let (parent, disk) = new(5 << 20, &[("force_size", "on")]);
    disk.write(GuestOffset::ZERO, &[1; 4 << 20]).expect("a write");
    disk.flush().expect("a flush");
    folder.put("parent.vhd", parent.to_vec());
    let reference = reference_to(&disk, "parent.vhd");
    let store = Arc::new(MemoryStorage::default());
    let child = create(store.clone(), 5 << 20, &[], Some(&reference)).expect("it can be made");
    child.flush().expect("a flush");
    folder.put("child.vhd", store.to_vec());
    drop(child);

    let child = open_in(&folder, "child.vhd", Access::ReadWrite).expect("it opens");
    assert_eq!(child.size(), 5 << 20);
    child.write(GuestOffset(512 * 9 + 100), &[2; 1000]).expect("a write");
    child.write(GuestOffset(512 * 4095), &[3; 1024]).expect("a write over two blocks");
    child.flush().expect("a flush");
    let mut expected = vec![1; 4 << 20];
    expected.resize(5 << 20, 0);
    expected[512 * 9 + 100..][..1000].fill(2);
    expected[512 * 4095..][..1024].fill(3);
    drop(child);
    let child = open_in(&folder, "child.vhd", Access::Read).expect("it opens again");
    assert!(contents(&child) == expected);
    // Nothing but whole sectors came along.
    let mut own = 0;
    let mut rest = GuestRange::whole(child.size());
    while !rest.is_empty() {
        let found = child.top().map(rest).expect("a map");
        own += if matches!(found.source, Source::Data { .. }) { found.len } else { 0 };
        rest = rest.skip(found.len);
    }
    assert_eq!(own, 512 * 5);
}

#[test]
fn a_parent_is_named_with_its_uuid_and_a_relative_path_as_windows_writes_it() {
    let (_, parent) = new(5 << 20, &[("uuid", "11111111-2222-3333-4444-555555555555")]);
    let store = Arc::new(MemoryStorage::default());
    let reference = reference_to(&parent, "up/parent.vhd");
    create(store.clone(), parent.size(), &[], Some(&reference)).expect("it can be made");
    assert_eq!(bytes_at::<4>(&*store, 512 + 40), [0x11; 4]);
    assert_eq!(bytes_at(&*store, 512 + 576), *b"W2ru");
    let at = u64::from(number_at(&*store, 512 + 576 + 20));
    let text: Vec<u8> = ".\\up\\parent.vhd".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(bytes_at::<30>(&*store, at).to_vec(), text);
    let name: Vec<u8> = "parent.vhd\0".encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(bytes_at::<22>(&*store, 512 + 64).to_vec(), name);
}

#[test]
fn a_parent_outside_of_the_folder_is_asked_of_the_resolver_by_that_name_which_decides() {
    for name in ["../up/parent.vhd", "/disks/parent.vhd"] {
        let (_, parent) = new(5 << 20, &[]);
        let folder = MemoryFolder::default();
        let store = folder.make_file("child.vhd").expect("a new file");
        let child = create(store.clone(), 5 << 20, &[], Some(&reference_to(&parent, name)));
        child.and_then(|child| child.flush()).expect("it can be made");
        let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
        let names = VHD.references(&OpenRequest::new(store, &here, &limits)).expect("it has one");
        assert_eq!(names.iter().map(Reference::display_name).collect::<Vec<_>>(), [name]);
        // The folder has no such file, and nothing else is tried.
        folder.put("parent.vhd", vec![0; 512]);
        let error = open_in(&folder, "child.vhd", Access::Read).unwrap_err();
        assert!(matches!(error.kind(), Error::Denied { .. }), "{error}");
    }
}

#[test]
fn what_cannot_be_made_is_refused_with_the_option() {
    let refused = |size, given: &[(&str, &str)]| {
        let store = Arc::new(MemoryStorage::default());
        create(store, size, given, None).unwrap_err().to_string()
    };
    let told = refused(1 << 20, &[("block_size", "3M")]);
    assert!(told.contains("block_size") && told.contains("a power of two"), "{told}");
    let told = refused(2041 << 30, &[]);
    assert!(told.contains("more than the limit of 2190433320960"), "{told}");
    let told = refused(1 << 20, &[("uuid", "1")]);
    assert!(told.contains("a UUID that is not nil"), "{told}");
    let (_, parent) = new(5 << 20, &[]);
    let reference = reference_to(&parent, "parent.vhd");
    let store = Arc::new(MemoryStorage::default());
    let told = create(store, 5 << 20, &[("subformat", "fixed")], Some(&reference)).unwrap_err();
    assert!(told.to_string().contains("dynamic for a disk over another one"), "{told}");
}

/// Power, or the process, may go at any moment of a first long write that nobody flushes: what it leaves
/// was taken for blocks of a table that was lost, and never used or given back any more.
#[test]
fn a_first_long_write_that_is_killed_leaves_space_that_is_used_again() {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let open = |store: Arc<dyn Storage>| {
        let request = OpenRequest::new(store, &here, &limits);
        let request = OpenRequest { access: Access::ReadWrite, ..request };
        Disk::new(VHD.open(request).expect("it opens").image)
    };
    let make = || -> Arc<dyn Storage> { new(128 << 20, &[("force_size", "on")]).0 };
    kill_first_write(make, open, 64 << 20, |store, when| {
        let disk = open(Arc::clone(&store));
        disk.write(GuestOffset::ZERO, &[1; 512]).expect("a write");
        disk.flush().expect("a flush");
        drop(disk);
        let request = CheckRequest::new(OpenRequest::new(Arc::clone(&store), &here, &limits));
        let mut found = Vec::new();
        let report = VHD.check(&request, &mut |finding| found.push(finding));
        assert!(report.expect("it can be checked").is_clean() && found.is_empty(), "{when}");
    });
}

/// A conversion makes it, and its file has no name before it is whole.
#[test]
fn a_new_image_that_nobody_flushes_does_not_wait_for_the_medium() {
    let record = RecordingStorage::new(Arc::new(MemoryStorage::default()));
    let given = [("force_size", "on")];
    let disk = create(Arc::new(record.clone()), 64 << 20, &given, None).expect("it can be made");
    drop(record.take());
    disk.write(GuestOffset::ZERO, &vec![7; 40 << 20]).expect("a write");
    assert!(record.take_kind(Kind::Flush).is_empty());
    disk.flush().expect("a flush");
    drop(record.take());
    disk.write(GuestOffset(40 << 20), &vec![7; 24 << 20]).expect("a write");
    assert!(record.take_kind(Kind::Flush).is_empty(), "it is less than is named");
}
