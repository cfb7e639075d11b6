//! The blocks of a dynamic or differencing disk: where the bytes of a guest range are.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};

use anydisk_core::bits::run;
use anydisk_core::{
    Extent, GuestRange, HostOffset, Lease, Lookup, Need, Result, ShapeCell, Source, Storage,
    Supplied, TableCache, TableShape, Ticket,
};

use crate::layout::{ABSENT, ENTRY, SECTOR};
use crate::table::{
    BIT_WORDS, BitSpot, SLICE, SLICE_BITS, Shape, Spot, entries_of, entry_of, words_of,
};
use crate::write::Writer;

/// Bytes of slices that may always be kept in memory, if the caller's limits allow.
const LEAST_CACHE: usize = 256 << 10;

/// The bit of a ticket that says that a bitmap is meant.
const OF_BITMAP: u64 = 1 << 63;

/// The table, and the bitmaps of a differencing disk.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub(crate) store: Arc<dyn Storage>,
    shape: ShapeCell,
    /// Of blocks, which stay.
    block: u64,
    bitmap: u64,
    /// A bit says for each sector whether it is here or in the parent. On other disks bits say
    /// nothing that the bytes do not: what was never written is zero.
    bitmaps_count: AtomicBool,
    pub(crate) table: TableCache,
    pub(crate) bitmaps: TableCache,
    /// No block reaches behind it.
    pub(crate) end: AtomicU64,
    /// What writing needs beside.
    pub(crate) writer: Option<Writer>,
}

/// What the tables say of the start of a range.
#[derive(Debug)]
pub(crate) enum Look<'a> {
    /// They are not in memory.
    Need(Need<'a>),
    /// There is no block for `len` bytes.
    NoBlock { len: u64 },
    /// Sectors of a block, from the byte at `at` on, whose bits are not set.
    Unset { at: HostOffset, len: u64 },
    /// Data.
    Here { at: HostOffset, len: u64 },
}

fn cell(shape: &Shape) -> TableShape {
    let (table, entries, size) = (shape.table, shape.entries, shape.size);
    TableShape { table, entries, size, first: HostOffset::ZERO }
}

impl Blocks {
    /// The blocks of a disk in a file that ends at `end`. Nothing is read.
    pub(crate) fn new(
        store: Arc<dyn Storage>,
        shape: Shape,
        has_bitmaps: bool,
        end: HostOffset,
        memory: usize,
    ) -> Self {
        // Room for eight times what there can be, so that few slices meet in one set.
        let all = |count: u64, words: usize| {
            let bytes = count.saturating_mul(64).saturating_mul(words as u64);
            usize::try_from(bytes).unwrap_or(usize::MAX).max(LEAST_CACHE).min(memory)
        };
        let slices = shape.entries.div_ceil(SLICE as u64);
        let bitmaps = if has_bitmaps { shape.entries * (shape.bitmap / SECTOR) } else { 0 };
        Self {
            store,
            block: shape.block,
            bitmap: shape.bitmap,
            shape: ShapeCell::new(cell(&shape)),
            bitmaps_count: AtomicBool::new(has_bitmaps),
            table: TableCache::new(SLICE, all(slices, SLICE)),
            bitmaps: TableCache::new(BIT_WORDS, all(bitmaps, BIT_WORDS)),
            end: AtomicU64::new(end.get()),
            writer: None,
        }
    }

