//! Finding an image that another one names by number alone (VDI's parents).
//!
//! Several files may have the number: a copy has it too. The one whose content is the one that was named
//! is meant. Where several have that as well, reading may take any of them, and none is written.

use std::fs;
use std::path::{Path, PathBuf};

use anydisk_core::{Access, Id, Reference, Result};
use anydisk_storage::{FileStorage, Identity, LockMode, OpenOptions, Storage, name};

use crate::formats;

/// Names in a folder that are looked at; a folder with more is refused.
const NAMES: usize = 10_000;

/// The file in one of the folders that has the number of `reference`, and its content, if one has: the
/// file that has the number for its name, as VirtualBox calls its snapshots, before others in the order
/// of their names, of those that have the ending of the reference's format. Only what a resolver of these
/// folders would open is looked at: no links, no devices.
///
/// # Errors
/// `Denied` where none has the number or several are to be written to, for a folder with too many names,
/// or where the format is not known.
pub(crate) fn find_in(
    folders: &[PathBuf],
    id: Id,
    reference: &Reference,
    access: Access,
) -> Result<PathBuf> {
    let Some(format) = reference.format.as_deref() else {
        return Err(reference.denied("it has no name, and no format to look for"));
    };
    let options = looking().block_devices(false);
    let mut search = Search::new(id, reference, access);
    for folder in folders {
        for name in candidates(folder, id, format, reference)? {
            // A file that cannot be opened is not it.
            if let Ok(store) = FileStorage::open_beneath(folder, &name, &options) {
                search.look_at(folder.join(name), &store);
            }
            if search.is_over() {
                break;
            }
        }
    }
    search.found()?.ok_or_else(|| {
        let places: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        reference.denied(format!("no image with this ID was found in {}", places.join(" or ")))
    })
}

/// The same among files that are listed; `None`: none of them has the number.
///
/// # Errors
/// `Denied` where several are to be written to.
pub(crate) fn find_listed(
    files: &[PathBuf],
    id: Id,
    reference: &Reference,
    access: Access,
) -> Result<Option<PathBuf>> {
    let mut search = Search::new(id, reference, access);
    for path in files {
        if let Ok(store) = FileStorage::open(path, &looking()) {
            search.look_at(path.clone(), &store);
        }
    }
    search.found()
}

/// How a file is looked at. One that is in use is the one that is meant all the same: another must not
/// stand in for it.
fn looking() -> OpenOptions {
    OpenOptions::new().lock(LockMode::Off)
}

/// The files that have the number, so far.
struct Search<'a> {
    id: Id,
    reference: &'a Reference,
    access: Access,
    /// Those with the content that was named, or all if none is named.
    fitting: Vec<PathBuf>,
    others: Vec<PathBuf>,
    /// One file may have several names.
    seen: Vec<Identity>,
}

impl<'a> Search<'a> {
    fn new(id: Id, reference: &'a Reference, access: Access) -> Self {
        let (fitting, others, seen) = (Vec::new(), Vec::new(), Vec::new());
        Self { id, reference, access, fitting, others, seen }
    }

    fn look_at(&mut self, path: PathBuf, store: &FileStorage) {
        let format = self.reference.format.as_deref();
        let Ok(Some(ids)) = formats().identify_store(store, format) else { return };
        let identity = store.identity();
        let is_known = identity.as_ref().is_some_and(|identity| self.seen.contains(identity));
        if ids.id != self.id || is_known {
            return;
        }
        self.seen.extend(identity);
        let wanted = self.reference.content_id;
        let fits = wanted.is_none() || ids.content.is_none() || wanted == ids.content;
        if fits { self.fitting.push(path) } else { self.others.push(path) }
    }

    /// Whether others need not be looked at.
    fn is_over(&self) -> bool {
        self.access == Access::Read && !self.fitting.is_empty()
    }

    /// The one that is meant. Of several with another content the first: that it does not fit is told
    /// when it is opened.
    fn found(self) -> Result<Option<PathBuf>> {
        let found = if self.fitting.is_empty() { self.others } else { self.fitting };
        if let ([one, other, ..], Access::ReadWrite) = (&found[..], self.access) {
            return Err(self.reference.denied(format!(
                "{} and {} both have this ID, and which of them is to be written to is not known: a copy \
                 needs another one (amend -o uuid=random)",
                name::of(one),
                name::of(other)
            )));
        }
        Ok(found.into_iter().next())
    }
}

/// The names of the files in the folder that have the ending of the format, sorted, that of the number
/// first.
fn candidates(folder: &Path, id: Id, format: &str, reference: &Reference) -> Result<Vec<PathBuf>> {
    let unreadable = |error: std::io::Error| {
        reference.denied(format!("{} cannot be searched: {error}", folder.display()))
    };
    let mut names = Vec::new();
    for (count, entry) in fs::read_dir(folder).map_err(unreadable)?.enumerate() {
        if count == NAMES {
            return Err(reference.denied(format!(
                "{} holds more than {NAMES} files, too many to search",
                folder.display()
            )));
        }
        let name = PathBuf::from(entry.map_err(unreadable)?.file_name());
        if name.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(format)) {
            names.push(name);
        }
    }
    let usual = PathBuf::from(format!("{{{id}}}.{format}"));
    names.sort_by_key(|name| (*name != usual, name.clone()));
    Ok(names)
}
