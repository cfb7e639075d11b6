//! An image in one pass: chunks packed by zlib as they come, then one table, then the trailer.
//!
//! ```text
//!   chunks ... | property list with the table | trailer
//! ```

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use anydisk_codec::{Encode, ZlibEncoder};
use anydisk_core::{
    Codec, Error, GuestOffset, GuestRange, HostOffset, Measure, Packing, Piece, Pieces, Result,
    Sink, SinkRequest, check_limit, narrow, units_of_data,
};
use anydisk_storage::{Error as StorageError, is_zero};
use crc32fast::Hasher;
use zerocopy::{FromZeros, IntoBytes};

use crate::NAME;
use crate::checksum::of_zeroes;
use crate::layout::{
    KOLY, MISH, RawChecksum, RawChunk, RawTable, RawTrailer, SECTOR, checksum, kind,
};
use crate::plist;

/// Bytes of a chunk, at least and at most; at least that is what hdiutil makes.
const UNITS: (u64, u64) = (256 << 10, 8 << 20);

/// With smaller chunks there are up to so many.
const COUNT: u64 = 1 << 18;

/// Sectors that a reader's buffer has beside a chunk.
const MARGIN: u64 = 8;

/// Writes a DMG.
pub(crate) struct DmgSink {
    out: Box<dyn Write + Send>,
    /// For messages.
    name: String,
    pieces: Pieces,
    encoder: Arc<ZlibEncoder>,
    chunks: Vec<RawChunk>,
    /// Of what was written.
    data: Hasher,
    /// Of the sectors so far.
    sectors: Hasher,
    /// Where the next sectors belong on the disk.
    next: u64,
    /// Bytes written.
    written: u64,
}

