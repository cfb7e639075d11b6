//! Bundles: a folder with a descriptor and the files it names.
//!
//! ```text
//!   name.hdd/DiskDescriptor.xml      parts of the disk, states of it
//!   name.hdd/name.hdd.0.{GUID}.hds   one part in one state
//! ```
//!
//! A disk may be split into parts, and each part has a file for each state: what is absent in one is
//! looked up in that of the state before. All of it is one image, as the extents of a VMDK are: the
//! states are not images that could stand alone, where the disk is split. Written is the present state:
//! nothing of those before it changes, and the descriptor stays as it is.

mod check;
mod descriptor;
mod image;
mod names;
mod snapshot;
mod write;

pub(crate) use check::check;
pub(crate) use descriptor::begins;
pub use image::ParallelsBundle;

use anydisk_core::{HostOffset, OpenRequest, Reference, Result, Role, StorageExt};

use crate::header::limit;
use descriptor::{Descriptor, FileKind, FileOf};

/// Reads the descriptor that is all of the request's store.
///
/// # Errors
/// Those of [`Descriptor::parse`] and of the store.
fn read(request: &OpenRequest<'_>) -> Result<Descriptor> {
    let len = request.store.len()?;
    limit("size of the descriptor in bytes", len, request.limits.descriptor as u64)?;
    let mut bytes = vec![0; usize::try_from(len).expect("limited above")];
    request.store.read_exact_at(HostOffset::ZERO, &mut bytes)?;
    Descriptor::parse(&bytes, request.limits)
}

/// The files that the descriptor names for the disk as it is. None is opened.
///
/// # Errors
/// Those of [`Descriptor::parse`] and of the store.
pub(crate) fn references(request: &OpenRequest<'_>) -> Result<Vec<Reference>> {
    let descriptor = read(request)?;
    let files = descriptor.parts.iter().flat_map(|part| &part.files);
    Ok(files.map(reference).collect())
}

fn reference(file: &FileOf) -> Reference {
    let mut reference = Reference::new(Role::Extent, file.name.as_bytes());
    let format = match file.kind {
        FileKind::Expandable => crate::NAME,
        FileKind::Plain => "raw",
    };
    reference.format = Some(format.to_owned());
    reference
}
