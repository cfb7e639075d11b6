//! The extents of an open image: which file, where, and how it is divided.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, OnceLock};

use anydisk_core::{
    Error, GuestOffset, GuestRange, HostOffset, Invalid, KnownTables, Lease, Result, Storage, Value,
};

use crate::NAME;
use crate::layout::{GrainMarker, SECTOR};
use crate::limits;
use crate::second::Survey;
use crate::table::{Geometry, Grain, SLICE, SliceAt, sector_at};
use crate::write::SparseWriter;

/// A file the image is made of. Extents name it by its number.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) store: Arc<dyn Storage>,
    /// As a person would name it.
    pub(crate) name: String,
    /// Bytes of it were given out to be written, so every flush flushes it.
    pub(crate) used: AtomicBool,
    /// Where its tables end, if they all lie before its grains.
    pub(crate) metadata_end: AtomicU64,
}

impl File {
    /// A file that nothing was written to. `name`: as a person would name it.
    pub(crate) fn new(store: Arc<dyn Storage>, name: String) -> Self {
        Self { store, name, used: AtomicBool::new(false), metadata_end: AtomicU64::new(0) }
    }
}

/// A part of the disk, with where its bytes are.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its first byte; changed when it is cut off.
    start: AtomicU64,
    /// Bytes of it; changed by resizing, 0 when it is cut off.
    len: AtomicU64,
    pub(crate) writable: bool,
    /// The type as the descriptor has it; empty if the extent holds the descriptor.
    pub(crate) kind: &'static str,
    pub(crate) body: Body,
}

/// Where the bytes of a part are.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nowhere: it reads as zero.
    Zero,
    /// In a row.
    Flat(Flat),
    /// In grains.
    Sparse(Sparse),
}

/// A row of bytes of a file.
#[derive(Debug)]
pub(crate) struct Flat {
    /// Number of the file.
    pub(crate) file: usize,
    /// The first byte.
    pub(crate) at: HostOffset,
    /// Where its file ended when it was opened, or was made to end.
    end: AtomicU64,
}

/// A file of grains.
#[derive(Debug)]
pub(crate) struct Sparse {
    /// Number of the file.
    pub(crate) file: usize,
    pub(crate) shape: Shape,
    /// The first directory is not in the file: `directory` is the second.
    pub(crate) damaged: bool,
    pub(crate) entries: Entries,
    pub(crate) packed: Packed,
    /// No grain lies before this place.
    pub(crate) overhead: HostOffset,
    /// The header said that its last writer did not close it.
    pub(crate) unclean: bool,
    /// Where it says so.
    pub(crate) unclean_at: HostOffset,
    /// Where the header says which sector is free next, if it does.
    pub(crate) free_sector_at: Option<HostOffset>,
    /// Numbers of tables, rising, whose place the first directory names for another one too: those of the
    /// second are used.
    pub(crate) misled: Box<[u64]>,
    /// Bytes of the header.
    pub(crate) header_len: u64,
    /// Where the file ends, or the last grain that was committed.
    pub(crate) end: AtomicU64,
    /// Where tables are, without a look at the directory.
    pub(crate) known: KnownTables,
    /// Which grains have names, where somebody had to ask.
    pub(crate) survey: Survey,
    /// What writing needs, where it can be written.
    pub(crate) writer: OnceLock<Box<SparseWriter>>,
}

/// What resizing changes in a file of grains.
#[derive(Debug)]
pub(crate) struct Shape {
    /// All but its capacity stays.
    geometry: Geometry,
    capacity: AtomicU64,
    directory: AtomicU64,
    /// The second directory; 0: there is none.
    redundant: AtomicU64,
}

/// What the entries of directory and tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entries {
    /// Sectors of the file. `zeroed`: entry 1 is a grain of zeroes.
    Sectors { zeroed: bool },
    /// Numbers of tables and grains, which lie in two areas of the file (seSparse).
    Numbers { tables: Area, grains: HostOffset },
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) at: HostOffset,
    pub(crate) len: u64,
}

/// How grains are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    /// Plainly.
    No,
    /// Behind a guest sector and a length.
    Marked,
    /// Behind a length of 4 bytes.
    Counted,
}

impl Packed {
    /// Bytes before the packed data.
    pub(crate) fn head(self) -> u64 {
        match self {
            Self::No => 0,
            Self::Marked => size_of::<GrainMarker>() as u64,
            Self::Counted => 4,
        }
    }
}

