//! What several tests use.

use std::path::PathBuf;
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, Limits, Located, Location,
    Opener, Options, Registry,
};
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::{Aim, ByteModel, Operation};
use anydisk_vhdx::VHDX;

/// A folder of files, for other programs to look at.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn create(&self, name: &str, size: u64, given: &[(&str, &str)]) -> Disk {
        let path = self.path(name);
        let options = OpenOptions::new().write(true).create(true);
        let store = Arc::new(FileStorage::open(&path, &options).expect("a new file"));
        let mut options = Options::of(&VHDX);
        given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let request = CreateRequest::new(store, &location, size, &options, &limits);
        Disk::new(VHDX.create(request).expect("it can be made"))
    }

    pub(crate) fn open(&self, name: &str, access: Access) -> Disk {
        let path = self.path(name);
        let options = OpenOptions::new().write(access == Access::ReadWrite);
        let store = Arc::new(FileStorage::open(&path, &options).expect("the file is there"));
        let registry = Registry::new(&[&VHDX]);
        let file = Located { store, location: Location::Path(path) };
        let opener = Opener::new(&registry, &anydisk_core::NoReferences);
        opener.open(file, Some("vhdx"), access).expect("it opens")
    }
}

pub(crate) fn contents(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("it can be read");
    bytes
}

/// Plays random operations on disk and model.
pub(crate) fn play(disk: &Disk, model: &mut ByteModel, unit: u64, seed: u64, count: usize) {
    let aim = Aim { step: 512, ..Aim::at(disk.size(), unit) };
    for operation in aim.operations(seed).take(count) {
        let range = |at, len| GuestRange::new(GuestOffset(at), len).expect("on it");
        match operation {
            Operation::Write { at, .. } => disk.write(GuestOffset(at), &operation.data()),
            Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap),
            Operation::Flush => disk.flush(),
            _ => continue,
        }
        .unwrap_or_else(|error| panic!("{operation:?}: {error}"));
        model.apply(&operation);
    }
}
