//! Finding an image that another one names by number alone (VDI's parents).

use std::fs;
use std::path::{Path, PathBuf};

use anydisk_core::{Id, Reference, Result};
use anydisk_storage::{FileStorage, OpenOptions};

use crate::formats;

/// Names in a folder that are looked at; a folder with more is refused.
const NAMES: usize = 10_000;

/// The file in `folder` that has the number of `reference`, if there is one: the file that has the
/// number for its name, as VirtualBox calls its snapshots, else the first by name of those that have
/// the ending of the reference's format. Only what a resolver of this folder would open is looked
/// at: no links, no devices.
///
/// # Errors
/// `Denied` for a folder with too many names, or where the format is not known.
pub(crate) fn find(folder: &Path, id: Id, reference: &Reference) -> Result<Option<PathBuf>> {
    let Some(format) = reference.format.as_deref() else {
        return Err(reference.denied("it has no name, and no format to look for"));
    };
    let usual = PathBuf::from(format!("{{{id}}}.{format}"));
    if has_id(folder, &usual, id, format) {
        return Ok(Some(folder.join(usual)));
    }
    let names = candidates(folder, format, reference)?;
    let found = names.into_iter().find(|name| has_id(folder, name, id, format));
    Ok(found.map(|name| folder.join(name)))
}

/// As [`find`], in several folders, and a refusal where none has it.
pub(crate) fn find_in(folders: &[PathBuf], id: Id, reference: &Reference) -> Result<PathBuf> {
    for folder in folders {
        if let Some(path) = find(folder, id, reference)? {
            return Ok(path);
        }
    }
    let places: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(reference.denied(format!("no image with this ID was found in {}", places.join(" or "))))
}

/// Whether the file at `path` has the number.
pub(crate) fn is_it(path: &Path, id: Id, format: Option<&str>) -> bool {
    FileStorage::open(path, &OpenOptions::new()).is_ok_and(|store| identifies(&store, id, format))
}

/// The names of the files in the folder that have the ending of the format, sorted.
fn candidates(folder: &Path, format: &str, reference: &Reference) -> Result<Vec<PathBuf>> {
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
    names.sort();
    Ok(names)
}

/// A file that cannot be opened is not it.
fn has_id(folder: &Path, name: &Path, id: Id, format: &str) -> bool {
    let options = OpenOptions::new().block_devices(false);
    FileStorage::open_beneath(folder, name, &options)
        .is_ok_and(|store| identifies(&store, id, Some(format)))
}

fn identifies(store: &FileStorage, id: Id, format: Option<&str>) -> bool {
    matches!(formats().identify_store(store, format), Ok(Some(found)) if found == id)
}