impl Part {
    /// A part of the disk with its bytes.
    pub(crate) fn new(range: GuestRange, writable: bool, kind: &'static str, body: Body) -> Self {
        Self { start: range.start().get().into(), len: range.len().into(), writable, kind, body }
    }

    /// Where it is on the disk.
    #[inline]
    pub(crate) fn range(&self) -> GuestRange {
        let start = self.start.load(Acquire);
        let end = start.saturating_add(self.len.load(Acquire));
        GuestRange::between(GuestOffset(start), GuestOffset(end))
    }

    /// Makes it so many bytes long.
    pub(crate) fn set_len(&self, len: u64) {
        self.len.store(len, Release);
    }

    /// Bytes from the start of the part to the start of `range`.
    pub(crate) fn offset_of(&self, range: GuestRange) -> u64 {
        range.start().get() - self.start.load(Acquire)
    }

    /// Cuts it off: nothing of it is on the disk, which ends at `end`.
    pub(crate) fn cut_off(&self, end: GuestOffset) {
        self.len.store(0, Release);
        self.start.store(end.get(), Release);
    }

    /// The number of its file, if it has one.
    pub(crate) fn file(&self) -> Option<usize> {
        match &self.body {
            Body::Zero => None,
            Body::Flat(flat) => Some(flat.file),
            Body::Sparse(sparse) => Some(sparse.file),
        }
    }

    /// Whether anything of it is on the disk.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Acquire) == 0
    }
}

impl Flat {
    /// The bytes from `at` on in file number `file`, which ends at `end`.
    pub(crate) fn new(file: usize, at: HostOffset, end: HostOffset) -> Self {
        Self { file, at, end: end.get().into() }
    }

    /// Where the file ends.
    pub(crate) fn end(&self) -> HostOffset {
        HostOffset(self.end.load(Acquire))
    }

    /// The file was made to end there.
    pub(crate) fn set_end(&self, end: HostOffset) {
        self.end.store(end.get(), Release);
    }

    /// The place of the byte `from_start` bytes into the extent, and how many follow it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the file ends before: what is missing is lost, not zero.
    pub(crate) fn place(&self, from_start: u64) -> Result<(HostOffset, u64)> {
        let at = self.at.saturating_add(from_start);
        match self.end().checked_since(at) {
            Some(rest) if rest > 0 => Ok((at, rest)),
            _ => Err(past_end("flat extent", at, self.end())),
        }
    }
}

impl Shape {
    /// A file so divided, with its directories.
    pub(crate) fn new(
        geometry: Geometry,
        directory: HostOffset,
        redundant: Option<HostOffset>,
    ) -> Self {
        Self {
            geometry,
            capacity: geometry.capacity().into(),
            directory: directory.get().into(),
            redundant: redundant.map_or(0, HostOffset::get).into(),
        }
    }
}

impl Sparse {
    /// How the file is divided.
    #[inline]
    pub(crate) fn geometry(&self) -> Geometry {
        self.shape.geometry.with_capacity(self.shape.capacity.load(Acquire))
    }

    /// How it is divided, whatever it holds: the capacity is that of opening.
    #[inline]
    pub(crate) fn division(&self) -> &Geometry {
        &self.shape.geometry
    }

    /// Where the grain directory is.
    pub(crate) fn directory(&self) -> HostOffset {
        HostOffset(self.shape.directory.load(Acquire))
    }

    /// Where the second directory is, if there is one.
    pub(crate) fn redundant(&self) -> Option<HostOffset> {
        Some(HostOffset(self.shape.redundant.load(Acquire))).filter(|at| *at != HostOffset::ZERO)
    }

    /// The slice of the directory, or of the second one, that holds the entry of table number
    /// `number`.
    pub(crate) fn directory_slice(&self, directory: HostOffset, number: u64) -> SliceAt {
        // The caller has asked for the directory before the capacity is looked at here: who sees the
        // new directory of a grown disk sees all of it.
        self.geometry().directory_slice(directory, number)
    }

