//! What several tests use.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, Limits, Located, Location, Opener, Options, Reference,
    Registry, Result, Role, Storage,
};
use anydisk_testkit::MemoryFolder;
use anydisk_vhd::VHD;

/// Makes an image.
pub(crate) fn create(
    store: Arc<dyn Storage>,
    size: u64,
    given: &[(&str, &str)],
    parent: Option<&Reference>,
) -> Result<Disk> {
    let mut options = Options::of(&VHD);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = CreateRequest::new(store, &location, size, &options, &limits);
    request.backing = parent;
    Ok(Disk::new(VHD.create(request)?))
}

/// Opens an image of a folder in memory, and what lies below it.
pub(crate) fn open_in(folder: &MemoryFolder, name: &str, access: Access) -> Result<Disk> {
    let registry = Registry::new(&[&VHD]);
    let store = folder.file(name).expect("the file is there");
    let file = Located { store, location: Location::Other(name.to_owned()) };
    Opener::new(&registry, folder).open(file, Some("vpc"), access)
}

/// What a child is told of a parent that is open.
pub(crate) fn reference_to(parent: &Disk, name: &str) -> Reference {
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = Some("vpc".to_owned());
    reference.id = parent.top().info().id;
    reference
}
