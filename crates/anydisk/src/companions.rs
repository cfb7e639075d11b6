//! Making and removing the files of an image that is made of several.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{Access, Companions, Error, Located, Location, Reference, Result};
use anydisk_storage::{FileStorage, OpenOptions, name};

use crate::file;
use crate::resolve::plain_name;

/// Makes files beside an image that is open, when it grows (a split VMDK gets another extent), and
/// removes those that it needs no more. Plain names in the image's folder only; nothing that is
/// there is replaced.
#[derive(Clone, Debug)]
pub struct FilesBeside {
    image: PathBuf,
    open: OpenOptions,
}

impl FilesBeside {
    /// In the folder of `image`, with these options for opening files (locks, direct I/O).
    #[must_use]
    pub fn new(image: impl Into<PathBuf>, open: OpenOptions) -> Self {
        Self { image: image.into(), open }
    }

    fn path(&self, reference: &Reference) -> Result<PathBuf> {
        let name = plain_name(reference)?;
        if self.image.file_name() == Some(name.as_os_str()) {
            return Err(reference.denied("it is the image itself"));
        }
        Ok(self.image.with_file_name(name))
    }

    fn failed(path: &Path, what: &'static str, error: std::io::Error) -> Error {
        anydisk_storage::Error::whole(what, name::of(path), error).into()
    }
}

impl Companions for FilesBeside {
    fn make(&self, reference: &Reference) -> Result<Located> {
        let path = self.path(reference)?;
        let options = file::with_access(&self.open, Access::ReadWrite).create_new(true);
        let store = FileStorage::open(&path, &options).map_err(|error| match error.io_kind() {
            Some(ErrorKind::AlreadyExists) => {
                Error::Exists { what: "file", name: name::of(&path).into_owned() }
            }
            _ => error.into(),
        })?;
        let store = Arc::new(store);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        // The name is durable before anything in the image says it.
        let flushed = fs::File::open(folder).and_then(|folder| folder.sync_all());
        flushed.map_err(|error| Self::failed(folder, "flush", error))?;
        Ok(Located { store, location: Location::Path(path) })
    }

    fn remove(&self, reference: &Reference) -> Result<()> {
        let path = self.path(reference)?;
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {
                fs::remove_file(&path).map_err(|error| Self::failed(&path, "remove", error))
            }
            _ => Err(reference.denied("it is no file in the image's own folder")),
        }
    }
}

#[cfg(test)]
mod tests {
    use anydisk_core::{HostOffset, Role};

    use super::*;

    #[test]
    fn files_are_made_and_removed_beside_the_image_only_and_none_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("disk"), "an image").expect("a file");
        std::os::unix::fs::symlink("/etc/passwd", path("link")).expect("a link");
        let files = FilesBeside::new(path("disk"), OpenOptions::new());
        let reference = |name: &str| Reference::new(Role::Extent, name);
        let made = files.make(&reference("disk-1")).expect("a new file");
        made.store.write_at(HostOffset::ZERO, b"x").expect("it can be written");
        for name in ["disk-1", "disk", "link", "../x", "/tmp/x", "a/b", "", ".."] {
            assert!(files.make(&reference(name)).is_err(), "{name}");
        }
        for name in ["disk", "link", "none", "../x", "/etc/passwd"] {
            assert!(files.remove(&reference(name)).is_err(), "{name}");
        }
        let error = files.make(&reference("disk-1")).expect_err("it is there");
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        files.remove(&reference("disk-1")).expect("it is there");
        assert!(!path("disk-1").exists() && path("disk").exists());
    }
}
