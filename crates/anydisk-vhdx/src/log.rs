//! The log: which of its entries are to be replayed, and what they say. Pure.
//!
//! A ring of sectors of 4 KiB. An entry is a header with descriptors, then a sector for each
//! descriptor of data. Entries of rising numbers that follow each other are a sequence; the active
//! one is that with the highest number whose last entry says, by its tail, where in it to begin.

use std::collections::BTreeMap;
use std::mem::offset_of;

use anydisk_core::{HostOffset, Result, Storage, Value};
use zerocopy::FromBytes;

use crate::crc::Crc;
use crate::header::{Place, invalid, limit};
use crate::layout::{
    DATA_SIGNATURE, LOG_SECTOR, LOG_SIGNATURE, REGION_TABLES, RawDescriptor, RawLogEntry,
    SECTOR_SIGNATURE, ZERO_SIGNATURE,
};
use crate::limits;

const SECTOR: usize = 4096;

/// One change that the log asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Zeroes, whole sectors of them.
    Zero(Place),
    /// One sector.
    Data(HostOffset, Box<[u8]>),
}

/// What is to be replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replay {
    /// In order.
    pub(crate) changes: Vec<Change>,
    /// The file has at least so many bytes afterwards.
    pub(crate) end: u64,
}

impl Replay {
    /// Replays it in the file itself; durable. Cut short, it can be done again.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn write_to(&self, store: &dyn Storage) -> Result<()> {
        for change in &self.changes {
            match change {
                Change::Data(at, bytes) => store.write_at(*at, bytes)?,
                Change::Zero(place) => {
                    // Behind the end of the file there are zeroes.
                    let len = place.len.min(store.len()?.saturating_sub(place.at.get()));
                    write_zeroes(store, place.at, len)?;
                }
            }
        }
        if store.len()? < self.end {
            store.set_len(self.end)?;
        }
        Ok(store.flush()?)
    }
}

/// An entry whose fields, descriptors and checksum are right.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: usize,
    len: usize,
    tail: usize,
    number: u64,
    flushed: u64,
    last: u64,
}

/// The bytes of a log that is to be replayed.
#[derive(Debug)]
pub(crate) struct Log<'a> {
    bytes: &'a [u8],
    guid: [u8; 16],
    place: Place,
    /// What was found at a place.
    known: BTreeMap<usize, Option<Entry>>,
    /// Bytes whose checksums were looked at.
    work: u64,
}

impl<'a> Log<'a> {
    /// The log with these bytes, which lies at `place`; `guid` is that of the entries that count.
    pub(crate) fn new(bytes: &'a [u8], guid: [u8; 16], place: Place) -> Self {
        Self { bytes, guid, place, known: BTreeMap::new(), work: 0 }
    }

    /// What is to be replayed in a file of `file_len` bytes.
    ///
    /// # Errors
    /// `Invalid` where no sequence is active, the file is cut, or the log changes what it must not;
    /// `Limit` for a log that is made to take time or space.
    pub(crate) fn replay(mut self, file_len: u64) -> Result<Replay> {
        let sequence = self.active()?;
        let Some(head) = sequence.last().copied() else {
            let found = Value::from(&self.guid[..]);
            let expected = "the GUID of a sequence of entries in the log";
            return Err(invalid("LogGuid", self.place.at, found, expected));
        };
        if file_len < head.flushed {
            let at = self.file_offset(head.at, offset_of!(RawLogEntry, FlushedFileOffset));
            let expected = format!("{file_len:#x} at most, where the file ends");
            return Err(invalid("FlushedFileOffset", at, Value::Hex(head.flushed), expected));
        }
        let most = file_len.saturating_add(limits::GROWTH);
        let what = "size of the file after its log, in bytes";
        let mut replay = Replay { changes: Vec::new(), end: head.last.max(file_len) };
        limit(what, replay.end, most)?;
        for entry in sequence.iter().skip_while(|entry| entry.at != head.tail) {
            self.changes(entry, most, &mut replay)?;
        }
        Ok(replay)
    }

    /// The sequence that counts; none if there is no valid one.
    fn active(&mut self) -> Result<Vec<Entry>> {
        let mut best: Vec<Entry> = Vec::new();
        let mut tail = 0;
        loop {
            let (sequence, head) = self.sequence(tail)?;
            let ends = sequence.last().copied();
            let begins = |last: Entry| sequence.iter().any(|entry| entry.at == last.tail);
            let next = match ends.filter(|last| begins(*last)) {
                Some(last) => {
                    if best.last().is_none_or(|best| last.number > best.number) {
                        best = sequence;
                    }
                    head
                }
                None => (tail + SECTOR) % self.bytes.len(),
            };
            if next <= tail {
                return Ok(best);
            }
            tail = next;
        }
    }