    /// The directories are somewhere else now, and say the same of what there was. The new capacity
    /// is set before.
    pub(crate) fn move_directories(&self, directory: HostOffset, redundant: Option<HostOffset>) {
        self.shape.redundant.store(redundant.map_or(0, HostOffset::get), Release);
        self.shape.directory.store(directory.get(), Release);
        // Tables behind the end of a disk that was shrunk before are others from now on.
        self.known.forget();
    }

    /// Makes it hold so many bytes.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.shape.capacity.store(capacity, Release);
    }

    /// Whether it is a redo log of ESX, which gets its tables one by one.
    pub(crate) fn is_cowd(&self) -> bool {
        self.free_sector_at.is_some()
    }

    /// Says in the header whether it is closed.
    pub(crate) fn tell_unclean(&self, store: &dyn Storage, unclean: bool) -> Result<()> {
        // A byte; a word in a redo log.
        let word = u32::from(unclean).to_le_bytes();
        let len = if self.is_cowd() { word.len() } else { 1 };
        Ok(store.write_at(self.unclean_at, &word[..len])?)
    }

    /// A lease on its grains; where nothing is written, none is needed.
    pub(crate) fn lease(&self) -> Lease<'_> {
        self.writer.get().map_or_else(Lease::eternal, |writer| writer.lease())
    }

    /// Where the file ends, or the last grain that was committed.
    pub(crate) fn end(&self) -> HostOffset {
        HostOffset(self.end.load(Acquire))
    }

    /// A grain that ends at `end` is about to be named.
    pub(crate) fn grow_to(&self, end: HostOffset) {
        self.end.fetch_max(end.get(), Release);
    }

    /// Grains in `len` bytes, a part of one being one; at most what a slice of a table names.
    pub(crate) fn grains_of(&self, len: u64) -> u32 {
        u32::try_from(len.div_ceil(self.geometry().grain())).unwrap_or(SLICE)
    }

    /// Sectors of a grain.
    pub(crate) fn grain_sectors(&self) -> u64 {
        self.geometry().grain() / SECTOR
    }

    /// Decodes an entry of a grain table.
    #[inline]
    pub(crate) fn decode(&self, entry: u64) -> Grain {
        match self.entries {
            Entries::Sectors { zeroed } => Grain::decode(entry, zeroed),
            Entries::Numbers { grains, .. } => {
                Grain::decode_wide(entry, grains.get() / SECTOR, self.grain_sectors())
            }
        }
    }

    /// Whether the second directory counts for table `number`, as the first names one place for several.
    #[inline]
    pub(crate) fn is_misled(&self, number: u64) -> bool {
        !self.misled.is_empty() && self.misled.binary_search(&number).is_ok()
    }

    /// Whether a place is in the directory.
    pub(crate) fn is_directory(&self, at: HostOffset) -> bool {
        let within = at.checked_since(self.directory());
        within.is_some_and(|within| within < self.geometry().directory_len())
    }

    /// Whether entries are sectors of the file.
    pub(crate) fn has_sector_entries(&self) -> bool {
        matches!(self.entries, Entries::Sectors { .. })
    }

    /// Whether a grain of zeroes can be an entry.
    pub(crate) fn has_zero_entries(&self) -> bool {
        self.entries == Entries::Sectors { zeroed: true }
    }

    /// The place of the table that an entry of the directory names, unchecked but for arithmetic.
    #[inline]
    pub(crate) fn table_place(&self, entry: u64) -> Option<HostOffset> {
        match self.entries {
            Entries::Sectors { .. } => Some(sector_at(entry)),
            Entries::Numbers { tables, .. } => {
                let number = entry & 0xFFFF_FFFF;
                let from = number * self.geometry().table_len();
                let inside = from.saturating_add(self.geometry().table_len()) <= tables.len;
                // Whatever else stands in the upper half, nobody knows what it means.
                (inside && entry >> 32 == 0x1000_0000).then(|| tables.at.saturating_add(from))
            }
        }
    }

    /// The place of the table that an entry of the directory at `at` names; `None`: there is none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a table that is not in the file.
    #[inline]
    pub(crate) fn table_at(&self, entry: u64, at: HostOffset) -> Result<Option<HostOffset>> {
        if entry == 0 {
            return Ok(None);
        }
        match self.table_inside(entry) {
            Some(table) => Ok(Some(table)),
            None => Err(self.outside("grain directory entry", at, entry).into()),
        }
    }

    /// The place of the table that an entry of the directory names, which is not 0; `None`: it is not
    /// in the file.
    #[inline]
    pub(crate) fn table_inside(&self, entry: u64) -> Option<HostOffset> {
        let table = self.table_place(entry)?;
        (table.saturating_add(self.geometry().table_len()) <= self.end()).then_some(table)
    }

    /// The place of `count` grains that begin at `sector`; `None` among the metadata or behind the
    /// end of the file.
    #[inline]
    pub(crate) fn grain_place(&self, sector: u64, count: u32) -> Option<HostOffset> {
        let place = sector_at(sector);
        let before_last = u64::from(count - 1) * self.division().grain();
        let last = place.saturating_add(before_last + self.packed.head());
        (place >= self.overhead && last < self.end()).then_some(place)
    }

    /// Bytes of the file from a byte of a grain on.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the file ends before: what is missing is lost, not zero.
    pub(crate) fn bytes_before_end(&self, at: HostOffset) -> Result<u64> {
        match self.end().checked_since(at) {
            Some(rest) if rest > 0 => Ok(rest),
            _ => Err(past_end("grain", at, self.end())),
        }
    }

    /// Bytes that the grain `from_start` bytes into the extent has at least in its file: those that are
    /// on the disk.
    pub(crate) fn grain_len(&self, from_start: u64) -> u64 {
        let geometry = self.geometry();
        geometry.grain().min(geometry.capacity().saturating_sub(from_start))
    }

    /// The place of `count` grains that begin at `sector`, as the entry at `at` says.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a grain among the metadata or behind the end of the file.
    #[inline]
    pub(crate) fn grain_at(&self, sector: u64, count: u32, at: HostOffset) -> Result<HostOffset> {
        self.grain_place(sector, count)
            .ok_or_else(|| self.outside("grain table entry", at, sector).into())
    }

    /// The refusal of an entry at `at` that means nothing.
    pub(crate) fn broken(&self, at: HostOffset, entry: u64) -> Error {
        let expected = "an entry of type 0 (all zero), 1, 2 or 3";
        Invalid {
            format: NAME,
            field: "grain table entry".into(),
            at,
            found: Value::Hex(entry),
            expected: expected.into(),
        }
        .into()
    }

    /// The refusal of an entry at `at` that names a place outside.
    pub(crate) fn outside(&self, field: &'static str, at: HostOffset, sector: u64) -> Invalid {
        let first = self.overhead.get() / SECTOR;
        let end = self.end().get().div_ceil(SECTOR);
        let expected = match field {
            "grain table entry" => format!("a sector from {first:#x} to the end at {end:#x}"),
            _ => format!("a table before the end of the file at {end:#x}"),
        };
        Invalid {
            format: NAME,
            field: field.into(),
            at,
            found: Value::Hex(sector),
            expected: expected.into(),
        }
    }

    /// Checks what stands before a packed grain at `at`: the length of the packed bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a length that no grain has, or another grain's sector.
    pub(crate) fn check_marker(
        &self,
        at: HostOffset,
        grain_start: u64,
        lba: u64,
        size: u64,
    ) -> Result<usize> {
        let field = |field: &'static str, at, found, expected: String| {
            Error::from(Invalid {
                format: NAME,
                field: field.into(),
                at,
                found,
                expected: expected.into(),
            })
        };
        let wanted = grain_start / SECTOR;
        if self.packed == Packed::Marked && lba != wanted {
            let expected = format!("{wanted}, the grain that the table entry is for");
            return Err(field("grain marker lba", at, lba.into(), expected));
        }
        let size_at = at.saturating_add(self.packed.head() - 4);
        let data = at.saturating_add(self.packed.head());
        let most = limits::packed(self.geometry().grain());
        let rest = self.end().checked_since(data).unwrap_or(0);
        if size == 0 || size > most.min(rest) {
            let expected = format!("1 to {}", most.min(rest));
            return Err(field("grain marker size", size_at, size.into(), expected));
        }
        Ok(usize::try_from(size).expect("less than a grain's limit"))
    }
}

/// The refusal of a place behind the end of its file.
fn past_end(field: &'static str, at: HostOffset, end: HostOffset) -> Error {
    Invalid {
        format: NAME,
        field: field.into(),
        at,
        found: Value::Missing,
        expected: format!("bytes, but the file ends at {end}").into(),
    }
    .into()
}
