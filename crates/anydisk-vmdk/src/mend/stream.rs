//! A stream whose end is lost: made anew from what stands before its grains.
//!
//! ```text
//!   header | descriptor | grain | grain | table | grain | (cut)
//!                                                       `--> table | table | directory | footer | end
//! ```
//!
//! Tables, directory and footer of a stream come last, so one that was cut short has no directory. But
//! each grain stands behind its guest sector and its length. Where the header names a directory that is
//! not there, it names the new one then.

use anydisk_core::{HostOffset, Limits, Result, Storage, StorageExt};
use zerocopy::{FromBytes, IntoBytes};

use crate::check::unpack;
use crate::header::{Header, limit};
use crate::layout::{GrainMarker, MetadataMarker, SECTOR, SparseHeader, flags, marker};
use crate::limits;
use crate::open::read_header;
use crate::table::ENTRY;

/// Most grains of a stream whose end is made anew: those of 1 TiB of the usual size. The place of
/// each is kept in memory.
const GRAINS: u64 = 16 << 20;

/// Entries that are written at once.
const AT_ONCE: usize = 128 << 10;

/// A stream without the footer that its header promises.
pub(super) struct Headless<'a> {
    store: &'a dyn Storage,
    raw: SparseHeader,
    header: Header,
    /// What is wrong with the footer.
    pub(super) why: String,
}

/// Numbers of grains and their sectors, where the last of them ends, and where the walk did.
#[derive(Default)]
struct Found {
    grains: Vec<(u64, u32)>,
    /// The same of grains that do not unpack.
    broken: Vec<(u64, u32)>,
    end: HostOffset,
    /// Where the first block begins that is none.
    stopped: HostOffset,
    /// The directory was reached: no grain follows.
    is_complete: bool,
}

/// What becomes of the grains that a cut may have taken away: nobody knows which there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutOff {
    /// They read as zero.
    Zero,
    /// They cannot be read.
    Lost,
}

/// An entry that names a place in no file.
const NOWHERE: u32 = u32::MAX;

