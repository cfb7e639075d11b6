//! A guest writes the header of an image into its raw disk: what lies below an overlay that does not
//! name the format of its backing file must not lead to other files.

use std::path::Path;
use std::sync::Arc;

use anydisk::qcow2::QCOW2;
use anydisk::storage::{FileStorage, OpenOptions};
use anydisk::{
    CreateRequest, Error, Format, GuestOffset, Limits, Location, OpenDisk, Options, Policy,
    Reference, Role,
};

/// A qcow2 image of 64 KiB over `backing`, whose format it names or not.
fn overlay(path: &Path, backing: &str, format: Option<&str>) {
    let options = OpenOptions::new().write(true).create(true);
    let store = Arc::new(FileStorage::open(path, &options).expect("a new file"));
    let (location, limits) = (Location::Path(path.to_owned()), Limits::default());
    let options = Options::of(&QCOW2);
    let mut reference = Reference::new(Role::Backing, backing);
    reference.format = format.map(String::from);
    let mut request = CreateRequest::new(store, &location, 64 << 10, &options, &limits);
    request.backing = Some(&reference);
    let image = QCOW2.create(request).expect("it can be made");
    image.writer().expect("it is new").flush().expect("a flush");
}

/// A secret, a disk whose guest made it look like an image over the secret, and an overlay of that.
fn folder(named: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("secret"), [7; 64 << 10]).expect("written");
    overlay(&folder.path().join("disk"), "secret", Some("raw"));
    overlay(&folder.path().join("top.qcow2"), "disk", named);
    folder
}

#[test]
fn an_image_that_only_its_bytes_make_one_leads_to_no_other_file() {
    let folder = folder(None);
    let error = OpenDisk::new().path(folder.path().join("top.qcow2")).expect_err("it is refused");
    assert!(matches!(error.kind(), Error::Denied { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("backing file \"secret\" is named by the image"), "{text}");
}

#[test]
fn an_image_that_the_one_above_calls_so_may_lead_further() {
    let folder = folder(Some("qcow2"));
    let disk = OpenDisk::new().path(folder.path().join("top.qcow2")).expect("the chain opens");
    assert_eq!(disk.layers().len(), 3);
}

#[test]
fn a_disk_that_is_called_raw_is_raw_whatever_its_guest_wrote() {
    let folder = folder(Some("raw"));
    let disk = OpenDisk::new().path(folder.path().join("top.qcow2")).expect("the chain opens");
    let mut magic = [0; 4];
    disk.read(GuestOffset::ZERO, &mut magic).expect("read");
    assert_eq!(&magic, b"QFI\xfb");
}

#[test]
fn where_all_files_are_trusted_the_bytes_decide_as_in_qemu() {
    let folder = folder(None);
    let top = folder.path().join("top.qcow2");
    let disk = OpenDisk::new().policy(Policy::LikeQemu).path(top).expect("the chain opens");
    assert_eq!(disk.layers().len(), 3);
}
