//! What several tests use.

use std::path::PathBuf;
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, Limits, Located, Location,
    Opener, Options, Reference, Registry, Result, Role, Storage,
};
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::{Aim, ByteModel, MemoryFolder, Operation};
use anydisk_vhd::VHD;

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
        create(store, size, given, None).expect("it can be made")
    }

    /// A child, opened alone.
    pub(crate) fn create_over(&self, name: &str, size: u64, parent: &Reference) -> Disk {
        let options = OpenOptions::new().write(true).create(true);
        let store = FileStorage::open(self.path(name), &options).expect("a new file");
        create(Arc::new(store), size, &[], Some(parent)).expect("it can be made")
    }

    pub(crate) fn open(&self, name: &str, access: Access) -> Disk {
        let path = self.path(name);
        let options = OpenOptions::new().write(access == Access::ReadWrite);
        let store = Arc::new(FileStorage::open(&path, &options).expect("the file is there"));
        let registry = Registry::new(&[&VHD]);
        let file = Located { store, location: Location::Path(path) };
        let opener = Opener::new(&registry, &anydisk_core::NoReferences);
        opener.open(file, Some("vpc"), access).expect("it opens")
    }
}

/// Makes an image.
pub(crate) fn create(
    store: Arc<dyn Storage>,
    size: u64,
    given: &[(&str, &str)],
    parent: Option<&Reference>,
) -> Result<Disk> {
    let mut options = Options::of(&VHD);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = CreateRequest::new(store, &location, size, &options, &limits);
    request.backing = parent;
    Ok(Disk::new(VHD.create(request)?))
}

/// Opens an image of a folder in memory, and what lies below it.
pub(crate) fn open_in(folder: &MemoryFolder, name: &str, access: Access) -> Result<Disk> {
    let registry = Registry::new(&[&VHD]);
    let store = folder.file(name).expect("the file is there");
    let file = Located { store, location: Location::Other(name.to_owned()) };
    Opener::new(&registry, folder).open(file, Some("vpc"), access)
}

/// What a child is told of a parent that is open.
pub(crate) fn reference_to(parent: &Disk, name: &str) -> Reference {
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = Some("vpc".to_owned());
    reference.id = parent.top().info().id;
    reference
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
