//! The files of a new image, none of which has its name before all are whole.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{Companions, Located, Location, Reference, Result, Role, Storage};
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

    /// Gives all files their names. The one that names the others is the last. Where one of these is
    /// replaced, that of the old image goes first: it would name old and new ones together, a disk that
    /// never was. So until the end the old image, or none, is found.
    ///
    /// # Errors
    /// Those of flushing, before any name is given, and of [`PendingFile::publish`].
    pub(crate) fn publish(self) -> Result<()> {
        let others = self.others.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.durable {
            others.iter().try_for_each(|file| file.storage().flush())?;
            self.main.storage().flush()?;
        }
        if self.main.replaces() && others.iter().any(PendingFile::replaces) {
            self.main.remove_replaced()?;
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
        let is_plain =
            matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
        // The name of a data file is the caller's own, an option; other names are the format's.
        if !is_plain && (reference.role != Role::DataFile || name.file_name().is_none()) {
            return Err(reference.denied("only plain file names beside the image are made"));
        }
        let path = self.path.parent().unwrap_or(Path::new("")).join(name);
        if is_same_place(&path, &self.path) {
            return Err(reference.denied("it is the image itself"));
        }
        let file = PendingFile::create(&path, &self.options)?;
        let located = Located { store: self.store_of(&file), location: Location::Path(path) };
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        Ok(located)
    }
}

/// Whether two paths, at which there need not be a file yet, are one place.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.canonicalize().ok(),
        _ => Path::new(".").canonicalize().ok(),
    };
    one == other || one.file_name() == other.file_name() && folder(one) == folder(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_core::HostOffset;

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

    /// A kill between two names must not leave the old description beside some of the new files.
    #[test]
    fn the_old_image_is_gone_before_a_new_file_has_the_name_of_one_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        let write = |text: &[u8]| {
            let image = PendingImage::create(&path, &OpenOptions::new(), true).expect("a file");
            image.store().write_at(HostOffset::ZERO, text).expect("a write");
            image.make(&reference("disk-1")).expect("a file");
            image
        };
        write(b"old").publish().expect("names");
        let new = write(b"new");
        // The name of the second file is taken meanwhile by what cannot be replaced.
        std::fs::remove_file(folder.path().join("disk-1")).expect("it is there");
        std::fs::create_dir(folder.path().join("disk-1")).expect("a folder");
        new.publish().expect_err("a folder is no file");
        assert!(!path.exists());
        std::fs::remove_dir(folder.path().join("disk-1")).expect("it is there");
        write(b"new").publish().expect("names");
        assert_eq!(std::fs::read(&path).expect("a file"), b"new");
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

    #[test]
    fn a_data_file_is_made_where_the_caller_wants_it_and_never_in_place_of_the_image() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::create_dir(folder.path().join("sub")).expect("a folder");
        let image = PendingImage::create(&path, &OpenOptions::new(), true).expect("a file");
        let data = |name: &str| Reference::new(Role::DataFile, name);
        let absolute = folder.path().join("sub/b").display().to_string();
        let itself = path.display().to_string();
        for name in ["sub/../disk", "./disk", "disk", &itself, "", "..", "/", "gone/a"] {
            assert!(image.make(&data(name)).is_err(), "{name}");
        }
        for name in ["sub/a", &absolute, "c"] {
            image.make(&data(name)).expect("a file");
        }
        image.publish().expect("names");
        for name in ["disk", "sub/a", "sub/b", "c"] {
            assert!(folder.path().join(name).is_file(), "{name}");
        }
    }
}