    /// Entries of rising numbers from `tail` on, and where they end.
    fn sequence(&mut self, tail: usize) -> Result<(Vec<Entry>, usize)> {
        let (mut entries, mut head, mut total) = (Vec::<Entry>::new(), tail, 0);
        while let Some(entry) = self.entry(head)? {
            let follows =
                entries.last().is_none_or(|last| last.number.checked_add(1) == Some(entry.number));
            total += entry.len;
            if !follows || total > self.bytes.len() {
                break;
            }
            head = (head + entry.len) % self.bytes.len();
            entries.push(entry);
        }
        Ok((entries, head))
    }

    /// The entry at a place, if there is a valid one.
    fn entry(&mut self, at: usize) -> Result<Option<Entry>> {
        if let Some(known) = self.known.get(&at) {
            return Ok(*known);
        }
        let found = self.look(at)?;
        self.known.insert(at, found);
        Ok(found)
    }

    fn look(&mut self, at: usize) -> Result<Option<Entry>> {
        let Some(raw) = self.header(at) else { return Ok(None) };
        let (Ok(len), Ok(tail)) =
            (usize::try_from(raw.EntryLength.get()), usize::try_from(raw.Tail.get()))
        else {
            return Ok(None);
        };
        let is_ours = raw.Signature == LOG_SIGNATURE && raw.LogGuid == self.guid;
        let fits = len > 0 && len <= self.bytes.len() && tail < self.bytes.len();
        let is_aligned = len.is_multiple_of(SECTOR) && tail.is_multiple_of(SECTOR);
        let number = raw.SequenceNumber.get();
        if !is_ours || !fits || !is_aligned || number == 0 {
            return Ok(None);
        }
        self.work += len as u64;
        let most = limits::LOG_WORK + 4 * self.bytes.len() as u64;
        limit("overlapping entries of the log, in bytes", self.work, most)?;
        if self.checksum(at, len) != raw.Checksum.get() {
            return Ok(None);
        }
        let (flushed, last) = (raw.FlushedFileOffset.get(), raw.LastFileOffset.get());
        let entry = Entry { at, len, tail, number, flushed, last };
        Ok(self.has_good_descriptors(&entry, &raw).then_some(entry))
    }

    fn header(&self, at: usize) -> Option<RawLogEntry> {
        RawLogEntry::read_from_bytes(self.sector(at, 0).get(..size_of::<RawLogEntry>())?).ok()
    }

    /// Sector `number` of what begins at `at`.
    fn sector(&self, at: usize, number: usize) -> &[u8] {
        let at = (at + number * SECTOR) % self.bytes.len();
        self.bytes.get(at..at + SECTOR).unwrap_or_default()
    }

    fn checksum(&self, at: usize, len: usize) -> u32 {
        let first = self.sector(at, 0);
        let hole = offset_of!(RawLogEntry, Checksum);
        let (before, behind) = (first.get(..hole), first.get(hole + 4..));
        let crc = Crc::new().add(before.unwrap_or_default()).add(&[0; 4]);
        let crc = crc.add(behind.unwrap_or_default());
        let others = (1..len / SECTOR).map(|number| self.sector(at, number));
        others.fold(crc, Crc::add).get()
    }