impl<'a> Headless<'a> {
    /// The stream in the file, if that is one without its footer.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn of(store: &'a dyn Storage, limits: &Limits) -> Result<Option<Self>> {
        let mut bytes = [0; 512];
        store.read_padded_at(HostOffset::ZERO, &mut bytes)?;
        let Ok(header) = Header::parse(&bytes, HostOffset::ZERO, limits) else { return Ok(None) };
        let is_stream = header.has(flags::COMPRESSED) && header.has(flags::MARKERS);
        if !is_stream || header.capacity == 0 {
            return Ok(None);
        }
        if let Some(directory) = header.directory {
            return Self::without_directory(store, &bytes, header, directory);
        }
        match read_header(store, limits) {
            Err(anydisk_core::Error::Invalid(why)) => {
                let raw = SparseHeader::read_from_bytes(&bytes).expect("512 bytes are a header");
                Ok(Some(Self { store, raw, header, why: why.to_string() }))
            }
            Err(anydisk_core::Error::Storage(error)) => Err(error.into()),
            _ => Ok(None),
        }
    }

    /// The stream whose header names a directory that is not in the file, nor a second one.
    fn without_directory(
        store: &'a dyn Storage,
        bytes: &[u8],
        header: Header,
        directory: HostOffset,
    ) -> Result<Option<Self>> {
        let (len, end) = (header.tables().saturating_mul(ENTRY), store.len()?);
        let is_there = |at: HostOffset| at.saturating_add(len).get() <= end;
        if is_there(directory) || header.redundant.is_some_and(is_there) {
            return Ok(None);
        }
        let raw = SparseHeader::read_from_bytes(bytes).expect("512 bytes are a header");
        let end = HostOffset(end);
        let why =
            format!("the grain directory at {directory} is not in the file, which ends at {end}");
        Ok(Some(Self { store, raw, header, why }))
    }

    /// Puts tables, directory and footer behind the last grain that is whole, or behind everything where
    /// a damaged block hides what follows it. Durable; cut short, the
    /// stream has no footer, as before.
    ///
    /// # Errors
    /// Those of the store, and `Limit`.
    pub(super) fn rebuild(&self, cut_off: CutOff) -> Result<()> {
        let Found { mut grains, mut broken, end, stopped, is_complete } = self.find()?;
        if cut_off == CutOff::Lost {
            // Whoever reads them is told.
            grains.append(&mut broken);
        }
        grains.sort_by_key(|(number, _)| *number);
        // Writers go from the start of the disk to its end.
        let known = grains.last().map_or(0, |(number, _)| number + 1);
        let lost = Some(known).filter(|_| cut_off == CutOff::Lost && !is_complete);
        let old_end = self.store.len()?;
        // What a cut may leave of a grain is written over. If there is more, a block before it is
        // damaged, and nobody knows what the rest is: it stays where it is.
        let torn = limits::packed(self.header.grain) + 2 * SECTOR;
        let has_footer = self.header.directory.is_none();
        let at = match old_end.saturating_sub(stopped.get()) {
            rest if rest <= torn && has_footer => end,
            _ => HostOffset(old_end.next_multiple_of(SECTOR)),
        };
        let mut tail = Tail { store: self.store, at, old_end };
        let directory = self.write_tables(&mut tail, &grains, lost)?;
        tail.mark(marker::GRAIN_DIRECTORY, (directory.len() as u64 * ENTRY).div_ceil(SECTOR))?;
        let footer = SparseHeader {
            gdOffset: u64::from(tail.sector()?).into(),
            uncleanShutdown: 0,
            ..self.raw
        };
        tail.write_entries(&directory)?;
        if !has_footer {
            tail.mark(marker::END_OF_STREAM, 0)?;
            self.store.set_len(tail.at.get())?;
            self.store.flush()?;
            let flags = (self.raw.flags.get() & !flags::REDUNDANT).into();
            let header = SparseHeader { rgdOffset: 0.into(), flags, ..footer };
            self.store.write_at(HostOffset::ZERO, header.as_bytes())?;
            return Ok(self.store.flush()?);
        }
        // What the footer leads to is on the medium before it is.
        self.store.set_len(tail.at.get())?;
        self.store.flush()?;
        tail.mark(marker::FOOTER, 1)?;
        tail.write(footer.as_bytes())?;
        tail.mark(marker::END_OF_STREAM, 0)?;
        Ok(self.store.flush()?)
    }

    /// Writes the tables of the grains, which are sorted: their directory. From number `lost` on, grains
    /// are nowhere.
    fn write_tables(
        &self,
        tail: &mut Tail<'_>,
        grains: &[(u64, u32)],
        lost: Option<u64>,
    ) -> Result<Vec<u32>> {
        let entries = u64::from(self.header.entries);
        let mut directory = vec![0_u32; usize::try_from(self.header.tables()).unwrap_or_default()];
        for grains in grains.chunk_by(|(a, _), (b, _)| a / entries == b / entries) {
            let mut table = vec![0_u32; usize::try_from(entries).unwrap_or_default()];
            for (number, sector) in grains {
                // A grain that was written twice is what was written last.
                if let Ok(entry) = usize::try_from(number % entries) {
                    table[entry] = *sector;
                }
            }
            let number = grains.first().map_or(0, |(number, _)| number / entries);
            if let Some(rest) = lost.and_then(|lost| lost.checked_sub(number * entries)) {
                let rest = usize::try_from(rest).unwrap_or(usize::MAX);
                table.get_mut(rest..).into_iter().flatten().for_each(|entry| *entry = NOWHERE);
            }
            tail.mark(marker::GRAIN_TABLE, (entries * ENTRY).div_ceil(SECTOR))?;
            if let Some(entry) = usize::try_from(number).ok().and_then(|at| directory.get_mut(at)) {
                *entry = tail.sector()?;
            }
            tail.write_entries(&table)?;
        }
        if let Some(lost) = lost {
            let first = usize::try_from(lost.div_ceil(entries)).unwrap_or(usize::MAX);
            self.write_nowhere(tail, directory.get_mut(first..).unwrap_or_default())?;
        }
        Ok(directory)
    }

    /// One table for all that these entries of the directory stand for, of which nothing is known.
    fn write_nowhere(&self, tail: &mut Tail<'_>, directory: &mut [u32]) -> Result<()> {
        let entries = usize::try_from(self.header.entries).unwrap_or_default();
        if directory.is_empty() {
            return Ok(());
        }
        tail.mark(marker::GRAIN_TABLE, (u64::from(self.header.entries) * ENTRY).div_ceil(SECTOR))?;
        directory.fill(tail.sector()?);
        tail.write_entries(&vec![NOWHERE; entries])
    }

    /// Walks over the blocks of the stream, up to the first that is none.
    fn find(&self) -> Result<Found> {
        let mut found = Found { end: self.header.overhead, ..Found::default() };
        let mut at = self.header.overhead;
        while let Some(next) = self.step(at, &mut found)? {
            at = next;
        }
        found.stopped = at;
        Ok(found)
    }

    /// Looks at the block at `at`: where the next one is.
    fn step(&self, at: HostOffset, found: &mut Found) -> Result<Option<HostOffset>> {
        let mut bytes = [0; 512];
        if self.store.read_at(at, &mut bytes)? < bytes.len() {
            return Ok(None);
        }
        let marker = MetadataMarker::read_from_bytes(&bytes).expect("512 bytes are a marker");
        if marker.size.get() == 0 {
            let is_known = (marker::GRAIN_TABLE..=marker::PROGRESS).contains(&marker.kind.get());
            found.is_complete |= marker.kind.get() == marker::GRAIN_DIRECTORY;
            let len = marker.value.get().checked_mul(SECTOR).filter(|_| is_known);
            let next = len.and_then(|len| at.checked_add(SECTOR)?.checked_add(len));
            return Ok(next.filter(|next| next.get() <= limits::FILE));
        }
        let len = u64::from(marker.size.get());
        let data = at.saturating_add(size_of::<GrainMarker>() as u64);
        let end = data.saturating_add(len);
        let from_start = marker.value.get().saturating_mul(SECTOR);
        let is_grain = from_start.is_multiple_of(self.header.grain)
            && from_start < self.header.capacity
            && len <= limits::packed(self.header.grain)
            && end.get() <= self.store.len()?;
        if !is_grain {
            return Ok(None);
        }
        let next = HostOffset(end.get().next_multiple_of(SECTOR));
        let rest = (self.header.capacity - from_start).min(self.header.grain);
        let data = (data, usize::try_from(len).expect("the limit of a grain"));
        let count = (found.grains.len() + found.broken.len()) as u64;
        limit("grains of a stream without an end", count, GRAINS)?;
        let sector = u32::try_from(at.get() / SECTOR).unwrap_or(u32::MAX);
        let grain = (from_start / self.header.grain, sector);
        if unpack(self.store, data, rest, self.header.grain)?.is_none() {
            found.grains.push(grain);
            found.end = next;
        } else {
            found.broken.push(grain);
        }
        Ok(Some(next))
    }
}

