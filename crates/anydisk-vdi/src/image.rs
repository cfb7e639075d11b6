//! The image: what the core's table says, with the header around it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    BackingLink, BlockShape, BlockSpace, Compact, FlatTable, GuestRange, HostOffset, Image,
    ImageInfo, ImageWrite, Lookup, Need, OpenRequest, Pace, Reference, Resize, Result, Storage,
    Supplied, TableShape,
};

use crate::guard::{self, Surveyed};
use crate::header::{HEADER_LEN, Header, limit};
use crate::info;
use crate::state::HeaderState;
use crate::table::Entries;

/// A VDI: one image of a chain.
#[derive(Debug)]
pub struct VdiImage {
    pub(crate) header: Header,
    pub(crate) table: FlatTable<Entries>,
    pub(crate) state: HeaderState,
    /// Held while the file is written back, and while its blocks are counted anew.
    pub(crate) round: Mutex<()>,
    writable: bool,
}

impl VdiImage {
    /// Opens the image that the request names.
    ///
    /// # Errors
    /// [`Error::Invalid`](anydisk_core::Error::Invalid), `Unsupported` and `Limit` for what the
    /// header says; opened for writing also `NeedsRepair` for a block map that must not be written
    /// by, and `ReadOnly`.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        Self::build(request, false)
    }

    /// Opens an image that was just made.
    pub(crate) fn open_new(request: &OpenRequest<'_>) -> Result<Self> {
        Self::build(request, true)
    }

    fn build(request: &OpenRequest<'_>, is_new: bool) -> Result<Self> {
        let store = &request.store;
        let len = store.len()?;
        let mut bytes = header_bytes(&**store)?;
        let header = Header::parse(&bytes, len)?;
        bytes.truncate(header.len);
        let writable = request.is_writable()?;
        let (space, pace) = match writable {
            true => writable_space(&header, &**store, len, is_new, request.limits.unit)?,
            false => {
                let end = header.block_at(header.blocks_in(len));
                (BlockSpace::new(header.stride(), end), Pace::default())
            }
        };
        let table = FlatTable::new(
            Arc::clone(store),
            Entries::of(&header),
            BlockShape { unit: header.block, lead: header.extra },
            TableShape {
                table: header.table,
                entries: header.blocks,
                size: header.size,
                first: header.first,
            },
            space,
            request.limits.table_cache,
        );
        let table = if writable { table.at_pace(pace) } else { table.for_reading() };
        let state = HeaderState::new(bytes, &header, is_new);
        Ok(Self { header, table, state, round: Mutex::default(), writable })
    }

    pub(crate) fn lock_round(&self) -> MutexGuard<'_, ()> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image below, if there is one: it is known by its UUID alone.
    #[must_use]
    pub fn backing(&self) -> Option<Reference> {
        self.state.uuids().backing()
    }
}

/// The bytes of a store that hold its header, fewer if it is shorter.
pub(crate) fn header_bytes(store: &dyn Storage) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_LEN];
    let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The blocks of an image that is to be written, those that nothing names among the free ones; and when
/// the map is to be written back.
fn writable_space(
    header: &Header,
    store: &dyn Storage,
    len: u64,
    is_new: bool,
    largest: u64,
) -> Result<(BlockSpace, Pace)> {
    limit("size of a block to be written, in bytes", header.block, largest)?;
    // Blocks that are counted and not there are nobody's: the count may be any number.
    let end = header.block_at(header.allocated.min(header.blocks_in(len)));
    let space = BlockSpace::new(header.stride(), end).with_old_bytes_to(HostOffset(len));
    let found = if is_new { Surveyed::default() } else { guard::survey(header, store, len)? };
    for run in found.free {
        space.give_back_run(header.block_at(run.start), run.end - run.start);
    }
    let bytes = |blocks: u64| blocks.saturating_mul(header.stride());
    let pace = match is_new {
        true => Pace::default(),
        false => Pace::new(bytes(found.named), bytes(found.unnamed)),
    };
    Ok((space, pace))
}

impl Image for VdiImage {
    fn size(&self) -> u64 {
        self.table.shape().size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        self.table.map_cached(range)
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(self.table.supply(need, bytes))
    }

    fn info(&self) -> ImageInfo {
        info::of(&self.header, &self.state.uuids())
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writable.then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.writable.then_some(self)
    }

    fn compactor(&self) -> Option<&dyn Compact> {
        self.writable.then_some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        self.writable.then_some(self)
    }
}
