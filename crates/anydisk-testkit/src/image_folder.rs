//! A folder of files, for other programs to look at.

use std::path::PathBuf;
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, Limits, Located, Location, NoReferences, Opener, Options,
    Reference, Registry,
};
use anydisk_storage::{FileStorage, OpenOptions};

/// Images of one format in a folder that goes when this is dropped.
#[derive(Debug)]
pub struct ImageFolder {
    folder: tempfile::TempDir,
    format: &'static dyn Format,
}

impl ImageFolder {
    /// An empty one.
    ///
    /// # Panics
    /// If no folder can be made.
    #[must_use]
    pub fn new(format: &'static dyn Format) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), format }
    }

    /// The path of a file, which need not be there.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image with these options, a child of `parent` if there is one, and opens it alone.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn create(
        &self,
        name: &str,
        size: u64,
        given: &[(&str, &str)],
        parent: Option<&Reference>,
    ) -> Disk {
        let options = OpenOptions::new().write(true).create(true);
        let store = FileStorage::open(self.path(name), &options).expect("a new file");
        let mut options = Options::of(self.format);
        given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let request = CreateRequest::new(Arc::new(store), &location, size, &options, &limits);
        let request = CreateRequest { backing: parent, ..request };
        Disk::new(self.format.create(request).expect("it can be made"))
    }

    /// Opens an image that needs no other.
    ///
    /// # Panics
    /// If it does not open.
    #[must_use]
    pub fn open(&self, name: &str, access: Access) -> Disk {
        let path = self.path(name);
        let options = OpenOptions::new().write(access == Access::ReadWrite);
        let store = Arc::new(FileStorage::open(&path, &options).expect("the file is there"));
        let registry = Registry::new(&[self.format]);
        let file = Located { store, location: Location::Path(path) };
        let opener = Opener::new(&registry, &NoReferences);
        opener.open(file, Some(self.format.name()), access).expect("it opens")
    }
}
