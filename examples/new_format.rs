//! A new image format in one file: read, write, create, recognise; safe at power failure.
//!
//! ```text
//!   0       header: magic, virtual size, zeroes
//!   4 KiB   table: one u64 for each block of the disk      0: absent   1: zero   else: its place
//!   ...     blocks of 4 KiB, in the order in which they were first written
//! ```
//!
//! The format only **translates**: it answers where a guest range is and keeps space. All bytes of
//! the guest are moved by [`Disk`], which also fills the rest of a new block from the image below.
//!
//! `cargo run -p anydisk-examples --example new_format`; with `cargo test` in place of `cargo run`
//! the format goes through the behaviour suite that all formats share.

use std::sync::Arc;

use anydisk_core::{
    Access, Attempt, Below, BlockSpace, Chosen, Claims, Committed, CreateRequest, Disk, Error,
    Extent, Format, GuestOffset, GuestRange, Handled, HostOffset, Image, ImageInfo, ImageWrite,
    Invalid, Layer, Limits, Located, Location, Lookup, Need, NoReferences, OpenRequest, Opened,
    Opener, Options, Placement, Registry, Reservation, Reserved, Result, Sample, Slice, SliceMut,
    Source, Storage, StorageExt, Supplied, TableCache, TakenBlock, Updated, Value, Verdict,
    WriteLease, Zeroing, invalid_field,
};
use anydisk_raw::{RAW, RawImage};
use anydisk_storage::MemoryStorage;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const NAME: &str = "mini";
const MAGIC: [u8; 8] = *b"MINIDISK";
const LARGEST: u64 = 1 << 50;
const BLOCK: u64 = 4 << 10;

const TABLE: HostOffset = HostOffset(4096);
/// Entries and bytes of a slice: the part of the table that is read, cached and written at once.
const SLICE: usize = 512;
const SLICE_LEN: usize = SLICE * 8;

const ABSENT: u64 = 0;
const ZERO: u64 = 1;

// ---- The file as bytes, and the arithmetic. All of it pure: no I/O, no locks. -------------------

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    size: U64,
}

/// The virtual size in a header. Bytes of a file are never trusted: every rule is checked here.
fn parse(header: &Header) -> Result<u64> {
    if header.magic != MAGIC {
        return Err(invalid_field!(NAME, Header, magic, &header.magic[..], "\"MINIDISK\"").into());
    }
    check_size(header.size.get())
}

fn check_size(size: u64) -> Result<u64> {
    let what = "virtual size in bytes".into();
    let error = Error::Limit { format: NAME, what, found: size, limit: LARGEST };
    if size <= LARGEST { Ok(size) } else { Err(error) }
}

/// Where the first block lies: behind the table, which ends with a whole slice because it is
/// written in whole slices.
fn first_block(size: u64) -> u64 {
    let slices = size.div_ceil(BLOCK).div_ceil(SLICE as u64);
    (TABLE.get() + slices * SLICE_LEN as u64).next_multiple_of(BLOCK)
}

/// Where the entry of a block is: the slice by its place in the file, and the number in the slice.
fn entry_of(at: GuestOffset) -> (HostOffset, usize) {
    let (block, slice) = (at.get() / BLOCK, SLICE as u64);
    let index = usize::try_from(block % slice).expect("less than the entries of a slice");
    (TABLE.saturating_add(block / slice * SLICE_LEN as u64), index)
}

/// The entry, and how many blocks from it on, `most` at most, are one run. Runs while others change
/// the slice, so the values may be any: it must neither panic nor loop over what it finds.
fn run(slice: Slice<'_>, index: usize, most: usize) -> (u64, u64) {
    let entry = slice.get(index);
    let step = if entry > ZERO { BLOCK } else { 0 };
    let expected = |n: &usize| entry.wrapping_add(step.wrapping_mul(*n as u64));
    let more =
        (1..most.min(slice.len() - index)).take_while(|n| slice.get(index + n) == expected(n));
    (entry, 1 + more.count() as u64)
}

