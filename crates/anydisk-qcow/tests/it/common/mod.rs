//! What several tests use: a folder of images, opened with all that lies below them.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, Image, Limits, Located, Location,
    Opener, Options, Reference, Registry, Result, Role, Secrets, Storage,
};
use anydisk_qcow::QCOW;
use anydisk_raw::RAW;
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions};
use anydisk_testkit::FolderResolver;
use tempfile::TempDir;

/// A folder of images.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn store(path: &Path, options: &OpenOptions) -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(path, options).expect("a file"))
    }

    /// A new image, flushed and closed.
    pub(crate) fn create(
        &self,
        name: &str,
        size: u64,
        given: &[(&str, &str)],
        below: Option<&str>,
    ) {
        let path = self.path(name);
        let store = Self::store(&path, &OpenOptions::new().write(true).create_new(true));
        let image = create(store, size, given, below).expect("an image");
        image.writer().expect("open for writing").flush().expect("a flush");
    }

    /// The image with all that lies below it, which is raw unless its name ends with `.qcow`.
    pub(crate) fn open(&self, name: &str, access: Access) -> Disk {
        let path = self.path(name);
        let write = access == Access::ReadWrite;
        let store = Self::store(&path, &OpenOptions::new().write(write));
        let registry = Registry::new(&[&QCOW, &RAW]);
        let resolver = FolderResolver::new(self.0.path());
        let file = Located { store, location: Location::Path(path) };
        Opener::new(&registry, &resolver).open(file, Some("qcow"), access).expect("it opens")
    }

    /// A new image with a passphrase.
    pub(crate) fn create_secret(
        &self,
        name: &str,
        size: u64,
        given: &[(&str, &str)],
        secrets: &dyn Secrets,
    ) -> Disk {
        let path = self.path(name);
        let store = Self::store(&path, &OpenOptions::new().write(true).create_new(true));
        let mut options = Options::of(&QCOW);
        given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
        let (location, limits) = (Location::Path(path), Limits::default());
        let request = CreateRequest::new(store, &location, size, &options, &limits);
        Disk::new(QCOW.create(CreateRequest { secrets, ..request }).expect("an image"))
    }

    /// An image with a passphrase, for reading.
    pub(crate) fn open_secret(&self, name: &str, secrets: &dyn Secrets) -> Disk {
        let path = self.path(name);
        let store = Self::store(&path, &OpenOptions::new());
        let (registry, resolver) = (Registry::new(&[&QCOW]), FolderResolver::new(self.0.path()));
        let opener = Opener::new(&registry, &resolver).with_secrets(secrets);
        let file = Located { store, location: Location::Path(path) };
        opener.open(file, Some("qcow"), Access::Read).expect("it opens")
    }

    /// Writes what the disk should hold beside it, as a raw image.
    pub(crate) fn write_raw(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("room for a raw image");
        path
    }
}

pub(crate) fn create(
    store: Arc<dyn Storage>,
    size: u64,
    given: &[(&str, &str)],
    below: Option<&str>,
) -> Result<Arc<dyn Image>> {
    let mut options = Options::of(&QCOW);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let below = below.map(|name| Reference::new(Role::Backing, name));
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = CreateRequest::new(store, &location, size, &options, &limits);
    QCOW.create(CreateRequest { backing: below.as_ref(), ..request })
}

/// A new image in memory.
pub(crate) fn in_memory(size: u64, given: &[(&str, &str)]) -> (Arc<MemoryStorage>, Disk) {
    let store = Arc::new(MemoryStorage::default());
    let image = create(store.clone(), size, given, None).expect("an image");
    (store, Disk::new(image))
}

pub(crate) fn range(at: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(at), len).expect("on the disk")
}

pub(crate) fn read(disk: &Disk, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    disk.read(GuestOffset(at), &mut bytes).expect("a read");
    bytes
}
