//! Files in memory, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    Access, Companions, Error, Located, Location, Reference, Resolver, Result, Role, Storage,
};
use anydisk_storage::MemoryStorage;

/// A folder in memory: its files can be opened, made and removed. A clone is the same folder.
#[derive(Clone, Debug, Default)]
pub struct MemoryFolder {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryStorage>>>>,
    nameless: Option<String>,
}

impl MemoryFolder {
    /// With the file that is meant where an image names another by number alone, if there is one.
    #[must_use]
    pub fn with_nameless(mut self, name: Option<&str>) -> Self {
        self.nameless = name.map(str::to_owned);
        self
    }

    /// Puts a file into the folder.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.lock().insert(name.to_owned(), Arc::new(MemoryStorage::new(bytes)));
    }

    /// The file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<Arc<MemoryStorage>> {
        self.lock().get(name).cloned()
    }

    /// The names of all files, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// An empty file of this name, which is new.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub fn make_file(&self, name: &str) -> Result<Arc<dyn Storage>> {
        Ok(self.make(&Reference::new(Role::Extent, name))?.store)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryStorage>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for MemoryFolder {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        let name = match (reference.nameless(), &self.nameless) {
            (Some(_), Some(name)) => name.clone(),
            _ => reference.display_name(),
        };
        let store = self.file(&name).ok_or_else(|| reference.denied("there is no such file"))?;
        Ok(Located { store, location: Location::Other(name) })
    }

    /// The files are those of the test.
    fn trusts_bytes(&self) -> bool {
        true
    }
}

impl Companions for MemoryFolder {
    fn make(&self, reference: &Reference) -> Result<Located> {
        let name = reference.display_name();
        if self.file(&name).is_some() {
            return Err(Error::Exists { what: "file", name });
        }
        self.put(&name, Vec::new());
        self.resolve(reference, &Location::Other(name), Access::ReadWrite)
    }

    fn remove(&self, reference: &Reference) -> Result<()> {
        let name = reference.display_name();
        match self.lock().remove(&name) {
            Some(_) => Ok(()),
            None => Err(reference.denied("there is no such file")),
        }
    }
}