fn bad_entry(slice: HostOffset, index: usize, entry: u64) -> Invalid {
    let at = slice.saturating_add(8 * index as u64);
    let expected = "0, 1 or the place of a block in the file".into();
    Invalid { format: NAME, field: "table entry".into(), at, found: Value::Hex(entry), expected }
}

// ---- Reading: where is it? -----------------------------------------------------------------------

#[derive(Debug)]
struct MiniImage {
    store: Arc<dyn Storage>,
    size: u64,
    writable: bool,
    tables: TableCache,
    /// Free blocks, the end of the file, and the leases of those who use blocks now.
    space: BlockSpace,
    claims: Claims,
}

impl MiniImage {
    fn open(store: Arc<dyn Storage>, writable: bool, limits: &Limits) -> Result<Self> {
        let mut header = Header { magic: [0; 8], size: U64::ZERO };
        store.read_padded_at(HostOffset::ZERO, header.as_mut_bytes())?;
        let size = parse(&header)?;
        // The table is not read: opening costs the same whatever the size.
        let tables = TableCache::new(SLICE, limits.table_cache);
        let end = store.len()?.max(first_block(size)).div_ceil(BLOCK).saturating_mul(BLOCK);
        let space = BlockSpace::new(BLOCK, HostOffset(end));
        Ok(Self { store, size, writable, tables, space, claims: Claims::default() })
    }

    fn need(&self, slice: HostOffset) -> Need<'_> {
        self.tables.need(&self.store, slice, SLICE_LEN)
    }

    /// How many blocks the file has from `entry` on; `None` if it is not the place of a block. New
    /// blocks go behind the end, so an entry that names a place there would be overwritten.
    fn blocks_behind(&self, entry: u64) -> Option<u64> {
        let end = self.space.end().get();
        let is_block =
            entry.is_multiple_of(BLOCK) && entry >= first_block(self.size) && entry < end;
        is_block.then(|| (end - entry) / BLOCK)
    }

    /// The block around a guest offset, cut at the end of the disk.
    fn unit_at(&self, at: GuestOffset) -> GuestRange {
        let start = GuestOffset(at.get() / BLOCK * BLOCK);
        GuestRange::between(start, GuestOffset(self.size)).first(BLOCK)
    }
}

impl Image for MiniImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let (slice, index) = entry_of(range.start());
        let within = range.start().get() % BLOCK;
        let most = usize::try_from((within + range.len()).div_ceil(BLOCK)).unwrap_or(SLICE);
        // Before the look, so that a block that is freed now is not given to other data yet.
        let lease = self.space.leases().take();
        let Some((entry, count)) = self.tables.read(slice, |slice| run(slice, index, most)) else {
            return Ok(Lookup::Need(self.need(slice)));
        };
        let len = |count: u64| range.len().min(count * BLOCK - within);
        let nothing = |source| Ok(Lookup::Found(Extent::without_data(len(count), source)));
        match entry {
            ABSENT => nothing(Source::Absent { reserved: None }),
            ZERO => nothing(Source::Zero { reserved: None }),
            _ => {
                // After the look, so that a block that was added meanwhile lies before the end.
                let room =
                    self.blocks_behind(entry).ok_or_else(|| bad_entry(slice, index, entry))?;
                let at = HostOffset(entry + within);
                let source = Source::Data { store: &self.store, at, shared: false };
                Ok(Lookup::Found(Extent { len: len(count.min(room)), source, lease }))
            }
        }
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let entries = bytes.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry));
        Ok(self.tables.supply(need, entries))
    }

    fn info(&self) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        info.cluster_size = Some(BLOCK);
        info
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writable.then_some(self)
    }
}

// ---- Writing: where may it go? -------------------------------------------------------------------

