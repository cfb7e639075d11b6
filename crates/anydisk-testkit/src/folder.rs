//! Opening and making the files of one folder, and no others.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{Access, Companions, Located, Location, Reference, Resolver, Result};
use anydisk_storage::{FileStorage, OpenOptions};

/// Follows references to the files of one folder: plain relative names, no symbolic link. Makes files
/// there too.
#[derive(Clone, Debug)]
pub struct FolderResolver {
    folder: PathBuf,
    nameless: Option<String>,
}

impl FolderResolver {
    /// The files of `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), nameless: None }
    }

    /// With the file that is meant where an image names another by number alone, if there is one.
    #[must_use]
    pub fn with_nameless(mut self, name: Option<&str>) -> Self {
        self.nameless = name.map(str::to_owned);
        self
    }
}

impl FolderResolver {
    fn path(&self, reference: &Reference) -> Result<PathBuf> {
        let name = match (reference.nameless(), &self.nameless) {
            (Some(_), Some(name)) => name,
            _ => std::str::from_utf8(&reference.name)
                .map_err(|_| reference.denied("its name is no text"))?,
        };
        let mut components = Path::new(name).components();
        match (components.next(), components.next()) {
            (Some(Component::Normal(name)), None) => Ok(self.folder.join(name)),
            _ => Err(reference.denied("it is not a plain name in the folder of the test")),
        }
    }
}

impl Resolver for FolderResolver {
    fn resolve(&self, reference: &Reference, _: &Location, access: Access) -> Result<Located> {
        open_file(&self.path(reference)?, access)
    }

    /// The files are those of the test.
    fn trusts_bytes(&self) -> bool {
        true
    }
}

impl Companions for FolderResolver {
    fn make(&self, reference: &Reference) -> Result<Located> {
        let path = self.path(reference)?;
        let store = FileStorage::open(&path, &OpenOptions::new().write(true).create_new(true))?;
        Ok(Located { store: Arc::new(store), location: Location::Path(path) })
    }

    fn remove(&self, reference: &Reference) -> Result<()> {
        let path = self.path(reference)?;
        std::fs::remove_file(path).map_err(|error| reference.denied(error.to_string()))
    }
}

/// Opens a file as an image.
pub(crate) fn open_file(path: &Path, access: Access) -> Result<Located> {
    let options = OpenOptions::new().follow(false).write(access == Access::ReadWrite);
    let store = Arc::new(FileStorage::open(path, &options)?);
    Ok(Located { store, location: Location::Path(path.to_owned()) })
}

#[cfg(test)]
mod tests {
    use anydisk_core::Role;

    use super::*;

    #[test]
    fn only_plain_names_of_the_folder_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("base"), b"x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let resolver = FolderResolver::new(folder.path());
        let from = Location::Path(folder.path().join("top"));
        let open = |name: &str| {
            resolver.resolve(&Reference::new(Role::Backing, name), &from, Access::Read)
        };
        open("base").unwrap();
        resolver.make(&Reference::new(Role::Extent, "new")).unwrap();
        open("new").unwrap();
        resolver.make(&Reference::new(Role::Extent, "base")).expect_err("it is there");
        for name in ["/etc/passwd", "../base", "./x/../base", "link", "none", "", "a/b"] {
            open(name).expect_err(name);
        }
    }
}