impl DmgSink {
    /// Writes nothing yet.
    ///
    /// # Errors
    /// [`Error::Limit`] for a disk that is too large.
    pub(crate) fn new(request: &SinkRequest<'_>, out: Box<dyn Write + Send>) -> Result<Self> {
        let (size, unit) = (request.size, unit_of(request.size));
        check_limit(NAME, "bytes of the disk", size, i64::MAX.unsigned_abs() - SECTOR)?;
        let encoder = ZlibEncoder::new(ZlibEncoder::DEFAULT_LEVEL);
        let encoder = encoder.map_err(|error| unsupported(error.to_string()))?;
        Ok(Self {
            out,
            name: request.location.to_string(),
            pieces: Pieces::new(NAME, size, unit),
            encoder: Arc::new(encoder),
            chunks: Vec::new(),
            data: Hasher::new(),
            sectors: Hasher::new(),
            next: 0,
            written: 0,
        })
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

    /// Adds a chunk for the next `len` bytes of the disk, whose bytes are written next.
    fn add(&mut self, kind: u32, len: u64, stored: usize) {
        let mut chunk = RawChunk::new_zeroed();
        chunk.kind = kind.into();
        (chunk.sector, chunk.sector_count) = ((self.next / SECTOR).into(), (len / SECTOR).into());
        (chunk.offset, chunk.length) = (self.written.into(), (stored as u64).into());
        self.chunks.push(chunk);
        self.next = self.next.saturating_add(len);
    }

    /// Zeroes up to this place of the disk, one chunk of any length.
    fn zeroes_up_to(&mut self, end: u64) {
        let len = end.saturating_sub(self.next);
        if len == 0 {
            return;
        }
        self.sectors.combine(&of_zeroes(len));
        match self.chunks.last_mut().filter(|last| last.kind.get() == kind::ZERO) {
            Some(last) => {
                last.sector_count = last.sector_count.get().saturating_add(len / SECTOR).into();
                self.next = end;
            }
            None => self.add(kind::ZERO, len, 0),
        }
    }

    /// Sectors of the disk, the last one filled up.
    fn sector_count(&self) -> u64 {
        self.pieces.size().div_ceil(SECTOR)
    }

    /// The last unit of a disk that is not of whole sectors, filled up with zeroes.
    fn put_filled_up(&mut self, at: GuestOffset, unit: &[u8]) -> Result<()> {
        let mut whole = unit.to_vec();
        whole.resize(unit.len().next_multiple_of(SECTOR_LEN), 0);
        let mut packed = Vec::new();
        let done = self.encoder.encode(&whole, usize::MAX, &mut packed);
        done.map_err(|error| unsupported(error.to_string()))?;
        self.put_unit(at, &whole, &packed)
    }

    /// A unit, and how it is packed: stored as it is, if that makes it no smaller.
    fn put_unit(&mut self, at: GuestOffset, unit: &[u8], packed: &[u8]) -> Result<()> {
        if !unit.len().is_multiple_of(SECTOR_LEN) {
            return self.put_filled_up(at, unit);
        }
        self.zeroes_up_to(at.get());
        if is_zero(unit) {
            self.zeroes_up_to(at.get().saturating_add(unit.len() as u64));
            return Ok(());
        }
        self.sectors.update(unit);
        // At the start of the file plain sectors could be taken for another format's.
        let (kind, bytes) = match packed.len() < unit.len() || self.written == 0 {
            true => (kind::ZLIB, packed),
            false => (kind::RAW, unit),
        };
        self.add(kind, unit.len() as u64, bytes.len());
        self.data.update(bytes);
        self.write(bytes)
    }

    fn put_data(&mut self, at: GuestOffset, data: &[u8]) -> Result<()> {
        let unit = usize::try_from(self.pieces.unit()).unwrap_or(usize::MAX);
        let encoder = Arc::clone(&self.encoder);
        let mut packed = Vec::new();
        for (number, bytes) in (0..).zip(data.chunks(unit)) {
            packed.clear();
            if !is_zero(bytes) {
                let done = encoder.encode(bytes, usize::MAX, &mut packed);
                done.map_err(|error| unsupported(error.to_string()))?;
            }
            let skip = self.pieces.unit().saturating_mul(number);
            self.put_unit(GuestOffset(at.get().saturating_add(skip)), bytes, &packed)?;
        }
        Ok(())
    }

    /// A unit that is packed already. The checksum is that of its sectors, so it is unpacked.
    fn put_packed(&mut self, range: GuestRange, packed: &[u8], codec: Codec) -> Result<()> {
        if !codec.same_as(&Codec::Zlib) {
            return Err(unsupported(format!("chunks packed as {}", codec.name())));
        }
        let mut unit = vec![0; usize::try_from(range.len()).unwrap_or(usize::MAX)];
        codec.decode(packed, &mut unit).map_err(|source| Error::Decode {
            range,
            at: HostOffset(self.written),
            source,
        })?;
        self.put_unit(range.start(), &unit, packed)
    }

    /// The table of all chunks.
    fn table(&mut self) -> (RawTable, u32) {
        let mut end = RawChunk::new_zeroed();
        (end.kind, end.sector) = (kind::END.into(), (self.next / SECTOR).into());
        end.offset = self.written.into();
        self.chunks.push(end);
        let sum = self.sectors.clone().finalize();
        let mut table = RawTable::new_zeroed();
        table.signature = MISH;
        table.version = 1.into();
        table.sector_count = self.sector_count().into();
        table.buffers_needed = narrow(self.pieces.unit() / SECTOR + MARGIN).into();
        table.descriptor = WHOLE_DISK.into();
        table.checksum = crc(sum);
        table.chunk_count = narrow(self.chunks.len() as u64).into();
        (table, sum)
    }

    fn trailer(&self, list: (u64, u64), table_sum: u32) -> RawTrailer {
        let (data_len, data_sum) = (list.0, self.data.clone().finalize());
        let mut master = Hasher::new();
        master.update(&table_sum.to_be_bytes());
        let mut trailer = RawTrailer::new_zeroed();
        trailer.signature = KOLY;
        (trailer.version, trailer.header_size, trailer.flags) = (4.into(), 512.into(), 1.into());
        trailer.data_fork_length = data_len.into();
        (trailer.segment_number, trailer.segment_count) = (1.into(), 1.into());
        trailer.segment_id = segment_id([data_sum, table_sum], data_len);
        trailer.data_checksum = crc(data_sum);
        (trailer.xml_offset, trailer.xml_length) = (list.0.into(), list.1.into());
        trailer.master_checksum = crc(master.finalize());
        trailer.image_variant = 1.into();
        trailer.sector_count = self.sector_count().into();
        trailer
    }
}

/// Bytes of a sector.
const SECTOR_LEN: usize = 512;

/// Bytes of a chunk of a disk of `size` bytes.
fn unit_of(size: u64) -> u64 {
    let least = size.div_ceil(COUNT).checked_next_power_of_two().unwrap_or(UNITS.1);
    least.clamp(UNITS.0, UNITS.1)
}

/// Bytes of an image whose data does not shrink.
pub(crate) fn measure(size: u64, data: &[GuestRange]) -> Measure {
    let unit = unit_of(size);
    let rest = |chunks: u64| {
        let table = chunks.saturating_mul(size_of::<RawChunk>() as u64);
        let table = table.saturating_add(size_of::<RawTable>() as u64);
        plist::written_len(table).saturating_add(size_of::<RawTrailer>() as u64)
    };
    // The first chunk is packed also where that makes it longer.
    let slack = unit / 1024 + 64;
    let whole = size.next_multiple_of(SECTOR);
    let (units, runs) = units_of_data(unit, data);
    let data_len = units.saturating_mul(unit).min(whole);
    // Zeroes before, between and behind the runs, and the end.
    let chunks = units.saturating_add(runs).saturating_add(2);
    let all =
        whole.saturating_add(slack).saturating_add(rest(size.div_ceil(unit).saturating_add(1)));
    let required = data_len.saturating_add(slack).saturating_add(rest(chunks)).min(all);
    Measure { required, fully_allocated: all }
}

/// The number that hdiutil gives a table that covers the whole disk.
const WHOLE_DISK: u32 = u32::MAX - 1;

fn crc(sum: u32) -> RawChecksum {
    let mut raw = RawChecksum::new_zeroed();
    (raw.kind, raw.bits) = (checksum::CRC32.into(), 32.into());
    raw.value[..4].copy_from_slice(&sum.to_be_bytes());
    raw
}

/// Tells an image from others, and is the same for the same content.
fn segment_id(sums: [u32; 2], len: u64) -> [u8; 16] {
    let mut id = [0; 16];
    let [data, table] = sums.map(u32::to_be_bytes);
    id[..4].copy_from_slice(&data);
    id[4..8].copy_from_slice(&table);
    id[8..].copy_from_slice(&len.to_be_bytes());
    id
}

fn unsupported(feature: impl Into<anydisk_core::Feature>) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}