impl MiniImage {
    fn reserve(&self, unit: GuestRange) -> Result<Attempt<'_>> {
        let Some(claim) = self.claims.try_hold(unit) else { return Ok(Attempt::Busy) };
        // The look before the claim may be out of date; Busy means: ask again.
        match self.map_cached(unit)? {
            Lookup::Found(Extent {
                source: Source::Absent { .. } | Source::Zero { .. }, ..
            }) => {}
            _ => return Ok(Attempt::Busy),
        }
        claim.keep(); // The reservation holds it now, until commit or abandon.
        let TakenBlock { at, zeroed } = self.space.take();
        let reserved = Reserved { range: unit, at, zeroed, token: 0 };
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(self, &self.store, reserved))))
    }

    /// Makes a whole block zero in the table, and its space free if it has any.
    fn zero_unit(&self, unit: GuestRange, unmap: bool) -> Result<Handled> {
        let _claim = self.claims.hold(unit);
        let (slice, index) = entry_of(unit.start());
        let change = |entries: &mut SliceMut<'_>| {
            let entry = entries.get(index);
            let kept = entry > ZERO && !unmap;
            entries.set(index, if kept { entry } else { ZERO });
            (entry, kept)
        };
        let (entry, kept) = loop {
            match self.tables.update(slice, change) {
                Updated::Done(answer) => break answer,
                Updated::Missing => self.satisfy(&self.need(slice))?,
                Updated::Full => self.relieve()?,
            }
        };
        if kept {
            return Ok(Handled::ByData(unit.len()));
        }
        if entry > ZERO {
            self.space.retire(HostOffset(entry)); // After the entry: now nobody finds it any more.
        }
        Ok(Handled::Done(unit.len()))
    }
}

impl ImageWrite for MiniImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        match self.map_cached(range)? {
            Lookup::Need(need) => Ok(Attempt::Need(need)),
            Lookup::Found(Extent { len, source: Source::Data { store, at, .. }, lease }) => {
                let lease = WriteLease::new(lease);
                Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
            }
            Lookup::Found(_) => self.reserve(self.unit_at(range.start())),
        }
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        let (slice, index) = entry_of(reserved.range.start());
        Ok(match self.tables.update(slice, |entries| entries.set(index, reserved.at.get())) {
            Updated::Missing => Committed::Need(self.need(slice)),
            Updated::Full => Committed::Full,
            Updated::Done(()) => {
                self.claims.release(reserved.range);
                Committed::Done
            }
        })
    }

    fn abandon(&self, reserved: &Reserved) {
        self.space.give_back(reserved.at);
        self.claims.release(reserved.range);
    }

    fn claims(&self) -> Option<&Claims> {
        Some(&self.claims)
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let found = self.map(range)?;
        let unit = self.unit_at(range.start());
        let part = range.before(unit.end());
        match found.source {
            Source::Zero { .. } => Ok(Handled::Done(found.len)),
            Source::Absent { .. } if how.below == Below::Nothing => Ok(Handled::Done(found.len)),
            _ if part == unit => self.zero_unit(unit, how.unmap),
            _ => Ok(Handled::ByData(part.len())),
        }
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.zero(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        // Data, then the table that names it, then freed blocks into use: the order is core's.
        self.space.write_back(&*self.store, &self.tables, |slice| {
            let bytes: Vec<u8> =
                slice.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            Ok(self.store.write_at(slice.at, &bytes)?)
        })
    }

    fn unit(&self) -> u64 {
        BLOCK
    }
}

// ---- The format: what a registry lists -----------------------------------------------------------

#[derive(Debug)]
struct MiniFormat;

static MINI: MiniFormat = MiniFormat;

