//! Incremental backups as files: each over the one before.

use std::path::{Path, PathBuf};

use anydisk_convert::{NewImage, Report, Result, Settings, Watch, copy_changes_to_overlay};
use anydisk_core::{Changes, Disk, Error, Options, Reference, Role};
use anydisk_qcow2::QCOW2;

use crate::OpenDisk;

/// Writes what changed on `source` since the backup at `last` into a new qcow2 image at `next`, which
/// lies over it: opened, it shows the disk as it is now. Returns what was copied.
///
/// `changes` tells what changed: a dirty bitmap of the disk
/// ([`Bitmaps::changes`](anydisk_core::Bitmaps::changes)), or two states of a logical volume
/// ([`Inside::changes`](anydisk_core::Members::changes)). The new file gets its name when it is whole
/// and durable, and knows the last one by its name alone, so both lie in one folder.
///
/// `changes` must begin with the moment of the backup at `last`, and `source` must not be written
/// meanwhile (or be a snapshot). Nothing in the files tells whether that is so;
/// [`compare`](anydisk_convert::compare) of the new backup with the source does.
///
/// # Errors
/// [`Error::Unusable`] for a `last` in another folder, what opening it says, and as
/// [`copy_changes_to_overlay`](anydisk_convert::copy_changes_to_overlay).
pub fn back_up_changes(
    source: &Disk,
    changes: &mut dyn Changes,
    last: &Path,
    next: &Path,
    watch: &dyn Watch,
) -> Result<Report> {
    if folder_of(last) != folder_of(next) {
        let why = "the next one is to lie in another folder, and would not find it".into();
        return Err(
            Error::Unusable { what: "backup", name: last.display().to_string(), why }.into()
        );
    }
    let below = OpenDisk::new().path(last)?;
    let name = last.file_name().unwrap_or(last.as_os_str());
    let mut reference = Reference::new(Role::Backing, name.as_encoded_bytes());
    reference.format = Some(below.top().info().format.to_owned());
    let options = Options::of(&QCOW2);
    let image = NewImage::new(&QCOW2, &options, source.size());
    let image = NewImage { backing: Some(&reference), ..image };
    let settings = Settings::default();
    copy_changes_to_overlay(source, changes, next, &image, below.layers(), &settings, watch)
}

/// The folder in which a file lies or is to lie, whatever way leads there; `None` if it is not there.
fn folder_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).canonicalize().ok()
}