    /// The descriptors of an entry with their numbers, behind 64 bytes of header.
    fn descriptors<'b>(
        &'b self,
        entry: &Entry,
        count: usize,
    ) -> impl Iterator<Item = RawDescriptor> + use<'b, 'a> {
        let at = entry.at;
        (2..count + 2).filter_map(move |slot| {
            let offset = slot * size_of::<RawDescriptor>();
            let bytes = self.sector(at, offset / SECTOR).get(offset % SECTOR..)?;
            RawDescriptor::read_from_prefix(bytes).ok().map(|(raw, _)| raw)
        })
    }

    /// Sectors that header and descriptors take.
    fn descriptor_sectors(count: usize) -> Option<usize> {
        let bytes = count.checked_mul(size_of::<RawDescriptor>())?;
        Some(bytes.checked_add(size_of::<RawLogEntry>())?.div_ceil(SECTOR))
    }

    fn has_good_descriptors(&self, entry: &Entry, raw: &RawLogEntry) -> bool {
        let Ok(count) = usize::try_from(raw.DescriptorCount.get()) else { return false };
        let sectors = entry.len / SECTOR;
        let Some(mut next) = Self::descriptor_sectors(count).filter(|used| *used <= sectors) else {
            return false;
        };
        self.descriptors(entry, count).all(|descriptor| {
            let is_aligned = descriptor.FileOffset.get().is_multiple_of(LOG_SECTOR);
            let is_its = descriptor.SequenceNumber.get() == entry.number && is_aligned;
            match descriptor.Signature {
                ZERO_SIGNATURE => {
                    is_its && u64::from_le_bytes(descriptor.LeadingBytes).is_multiple_of(LOG_SECTOR)
                }
                DATA_SIGNATURE => {
                    let sector = self.sector(entry.at, next);
                    let is_good = next < sectors && data_number(sector) == Some(entry.number);
                    next += 1;
                    is_its && is_good
                }
                _ => false,
            }
        })
    }

    /// Adds what an entry changes.
    fn changes(&self, entry: &Entry, most: u64, replay: &mut Replay) -> Result<()> {
        let raw = self.header(entry.at);
        let count = raw.map_or(0, |raw| raw.DescriptorCount.get());
        let count = usize::try_from(count).unwrap_or_default();
        let mut next = Self::descriptor_sectors(count).unwrap_or_default();
        for descriptor in self.descriptors(entry, count) {
            let at = HostOffset(descriptor.FileOffset.get());
            let change = match descriptor.Signature {
                ZERO_SIGNATURE => {
                    let len = u64::from_le_bytes(descriptor.LeadingBytes);
                    self.check_target(Place { at, len }, most)?;
                    Change::Zero(Place { at, len })
                }
                _ => {
                    let mut bytes = self.sector(entry.at, next).to_vec();
                    next += 1;
                    put(&mut bytes, 0, &descriptor.LeadingBytes);
                    put(&mut bytes, SECTOR - 4, &descriptor.TrailingBytes);
                    self.check_target(Place { at, len: LOG_SECTOR }, most)?;
                    Change::Data(at, bytes.into())
                }
            };
            let end = match &change {
                Change::Zero(place) => place.at.saturating_add(place.len),
                Change::Data(at, _) => at.saturating_add(LOG_SECTOR),
            };
            replay.end = replay.end.max(end.get());
            replay.changes.push(change);
        }
        Ok(())
    }

    /// The log changes neither headers nor itself, nor makes the file very long.
    fn check_target(&self, target: Place, most: u64) -> Result<()> {
        let end = target.at.get().saturating_add(target.len);
        limit("size of the file after its log, in bytes", end, most)?;
        let log_end = self.place.at.saturating_add(self.place.len).get();
        let is_in_log = target.at.get() < log_end && self.place.at.get() < end;
        if target.at.get() < REGION_TABLES[0] || (is_in_log && target.len > 0) {
            let expected = "a place behind the headers and outside of the log";
            return Err(invalid("FileOffset", self.place.at, target.at.into(), expected));
        }
        Ok(())
    }

    fn file_offset(&self, at: usize, field: usize) -> HostOffset {
        self.place.at.saturating_add((at + field) as u64)
    }
}

/// Zeroes a part of a file, by its space where that can be.
fn write_zeroes(store: &dyn Storage, at: HostOffset, len: u64) -> Result<()> {
    let zeroed = store.space().map(|space| space.zero(at, len, true));
    match zeroed {
        Some(Ok(())) => return Ok(()),
        None | Some(Err(anydisk_storage::Error::Unsupported { .. })) => {}
        Some(Err(error)) => return Err(error.into()),
    }
    let (zeroes, mut done) = (vec![0; 1 << 20], 0);
    while done < len {
        let count = usize::try_from(len - done).unwrap_or(usize::MAX);
        let part = zeroes.get(..count).unwrap_or(&zeroes);
        store.write_at(at.saturating_add(done), part)?;
        done += part.len() as u64;
    }
    Ok(())
}

/// The number that a data sector carries in two halves.
fn data_number(sector: &[u8]) -> Option<u64> {
    let (signature, rest) = sector.split_first_chunk::<4>()?;
    let (high, _) = rest.split_first_chunk::<4>()?;
    let low = sector.last_chunk::<4>()?;
    let number = u64::from(u32::from_le_bytes(*high)) << 32 | u64::from(u32::from_le_bytes(*low));
    (*signature == SECTOR_SIGNATURE).then_some(number)
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}
