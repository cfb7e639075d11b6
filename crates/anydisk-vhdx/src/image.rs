//! The image: headers, metadata, and the tables that say where blocks are.

use std::sync::Arc;

use anydisk_core::{
    BackingLink, BlockShape, BlockSpace, FlatTable, GuestRange, HostOffset, Image, ImageInfo,
    ImageWrite, Lease, Limits, Lookup, Need, OpenRequest, Pace, Reference, Resize, Result,
    RunSpace, Storage, StorageExt, Supplied, TableShape,
};

use crate::child::Child;
use crate::entries::Entries;
use crate::guard::{Room, survey};
use crate::header::{HEAD_LEN, Header, Place, Regions, limit, unsupported};
use crate::info;
use crate::layout::{MIB, TABLE_LEN};
use crate::limits;
use crate::locator::backing;
use crate::log::{Log, Replay};
use crate::metadata::{Items, Metadata};
use crate::replayed::Replayed;
use crate::state::HeaderState;
use crate::table::Shape;
use crate::tables::Tables;
use crate::write::Writer;

/// A VHDX: one image of a chain.
#[derive(Debug)]
pub struct VhdxImage {
    pub(crate) header: Header,
    pub(crate) metadata: Metadata,
    pub(crate) body: Body,
}

/// The tables, for reading alone or for writing too.
#[derive(Debug)]
pub(crate) enum Body {
    Read(Box<Tables>),
    /// Of a disk without a parent.
    Written(Box<Writer>),
    /// Of a differencing disk.
    Child(Box<Child>),
}

/// What a file says of itself before its table.
struct Parts {
    /// The file with its log replayed.
    store: Arc<dyn Storage>,
    /// What is to be replayed.
    replay: Option<Replay>,
    header: Header,
    metadata: Metadata,
    shape: Shape,
    below: Option<Reference>,
}

impl Parts {
    fn read(request: &OpenRequest<'_>) -> Result<Self> {
        let len = request.store.len()?;
        let header = Header::parse(&head(&*request.store)?, len)?;
        let replay = replay_of(&*request.store, &header, len)?;
        let store: Arc<dyn Storage> = match &replay {
            Some(replay) => Arc::new(Replayed::new(Arc::clone(&request.store), replay.clone())),
            None => Arc::clone(&request.store),
        };
        // The log may have changed the region tables, but not the headers.
        let len = store.len()?;
        let regions = Regions::parse(&head(&*store)?, &header, len)?;
        let items = Items::parse(&read(&*store, table_of(regions.metadata))?, regions.metadata)?;
        let metadata = items.read(|place| read(&*store, place))?;
        let below = parent_of(&items, &metadata, &*store, request.limits)?;
        let shape = Shape::of(&metadata, &regions, header.log, HostOffset(len))?;
        Ok(Self { store, replay, header, metadata, shape, below })
    }

    fn reader(self, memory: usize) -> Body {
        Body::Read(Box::new(Tables::new(self.store, &self.metadata, self.shape, memory)))
    }

    /// The writing side. Before anything is written all is known to be good.
    fn writer(self, request: &OpenRequest<'_>, is_new: bool) -> Result<Body> {
        let Self { store: store_now, replay, header, metadata, shape, .. } = self;
        let (block, len) = (metadata.block, shape.end);
        limit("size of a block to be written, in bytes", block, request.limits.unit)?;
        let room = match is_new {
            true => Room { end: len, ..Room::default() },
            false => survey(&shape, &*store_now)?,
        };
        let (store, state) = (Arc::clone(&request.store), HeaderState::new(&header, is_new));
        if let Some(replay) = replay {
            replay.write_to(&*store)?;
            state.forget_log(&*store)?;
        }
        let memory = request.limits.table_cache;
        let pace = if is_new { Pace::default() } else { Pace::new(room.named, room.unnamed) };
        if metadata.has_parent {
            let space = RunSpace::new(room.end).with_old_bytes_to(len);
            room.free.into_iter().for_each(|(at, len)| space.give_back(at, len));
            let tables = Tables::new(store, &metadata, shape, memory);
            tables.reach(room.end);
            return Ok(Body::Child(Box::new(Child::new(tables, state, space, pace))));
        }
        let space = BlockSpace::new(block, room.end).with_old_bytes_to(len);
        room.free.into_iter().for_each(|(at, len)| space.give_back_run(at, len / block));
        let table_shape = TableShape {
            table: shape.table,
            entries: shape.entries(),
            size: metadata.size,
            first: HostOffset(MIB),
        };
        let entries = Entries { ratio: shape.ratio };
        let blocks = BlockShape { unit: block, lead: 0 };
        let table =
            FlatTable::new(store, entries, blocks, table_shape, space, memory).at_pace(pace);
        Ok(Body::Written(Box::new(Writer { table, state })))
    }
}

