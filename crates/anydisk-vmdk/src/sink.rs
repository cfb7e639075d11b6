//! A stream-optimized image in one pass: nothing is read back, nothing is written twice.
//!
//! ```text
//!   header | descriptor | grains of table 0 | table 0 | grains of table 1 | table 1 | ...
//!     ... | directory | footer (a header that knows the directory) | end of stream
//! ```
//!
//! Each block stands behind a marker ("Virtual Disk Format 5.0", Stream-Optimized Compressed Sparse
//! Extents). Grains of zeroes are left out, and so are tables without a grain.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use anydisk_codec::ZlibEncoder;
use anydisk_core::{
    Codec, Encode, Error, GuestOffset, GuestRange, Packing, Piece, Result, Sink, SinkRequest,
};
use anydisk_storage::is_zero;
use zerocopy::IntoBytes;

use crate::create::{GRAIN_SECTORS, Plan, TABLE_ENTRIES, TABLE_SECTORS, extent_names, table_count};
use crate::header::{limit, unsupported};
use crate::layout::{GD_AT_END, GrainMarker, MetadataMarker, SECTOR, SparseHeader, marker};
use crate::limits;

/// Bytes of a grain.
const GRAIN: u64 = GRAIN_SECTORS * SECTOR;

/// Writes a stream-optimized VMDK.
pub(crate) struct StreamSink {
    out: Box<dyn Write + Send>,
    /// For messages.
    name: String,
    size: u64,
    header: SparseHeader,
    encoder: Arc<ZlibEncoder>,
    /// Sectors written.
    sector: u64,
    /// Where the next piece may begin.
    next: GuestOffset,
    /// The table that grains go to, and its number.
    table: Vec<u32>,
    table_number: u64,
    directory: Vec<u32>,
    packed: Vec<u8>,
}

impl StreamSink {
    /// Writes the beginning of the stream: header, descriptor, and nothing up to the first grain.
    ///
    /// # Errors
    /// What the options, the size or `out` have against it.
    pub(crate) fn new(request: &SinkRequest<'_>, out: Box<dyn Write + Send>) -> Result<Self> {
        let plan = Plan::of(request.options, request.size)?;
        let mut header = plan.header(plan.sectors());
        header.gdOffset = GD_AT_END.into();
        let tables = usize::try_from(table_count(plan.sectors())).expect("limited by the plan");
        let encoder = ZlibEncoder::new(ZlibEncoder::DEFAULT_LEVEL)
            .map_err(|error| unsupported(error.to_string()))?;
        let mut sink = Self {
            out,
            name: request.location.to_string(),
            size: request.size,
            header,
            encoder: Arc::new(encoder),
            sector: 0,
            next: GuestOffset::ZERO,
            table: vec![0; TABLE_ENTRIES as usize],
            table_number: 0,
            directory: vec![0; tables],
            packed: Vec::new(),
        };
        let names = extent_names(&plan, request.location)?;
        let descriptor = plan.descriptor(&names, None)?;
        sink.write(header.as_bytes())?;
        sink.write(&descriptor)?;
        let pad = (GRAIN_SECTORS - sink.sector) * SECTOR;
        sink.write(&vec![0; usize::try_from(pad).expect("less than a grain")])?;
        Ok(sink)
    }

