//! The files of a new image, none of which has its name before all are whole.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{Companions, Located, Location, Reference, Result, Storage};
use anydisk_storage::{OpenOptions, PendingFile};

use crate::unflushed::Unflushed;

/// A new image, whose other files are made beside it as its format asks for them.
#[derive(Debug)]
pub(crate) struct PendingImage {
    path: PathBuf,
    options: OpenOptions,
    durable: bool,
    main: PendingFile,
    others: Mutex<Vec<PendingFile>>,
}

impl PendingImage {
    /// An image whose file will be called `path`. Unless `durable`, nothing is ever flushed.
    ///
    /// # Errors
    /// Those of [`PendingFile::create`].
    pub(crate) fn create(path: &Path, options: &OpenOptions, durable: bool) -> Result<Self> {
        let main = PendingFile::create(path, options)?;
        let (path, options) = (path.to_owned(), options.clone());
        Ok(Self { path, options, durable, main, others: Mutex::default() })
    }

    /// The store of the file that the image is called by.
    pub(crate) fn store(&self) -> Arc<dyn Storage> {
        self.store_of(&self.main)
    }

    fn store_of(&self, file: &PendingFile) -> Arc<dyn Storage> {
        let store: Arc<dyn Storage> = file.storage().clone();
        if self.durable { store } else { Arc::new(Unflushed(store)) }
    }

    /// Gives all files their names. The one that names the others is the last: until then the old
    /// image, or none, is found.
    ///
    /// # Errors
    /// Those of flushing, before any name is given, and of [`PendingFile::publish`].
    pub(crate) fn publish(self) -> Result<()> {
        let others = self.others.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.durable {
            others.iter().try_for_each(|file| file.storage().flush())?;
            self.main.storage().flush()?;
        }
        for file in others.into_iter().chain([self.main]) {
            match self.durable {
                true => file.publish(true)?,
                false => file.publish_unflushed(true)?,
            }
        }
        Ok(())
    }
}

impl Companions for PendingImage {
    fn make(&self, reference: &Reference) -> Result<Located> {
        let name = Path::new(OsStr::from_bytes(&reference.name));
        let mut components = name.components();
        let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else {
            return Err(reference.denied("only plain file names beside the image are made"));
        };
        let path = self.path.with_file_name(name);
        if path == self.path {
            return Err(reference.denied("it is the image itself"));
        }
        let file = PendingFile::create(&path, &self.options)?;
        let located = Located { store: self.store_of(&file), location: Location::Path(path) };
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        Ok(located)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_core::{HostOffset, Role};

    fn reference(name: &str) -> Reference {
        Reference::new(Role::Extent, name)
    }

    #[test]
    fn the_files_of_an_image_get_their_names_together_and_an_unfinished_image_leaves_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let path = folder.path().join("disk");
        for finish in [false, true] {
            let image = PendingImage::create(&path, &OpenOptions::new(), true).expect("a file");
            for name in ["disk-1", "disk-2"] {
                let made = image.make(&reference(name)).expect("a file");
                made.store.write_at(HostOffset::ZERO, name.as_bytes()).expect("a write");
                assert_eq!(made.location, Location::Path(folder.path().join(name)));
            }
            assert_eq!(names(), 0);
            if finish {
                image.publish().expect("names");
            }
        }
        assert_eq!(names(), 3);
        assert_eq!(std::fs::read(folder.path().join("disk-2")).expect("a file"), b"disk-2");
    }

    #[test]
    fn no_file_is_made_elsewhere_or_in_place_of_the_image() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        let image = PendingImage::create(&path, &OpenOptions::new(), true).expect("a file");
        for name in ["../x", "/tmp/x", "a/b", "", ".", "..", "disk"] {
            assert!(image.make(&reference(name)).is_err(), "{name}");
        }
    }
}