impl VhdxImage {
    /// Opens the image that the request names, and tells what lies below it. The parent is not
    /// opened. For reading nothing is written: a log is replayed in memory. For writing it is
    /// replayed in the file.
    ///
    /// # Errors
    /// [`Error::Invalid`](anydisk_core::Error::Invalid), `Unsupported` and `Limit` for what the file
    /// says of itself; opened for writing also `NeedsRepair` for a table that must not be written
    /// by, and `ReadOnly`.
    pub fn open(request: &OpenRequest<'_>) -> Result<(Self, Option<Reference>)> {
        Self::build(request, false)
    }

    /// Opens an image that was just made.
    pub(crate) fn open_new(request: &OpenRequest<'_>) -> Result<Self> {
        Ok(Self::build(request, true)?.0)
    }

    fn build(request: &OpenRequest<'_>, is_new: bool) -> Result<(Self, Option<Reference>)> {
        let writable = request.is_writable()?;
        let mut parts = Parts::read(request)?;
        let (header, metadata, below) = (parts.header, parts.metadata.clone(), parts.below.take());
        let body = match writable {
            true => parts.writer(request, is_new)?,
            false => parts.reader(request.limits.table_cache),
        };
        Ok((Self { header, metadata, body }, below))
    }

    /// What a person should know of the image, though it opened.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match (&self.body, self.header.log_guid) {
            (Body::Read(_), Some(_)) => {
                vec!["it was not closed cleanly: its log is replayed in memory".to_owned()]
            }
            _ => Vec::new(),
        }
    }

    /// The headers of an image that is open for writing.
    pub(crate) fn state(&self) -> Option<&HeaderState> {
        match &self.body {
            Body::Read(_) => None,
            Body::Written(writer) => Some(&writer.state),
            Body::Child(child) => Some(&child.state),
        }
    }
}

/// Headers and region tables, or as much as there is of them.
pub(crate) fn head(store: &dyn Storage) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_LEN];
    let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The table at the start of the metadata region.
pub(crate) fn table_of(region: Place) -> Place {
    Place { len: region.len.min(TABLE_LEN as u64), ..region }
}

/// The bytes at a place, which is in the file and of a length that was held against a limit.
pub(crate) fn read(store: &dyn Storage, place: Place) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(place.len).unwrap_or_default()];
    store.read_exact_at(place.at, &mut bytes)?;
    Ok(bytes)
}

/// The GUID of a log that is not empty, and its bytes.
pub(crate) fn log_of(store: &dyn Storage, header: &Header) -> Result<Option<([u8; 16], Vec<u8>)>> {
    let Some(guid) = header.log_guid else { return Ok(None) };
    limit("length of a log to be replayed, in bytes", header.log.len, limits::LOG)?;
    Ok(Some((guid, read(store, header.log)?)))
}

/// What is to be replayed, if there is something.
fn replay_of(store: &dyn Storage, header: &Header, len: u64) -> Result<Option<Replay>> {
    let log = log_of(store, header)?;
    log.map(|(guid, bytes)| Log::new(&bytes, guid, header.log).replay(len)).transpose()
}

/// The image below, if there is to be one.
pub(crate) fn parent_of(
    items: &Items,
    metadata: &Metadata,
    store: &dyn Storage,
    limits: &Limits,
) -> Result<Option<Reference>> {
    match items.parent_locator().filter(|_| metadata.has_parent) {
        Some(place) => {
            limit("length of a parent locator", place.len, limits.descriptor as u64)?;
            Ok(Some(backing(&read(store, place)?, place.at)?))
        }
        None if metadata.has_parent => Err(unsupported("a child without a parent locator")),
        None => Ok(None),
    }
}

impl Image for VhdxImage {
    fn size(&self) -> u64 {
        match &self.body {
            Body::Written(writer) => writer.table.shape().size,
            Body::Read(_) | Body::Child(_) => self.metadata.size,
        }
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        match &self.body {
            Body::Read(tables) => tables.map_cached(range, Lease::eternal()),
            Body::Written(writer) => writer.table.map_cached(range),
            Body::Child(child) => child.tables.map_cached(range, child.space.leases().take()),
        }
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(match &self.body {
            Body::Read(tables) => tables.supply(need, bytes),
            Body::Written(writer) => writer.table.supply(need, bytes),
            Body::Child(child) => child.tables.supply(need, bytes),
        })
    }

    fn relieve(&self) -> Result<()> {
        match &self.body {
            Body::Read(_) => Ok(()),
            Body::Written(_) => self.flush(),
            Body::Child(child) => child.relieve(),
        }
    }

    fn info(&self) -> ImageInfo {
        info::of(self)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.state().is_some().then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.state().is_some().then_some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        matches!(self.body, Body::Child(_)).then_some(self)
    }
}
