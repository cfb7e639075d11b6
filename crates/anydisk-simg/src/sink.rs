//! An image in one pass. The header counts the chunks before there is any, so that there is one for
//! each unit of the disk, whatever it holds.

use std::fmt;
use std::io::Write;

use anydisk_core::{
    Error, GuestOffset, GuestRange, HostOffset, Measure, Piece, Pieces, Result, Sink, SinkRequest,
    check_limit, narrow, units_of_data,
};
use anydisk_storage::Error as StorageError;
use zerocopy::{FromZeros, IntoBytes};

use crate::NAME;
use crate::layout::{MAGIC, RawChunk, RawHeader, kind};

/// The block of nearly all images, and that of disks of another size.
const BLOCKS: [u32; 2] = [4096, 512];

/// Bytes of a unit, at least and at most.
const UNITS: (u64, u64) = (64 << 10, 1 << 20);

/// With smaller units there are up to so many.
const COUNT: u64 = 65_536;

/// Writes an Android sparse image.
pub(crate) struct SimgSink {
    out: Box<dyn Write + Send>,
    /// For messages.
    name: String,
    block_size: u32,
    pieces: Pieces,
    /// Where the next chunk belongs on the disk.
    next: u64,
    /// Bytes written.
    written: u64,
}

impl SimgSink {
    /// Writes the header.
    ///
    /// # Errors
    /// [`Error::Limit`] for a large disk; what `out` says.
    pub(crate) fn new(request: &SinkRequest<'_>, out: Box<dyn Write + Send>) -> Result<Self> {
        let size = request.size;
        let block_size = block_of(size);
        let blocks = size.div_ceil(u64::from(block_size));
        check_limit(NAME, "blocks of the disk", blocks, u32::MAX.into())?;
        let unit = unit_of(size);
        let mut header = RawHeader::new_zeroed();
        (header.magic, header.major_version) = (MAGIC.into(), 1.into());
        (header.file_hdr_sz, header.chunk_hdr_sz) = (28.into(), 12.into());
        header.blk_sz = block_size.into();
        header.total_blks = narrow(blocks).into();
        header.total_chunks = narrow(size.div_ceil(unit)).into();
        let name = request.location.to_string();
        let pieces = Pieces::new(NAME, size, unit);
        let mut sink = Self { out, name, block_size, pieces, next: 0, written: 0 };
        sink.write(header.as_bytes())?;
        Ok(sink)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| self.failed("write", error))?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        Ok(())
    }

    #[cold]
    fn failed(&self, what: &'static str, error: std::io::Error) -> Error {
        StorageError::io(what, &*self.name, HostOffset(self.written), 0, error).into()
    }

    /// Where the disk ends, its last block filled up.
    fn end(&self) -> u64 {
        let block = u64::from(self.block_size);
        self.pieces.size().div_ceil(block).saturating_mul(block)
    }

    /// The unit that comes next.
    fn unit(&self) -> GuestRange {
        let end = self.next.saturating_add(self.pieces.unit()).min(self.end());
        GuestRange::between(GuestOffset(self.next), GuestOffset(end))
    }

    /// Writes a chunk for the next unit: of one pattern, or the bytes in `data`.
    fn put_unit(&mut self, kind: u16, data: &[u8]) -> Result<()> {
        let unit = self.unit();
        let mut chunk = RawChunk::new_zeroed();
        chunk.chunk_type = kind.into();
        chunk.chunk_sz = narrow(unit.len() / u64::from(self.block_size)).into();
        let len = size_of::<RawChunk>().saturating_add(data.len());
        chunk.total_sz = narrow(len as u64).into();
        self.write(chunk.as_bytes())?;
        self.write(data)?;
        self.next = unit.end().get();
        Ok(())
    }

    /// Zeroes up to the unit that begins at `end`. Any content would do for some, but not for all.
    fn zeroes_up_to(&mut self, end: u64) -> Result<()> {
        while self.next < end {
            self.put_unit(kind::FILL, &[0; 4])?;
        }
        Ok(())
    }

    fn put_data(&mut self, at: GuestOffset, mut data: &[u8]) -> Result<()> {
        self.zeroes_up_to(at.get())?;
        while !data.is_empty() {
            let len = usize::try_from(self.unit().len()).unwrap_or(usize::MAX).min(data.len());
            let (unit, rest) = data.split_at(len);
            let whole = usize::try_from(self.unit().len()).unwrap_or(usize::MAX);
            let filled_up;
            let unit = match unit.len() < whole {
                true => {
                    filled_up = [unit, &vec![0; whole - unit.len()]].concat();
                    &filled_up
                }
                false => unit,
            };
            match pattern(unit) {
                Some(pattern) => self.put_unit(kind::FILL, &pattern)?,
                None => self.put_unit(kind::RAW, unit)?,
            }
            data = rest;
        }
        Ok(())
    }
}

/// The four bytes that all of the unit repeats.
fn pattern(unit: &[u8]) -> Option<[u8; 4]> {
    let (words, rest) = unit.as_chunks::<4>();
    let first = words.first()?;
    (rest.is_empty() && words.iter().all(|word| word == first)).then_some(*first)
}

/// The size of blocks for a disk of `size` bytes.
fn block_of(size: u64) -> u32 {
    let [most, least] = BLOCKS;
    if size.is_multiple_of(most.into()) { most } else { least }
}

/// The size of units for a disk of `size` bytes.
fn unit_of(size: u64) -> u64 {
    let least = size.div_ceil(COUNT).checked_next_power_of_two().unwrap_or(UNITS.1);
    least.clamp(UNITS.0, UNITS.1)
}

/// Bytes of an image.
pub(crate) fn measure(size: u64, data: &[GuestRange]) -> Measure {
    let (unit, block) = (unit_of(size), u64::from(block_of(size)));
    let whole = size.div_ceil(block).saturating_mul(block);
    let (all, (units, _)) = (size.div_ceil(unit), units_of_data(unit, data));
    let chunks = all.saturating_mul(size_of::<RawChunk>() as u64);
    let heads = chunks.saturating_add(size_of::<RawHeader>() as u64);
    let patterns = all.saturating_sub(units).saturating_mul(4);
    let data = units.saturating_mul(unit).min(whole);
    Measure {
        required: heads.saturating_add(patterns).saturating_add(data),
        fully_allocated: heads.saturating_add(whole),
    }
}

fn unsupported(feature: impl Into<anydisk_core::Feature>) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}

impl fmt::Debug for SimgSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimgSink")
            .field("name", &self.name)
            .field("pieces", &self.pieces)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl Sink for SimgSink {
    fn size(&self) -> u64 {
        self.pieces.size()
    }

    fn unit(&self) -> u64 {
        self.pieces.unit()
    }

    fn put(&mut self, at: GuestOffset, piece: Piece<'_>) -> Result<()> {
        self.pieces.take(at, &piece)?;
        match piece {
            Piece::Zero(_) => Ok(()), // Written when it is known what follows.
            Piece::Data(data) => self.put_data(at, data),
            _ => Err(unsupported("packed data")),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.zeroes_up_to(self.end())?;
        self.out.flush().map_err(|error| self.failed("flush", error))
    }
}
