//! A VDI names its parent by UUID only: where the parent is found, and where it is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk::storage::{FileStorage, OpenOptions};
use anydisk::vdi::VDI;
use anydisk::{
    CreateRequest, Disk, Error, Format, GuestOffset, Layer, Limits, Listed, Location, OpenDisk,
    Options, Policy, Reference, Result, Role,
};

/// Makes an image of 1 MiB with `byte` at `at`, over the chain of `parent` if there is one.
fn create(path: &Path, parent: Option<&Path>, at: u64, byte: u8) {
    let options = OpenOptions::new().write(true).create(true);
    let store = Arc::new(FileStorage::open(path, &options).expect("a new file"));
    let (location, limits) = (Location::Path(path.to_owned()), Limits::default());
    let options = Options::of(&VDI);
    let mut request = CreateRequest::new(store, &location, 1 << 20, &options, &limits);
    let below = parent.map(|parent| {
        OpenDisk::new().policy(Policy::LikeQemu).path(parent).expect("the chain opens")
    });
    let reference = below.as_ref().map(|below| {
        let info = below.top().info();
        let mut reference = Reference::new(Role::Backing, "parent");
        (reference.id, reference.content_id) = (info.id, info.content_id);
        reference
    });
    request.backing = reference.as_ref();
    let image = VDI.create(request).expect("it can be made");
    let disk = match below {
        Some(below) => below.overlaid(Layer::new(image, "top")),
        None => Disk::new(image),
    };
    disk.write(GuestOffset(at), &[byte]).expect("a write");
    disk.flush().expect("a flush");
}

/// A machine as VirtualBox keeps it: a base, and two snapshots below `Snapshots`.
fn machine() -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshots = folder.path().join("Snapshots");
    fs::create_dir(&snapshots).expect("a folder");
    let paths = (folder.path().join("disk.vdi"), snapshots.join("a.vdi"), snapshots.join("b.VDI"));
    create(&paths.0, None, 0, 1);
    create(&paths.1, Some(&paths.0), 1, 2);
    create(&paths.2, Some(&paths.1), 2, 3);
    (folder, paths.0, paths.1, paths.2)
}

fn first_bytes(disk: &Disk) -> [u8; 4] {
    let mut bytes = [0; 4];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("it can be read");
    bytes
}

