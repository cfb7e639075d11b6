//! What several tests use.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckReport, CheckRequest, CreateRequest, Disk, Finding, Format, HostOffset, Limits,
    Located, Location, OpenRequest, Opened, Opener, Options, Reference, Registry, Repair, Result,
    Role, Storage, StorageExt,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::MemoryFolder;
use anydisk_testkit::golden::cases;
use anydisk_vhdx::VHDX;

pub(crate) const MIB: u64 = 1 << 20;

/// Where the table of an image lies that is made with a log of 1 MiB.
pub(crate) const TABLE: u64 = 2 * MIB;

/// Makes an image.
pub(crate) fn create(
    store: Arc<dyn Storage>,
    size: u64,
    given: &[(&str, &str)],
    parent: Option<&Reference>,
) -> Result<Disk> {
    let mut options = Options::of(&VHDX);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut request = CreateRequest::new(store, &location, size, &options, &limits);
    request.backing = parent;
    Ok(Disk::new(VHDX.create(request)?))
}

/// Opens an image of a folder in memory, and what lies below it.
pub(crate) fn open_in(folder: &MemoryFolder, name: &str, access: Access) -> Result<Disk> {
    let registry = Registry::new(&[&VHDX]);
    let store = folder.file(name).expect("the file is there");
    let file = Located { store, location: Location::Other(name.to_owned()) };
    Opener::new(&registry, folder).open(file, Some("vhdx"), access)
}

/// Opens an image alone.
pub(crate) fn open_alone(store: Arc<dyn Storage>, access: Access) -> Result<Opened> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    VHDX.open(OpenRequest { access, ..OpenRequest::new(store, &here, &limits) })
}

/// Checks, and mends what `repair` says.
pub(crate) fn check(
    store: Arc<dyn Storage>,
    repair: Repair,
) -> Result<(CheckReport, Vec<Finding>)> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest::new(store, &here, &limits);
    let request = OpenRequest { access: Access::ReadWrite, ..request };
    let mut found = Vec::new();
    let request = CheckRequest::new(request).repairing(repair);
    let report = VHDX.check(&request, &mut |finding| found.push(finding))?;
    Ok((report, found))
}

/// What is damaged in an image, space without a name aside.
pub(crate) fn damage(store: Arc<dyn Storage>) -> Result<(), String> {
    let (report, found) = check(store, Repair::Nothing).map_err(|error| error.to_string())?;
    match report.corruptions {
        0 => Ok(()),
        _ => Err(format!("{found:#?}")),
    }
}

/// A golden image.
pub(crate) fn file_of(case: &str) -> Arc<MemoryStorage> {
    let (folder, name) = folder_of(case);
    folder.file(&name).expect("it is there")
}

/// A golden image and the files beside it.
pub(crate) fn folder_of(case: &str) -> (MemoryFolder, String) {
    let cases = cases("vhdx");
    let case = cases.iter().find(|found| found.name == case).expect("a golden image");
    (case.in_memory(), case.open.clone())
}

/// What a child is told of a parent that is open.
pub(crate) fn reference_to(parent: &Disk, name: &str) -> Reference {
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = Some("vhdx".to_owned());
    reference.content_id = parent.top().info().content_id;
    reference
}

/// An entry of the table of a new image.
pub(crate) fn entry(store: &dyn Storage, number: u64) -> u64 {
    let mut bytes = [0; 8];
    store.read_exact_at(HostOffset(TABLE + 8 * number), &mut bytes).expect("memory");
    u64::from_le_bytes(bytes)
}

pub(crate) fn set_entry(store: &dyn Storage, number: u64, entry: u64) {
    store.write_at(HostOffset(TABLE + 8 * number), &entry.to_le_bytes()).expect("memory");
}
