//! Growing a raw image with and without space for what is new.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anydisk_core::{Disk, Error, Preallocation};
use anydisk_raw::RawImage;
use anydisk_storage::{FileStorage, OpenOptions};

const MIB: u64 = 1 << 20;

/// Bytes on the medium after a file of 1 MiB, a hole, has grown to 3 MiB.
fn space_after(folder: &Path, how: Preallocation) -> u64 {
    let path = folder.join("disk.raw");
    std::fs::File::create(&path).and_then(|file| file.set_len(MIB)).expect("a file");
    let store = FileStorage::open(&path, &OpenOptions::new().write(true)).expect("it opens");
    let image = RawImage::open(Arc::new(store), true).expect("any file is raw");
    let disk = Disk::new(Arc::new(image));
    disk.resize(3 * MIB, how).expect("it grows");
    assert_eq!(disk.size(), 3 * MIB);
    assert!(std::fs::read(&path).expect("read").iter().all(|byte| *byte == 0));
    std::fs::metadata(&path).expect("it is there").blocks() * 512
}

#[test]
fn what_is_new_has_space_if_it_was_asked_for_and_what_was_there_stays_sparse() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(space_after(folder.path(), Preallocation::Off), 0);
    for how in [Preallocation::Falloc, Preallocation::Full] {
        let space = space_after(folder.path(), how);
        assert!((2 * MIB..3 * MIB).contains(&space), "{how:?}: {space}");
    }
}

#[test]
fn a_preallocation_that_raw_has_not_is_refused_before_the_file_grows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, [1; 512]).expect("a file");
    let store = FileStorage::open(&path, &OpenOptions::new().write(true)).expect("it opens");
    let disk = Disk::new(Arc::new(RawImage::open(Arc::new(store), true).expect("raw")));
    let refused = disk.resize(MIB, Preallocation::Metadata).expect_err("there is no metadata");
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    assert_eq!((disk.size(), std::fs::metadata(&path).expect("it is there").len()), (512, 512));
}
