//! The table of blocks, and the bitmaps of a differencing disk, in memory: where the bytes of a guest
//! range are.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};

use anydisk_core::bits::run;
use anydisk_core::{
    Extent, GuestRange, HostOffset, Lease, Lookup, Need, Result, Source, Storage, Supplied,
    TableCache, Ticket,
};

use crate::layout::MIB;
use crate::metadata::Metadata;
use crate::table::{BIT_WORDS, Block, ENTRY, SLICE, SLICE_BITS, Shape, Spot, block_of, words_of};

/// Bytes of slices that may always be kept in memory, if the caller's limits allow.
const LEAST_CACHE: usize = 256 << 10;

/// The bit of a ticket that says that a bitmap is meant.
const OF_BITMAP: u64 = 1 << 63;

/// The table, and the bitmaps of a differencing disk.
#[derive(Debug)]
pub(crate) struct Tables {
    /// The file, with its log replayed.
    pub(crate) store: Arc<dyn Storage>,
    pub(crate) shape: Shape,
    pub(crate) table: TableCache,
    pub(crate) bitmaps: TableCache,
    /// There is a parent; it may be given up.
    has_parent: AtomicBool,
    /// No block reaches behind it.
    end: AtomicU64,
}

/// What the tables say of the start of a range.
#[derive(Debug)]
pub(crate) enum Look<'a> {
    /// They are not in memory.
    Need(Need<'a>),
    /// There is no block for `len` bytes.
    Absent { len: u64 },
    /// There are zeroes, whatever the parent has.
    Zero { len: u64 },
    /// Sectors of a block, from the byte at `at` on, which are in the parent.
    Unset { at: HostOffset, len: u64 },
    /// Data.
    Here { at: HostOffset, len: u64 },
}

impl Tables {
    /// Nothing is read. `memory` bounds both caches.
    pub(crate) fn new(
        store: Arc<dyn Storage>,
        metadata: &Metadata,
        shape: Shape,
        memory: usize,
    ) -> Self {
        // Room for eight times what there can be, so that few slices meet in one set.
        let all = |bytes: u64| {
            let bytes = usize::try_from(bytes.saturating_mul(8)).unwrap_or(usize::MAX);
            bytes.max(LEAST_CACHE).min(memory)
        };
        let bits = if metadata.has_parent { metadata.size / metadata.sector / 8 } else { 0 };
        Self {
            store,
            table: TableCache::new(SLICE, all(shape.entries() * ENTRY)),
            bitmaps: TableCache::new(BIT_WORDS, all(bits)),
            has_parent: AtomicBool::new(metadata.has_parent),
            end: AtomicU64::new(shape.end.get()),
            shape,
        }
    }

    pub(crate) fn has_parent(&self) -> bool {
        self.has_parent.load(Acquire)
    }

    /// From now on there is no parent: what is absent is zero, and no block is here in part.
    pub(crate) fn give_up_parent(&self) {
        self.has_parent.store(false, Release);
    }

    /// Blocks may reach to here. Before an entry names one, so that who sees the entry finds the
    /// block before the end.
    pub(crate) fn reach(&self, end: HostOffset) {
        self.end.fetch_max(end.get(), Release);
    }

    /// Whether bytes at a place can be those of a block. Asked after the look at the entry.
    fn may_lie_at(&self, at: HostOffset, len: u64) -> bool {
        let end = HostOffset(self.end.load(Acquire));
        self.shape.may_lie_before(end, at, len)
    }