    /// Where the answers are now.
    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        let TableShape { table, entries, size, .. } = self.shape.get();
        Shape { table, entries, size, block: self.block, bitmap: self.bitmap }
    }

    /// The table, or the size of the disk, is another one. The caller has claimed the whole disk, and
    /// written everything back.
    pub(crate) fn reshape(&self, shape: Shape) {
        self.shape.set(cell(&shape));
    }

    /// Whether bits say what is here.
    pub(crate) fn has_bitmaps(&self) -> bool {
        self.bitmaps_count.load(Acquire)
    }

    /// From now on bits say nothing: all sectors of a block are here. The caller has claimed the
    /// whole disk.
    pub(crate) fn ignore_bitmaps(&self) {
        self.bitmaps_count.store(false, Release);
    }

    /// Looks at the tables, in memory alone. Whoever may use the place holds a lease from before.
    pub(crate) fn look(&self, range: GuestRange) -> Result<Look<'_>> {
        let shape = self.shape();
        let spot = shape.locate(range.start());
        let most = (spot.within + range.len()).div_ceil(shape.block).min(spot.rest());
        let seen = self.table.read(spot.slice, |slice| {
            let entry = entry_of(slice.get(spot.index));
            let absent = |next: &usize| entry_of(slice.get(spot.index + next)) == ABSENT;
            let most = usize::try_from(most).unwrap_or(SLICE);
            let count = if entry == ABSENT { (0..most).take_while(absent).count() } else { 1 };
            (entry, count as u64)
        });
        let Some((entry, count)) = seen else { return Ok(Look::Need(self.need_entry(&spot))) };
        let len = range.len().min(count.max(1) * shape.block - spot.within);
        if entry == ABSENT {
            return Ok(Look::NoBlock { len });
        }
        // After the look, so that a block that was added meanwhile lies before the end.
        let end = HostOffset(self.end.load(Acquire));
        let Some(bitmap) = shape.place(entry, spot.block, end) else {
            return Err(shape.invalid(&spot, entry));
        };
        let at = bitmap.saturating_add(shape.bitmap + spot.within);
        match self.has_bitmaps() {
            true => Ok(self.look_at_bits(bitmap, spot.within, at, len)),
            false => Ok(Look::Here { at, len }),
        }
    }

    fn look_at_bits(&self, bitmap: HostOffset, within: u64, at: HostOffset, len: u64) -> Look<'_> {
        let spot = self.shape().bit(bitmap, within);
        let in_sector = within % SECTOR;
        let end = (spot.bit + (in_sector + len).div_ceil(SECTOR)).min(SLICE_BITS);
        let seen =
            self.bitmaps.read(spot.slice, |words| run(|index| words.get(index), spot.bit, end));
        let Some((is_set, count)) = seen else { return Look::Need(self.need_bits(spot)) };
        let len = len.min(count * SECTOR - in_sector);
        if is_set { Look::Here { at, len } } else { Look::Unset { at, len } }
    }

    /// The slice of the table with this entry, as what must be read.
    pub(crate) fn need_entry(&self, spot: &Spot) -> Need<'_> {
        let bytes = spot.count as u64 * ENTRY;
        self.table.need(&self.store, spot.slice, usize::try_from(bytes).unwrap_or_default())
    }

    /// The slice of a bitmap with this bit, as what must be read.
    pub(crate) fn need_bits(&self, spot: BitSpot) -> Need<'_> {
        let need = self.bitmaps.need(&self.store, spot.slice, BIT_WORDS * size_of::<u64>());
        Need { ticket: need.ticket | OF_BITMAP, ..need }
    }

    /// The answer of [`Image::supply`](anydisk_core::Image::supply).
    pub(crate) fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Supplied {
        let ticket = Ticket::from_bits(need.ticket & !OF_BITMAP);
        match need.ticket & OF_BITMAP {
            0 => self.table.insert(need.at, ticket, entries_of(bytes)).into(),
            _ => self.bitmaps.insert(need.at, ticket, words_of(bytes)).into(),
        }
    }

    /// A lease on the places of blocks. Taken before the look.
    pub(crate) fn lease(&self) -> Lease<'_> {
        self.writer.as_ref().map_or(Lease::eternal(), |writer| writer.space.leases().take())
    }

    /// The answer of [`Image::map_cached`](anydisk_core::Image::map_cached).
    pub(crate) fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let lease = self.lease();
        Ok(Lookup::Found(match self.look(range)? {
            Look::Need(need) => return Ok(Lookup::Need(need)),
            Look::NoBlock { len } | Look::Unset { len, .. } => {
                Extent::without_data(len, Source::Absent { reserved: None })
            }
            Look::Here { at, len } => {
                let source = Source::Data { store: &self.store, at, shared: false };
                Extent { len, source, lease }
            }
        }))
    }
}
