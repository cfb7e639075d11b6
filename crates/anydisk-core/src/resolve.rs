//! Who may open the files that an image names, and where they are looked for.

use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_storage::{MemoryStorage, Storage, name};

use crate::{Error, Id, Result};

/// Whether an image is opened for reading or for writing too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nothing is written, not even a flag in the header.
    #[default]
    Read,
    /// The image may be changed.
    ReadWrite,
}

/// Where an image was found, so that names inside it can be looked for beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A file.
    Path(PathBuf),
    /// Not a file; the text is for people.
    Other(String),
}

impl Location {
    /// The folder that holds the image, if it is a file.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            }),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(&name::of(path)),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What a file named inside an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The image below (backing file, parent).
    Backing,
    /// A part of the image itself.
    Extent,
    /// The file that holds the payload (qcow2 external data file).
    DataFile,
    /// A host device that is a part of the image itself, or stands for all of it. A file of another
    /// kind may be given in its place.
    Device,
}

impl Role {
    /// The field's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::Extent => "extent",
            Self::DataFile => "data file",
            Self::Device => "host device",
        }
    }
}

/// A file that an image names. Nothing is known about it but what the image says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What it is for.
    pub role: Role,
    /// The name, byte for byte. Empty where the image knows the file by its [`id`](Self::id) alone
    /// (VDI): a resolver that looks for such files does so by [`Format::identify`].
    ///
    /// [`Format::identify`]: crate::Format::identify
    pub name: Vec<u8>,
    /// The format the image says it has.
    pub format: Option<String>,
    /// Which image it is, where the format keeps such a number. The one that is opened must have
    /// it.
    pub id: Option<Id>,
    /// The content the image says it has, where the format keeps such a number (VMDK's parentCID).
    pub content_id: Option<Id>,
}

impl Reference {
    /// A reference by name alone.
    #[must_use]
    pub fn new(role: Role, name: impl Into<Vec<u8>>) -> Self {
        Self { role, name: name.into(), format: None, id: None, content_id: None }
    }

    /// A reference to an image that is known by its number alone.
    #[must_use]
    pub fn by_id(role: Role, id: Id) -> Self {
        Self { id: Some(id), ..Self::new(role, "") }
    }

    /// The number by which the file must be found, if it has no name.
    #[must_use]
    pub fn nameless(&self) -> Option<Id> {
        self.id.filter(|_| self.name.is_empty())
    }

    /// The name as [text](anydisk_storage::name), for people. A file without a name is told by its
    /// number, in braces.
    #[must_use]
    pub fn display_name(&self) -> String {
        match self.nameless() {
            Some(id) => format!("{{{id}}}"),
            None => name::shown(&self.name).into_owned(),
        }
    }

    /// The refusal to open it.
    #[must_use]
    pub fn denied(&self, why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::Denied { role: self.role.name(), name: self.display_name(), why: why.into() }
    }
}

/// A file that was found and opened.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its bytes.
    pub store: Arc<dyn Storage>,
    /// Where it was found.
    pub location: Location,
}

/// What is said of an image where it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Said {
    /// Its format.
    pub format: Option<String>,
    /// The options that take its passphrases, and under which
    /// [names](crate::SecretRequest::id) these are kept.
    pub secrets: Vec<(String, String)>,
    /// The image below it.
    pub below: SaidBelow,
}

/// What is said of the image below the one that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SaidBelow {
    /// Nothing: the image itself names it.
    #[default]
    AsNamed,
    /// There is none.
    Nothing,
    /// This one, whatever the image names.
    Image(Box<Reference>),
}

impl Said {
    /// Its format and no more.
    #[must_use]
    pub fn format(format: Option<String>) -> Self {
        Self { format, ..Self::default() }
    }

    /// What is below an image that itself names `named`.
    pub(crate) fn below(self, named: Option<Reference>) -> Option<Reference> {
        match self.below {
            SaidBelow::AsNamed => named,
            SaidBelow::Nothing => None,
            SaidBelow::Image(reference) => Some(*reference),
        }
    }
}

