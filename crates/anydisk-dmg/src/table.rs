//! A table of chunks: bytes to checked values. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{
    Codec, Error, GuestOffset, GuestRange, HostOffset, Invalid, Limits, Result, Value,
};
use zerocopy::FromBytes;

use crate::checksum::Checksum;
use crate::layout::{MISH, RawChunk, RawTable, SECTOR, kind};
use crate::{NAME, limits};

/// A run of sectors in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its first sector on the disk.
    pub sector: u64,
    /// Its sectors, at least 1.
    pub count: u64,
    /// Where its bytes are in the file.
    pub at: HostOffset,
    /// How many there are.
    pub len: u32,
    /// What they are.
    pub kind: ChunkKind,
}

/// What the bytes of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// There are none: zeroes.
    Zero,
    /// There are none: free space, which reads as zero.
    Free,
    /// The sectors as they are.
    Raw,
    /// Apple data compression.
    Adc,
    /// A zlib stream.
    Zlib,
    /// A bzip2 stream.
    Bzip2,
    /// An LZFSE stream.
    Lzfse,
    /// An .xz stream.
    Xz,
}

impl ChunkKind {
    /// How the bytes are packed; `None`: not at all.
    #[must_use]
    pub fn codec(self) -> Option<Codec> {
        match self {
            Self::Zero | Self::Free | Self::Raw => None,
            Self::Adc => Some(Codec::Adc),
            Self::Zlib => Some(Codec::Zlib),
            Self::Bzip2 => Some(Codec::Bzip2),
            Self::Lzfse => Some(Codec::Lzfse),
            Self::Xz => Some(Codec::Xz),
        }
    }
}

impl Chunk {
    /// The sector behind it.
    pub(crate) fn end(&self) -> u64 {
        self.sector.saturating_add(self.count)
    }

    /// Bytes that it has in the file.
    pub(crate) fn stored(&self) -> u64 {
        match self.kind {
            ChunkKind::Raw => self.count.saturating_mul(SECTOR),
            _ => self.len.into(),
        }
    }

    /// Its part of the disk.
    pub(crate) fn range(&self) -> GuestRange {
        range(self.sector, self.end())
    }
}

/// A table: a run of sectors (a partition, or the whole disk) and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Where it is in the file, as text or as bytes.
    pub at: HostOffset,
    /// Its first sector on the disk.
    pub sector: u64,
    /// The sector behind its last one.
    pub end: u64,
    /// Of its content.
    pub checksum: Checksum,
    /// Its chunks, in the order in which they stand.
    pub chunks: Vec<Chunk>,
}

/// What the chunks of a table are held against.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where the data fork begins in the file.
    pub data_fork: HostOffset,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Sectors of the disk, if they are known.
    pub sectors: Option<u64>,
    /// What the image may cost.
    pub limits: &'a Limits,
}

impl Table {
    /// Reads the table in `bytes`, whose place in the file is `at`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field, [`Error::Unsupported`] for chunks of a kind nobody here
    /// knows, [`Error::Limit`] for large ones.
    pub fn parse(bytes: &[u8], at: HostOffset, frame: &Frame<'_>) -> Result<Self> {
        let parsed = RawTable::ref_from_prefix(bytes);
        let (head, rest) = parsed.map_err(|_| invalid("table", at, Value::Missing, "204 bytes"))?;
        if head.signature != MISH {
            let found = Value::from(&head.signature[..]);
            return Err(invalid("table signature", at, found, "\"mish\""));
        }
        if head.version.get() != 1 {
            return Err(invalid("table version", at, head.version.get().into(), "1"));
        }
        let count = head.chunk_count.get();
        let (chunks, _) = <[RawChunk]>::ref_from_prefix_with_elems(
            rest,
            usize::try_from(count).unwrap_or(usize::MAX),
        )
        .map_err(|_| invalid("table chunk_count", at, count.into(), "chunks inside the table"))?;
        let place = Placing::new(head, at, frame)?;
        limits::check_chunks(chunks.len(), frame.limits)?;
        let mut all = Vec::with_capacity(chunks.len());
        for (number, raw) in chunks.iter().enumerate() {
            if raw.kind.get() == kind::END {
                break;
            }
            all.extend(place.chunk(raw).map_err(|problem| problem.of(number, at))?);
        }
        all.shrink_to_fit();
        let (sector, end, checksum) = (place.first, place.end, Checksum::of(&head.checksum));
        Ok(Self { at, sector, end, checksum, chunks: all })
    }
}

impl Table {
    /// The table of a disk that is there as it is, in `len` bytes.
    pub(crate) fn of_plain(len: u64) -> Self {
        let (at, count) = (HostOffset::ZERO, len / SECTOR);
        let chunk = Chunk { sector: 0, count, at, len: 0, kind: ChunkKind::Raw };
        let chunks = if count == 0 { Vec::new() } else { vec![chunk] };
        Self { at, sector: 0, end: count, checksum: Checksum::None, chunks }
    }

