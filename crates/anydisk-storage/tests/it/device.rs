//! Block devices and file systems of our own, on loop devices. Needs root; skipped aloud without.

use std::path::PathBuf;

use crate::common::{Length, agree_with_a_vector, contents, operations};
use anydisk_storage::{
    Copied, Error, FileStorage, HostOffset, Identity, LockMode, MemoryStorage, OpenOptions,
    PendingFile, Storage,
};
use anydisk_testkit::mounted::{Loop, Mount};
use proptest::test_runner::{Config, TestRunner};

const MIB: u64 = 1 << 20;

fn open(device: &Loop, options: OpenOptions) -> FileStorage {
    FileStorage::open(device.path(), &options.block_devices(true)).unwrap()
}

#[test]
fn a_block_device_agrees_with_a_vector() {
    for direct in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let Some(device) = Loop::sparse(dir.path(), 64 * 4096) else { return };
        let store = open(&device, OpenOptions::new().write(true).direct(direct));
        check_many(&store, Length::Fixed);
    }
}

fn check_many(store: &FileStorage, length: Length) {
    let mut runner = TestRunner::new(Config { cases: 30, ..Config::default() });
    let result = runner.run(&operations(), |ops| {
        agree_with_a_vector(store, length, &ops);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn files_on_other_file_systems_agree_with_a_vector() {
    let dir = tempfile::tempdir().unwrap();
    let tmpfs = Mount::new(&["-t", "tmpfs", "none"], dir.path().join("tmpfs"));
    let xfs = Mount::sharing(dir.path());
    let tmpfs = tmpfs.iter();
    for mount in tmpfs.chain(&xfs) {
        for direct in [false, true] {
            let options = OpenOptions::new().write(true).create(true).direct(direct);
            match FileStorage::open(mount.path().join("disk"), &options) {
                Ok(store) => check_many(&store, Length::Free),
                Err(Error::Unsupported { .. }) => eprintln!("skipped: no direct I/O on {mount:?}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_block_device_is_opened_only_where_devices_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = Loop::sparse(dir.path(), MIB) else { return };
    let error = FileStorage::open(device.path(), &OpenOptions::new()).unwrap_err();
    assert!(error.to_string().ends_with("is a block device, expected a regular file"), "{error}");
    let store = open(&device, OpenOptions::new());
    assert!(store.is_block_device());
    assert_eq!(store.len().unwrap(), MIB);
}

#[test]
fn a_block_device_keeps_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = Loop::sparse(dir.path(), MIB) else { return };
    let store = open(&device, OpenOptions::new().write(true).truncate(true));
    assert_eq!(store.len().unwrap(), MIB, "nothing to truncate");
    store.set_len(MIB).unwrap();
    assert!(matches!(store.set_len(MIB / 2).unwrap_err(), Error::Unsupported { .. }));
    let error = store.write_at(HostOffset(MIB - 1), b"ab").unwrap_err();
    assert!(matches!(error, Error::OutOfRange { end: MIB, .. }), "{error}");
    let space = store.space().unwrap();
    space.allocate(HostOffset::ZERO, MIB).unwrap();
    assert!(matches!(space.allocate(HostOffset(MIB), 1).unwrap_err(), Error::Unsupported { .. }));
}

#[test]
fn a_block_device_is_itself_by_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = Loop::sparse(dir.path(), MIB) else { return };
    let store = open(&device, OpenOptions::new());
    let Some(Identity::Device(number)) = store.identity() else { panic!("{store:?}") };
    let node = dir.path().join("node");
    let kind = rustix::fs::FileType::BlockDevice;
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, number).unwrap();
    let again = FileStorage::open(&node, &OpenOptions::new().block_devices(true)).unwrap();
    assert_eq!(again.identity(), store.identity());
}

#[test]
fn zeroing_and_discarding_on_a_device_give_the_space_below_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = Loop::sparse(dir.path(), 4 * MIB) else { return };
    let backing =
        FileStorage::open(dir.path().join("backing"), &OpenOptions::new().lock(LockMode::Off));
    let backing = backing.unwrap();
    let store = open(&device, OpenOptions::new().write(true));
    for discard in [false, true] {
        store.write_at(HostOffset::ZERO, &vec![1; 4 << 20]).unwrap();
        store.flush().unwrap();
        assert!(backing.holes().unwrap().allocated().unwrap() >= 4 * MIB);
        let space = store.space().unwrap();
        match discard {
            false => space.zero(HostOffset(100), 4 * MIB - 200, true).unwrap(),
            true => space.discard(HostOffset(100), 4 * MIB - 200).unwrap(),
        }
        store.flush().unwrap();
        assert!(backing.holes().unwrap().allocated().unwrap() < MIB);
        let bytes = contents(&store);
        assert!(bytes[..100] == [1; 100] && bytes[4 * (1 << 20) - 100..] == [1; 100]);
    }
}

#[test]
fn a_device_cannot_be_replaced_by_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = Loop::sparse(dir.path(), MIB) else { return };
    let error = PendingFile::create(device.path(), &OpenOptions::new()).unwrap_err();
    let expected = "is a block device, expected a regular file, which a new one can replace";
    assert!(error.to_string().ends_with(expected), "{error}");
}

/// The kernel tells of a write that it lost once: after that, fdatasync succeeds. A caller who
/// tries again must not take that for success.
#[test]
fn after_a_failed_flush_every_later_flush_fails() {
    let dir = tempfile::tempdir().unwrap();
    let small = Mount::new(&["-t", "tmpfs", "-o", "size=1m", "none"], dir.path().join("small"));
    let Some(small) = small else { return };
    let Some(device) = Loop::sparse(small.path(), 8 * MIB) else { return };
    let store = open(&device, OpenOptions::new().write(true));
    store.write_at(HostOffset::ZERO, &vec![1; 8 << 20]).unwrap();
    let first = store.flush().unwrap_err();
    assert!(first.to_string().contains("cannot flush"), "{first}");
    let second = store.flush().unwrap_err();
    assert!(second.to_string().ends_with("an earlier flush failed, data may be lost"), "{second}");
}

#[test]
fn aligned_ranges_are_shared_and_others_copied() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::sharing(dir.path()) else { return };
    let create = |name: &str| {
        let options = OpenOptions::new().write(true).create(true);
        FileStorage::open(mount.path().join(name), &options).unwrap()
    };
    let source = create("source");
    let bytes: Vec<u8> = (0..2_000_001_u32).map(|n| n.to_le_bytes()[1] | 1).collect();
    source.write_at(HostOffset::ZERO, &bytes).unwrap();
    let len = bytes.len() as u64;
    for (from, to, len, expected) in [
        (0, 0, len, Copied::Shared),
        (4096, 8192, 1 << 20, Copied::Shared),
        (4096, 8192, (1 << 20) + 7, Copied::Shared),
        (1, 0, 1 << 20, Copied::InKernel),
        (0, 0, 100, Copied::InKernel),
    ] {
        let target = create("target");
        target.set_len(0).unwrap();
        let copier = target.copier().unwrap();
        let copied = copier.copy_from(&source, HostOffset(from), HostOffset(to), len).unwrap();
        assert_eq!(copied, Some(expected), "{len} bytes from {from} to {to}");
        let read = contents(&target);
        let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        assert!(read[..to].iter().all(|&byte| byte == 0));
        assert!(read[to..] == bytes[from..][..usize::try_from(len).unwrap()]);
    }
}

#[test]
fn whole_blocks_are_shared_and_it_is_known_before() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::sharing(dir.path()) else { return };
    let options = OpenOptions::new().write(true).create(true);
    let create = |path: PathBuf| FileStorage::open(path, &options).unwrap();
    let (source, target) =
        (create(mount.path().join("source")), create(mount.path().join("target")));
    let bytes: Vec<u8> = (0..200_001_u32).map(|n| n.to_le_bytes()[1] | 1).collect();
    source.write_at(HostOffset::ZERO, &bytes).unwrap();
    let copier = target.copier().unwrap();
    assert!(copier.shares_with(&source) && copier.shares_with(&target));
    assert!(!copier.shares_with(&MemoryStorage::new(vec![1; 10])));
    assert!(!copier.shares_with(&create(dir.path().join("elsewhere"))));
    assert_eq!(target.len().unwrap(), 0, "a question changes nothing");
    for (from, to, len, shared) in [
        (0, 65536, 200_001, 196_608),
        (4096, 0, 8192, 8192),
        (4096, 0, 8191, 4096),
        (512, 512, 8192, 0),
        (0, 0, 4095, 0),
    ] {
        let share = copier.share_from(&source, HostOffset(from), HostOffset(to), len);
        assert_eq!(share.unwrap(), shared, "{len} bytes from {from} to {to}");
        let read = contents(&target);
        let [from, to, shared] = [from, to, shared].map(|n| usize::try_from(n).unwrap());
        assert!(read[to..][..shared] == bytes[from..][..shared]);
    }
    let error = copier.share_from(&source, HostOffset(200_000), HostOffset::ZERO, 2);
    assert!(error.is_err());
}