/// Decides whether a file named inside an image may be opened, and opens it.
///
/// Formats never open a file themselves; they hand the name to the resolver that the caller chose.
pub trait Resolver: Send + Sync + Debug {
    /// Opens the file that `reference` names, as seen from the image at `from`.
    ///
    /// # Errors
    /// [`Error::Denied`] when the policy forbids it, or what opening it said.
    fn resolve(&self, reference: &Reference, from: &Location, access: Access) -> Result<Located>;

    /// The resolver that this one goes by in all that it does not answer itself: another one, of which
    /// it changes a part. [`resolve`](Self::resolve) it asks by itself.
    fn others(&self) -> Option<&dyn Resolver> {
        None
    }

    /// What `reference` says of the image that it names. Some names say more than which file it is
    /// (`json:{"driver": "qcow2", ...}`).
    fn said(&self, reference: &Reference) -> Said {
        match self.others() {
            Some(others) => others.said(reference),
            None => Said::format(reference.format.clone()),
        }
    }

    /// Whether an image below, whose format nothing but its own bytes tells, may name files as well.
    ///
    /// A guest that owned it as a raw disk may have written these bytes, and with them the name of
    /// a file that it is to be shown.
    fn trusts_bytes(&self) -> bool {
        self.others().is_some_and(|others| others.trusts_bytes())
    }

    /// The header of the image at `image`, where it lies apart from it (LUKS) and the caller has said
    /// so: nothing in an image names it.
    ///
    /// # Errors
    /// What opening it said.
    fn header_of(&self, image: &Location) -> Result<Option<Located>> {
        self.others().map_or(Ok(None), |others| others.header_of(image))
    }

    /// Whether an image of which a part cannot be had is opened all the same, and reading that part
    /// fails: see [`BearingLoss`](crate::BearingLoss).
    fn bears_loss(&self) -> bool {
        self.others().is_some_and(|others| others.bears_loss())
    }
}

/// Opens nothing: the policy for bytes from strangers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReferences;

impl Resolver for NoReferences {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        Err(reference.denied("files named inside an image are not followed here"))
    }
}

/// Opens nothing and remembers what it was asked for: for those who want to know which files an
/// image names. An empty store stands for each of them.
#[derive(Debug, Default)]
pub struct OnlyNames {
    names: Mutex<Vec<Reference>>,
}

impl OnlyNames {
    /// What was asked for, in that order.
    #[must_use]
    pub fn into_names(self) -> Vec<Reference> {
        self.names.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for OnlyNames {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(reference.clone());
        let location = Location::Other(reference.display_name());
        Ok(Located { store: Arc::new(MemoryStorage::default()), location })
    }
}

/// Makes the other files of an image that is made of several (extents, data files), when it is made
/// and when it grows; removes those that it needs no more.
///
/// Formats never make or remove a file themselves; they name it to the maker that the caller chose.
pub trait Companions: Send + Sync + Debug {
    /// Makes an empty file, open for writing, that the image in the making will name as `reference`
    /// says: a plain file name, beside the image.
    ///
    /// # Errors
    /// [`Error::Denied`] where no files are made, or what making it said.
    fn make(&self, reference: &Reference) -> Result<Located>;

    /// Removes a file that the image named until now: a plain file name, beside the image.
    ///
    /// # Errors
    /// [`Error::Denied`] where no files are removed, as by the default, or what removing it said.
    fn remove(&self, reference: &Reference) -> Result<()> {
        Err(reference.denied("no files are removed here"))
    }
}

/// Makes nothing: for images of one file.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCompanions;

impl Companions for NoCompanions {
    fn make(&self, reference: &Reference) -> Result<Located> {
        Err(reference.denied("an image of several files cannot be made here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_bare_name_is_the_current_one() {
        assert_eq!(Location::Path("disk.vmdk".into()).folder(), Some(Path::new(".")));
        assert_eq!(Location::Path("/a/disk.vmdk".into()).folder(), Some(Path::new("/a")));
    }

    #[test]
    fn without_references_nothing_is_opened_and_the_name_is_told() {
        let reference = Reference::new(Role::Backing, "/etc/passwd");
        let from = Location::Other("memory".into());
        let error = NoReferences.resolve(&reference, &from, Access::Read).unwrap_err();
        assert_eq!(
            error.to_string(),
            "backing file \"/etc/passwd\" is named by the image and was not opened: \
             files named inside an image are not followed here"
        );
    }
}