    /// Its part of the disk.
    pub(crate) fn range(&self) -> GuestRange {
        range(self.sector, self.end)
    }
}

/// The sectors from `first` up to `end`, as bytes of the disk.
fn range(first: u64, end: u64) -> GuestRange {
    let at = |sector: u64| GuestOffset(sector.saturating_mul(SECTOR));
    GuestRange::between(at(first), at(end))
}

/// Where the chunks of a table go.
struct Placing<'a> {
    first: u64,
    /// The sector behind the last one.
    end: u64,
    /// What their offsets are counted from.
    base: HostOffset,
    frame: &'a Frame<'a>,
}

/// What is wrong with a chunk.
enum Problem {
    Field { name: &'static str, found: u64, expected: &'static str },
    Other(Error),
}

impl Problem {
    /// The same, of chunk `number` of the table at `at`.
    fn of(self, number: usize, at: HostOffset) -> Error {
        match self {
            Self::Field { name, found, expected } => {
                let field = format!("{name} of chunk {number} of the table");
                let (field, expected) = (field.into(), expected.into());
                Invalid { format: NAME, field, at, found: Value::Number(found), expected }.into()
            }
            Self::Other(error) => error,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl<'a> Placing<'a> {
    fn new(head: &RawTable, at: HostOffset, frame: &'a Frame<'a>) -> Result<Self> {
        let (first, count) = (head.first_sector.get(), head.sector_count.get());
        let most = frame.sectors.unwrap_or(i64::MAX.unsigned_abs() / SECTOR);
        let end = first.checked_add(count).filter(|end| *end <= most);
        let end = end.ok_or_else(|| {
            let found = Value::Number(first.saturating_add(count));
            invalid("end of the table", at, found, "a sector of the disk")
        })?;
        let offset = head.data_offset.get();
        let base = frame.data_fork.checked_add(offset).ok_or_else(|| {
            invalid("table data_offset", at, Value::Hex(offset), "a place in the file")
        })?;
        Ok(Self { first, end, base, frame })
    }

    /// The chunk, if it has sectors.
    fn chunk(&self, raw: &RawChunk) -> Result<Option<Chunk>, Problem> {
        let kind = match raw.kind.get() {
            kind::COMMENT => return Ok(None),
            kind::ZERO => ChunkKind::Zero,
            kind::IGNORE => ChunkKind::Free,
            kind::RAW => ChunkKind::Raw,
            kind::ADC => ChunkKind::Adc,
            kind::ZLIB => ChunkKind::Zlib,
            kind::BZIP2 => ChunkKind::Bzip2,
            kind::LZFSE => ChunkKind::Lzfse,
            kind::XZ => ChunkKind::Xz,
            other => {
                let feature = format!("a chunk of type {other:#010x}").into();
                return Err(Error::Unsupported { format: NAME, feature }.into());
            }
        };
        let (sector, count) = (raw.sector.get(), raw.sector_count.get());
        let sector = self.first.checked_add(sector).ok_or(Problem::Field {
            name: "sector",
            found: sector,
            expected: "a sector of the table",
        })?;
        if sector.checked_add(count).is_none_or(|end| end > self.end) {
            let expected = "sectors of the table";
            return Err(Problem::Field { name: "sector_count", found: count, expected });
        }
        let chunk = Chunk { sector, count, at: HostOffset::ZERO, len: 0, kind };
        match kind {
            _ if count == 0 => Ok(None),
            ChunkKind::Zero | ChunkKind::Free => Ok(Some(chunk)),
            _ => self.with_bytes(chunk, raw).map(Some),
        }
    }

    /// The chunk with the place of its bytes.
    fn with_bytes(&self, chunk: Chunk, raw: &RawChunk) -> Result<Chunk, Problem> {
        let (offset, len) = (raw.offset.get(), raw.length.get());
        let at = self.base.checked_add(offset);
        let end = at.and_then(|at| at.checked_add(len));
        let Some(at) = at.filter(|_| end.is_some_and(|end| end.get() <= self.frame.file_len))
        else {
            let expected = "bytes of the file";
            return Err(Problem::Field { name: "offset and length", found: offset, expected });
        };
        let size = chunk.count.saturating_mul(SECTOR);
        let wrong = |expected| Problem::Field { name: "length", found: len, expected };
        if chunk.kind == ChunkKind::Raw {
            return match len == size {
                true => Ok(Chunk { at, ..chunk }),
                false => Err(wrong("that of its sectors")),
            };
        }
        limits::check_unit(size, self.frame.limits)?;
        // No codec makes more of what cannot be packed.
        let most = size.saturating_mul(2).saturating_add(4096);
        let len = u32::try_from(len).ok().filter(|_| len <= most);
        Ok(Chunk { at, len: len.ok_or(wrong("little more than its sectors"))?, ..chunk })
    }
}

#[cold]
fn invalid(field: &'static str, at: HostOffset, found: Value, expected: &'static str) -> Error {
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }.into()
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails")]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn raw_chunk(kind: u32, sector: u64, count: u64, offset: u64, length: u64) -> RawChunk {
        let mut raw = RawChunk::new_zeroed();
        (raw.kind, raw.sector, raw.sector_count) = (kind.into(), sector.into(), count.into());
        (raw.offset, raw.length) = (offset.into(), length.into());
        raw
    }

    fn parse(change: impl FnOnce(&mut RawTable, &mut Vec<RawChunk>)) -> Result<Table> {
        let mut head = RawTable::new_zeroed();
        head.signature = MISH;
        (head.version, head.first_sector, head.sector_count) = (1.into(), 100.into(), 50.into());
        (head.data_offset, head.chunk_count) = (16.into(), 4.into());
        let mut chunks = vec![
            raw_chunk(kind::COMMENT, 0, 0, 0, 0),
            raw_chunk(kind::ZLIB, 0, 8, 4, 100),
            raw_chunk(kind::RAW, 8, 2, 104, 1024),
            raw_chunk(kind::END, 50, 0, 0, 0),
        ];
        change(&mut head, &mut chunks);
        let bytes = [head.as_bytes(), chunks.as_bytes()].concat();
        let mut limits = Limits::default();
        (limits.unit, limits.table_cache) = (8192, 400);
        let frame = Frame {
            data_fork: HostOffset(1000),
            file_len: 10_000,
            sectors: Some(150),
            limits: &limits,
        };
        Table::parse(&bytes, HostOffset(0x1000), &frame)
    }

    #[test]
    fn a_good_table_is_read() {
        let table = parse(|_, _| ()).expect("it is good");
        assert_eq!((table.sector, table.end), (100, 150));
        let [packed, plain] = table.chunks[..] else { panic!("{:?}", table.chunks) };
        let expected =
            Chunk { sector: 100, count: 8, at: HostOffset(1020), len: 100, kind: ChunkKind::Zlib };
        assert_eq!(packed, expected);
        assert_eq!((plain.sector, plain.at, plain.stored()), (108, HostOffset(1120), 1024));
    }

    #[test]
    fn what_follows_the_mark_of_the_end_is_not_looked_at() {
        let table = parse(|_, chunks| chunks[1].kind = kind::END.into()).expect("it is empty");
        assert!(table.chunks.is_empty());
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        type Change = fn(&mut RawTable, &mut Vec<RawChunk>);
        let cases: [(Change, &str); 12] = [
            (
                |head, _| head.signature = *b"mesh",
                "dmg: table signature at 0x1000 is \"mesh\", expected \"mish\"",
            ),
            (|head, _| head.version = 2.into(), "dmg: table version at 0x1000 is 2, expected 1"),
            (
                |head, _| head.chunk_count = 5.into(),
                "dmg: table chunk_count at 0x1000 is 5, expected chunks inside the table",
            ),
            (
                |head, _| head.sector_count = 51.into(),
                "dmg: end of the table at 0x1000 is 151, expected a sector of the disk",
            ),
            (
                |head, _| head.first_sector = u64::MAX.into(),
                "dmg: end of the table at 0x1000 is 18446744073709551615, expected a sector of the disk",
            ),
            (
                |head, _| head.data_offset = u64::MAX.into(),
                "dmg: table data_offset at 0x1000 is 0xffffffffffffffff, expected a place in the file",
            ),
            (
                |_, chunks| chunks[1].sector = 43.into(),
                "dmg: sector_count of chunk 1 of the table at 0x1000 is 8, expected sectors of the table",
            ),
            (
                |_, chunks| chunks[1].offset = 8900.into(),
                "dmg: offset and length of chunk 1 of the table at 0x1000 is 8900, expected bytes of the file",
            ),
            (
                |_, chunks| chunks[2].length = 1025.into(),
                "dmg: length of chunk 2 of the table at 0x1000 is 1025, expected that of its sectors",
            ),
            (
                |_, chunks| (chunks[1].sector_count, chunks[1].length) = (1.into(), 5121.into()),
                "dmg: length of chunk 1 of the table at 0x1000 is 5121, expected little more than its sectors",
            ),
            (
                |_, chunks| chunks[1].kind = 0x8000_0003.into(),
                "dmg: a chunk of type 0x80000003 is not supported",
            ),
            (
                |_, chunks| chunks[1].sector_count = 17.into(),
                "dmg: bytes of a chunk is 8704, more than the limit of 8192",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(parse(change).unwrap_err().to_string(), expected);
        }
        let error = parse(|head, chunks| {
            chunks.extend([chunks[1]; 10]);
            head.chunk_count = 14.into();
        });
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("dmg: chunks is 14, more than the limit of"), "{error}");
    }
}
