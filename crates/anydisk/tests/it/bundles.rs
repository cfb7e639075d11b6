//! Disks that are folders.

use anydisk::{GuestOffset, OpenDisk, Policy, SnapshotRef};
use anydisk_testkit::golden::cases;

#[test]
fn a_bundle_is_opened_by_its_folder_or_its_descriptor_and_follows_no_name_out_of_it() {
    let case = |name| cases("parallels").into_iter().find(|case| case.name == name);
    let unpacked = case("bundle-snapshot").expect("it is there").unpack();
    for path in [unpacked.folder.path(), &unpacked.path] {
        let disk = OpenDisk::new().path(path).expect("it opens");
        let mut bytes = [0; 512];
        disk.read(GuestOffset(1 << 20), &mut bytes).expect("a read");
        let before = SnapshotRef::Id("11111111-2222-3333-4444-555555555555".into());
        let mut old = [0; 512];
        let snapshot = disk.at_snapshot(&before).expect("it has one");
        snapshot.read(GuestOffset(1 << 20), &mut old).expect("a read");
        assert_ne!(bytes, old);
        assert!(OpenDisk::new().policy(Policy::Nothing).path(path).is_err());
    }
    let unpacked = case("hostile-bundle-absolute-path").expect("it is there").unpack();
    let error =
        OpenDisk::new().path(unpacked.folder.path()).expect_err("it is refused").to_string();
    assert!(error.contains("/etc/passwd"), "{error}");
}

#[test]
fn a_bundle_is_written_by_its_folder() {
    let found = cases("parallels").into_iter().find(|case| case.name == "bundle-snapshot");
    let unpacked = found.expect("it is there").unpack();
    let folder = unpacked.folder.path();
    let disk = OpenDisk::new().write(true).path(folder).expect("it opens");
    disk.write(GuestOffset(3 << 20), b"hello").expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let mut bytes = [0; 5];
    let disk = OpenDisk::new().path(folder).expect("it opens");
    disk.read(GuestOffset(3 << 20), &mut bytes).expect("a read");
    assert_eq!(&bytes, b"hello");
}
