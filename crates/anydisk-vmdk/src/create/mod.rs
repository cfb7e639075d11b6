//! New images: what the options ask for, and the first bytes of the files.

pub(crate) mod cowd;
mod options;
mod plan;
mod text;

pub(crate) use options::{OPTIONS, Subformat};
pub(crate) use plan::Plan;
pub(crate) use text::{extent_names, parent_of};

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, HostOffset, Image, Located, Location, OpenRequest, Reference, Resolver,
    Result, Role, Storage,
};
use zerocopy::IntoBytes;

use crate::VmdkImage;
use crate::header::{limit, unsupported};
use crate::layout::{SECTOR, SparseHeader};
use crate::table::ENTRY;

/// Sectors of a grain in a new image.
pub(crate) const GRAIN_SECTORS: u64 = 128;
/// Entries in a grain table of a new image.
pub(crate) const TABLE_ENTRIES: u32 = 512;
/// Sectors of a grain table of a new image.
pub(crate) const TABLE_SECTORS: u64 = 4;
/// Sector of the descriptor in a new image.
pub(crate) const DESCRIPTOR_SECTOR: u64 = 1;
/// Sectors kept for the descriptor in a new image. qemu looks for the content ID in just these.
pub(crate) const DESCRIPTOR_SECTORS: u64 = 20;

/// Number of grain tables of a new sparse extent.
pub(crate) fn table_count(sectors: u64) -> u64 {
    sectors.div_ceil(u64::from(TABLE_ENTRIES) * GRAIN_SECTORS)
}

/// Sectors that `bytes` take.
fn sectors_of(bytes: u64) -> u64 {
    bytes.div_ceil(SECTOR)
}

/// Where things are in a new sparse extent, in sectors.
pub(crate) struct Layout {
    tables: u64,
    table_sectors: u64,
    second_directory: u64,
    directory: u64,
    /// The first sector behind the tables.
    pub(crate) overhead: u64,
}

impl Layout {
    /// The places where qemu puts them, for an extent of `sectors` in grains and tables as we make
    /// them: second directory and tables, then the first.
    pub(crate) fn of(sectors: u64) -> Self {
        Self::divided(sectors, GRAIN_SECTORS, TABLE_ENTRIES)
    }

    /// The same for grains of `grain` sectors and tables of `entries`.
    fn divided(sectors: u64, grain: u64, entries: u32) -> Self {
        let table_sectors = sectors_of(u64::from(entries) * ENTRY);
        let tables = sectors.div_ceil(u64::from(entries) * grain);
        let set = sectors_of(tables * ENTRY) + tables * table_sectors;
        let second_directory = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS;
        let directory = second_directory + set;
        let overhead = (directory + set).next_multiple_of(grain);
        Self { tables, table_sectors, second_directory, directory, overhead }
    }

    /// The directory at `start`, whose tables follow it.
    fn entries(&self, start: u64) -> Vec<u8> {
        let first = start + sectors_of(self.tables * ENTRY);
        let sectors = (0..self.tables).map(|table| first + table * self.table_sectors);
        let entry = |sector: u64| u32::try_from(sector).unwrap_or_default().to_le_bytes();
        sectors.flat_map(entry).collect()
    }
}

/// The files that were made for a new image, for opening it.
#[derive(Debug)]
struct Made(Vec<(Vec<u8>, Located)>);

impl Resolver for Made {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        let made = self.0.iter().find(|(name, _)| *name == reference.name);
        let (_, file) = made.ok_or_else(|| reference.denied("it was not made"))?;
        Ok(file.clone())
    }
}

/// Creates an image in an empty store, and the files that it names beside it.
///
/// # Errors
/// Those of [`Plan::of`], of the store and of the maker of the other files.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let plan = Plan::of(request.options, request.size)?;
    check_backing(request, &plan)?;
    limit("number of extents", plan.extent_count(), request.limits.extents as u64)?;
    let names = extent_names(&plan, request.location)?;
    let descriptor = plan.descriptor(&names, request.backing)?;
    let mut made = Made(Vec::new());
    if plan.subformat.is_embedded() {
        write_sparse(&*request.store, plan.header(plan.sectors()), &descriptor)?;
    } else {
        request.store.write_at(HostOffset::ZERO, &descriptor)?;
        for (sectors, name) in plan.extents().zip(names) {
            let file = request.companions.make(&Reference::new(Role::Extent, name.clone()))?;
            write_extent(&*file.store, &plan, sectors, request.backing)?;
            made.0.push((name, file));
        }
    }
    let open = OpenRequest::new(Arc::clone(&request.store), request.location, request.limits);
    let open = OpenRequest { access: Access::ReadWrite, resolver: &made, ..open };
    Ok(Arc::new(VmdkImage::open_new(&open)?))
}

fn check_backing(request: &CreateRequest<'_>, plan: &Plan<'_>) -> Result<()> {
    if plan.subformat == Subformat::Stream {
        return Err(unsupported("streamOptimized in place (it is written in one pass)"));
    }
    if request.backing.is_none() && request.options.is_set("backing_file") {
        let expected = "an image that was opened, so that its content ID is known";
        return Err(request.options.refuse("backing_file", expected));
    }
    if request.backing.is_some() && plan.subformat.is_flat() {
        return Err(unsupported("a flat image over another one"));
    }
    Ok(())
}

/// Writes an extent that does not hold the descriptor.
fn write_extent(
    store: &dyn Storage,
    plan: &Plan<'_>,
    sectors: u64,
    parent: Option<&Reference>,
) -> Result<()> {
    match plan.subformat {
        Subformat::VmfsSparse => cowd::write(store, plan, sectors, parent),
        subformat if subformat.is_flat() => Ok(store.set_len(sectors * SECTOR)?),
        _ => write_sparse(store, plan.header(sectors), &[]),
    }
}

/// Writes an empty sparse extent, as the header says but for the places of things.
pub(crate) fn write_sparse(
    store: &dyn Storage,
    header: SparseHeader,
    descriptor: &[u8],
) -> Result<()> {
    let (grain, entries) = (header.grainSize.get(), header.numGTEsPerGT.get());
    let layout = Layout::divided(header.capacity.get(), grain, entries);
    let header = SparseHeader {
        rgdOffset: layout.second_directory.into(),
        gdOffset: layout.directory.into(),
        overHead: layout.overhead.into(),
        ..header
    };
    // The tables are zeroes, and so is what was never written.
    store.set_len(layout.overhead * SECTOR)?;
    store.write_at(HostOffset::ZERO, header.as_bytes())?;
    if !descriptor.is_empty() {
        store.write_at(HostOffset(DESCRIPTOR_SECTOR * SECTOR), descriptor)?;
    }
    for start in [layout.second_directory, layout.directory] {
        store.write_at(HostOffset(start * SECTOR), &layout.entries(start))?;
    }
    Ok(())
}