fn refusal(opened: Result<Disk>) -> String {
    let error = opened.expect_err("it is refused");
    assert!(matches!(error.kind(), Error::Denied { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_chain_of_virtualbox_snapshots_opens_where_all_files_are_trusted() {
    let (_folder, _, _, top) = machine();
    let disk = OpenDisk::new().policy(Policy::LikeQemu).path(&top).expect("the chain opens");
    assert_eq!(disk.layers().len(), 3);
    assert_eq!(first_bytes(&disk), [1, 2, 3, 0]);
}

#[test]
fn the_folder_above_is_not_searched_where_only_the_own_one_is_allowed() {
    let (folder, base, middle, _) = machine();
    let error = refusal(OpenDisk::new().path(&middle));
    assert!(error.contains("no image with this ID was found in"), "{error}");
    let moved = folder.path().join("Snapshots/zzz.vdi");
    fs::rename(base, moved).expect("a rename");
    let disk = OpenDisk::new().path(&middle).expect("now it is in the same folder");
    assert_eq!(first_bytes(&disk), [1, 2, 0, 0]);
}

#[test]
fn nothing_is_searched_for_a_stranger_and_the_uuid_is_told() {
    let (_folder, base, middle, _) = machine();
    let id = OpenDisk::new().top(base).expect("it opens").image.info().id.expect("a UUID");
    let error = refusal(OpenDisk::untrusted().path(middle));
    assert!(error.contains(&format!("backing file \"{{{id}}}\" is named by the image")), "{error}");
}

#[test]
fn of_the_files_that_are_listed_the_one_with_the_uuid_is_opened() {
    let (folder, base, middle, top) = machine();
    let other = folder.path().join("other.vdi");
    create(&other, None, 0, 9);
    let files = [other.clone(), middle.clone(), base];
    let listed = Arc::new(Listed::new(files, OpenOptions::new()));
    let disk = OpenDisk::new().policy(Policy::Custom(listed)).path(&top).expect("it opens");
    assert_eq!(first_bytes(&disk), [1, 2, 3, 0]);
    let listed = Arc::new(Listed::new([other, middle], OpenOptions::new()));
    let error = refusal(OpenDisk::new().policy(Policy::Custom(listed)).path(&top));
    assert!(error.contains("it is not in the list of files given"), "{error}");
}

#[test]
fn a_parent_that_was_written_since_is_refused_with_both_uuids() {
    let (_folder, base, middle, _) = machine();
    let disk = OpenDisk::new().write(true).path(&base).expect("it opens");
    disk.write(GuestOffset(100), &[1]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let error = refusal(OpenDisk::new().policy(Policy::LikeQemu).path(middle));
    assert!(error.contains("its content ID is "), "{error}");
}

/// A copy that has been written since, and comes first by name, kept the chain from being opened.
#[test]
fn of_two_files_with_the_uuid_the_one_with_the_content_is_opened() {
    let (folder, base, middle, top) = machine();
    let copy = folder.path().join("aaa.vdi");
    fs::copy(&base, &copy).expect("a copy");
    let disk = OpenDisk::new().write(true).path(&copy).expect("it opens");
    disk.write(GuestOffset::ZERO, &[9]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let like_qemu = || OpenDisk::new().policy(Policy::LikeQemu);
    assert_eq!(first_bytes(&like_qemu().path(&top).expect("it opens")), [1, 2, 3, 0]);
    let above = like_qemu().top(&middle).expect("it opens");
    let found = like_qemu().write(true).file_below(&above).expect("it is found").expect("a parent");
    assert_eq!(found.location, Location::Path(base.clone()));
    // While it is written to, the other one does not stand in for it.
    let error = like_qemu().path(&top).map(|_| ()).expect_err("it is locked");
    assert!(matches!(error.kind(), Error::Storage(_)), "{error:?}");
    drop(found);
    let listed = Arc::new(Listed::new([copy, base, middle], OpenOptions::new()));
    let disk = OpenDisk::new().policy(Policy::Custom(listed)).path(&top).expect("it opens");
    assert_eq!(first_bytes(&disk), [1, 2, 3, 0]);
}

/// A commit wrote into a plain copy of the base, without a word, because it came first by name.
#[test]
fn of_two_files_with_uuid_and_content_one_is_read_and_none_written() {
    let (folder, base, middle, top) = machine();
    let copy = folder.path().join("aaa.vdi");
    fs::copy(&base, &copy).expect("a copy");
    // Another name of the same file is no other file.
    fs::hard_link(&base, folder.path().join("bbb.vdi")).expect("a link");
    let like_qemu = || OpenDisk::new().policy(Policy::LikeQemu);
    assert_eq!(first_bytes(&like_qemu().path(&top).expect("it opens")), [1, 2, 3, 0]);
    let above = like_qemu().top(&middle).expect("it opens");
    let to_write = || like_qemu().write(true);
    for refused in [to_write().below(&above).map(|_| ()), to_write().file_below(&above).map(|_| ())]
    {
        let error = refused.expect_err("it is refused").to_string();
        assert!(error.contains("aaa.vdi and ") && error.contains(" both have this ID"), "{error}");
    }
    fs::remove_file(&copy).expect("it is removed");
    assert!(to_write().below(&above).expect("it opens").is_some());
}

#[test]
fn a_link_to_the_parent_is_not_followed_in_the_same_folder() {
    let (folder, base, middle, _) = machine();
    let link = folder.path().join("Snapshots/link.vdi");
    std::os::unix::fs::symlink(base, link).expect("a link");
    refusal(OpenDisk::new().path(middle));
}