impl fmt::Debug for DmgSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmgSink")
            .field("name", &self.name)
            .field("pieces", &self.pieces)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl Sink for DmgSink {
    fn size(&self) -> u64 {
        self.pieces.size()
    }

    fn unit(&self) -> u64 {
        self.pieces.unit()
    }

    fn packing(&self) -> Option<Packing> {
        let encoder = Arc::clone(&self.encoder) as Arc<dyn Encode>;
        Some(Packing { unit: self.pieces.unit(), encoder, short_tail: true })
    }

    fn put(&mut self, at: GuestOffset, piece: Piece<'_>) -> Result<()> {
        let range = self.pieces.take(at, &piece)?;
        match piece {
            Piece::Zero(_) => Ok(()), // Written when it is known what follows.
            Piece::Data(data) => self.put_data(at, data),
            Piece::Encoded { bytes, codec, .. } => self.put_packed(range, bytes, codec),
            _ => Err(unsupported("a piece of an unknown kind")),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.zeroes_up_to(self.sector_count().saturating_mul(SECTOR));
        let at = self.written;
        let (table, sum) = self.table();
        let bytes = [table.as_bytes(), self.chunks.as_bytes()].concat();
        let list = plist::written(&bytes);
        self.write(list.as_bytes())?;
        let trailer = self.trailer((at, list.len() as u64), sum);
        self.write(trailer.as_bytes())?;
        self.out.flush().map_err(|error| self.failed("flush", error))
    }
}
