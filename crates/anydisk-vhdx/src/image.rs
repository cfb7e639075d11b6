//! The image: a table of blocks, and the bitmaps of a differencing disk.

use std::sync::Arc;

use anydisk_core::bits::run;
use anydisk_core::{
    BlockShape, BlockSpace, Error, Extent, FlatTable, GuestRange, HostOffset, Image, ImageInfo,
    ImageWrite, Lease, Limits, Lookup, Need, OpenRequest, Reference, Result, Source, Storage,
    StorageExt, Supplied, TableCache, TableShape, Ticket,
};

use crate::entries::Entries;
use crate::guard::{Room, survey};
use crate::header::{HEAD_LEN, Header, Place, Regions, limit, unsupported};
use crate::info;
use crate::layout::{MIB, TABLE_LEN};
use crate::limits;
use crate::log::{Log, Replay};
use crate::metadata::{Items, Metadata, backing};
use crate::replayed::Replayed;
use crate::state::HeaderState;
use crate::table::{BIT_WORDS, Block, ENTRY, SLICE, SLICE_BITS, Shape, Spot, block_of, words_of};
use crate::write::Writer;

/// Bytes of slices that may always be kept in memory, if the caller's limits allow.
const LEAST_CACHE: usize = 256 << 10;

/// The bit of a ticket that says that a bitmap is meant.
const OF_BITMAP: u64 = 1 << 63;

/// A VHDX: one image of a chain.
#[derive(Debug)]
pub struct VhdxImage {
    /// The file, with its log replayed in memory.
    store: Arc<dyn Storage>,
    pub(crate) header: Header,
    pub(crate) metadata: Metadata,
    shape: Shape,
    pub(crate) body: Body,
}

/// The tables, for reading alone or for writing too.
#[derive(Debug)]
pub(crate) enum Body {
    /// Also of a differencing disk.
    Read(Tables),
    /// Of a disk without a parent.
    Written(Box<Writer>),
}

/// The table, and the bitmaps of a differencing disk.
#[derive(Debug)]
pub(crate) struct Tables {
    table: TableCache,
    bitmaps: TableCache,
}

impl VhdxImage {
    /// Opens the image that the request names, and tells what lies below it. The parent is not
    /// opened. For reading nothing is written: a log is replayed in memory. For writing it is
    /// replayed in the file.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] and [`Error::Limit`] for what the file says of
    /// itself; opened for writing also [`Error::NeedsRepair`] for a table that must not be written
    /// by, and [`Error::ReadOnly`].
    pub fn open(request: &OpenRequest<'_>) -> Result<(Self, Option<Reference>)> {
        Self::build(request, false)
    }

    /// Opens an image that was just made.
    pub(crate) fn open_new(request: &OpenRequest<'_>) -> Result<Self> {
        Ok(Self::build(request, true)?.0)
    }

    fn build(request: &OpenRequest<'_>, is_new: bool) -> Result<(Self, Option<Reference>)> {
        let writable = request.is_writable()?;
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
        let memory = request.limits.table_cache;
        if !writable {
            let body = Body::Read(Tables::new(&metadata, &shape, memory));
            return Ok((Self { store, header, metadata, shape, body }, below));
        }
        if metadata.has_parent {
            let why = "VHDX images over others are only read";
            return Err(Error::ReadOnly { why: why.into() });
        }
        let what = "size of a block to be written, in bytes";
        limit(what, metadata.block, request.limits.unit)?;
        // As it is with its log replayed.
        let store_now = store;
        let (store, state) = (Arc::clone(&request.store), HeaderState::new(&header, is_new));
        let room = match is_new {
            true => Room { free: Vec::new(), end: HostOffset(len) },
            false => survey(&shape, &*store_now)?,
        };
        if let Some(replay) = replay {
            replay.write_to(&*store)?;
            state.forget_log(&*store)?;
        }
        let space = BlockSpace::new(metadata.block, room.end).with_old_bytes_to(HostOffset(len));
        let blocks = |len| len / metadata.block;
        room.free.into_iter().for_each(|(at, len)| space.give_back_run(at, blocks(len)));
        let table = FlatTable::new(
            Arc::clone(&store),
            Entries { ratio: shape.ratio },
            BlockShape { unit: metadata.block, lead: 0 },
            TableShape {
                table: shape.table,
                entries: shape.entries(),
                size: metadata.size,
                first: HostOffset(MIB),
            },
            space,
            memory,
        );
        let body = Body::Written(Box::new(Writer { table, state }));
        let image = Self { store, header, metadata, shape, body };
        Ok((image, below))
    }

    /// What a person should know of the image, though it opened.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match (&self.body, self.header.log_guid) {
            (Body::Written(_), _) | (_, None) => Vec::new(),
            (Body::Read(_), Some(_)) => {
                vec!["it was not closed cleanly: its log is replayed in memory".to_owned()]
            }
        }
    }
}

impl Tables {
    fn new(metadata: &Metadata, shape: &Shape, memory: usize) -> Self {
        // Room for eight times what there can be, so that few slices meet in one set.
        let all = |bytes: u64| {
            let bytes = usize::try_from(bytes.saturating_mul(8)).unwrap_or(usize::MAX);
            bytes.max(LEAST_CACHE).min(memory)
        };
        let bits = if metadata.has_parent { metadata.size / metadata.sector / 8 } else { 0 };
        Self {
            table: TableCache::new(SLICE, all(shape.entries() * ENTRY)),
            bitmaps: TableCache::new(BIT_WORDS, all(bits)),
        }
    }
}

