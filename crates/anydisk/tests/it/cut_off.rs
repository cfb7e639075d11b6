//! Files that were cut off.

use std::path::Path;

use anydisk::convert::{NewImage, Settings, Sources, Unwatched, commit, copy_to_file, create_file};
use anydisk::{Disk, GuestOffset, OpenDisk, Options, Reference, Role};

const SIZE: u64 = 4 << 20;

/// A qcow2 image full of `byte`, over another one if it has a name.
fn full(path: &Path, byte: u8, below: Option<&Reference>) {
    let qcow2 = anydisk::formats().by_name("qcow2").expect("built in");
    let options = Options::of(qcow2);
    let mut image = NewImage::new(qcow2, &options, SIZE);
    image.backing = below;
    create_file(path, &image).expect("a file");
    let disk = OpenDisk::new().write(true).path(path).expect("it opens");
    let all = vec![byte; usize::try_from(SIZE).expect("little")];
    disk.write(GuestOffset::ZERO, &all).expect("a write");
    disk.flush().expect("a flush");
}

fn cut(path: &Path, len: u64) {
    let file = std::fs::File::options().write(true).open(path).expect("a file");
    file.set_len(len).expect("shorter");
}

fn byte(disk: &Disk, at: u64) -> anydisk::Result<u8> {
    let mut bytes = [0xEE];
    disk.read(GuestOffset(at), &mut bytes).map(|()| bytes[0])
}

#[test]
fn what_was_cut_off_is_an_error_and_zeroes_only_to_who_wants_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk.qcow2");
    full(&path, 7, None);
    cut(&path, 2 << 20);
    for options in [OpenDisk::new(), OpenDisk::untrusted(), OpenDisk::new().write(true)] {
        let disk = options.path(&path).expect("it opens");
        assert_eq!(byte(&disk, 0).expect("it is there"), 7);
        let error = byte(&disk, SIZE - 1).expect_err("it is gone");
        assert!(error.to_string().contains("before the end of the file"), "{error}");
    }
    let padded = OpenDisk::new().pad_cut_off(true).path(&path).expect("it opens");
    assert_eq!(byte(&padded, SIZE - 1).expect("as zero"), 0);
    let raw = anydisk::formats().by_name("raw").expect("built in");
    let (options, copy) = (Options::of(raw), folder.path().join("copy"));
    let image = NewImage::new(raw, &options, SIZE);
    let disk = OpenDisk::new().path(&path).expect("it opens");
    let copied =
        copy_to_file(&Sources::one(&disk), &copy, &image, &Settings::default(), &Unwatched);
    assert!(copied.is_err() && !copy.exists());
}

#[test]
fn an_overlay_that_was_cut_off_is_not_committed_as_zeroes() {
    let folder = tempfile::tempdir().expect("a folder");
    let [base, top] = ["base.qcow2", "top.qcow2"].map(|name| folder.path().join(name));
    full(&base, 7, None);
    let mut below = Reference::new(Role::Backing, "base.qcow2");
    below.format = Some("qcow2".into());
    full(&top, 9, Some(&below));
    cut(&top, 2 << 20);
    let above = OpenDisk::new().top(&top).expect("it opens");
    let under = OpenDisk::new().write(true).path(&base).expect("it opens");
    commit(&[above], &under, &Settings::default(), &Unwatched).expect_err("it is gone");
    under.flush().expect("a flush");
    let bytes = [0, SIZE / 2, SIZE - 1].map(|at| byte(&under, at).expect("it is there"));
    assert!(bytes.iter().all(|byte| [7, 9].contains(byte)), "{bytes:?}");
    assert_eq!(bytes[2], 7);
}
