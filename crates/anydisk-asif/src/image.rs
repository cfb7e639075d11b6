//! The image: locate (pure), find directory, table and bitmap (memory), answer (pure).

use std::sync::Arc;

use anydisk_core::{
    Error, Extent, GuestRange, HostOffset, Image, ImageInfo, Invalid, Lease, Limits, Lookup, Need,
    Result, Source, Storage, Supplied, TableCache, Ticket, Value,
};

use crate::table::{Chunk, Place, SLICE, SliceAt, bitmap_word, run};
use crate::{Geometry, Header, NAME};

/// Bytes of a slice.
const SLICE_LEN: usize = 4096;

/// Sectors whose bits are in a slice of a bitmap.
const SLICE_SECTORS: u64 = SLICE * 32;

/// An open ASIF image.
#[derive(Debug)]
pub struct AsifImage {
    store: Arc<dyn Storage>,
    header: Header,
    /// Where the entries of the directory are that counts.
    directory: HostOffset,
    caches: [TableCache; 3],
}

/// What the bytes of a [`Need`] are for: the low bits of its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Directory = 0,
    Table = 1,
    Bitmap = 2,
}

impl AsifImage {
    /// Opens the image in `store` for reading.
    ///
    /// # Errors
    /// As [`Header::parse`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let header = Header::read(&*store)?;
        let directory = header.live_directory(&*store)?;
        let cache = || TableCache::new(SLICE_LEN / 8, limits.table_cache / 3);
        Ok(Self { store, header, directory, caches: [cache(), cache(), cache()] })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn geometry(&self) -> &Geometry {
        &self.header.geometry
    }

    fn cache(&self, level: Level) -> &TableCache {
        &self.caches[level as usize]
    }

    #[cold]
    fn need(&self, level: Level, slice: SliceAt) -> Need<'_> {
        let ticket = self.cache(level).ticket(slice.at).to_bits() << 2 | level as u64;
        // The last slice of a table may reach behind it.
        Need { store: &self.store, at: slice.at, len: SLICE_LEN, least: 8, ticket }
    }

    /// The word of a slice, and how many words from it on are zero; what to read, if it is not there.
    fn word(&self, level: Level, slice: SliceAt) -> Result<(u64, u64), Need<'_>> {
        let seen = self.cache(level).read(slice.at, |words| {
            let word = |index: u64| words.get(usize::try_from(index).unwrap_or(usize::MAX));
            let zeroes = (slice.index..SLICE).take_while(|index| word(*index) == 0).count();
            (word(slice.index), zeroes as u64)
        });
        seen.ok_or_else(|| self.need(level, slice))
    }

    /// What the table at `table` says of the start of the range.
    fn map_in_table(
        &self,
        table: HostOffset,
        place: Place,
        range: GuestRange,
    ) -> Result<Lookup<'_>> {
        let geometry = self.geometry();
        let slice = SliceAt::of(table, place.entry);
        let (value, zeroes) = match self.word(Level::Table, slice) {
            Ok(seen) => seen,
            Err(need) => return Ok(Lookup::Need(need)),
        };
        let chunk = geometry.decode(value).ok_or_else(|| {
            broken(
                "entry of a chunk",
                slice,
                value,
                "a state that is known, and a chunk in the file",
            )
        })?;
        match chunk {
            Chunk::None => {
                let chunks = zeroes.min(geometry.left_of_group(place.entry));
                let len = chunks.saturating_mul(geometry.chunk()) - place.within;
                Ok(absent(len, range))
            }
            Chunk::Whole(at) => {
                let len = range.first(geometry.chunk() - place.within).len();
                self.data(at, place, len, slice, value)
            }
            Chunk::Partly(at) => self.map_in_chunk(table, at, place, range),
        }
    }

    /// What the bitmap of the group says of the start of the range, whose chunk is at `chunk`.
    fn map_in_chunk(
        &self,
        table: HostOffset,
        chunk: HostOffset,
        place: Place,
        range: GuestRange,
    ) -> Result<Lookup<'_>> {
        let geometry = self.geometry();
        let slice = SliceAt::of(table, place.bitmap);
        let number = match self.word(Level::Table, slice) {
            Ok((number, _)) => number,
            Err(need) => return Ok(Lookup::Need(need)),
        };
        let bitmap = geometry
            .place(number)
            .ok_or_else(|| broken("entry of a bitmap", slice, number, "a chunk in the file"))?;
        let slice = SliceAt::of(bitmap, bitmap_word(place.sector));
        let first = place.sector % SLICE_SECTORS;
        let in_chunk = geometry.chunk() / geometry.block() - place.within / geometry.block();
        let end = (first + in_chunk).min(SLICE_SECTORS);
        let seen = self.cache(Level::Bitmap).read(slice.at, |words| {
            let word = |index: u64| words.get(usize::try_from(index).unwrap_or(usize::MAX));
            run(word, first, end)
        });
        let Some((state, sectors)) = seen else {
            return Ok(Lookup::Need(self.need(Level::Bitmap, slice)));
        };
        let len = sectors * geometry.block() - place.within % geometry.block();
        match state {
            0 => Ok(absent(len, range)),
            1 => self.data(chunk, place, range.first(len).len(), slice, state),
            _ => Err(broken("state of a sector", slice, state, "0 or 1")),
        }
    }

    /// `len` bytes of the chunk at `chunk`, from the place on.
    fn data(
        &self,
        chunk: HostOffset,
        place: Place,
        len: u64,
        slice: SliceAt,
        value: u64,
    ) -> Result<Lookup<'_>> {
        let at = chunk.saturating_add(place.within);
        if !self.geometry().holds(at, len) {
            return Err(broken("entry of a chunk", slice, value, "data that is in the file"));
        }
        let source = Source::Data { store: &self.store, at, shared: false };
        // Nothing is freed while an image is only read.
        Ok(Lookup::Found(Extent { len, source, lease: Lease::eternal() }))
    }
}

fn absent(len: u64, range: GuestRange) -> Lookup<'static> {
    let source = Source::Absent { reserved: None };
    Lookup::Found(Extent::without_data(range.first(len).len(), source))
}

#[cold]
fn broken(field: &'static str, slice: SliceAt, value: u64, expected: &'static str) -> Error {
    let (at, found) = (slice.entry_at(), Value::Hex(value));
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }.into()
}

impl Image for AsifImage {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let geometry = self.geometry();
        let place = geometry.locate(range.start());
        let slice = SliceAt::of(self.directory, place.table);
        let (number, zeroes) = match self.word(Level::Directory, slice) {
            Ok(seen) => seen,
            Err(need) => return Ok(Lookup::Need(need)),
        };
        if number == 0 {
            let behind = range.start().get() % geometry.coverage();
            return Ok(absent(zeroes.saturating_mul(geometry.coverage()) - behind, range));
        }
        let table = geometry.place(number).ok_or_else(|| {
            broken("entry of the directory", slice, number, "a chunk in the file")
        })?;
        self.map_in_table(table, place, range)
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let (words, _) = bytes.as_chunks();
        let ticket = Ticket::from_bits(need.ticket >> 2);
        let level = match need.ticket & 3 {
            0 => Level::Directory,
            1 => Level::Table,
            _ => {
                let words = words.iter().map(|word| u64::from_le_bytes(*word));
                return Ok(self.cache(Level::Bitmap).insert(need.at, ticket, words).into());
            }
        };
        let words = words.iter().map(|word| u64::from_be_bytes(*word));
        Ok(self.cache(level).insert(need.at, ticket, words).into())
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new(NAME)
    }
}