    /// What must be read for an entry.
    pub(crate) fn need(&self, spot: &Spot) -> Need<'_> {
        let bytes = self.shape.count(spot.slice) as u64 * ENTRY;
        self.table.need(&self.store, spot.slice, usize::try_from(bytes).unwrap_or_default())
    }

    /// What must be read for a bit.
    pub(crate) fn need_bits(&self, slice: HostOffset) -> Need<'_> {
        let need = self.bitmaps.need(&self.store, slice, BIT_WORDS * size_of::<u64>());
        Need { ticket: need.ticket | OF_BITMAP, ..need }
    }

    /// The answer of [`Image::supply`](anydisk_core::Image::supply).
    pub(crate) fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Supplied {
        let ticket = Ticket::from_bits(need.ticket & !OF_BITMAP);
        let cache = if need.ticket & OF_BITMAP == 0 { &self.table } else { &self.bitmaps };
        cache.insert(need.at, ticket, words_of(bytes)).into()
    }

    /// The entry of a block or bitmap.
    pub(crate) fn entry(&self, spot: &Spot) -> Option<u64> {
        self.table.read(spot.slice, |slice| slice.get(spot.index))
    }

    /// Where the bitmap is that an entry names.
    pub(crate) fn bitmap_at(&self, spot: &Spot, entry: u64) -> Result<HostOffset> {
        match block_of(entry) {
            Block::Full(at) if self.may_lie_at(at, MIB) => Ok(at),
            _ => Err(self.shape.invalid(spot, entry)),
        }
    }

    /// The answer of [`Image::map_cached`](anydisk_core::Image::map_cached); `lease` was taken before.
    #[inline]
    pub(crate) fn map_cached<'a>(
        &'a self,
        range: GuestRange,
        lease: Lease<'a>,
    ) -> Result<Lookup<'a>> {
        let data = |at, len, lease| {
            let source = Source::Data { store: &self.store, at, shared: false };
            Lookup::Found(Extent { len, source, lease })
        };
        if let Some(at) = self.plain(range) {
            return Ok(data(at, range.len(), lease));
        }
        let without = |len, source| Ok(Lookup::Found(Extent::without_data(len, source)));
        match self.look(range)? {
            Look::Need(need) => Ok(Lookup::Need(need)),
            Look::Absent { len } | Look::Unset { len, .. } => {
                without(len, Source::Absent { reserved: None })
            }
            Look::Zero { len } => without(len, Source::Zero { reserved: None }),
            Look::Here { at, len } => Ok(data(at, len, lease)),
        }
    }

    /// The place of a range that lies in one block, all of which is here: the answer of nearly every
    /// small read.
    #[inline]
    fn plain(&self, range: GuestRange) -> Option<HostOffset> {
        let within = range.start().get() & (self.shape.block - 1);
        if range.len() > self.shape.block - within {
            return None;
        }
        let block = self.shape.block_number(range.start());
        let Block::Full(at) = block_of(self.entry(&self.shape.block_spot(block))?) else {
            return None;
        };
        self.may_lie_at(at, self.shape.used(block)).then(|| at.saturating_add(within))
    }

    /// Looks at the tables, in memory alone. Whoever may use the place holds a lease from before.
    pub(crate) fn look(&self, range: GuestRange) -> Result<Look<'_>> {
        let block = self.shape.block_number(range.start());
        let spot = self.shape.block_spot(block);
        let within = range.start().get() % self.shape.block;
        let most = (within + range.len()).div_ceil(self.shape.block);
        let row = self.shape.row(block, &spot, most);
        let Some((entry, found, count)) = self.look_at_blocks(&spot, row) else {
            return Ok(Look::Need(self.need(&spot)));
        };
        let len = |count: u64| range.len().min(count * self.shape.block - within);
        let is_good = |at: HostOffset, next: u64| {
            let at = at.saturating_add(next * self.shape.block);
            self.may_lie_at(at, self.shape.used(block + next))
        };
        match found {
            Block::Absent => Ok(Look::Absent { len: len(count) }),
            Block::Zero => Ok(Look::Zero { len: len(count) }),
            Block::Full(at) if is_good(at, 0) => {
                // Those behind it are asked for themselves where they lie on something else.
                let count = 1 + (1..count).take_while(|next| is_good(at, *next)).count() as u64;
                Ok(Look::Here { at: at.saturating_add(within), len: len(count) })
            }
            Block::Partial(at) if self.has_parent() && is_good(at, 0) => {
                self.look_at_bits(range, block, at)
            }
            // The parent was given up since: the entry is another one now.
            Block::Partial(_) if self.shape.has_parent && !self.has_parent() => {
                Ok(Look::Need(self.need(&spot)))
            }
            _ => Err(self.shape.invalid(&spot, entry)),
        }
    }

    /// The run of blocks at the start of a range that has one answer, `Full` ones next to each
    /// other.
    fn look_at_blocks(&self, spot: &Spot, row: u64) -> Option<(u64, Block, u64)> {
        self.table.read(spot.slice, |slice| {
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

    fn look_at_bits(&self, range: GuestRange, block: u64, at: HostOffset) -> Result<Look<'_>> {
        let spot = self.shape.bitmap_spot(block);
        let Some(entry) = self.entry(&spot) else { return Ok(Look::Need(self.need(&spot))) };
        let bitmap = self.bitmap_at(&spot, entry)?;
        let within = range.start().get() % self.shape.block;
        let (slice, bit) = self.shape.bit(bitmap, block, within);
        let (sector, in_sector) = (self.shape.sector, within % self.shape.sector);
        let len = range.len().min(self.shape.block - within);
        let end = (bit + (in_sector + len).div_ceil(sector)).min(SLICE_BITS);
        let Some((is_here, count)) =
            self.bitmaps.read(slice, |words| run(|index| words.get(index), bit, end))
        else {
            return Ok(Look::Need(self.need_bits(slice)));
        };
        let (at, len) = (at.saturating_add(within), len.min(count * sector - in_sector));
        Ok(if is_here { Look::Here { at, len } } else { Look::Unset { at, len } })
    }
}