#[test]
fn files_of_different_file_systems_and_stores_without_a_file_are_copied_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let small = Mount::new(&["-t", "tmpfs", "-o", "size=4m", "none"], dir.path().join("small"));
    let Some(small) = small else { return };
    let create = |path: PathBuf| {
        FileStorage::open(path, &OpenOptions::new().write(true).create(true)).unwrap()
    };
    let (here, there) = (create(dir.path().join("disk")), create(small.path().join("disk")));
    here.set_len(MIB).unwrap();
    let copier = there.copier().unwrap();
    let from = |source: &dyn Storage| {
        copier.copy_from(source, HostOffset::ZERO, HostOffset::ZERO, MIB).unwrap()
    };
    assert_eq!(from(&here), None);
    assert_eq!(from(&MemoryStorage::new(vec![1; 1 << 20])), None);
}

#[test]
fn a_file_system_without_room_refuses_to_allocate() {
    let dir = tempfile::tempdir().unwrap();
    let small = Mount::new(&["-t", "tmpfs", "-o", "size=1m", "none"], dir.path().join("small"));
    let Some(small) = small else { return };
    let options = OpenOptions::new().write(true).create(true);
    let disk = FileStorage::open(small.path().join("disk"), &options).unwrap();
    let error = disk.space().unwrap().allocate(HostOffset::ZERO, 2 * MIB).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull), "{error}");
}