    /// Writes bytes and fills their last sector up.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        let sectors = len.div_ceil(SECTOR);
        limit("size of the stream in bytes", (self.sector + sectors) * SECTOR, limits::FILE)?;
        let pad = usize::try_from(sectors * SECTOR - len).expect("less than a sector");
        self.write_all(bytes)?;
        self.write_all(&[0; 512][..pad])?;
        self.sector += sectors;
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| self.io_error("write", error))
    }

    fn io_error(&self, operation: &'static str, error: std::io::Error) -> Error {
        let at = anydisk_core::HostOffset(self.sector * SECTOR);
        anydisk_storage::Error::io(operation, &*self.name, at, 0, error).into()
    }

    /// The sector that is written next, as tables name it.
    fn here(&self) -> u32 {
        u32::try_from(self.sector).expect("`write` keeps the stream below 2 TiB")
    }

    /// Writes what stands before `sectors` sectors of metadata.
    fn mark(&mut self, kind: u32, sectors: u64) -> Result<()> {
        self.write(MetadataMarker::new(kind, sectors).as_bytes())
    }

    /// Packs the grains of `data`, of which the last of the disk may be short.
    fn put_data(&mut self, at: GuestOffset, data: &[u8]) -> Result<()> {
        let grain = usize::try_from(GRAIN).expect("a small constant");
        let first = at.get() / GRAIN;
        for (number, bytes) in (first..).zip(data.chunks(grain)) {
            if is_zero(bytes) {
                continue;
            }
            let mut packed = std::mem::take(&mut self.packed);
            packed.clear();
            self.pack(bytes, &mut packed)?;
            self.put_packed(number, &packed)?;
            self.packed = packed;
        }
        Ok(())
    }

    /// Packs one grain. The last of the disk is filled up with zeroes: some readers take no less.
    fn pack(&self, bytes: &[u8], packed: &mut Vec<u8>) -> Result<()> {
        let grain = usize::try_from(GRAIN).expect("a small constant");
        let whole;
        let bytes = match bytes.len() < grain {
            true => {
                whole = [bytes, &vec![0; grain - bytes.len()]].concat();
                &whole
            }
            false => bytes,
        };
        let done = self.encoder.encode(bytes, usize::MAX, packed);
        done.map(drop).map_err(|error| unsupported(error.to_string()))
    }

    /// Writes a packed grain behind its marker.
    fn put_packed(&mut self, number: u64, packed: &[u8]) -> Result<()> {
        let (table, entry) = (number / u64::from(TABLE_ENTRIES), number % u64::from(TABLE_ENTRIES));
        if table != self.table_number {
            self.end_table()?;
            self.table_number = table;
        }
        let size = u32::try_from(packed.len()).map_err(|_| unsupported("a grain of 4 GiB"))?;
        let marker = GrainMarker { lba: (number * GRAIN_SECTORS).into(), size: size.into() };
        let place = self.here();
        let mut block = marker.as_bytes().to_vec();
        block.extend(packed);
        self.write(&block)?;
        self.table[usize::try_from(entry).expect("less than 512")] = place;
        Ok(())
    }

    /// Writes the table if it names a grain, and begins an empty one.
    fn end_table(&mut self) -> Result<()> {
        if self.table.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        self.mark(marker::GRAIN_TABLE, TABLE_SECTORS)?;
        let number = usize::try_from(self.table_number).expect("limited by the plan");
        self.directory[number] = self.here();
        let bytes = bytes_of(&self.table);
        self.write(&bytes)?;
        self.table.fill(0);
        Ok(())
    }

    /// Where a piece of `len` bytes ends, if it may come now.
    fn check(&self, at: GuestOffset, len: u64) -> Result<GuestOffset> {
        let range = GuestRange::new(at, len).filter(|range| range.end().get() <= self.size);
        let Some(range) = range else {
            let range = GuestRange::between(at, GuestOffset(at.get().saturating_add(len)));
            return Err(Error::OutOfRange { range, size: self.size });
        };
        if at < self.next {
            return Err(unsupported(format!("a piece at {at} behind one up to {}", self.next)));
        }
        Ok(range.end())
    }

    /// Data comes in whole grains.
    fn check_grains(&self, at: GuestOffset, end: GuestOffset) -> Result<()> {
        let ends_well = end.get().is_multiple_of(GRAIN) || end.get() == self.size;
        if at.get().is_multiple_of(GRAIN) && ends_well {
            return Ok(());
        }
        Err(unsupported(format!("a piece from {at} to {end}, not of whole grains")))
    }
}

fn bytes_of(entries: &[u32]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

impl fmt::Debug for StreamSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSink")
            .field("name", &self.name)
            .field("size", &self.size)
            .field("next", &self.next)
            .field("sector", &self.sector)
            .finish_non_exhaustive()
    }
}

impl Sink for StreamSink {
    fn size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        GRAIN
    }

    fn packing(&self) -> Option<Packing> {
        let encoder = Arc::clone(&self.encoder) as Arc<dyn Encode>;
        Some(Packing { unit: GRAIN, encoder, short_tail: false })
    }

    fn put(&mut self, at: GuestOffset, piece: Piece<'_>) -> Result<()> {
        let end = match piece {
            Piece::Zero(len) => self.check(at, len)?,
            Piece::Data(data) => {
                let end = self.check(at, data.len() as u64)?;
                self.check_grains(at, end)?;
                self.put_data(at, data)?;
                end
            }
            Piece::Encoded { bytes, codec, unit } => {
                if !codec.same_as(&Codec::Zlib) {
                    return Err(unsupported(format!("grains packed as {}", codec.name())));
                }
                let end = self.check(at, unit.len())?;
                self.check_grains(at, end)?;
                if unit.start() != at || unit.len() > GRAIN {
                    return Err(unsupported(format!("a packed piece of {unit} at {at}")));
                }
                self.put_packed(at.get() / GRAIN, bytes)?;
                end
            }
            _ => return Err(unsupported("a piece of an unknown kind")),
        };
        self.next = end;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.end_table()?;
        let directory = bytes_of(&self.directory);
        self.mark(marker::GRAIN_DIRECTORY, (directory.len() as u64).div_ceil(SECTOR))?;
        let mut footer = self.header;
        footer.gdOffset = self.sector.into();
        self.write(&directory)?;
        self.mark(marker::FOOTER, 1)?;
        self.write(footer.as_bytes())?;
        self.mark(marker::END_OF_STREAM, 0)?;
        self.out.flush().map_err(|error| self.io_error("flush", error))
    }
}