/// What is written behind the grains.
struct Tail<'a> {
    store: &'a dyn Storage,
    at: HostOffset,
    /// Where the file ended before: nothing was ever written behind.
    old_end: u64,
}

impl Tail<'_> {
    fn sector(&self) -> Result<u32> {
        limit("size of the stream in bytes", self.at.get(), limits::FILE - 1)?;
        Ok(u32::try_from(self.at.get() / SECTOR).unwrap_or(u32::MAX))
    }

    /// Writes bytes and fills their last sector up.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        self.store.write_at(self.at, &bytes)?;
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Writes entries, and fills their last sector up. Those of nothing need not be written to a part
    /// of the file that is new: a directory may be long and empty.
    fn write_entries(&mut self, entries: &[u32]) -> Result<()> {
        for part in entries.chunks(AT_ONCE) {
            let len = (part.len() as u64 * ENTRY).next_multiple_of(SECTOR);
            if self.at.get() >= self.old_end && part.iter().all(|entry| *entry == 0) {
                self.at = self.at.saturating_add(len);
            } else {
                let bytes: Vec<u8> = part.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                self.write(&bytes)?;
            }
        }
        Ok(())
    }

    /// Writes what stands before `sectors` sectors of metadata.
    fn mark(&mut self, kind: u32, sectors: u64) -> Result<()> {
        self.write(MetadataMarker::new(kind, sectors).as_bytes())
    }
}