impl Format for MiniFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if sample.head.starts_with(&MAGIC) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let writable = request.is_writable()?;
        let image = MiniImage::open(request.store, writable, request.limits)?;
        Ok(Opened::new(Arc::new(image), None))
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        if request.backing.is_some() {
            return Err(Error::Unsupported { format: NAME, feature: "a backing file".into() });
        }
        let header = Header { magic: MAGIC, size: check_size(request.size)?.into() };
        request.store.set_len(first_block(request.size))?; // The table: all absent.
        request.store.write_at(HostOffset::ZERO, header.as_bytes())?;
        Ok(Arc::new(MiniImage::open(request.store, true, request.limits)?))
    }
}

// ---- Using it ------------------------------------------------------------------------------------

fn main() -> Result<()> {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let location = Location::Other("memory".to_owned());
    let file = Located { store: Arc::clone(&store), location };
    let registry = Registry::new(&[&MINI, &RAW]);
    let opener = Opener::new(&registry, &NoReferences);

    // A disk of 1 TiB takes the space of its table and of what is written.
    let disk = Disk::new(create(&store, 1 << 40)?);
    disk.write(GuestOffset(3 * BLOCK + 100), b"hello")?;
    disk.write(GuestOffset((1 << 40) - 5), b"world")?;
    disk.flush()?;
    drop(disk); // Two images that write to one store would not know of each other.
    let len = store.len()?;
    assert_eq!(len, first_block(1 << 40) + 2 * BLOCK);

    // Opened again, it is recognised among other formats.
    let disk = opener.open(file.clone(), None, Access::ReadWrite)?;
    assert_eq!(disk.layers()[0].chosen, Chosen::Recognised);
    assert_eq!(read(&disk, 3 * BLOCK + 99, 7)?, b"\0hello\0");
    assert_eq!(read(&disk, (1 << 40) - 5, 5)?, b"world");

    // The space of a discarded block is used again once its freeing is durable.
    disk.discard(GuestRange::between(GuestOffset(3 * BLOCK), GuestOffset(4 * BLOCK)))?;
    disk.flush()?;
    disk.write(GuestOffset(9 * BLOCK), b"again")?;
    disk.flush()?;
    assert_eq!(read(&disk, 3 * BLOCK + 99, 7)?, [0; 7]);
    assert_eq!(store.len()?, len);
    drop(disk);

    // Over another image: a write copies the rest of its block up, and the image below stays.
    let below: Arc<dyn Storage> = Arc::new(MemoryStorage::new(vec![b'.'; 1 << 20]));
    let lower = Disk::new(Arc::new(RawImage::open(Arc::clone(&below), false)?));
    let top = create(&(Arc::new(MemoryStorage::default()) as Arc<dyn Storage>), 1 << 20)?;
    let disk = lower.overlaid(Layer::new(top, "overlay"));
    disk.write(GuestOffset(BLOCK + 2), b"new")?;
    assert_eq!(read(&disk, BLOCK, 7)?, b"..new..");
    assert_eq!(below.len()?, 1 << 20);

    // Damage is told with its place.
    store.write_at(TABLE, &7_u64.to_le_bytes())?;
    let disk = opener.open(file, None, Access::Read)?;
    let error = read(&disk, 0, 1).unwrap_err();
    println!("as it should be: {error}");
    let place = "mini: table entry at 0x1000 is 0x7";
    assert!(error.to_string().starts_with(place));
    Ok(())
}

fn create(store: &Arc<dyn Storage>, size: u64) -> Result<Arc<dyn Image>> {
    let (location, limits) = (Location::Other("memory".to_owned()), Limits::default());
    let options = Options::of(&MINI);
    MINI.create(CreateRequest::new(Arc::clone(store), &location, size, &options, &limits))
}

fn read(disk: &Disk, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    disk.read(GuestOffset(at), &mut bytes)?;
    Ok(bytes)
}

// A format is finished when it keeps the promises that all formats make.
#[cfg(test)]
mod behaviour {
    use anydisk_testkit::suite::FormatFixture;

    anydisk_testkit::behaviour_suite!(FormatFixture::new(&super::MINI, super::BLOCK));
}