impl VhdxImage {
    fn need<'a>(&'a self, tables: &'a Tables, spot: &Spot) -> Need<'a> {
        let bytes = self.shape.count(spot.slice) as u64 * ENTRY;
        tables.table.need(&self.store, spot.slice, usize::try_from(bytes).unwrap_or_default())
    }

    /// The run of blocks at the start of a range that has one answer, `Full` ones next to each
    /// other.
    fn look_at_blocks(&self, tables: &Tables, spot: &Spot, row: u64) -> Option<(u64, Block, u64)> {
        tables.table.read(spot.slice, |slice| {
            let entry = slice.get(spot.index);
            let first = block_of(entry);
            let goes_on = |next: &u64| {
                let index = spot.index + usize::try_from(*next).unwrap_or(SLICE);
                let found = block_of(slice.get(index));
                match first {
                    Block::Absent | Block::Zero => found == first,
                    Block::Full(at) => {
                        found == Block::Full(at.saturating_add(next * self.shape.block))
                    }
                    Block::Partial(_) | Block::Unknown => false,
                }
            };
            (entry, first, 1 + (1..row).take_while(goes_on).count() as u64)
        })
    }

    /// What the tables say of the start of a range.
    fn look<'a>(&'a self, tables: &'a Tables, range: GuestRange) -> Result<Lookup<'a>> {
        let block = self.shape.block_number(range.start());
        let spot = self.shape.block_spot(block);
        let within = range.start().get() % self.shape.block;
        let most = (within + range.len()).div_ceil(self.shape.block);
        let row = self.shape.row(block, &spot, most);
        let Some((entry, found, count)) = self.look_at_blocks(tables, &spot, row) else {
            return Ok(Lookup::Need(self.need(tables, &spot)));
        };
        let len = |count: u64| range.len().min(count * self.shape.block - within);
        let source = match found {
            Block::Absent => Source::Absent { reserved: None },
            Block::Zero => Source::Zero { reserved: None },
            Block::Full(at) if self.shape.may_lie_at(at, self.shape.used(block)) => {
                // Those behind it are asked for themselves where they lie on something else.
                let is_good = |next: &u64| {
                    let at = at.saturating_add(next * self.shape.block);
                    self.shape.may_lie_at(at, self.shape.used(block + next))
                };
                let count = 1 + (1..count).take_while(is_good).count() as u64;
                let at = at.saturating_add(within);
                let source = Source::Data { store: &self.store, at, shared: false };
                let lease = Lease::eternal();
                return Ok(Lookup::Found(Extent { len: len(count), source, lease }));
            }
            Block::Partial(at)
                if self.shape.has_parent && self.shape.may_lie_at(at, self.shape.used(block)) =>
            {
                return self.map_partial(tables, range, block, at);
            }
            _ => return Err(self.shape.invalid(&spot, entry)),
        };
        Ok(Lookup::Found(Extent::without_data(len(count), source)))
    }

    fn map_partial<'a>(
        &'a self,
        tables: &'a Tables,
        range: GuestRange,
        block: u64,
        at: HostOffset,
    ) -> Result<Lookup<'a>> {
        let spot = self.shape.bitmap_spot(block);
        let Some(entry) = tables.table.read(spot.slice, |slice| slice.get(spot.index)) else {
            return Ok(Lookup::Need(self.need(tables, &spot)));
        };
        let bitmap = match block_of(entry) {
            Block::Full(at) if self.shape.may_lie_at(at, 1 << 20) => at,
            _ => return Err(self.shape.invalid(&spot, entry)),
        };
        let within = range.start().get() % self.shape.block;
        let (slice, bit) = self.shape.bit(bitmap, block, within);
        let (sector, in_sector) = (self.shape.sector, within % self.shape.sector);
        let len = range.len().min(self.shape.block - within);
        let end = (bit + (in_sector + len).div_ceil(sector)).min(SLICE_BITS);
        let Some((is_here, count)) =
            tables.bitmaps.read(slice, |words| run(|index| words.get(index), bit, end))
        else {
            let need = tables.bitmaps.need(&self.store, slice, BIT_WORDS * size_of::<u64>());
            return Ok(Lookup::Need(Need { ticket: need.ticket | OF_BITMAP, ..need }));
        };
        let len = len.min(count * sector - in_sector);
        let source = match is_here {
            true => {
                let at = at.saturating_add(within);
                Source::Data { store: &self.store, at, shared: false }
            }
            false => Source::Absent { reserved: None },
        };
        Ok(Lookup::Found(Extent::without_data(len, source)))
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
        self.shape.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        match &self.body {
            Body::Read(tables) => self.look(tables, range),
            Body::Written(writer) => writer.table.map_cached(range),
        }
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let ticket = Ticket::from_bits(need.ticket & !OF_BITMAP);
        let tables = match &self.body {
            Body::Written(writer) => return Ok(writer.table.supply(need, bytes)),
            Body::Read(tables) => tables,
        };
        let cache = if need.ticket & OF_BITMAP == 0 { &tables.table } else { &tables.bitmaps };
        Ok(cache.insert(need.at, ticket, words_of(bytes)).into())
    }

    fn info(&self) -> ImageInfo {
        info::of(self)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        matches!(self.body, Body::Written(_)).then_some(self)
    }
}
