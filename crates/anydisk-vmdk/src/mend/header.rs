//! A wrong bit in what divides an extent: grainSize or numGTEsPerGT.
//!
//! Both are powers of two, so one wrong bit shows, and leaves few values that it can have been. The
//! right one is that which all else fits: the directories and their tables lie as all writers put them,
//! one behind the other, and grains lie a whole number of grains apart. More wrong bits may leave a value that
//! can be: it is told where directories, tables and grains fit one other value only, all of the file. If more than one fits, it is the
//! one with which the grains fill the rest of the file; if that is more than one too, nobody knows.

use std::mem::offset_of;

use anydisk_core::{HostOffset, Limits, Result, Storage, StorageExt};
use zerocopy::{FromBytes, IntoBytes};

use crate::header::Header;
use crate::layout::{MAGIC, SECTOR, SparseHeader, flags};
use crate::limits;
use crate::open::read_footer;
use crate::table::{ENTRY, sector_at};

/// Bytes of a directory that are read at once.
const AT_ONCE: usize = 64 << 10;

/// A header with one wrong bit.
pub(super) struct FlippedBit {
    pub(super) at: HostOffset,
    /// What is wrong.
    pub(super) why: String,
    pub(super) remedy: String,
    pub(super) mended: SparseHeader,
}

impl FlippedBit {
    /// The one of the file, if it has one, and if only one value can have been there.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn of(store: &dyn Storage, limits: &Limits) -> Result<Option<Self>> {
        let mut bytes = [0; 512];
        store.read_padded_at(HostOffset::ZERO, &mut bytes)?;
        let raw = SparseHeader::read_from_bytes(&bytes).expect("512 bytes are a header");
        if raw.magic != MAGIC {
            return Ok(None);
        }
        let (why, candidates) = match Header::parse(&bytes, HostOffset::ZERO, limits) {
            Err(why) => (Some(why.to_string()), candidates(&raw)),
            // Values that can be may be wrong as well: then all else fits another one.
            Ok(header)
                if header.directory.is_some() && fit(&raw, store, limits)? != Some(Fit::Full) =>
            {
                (None, others(&raw))
            }
            Ok(_) => return Ok(None),
        };
        let mut fitting = Vec::new();
        for mended in candidates {
            if let Some(fit) = fit(&mended, store, limits)? {
                fitting.push((mended, fit));
            }
        }
        if fitting.len() > 1 || why.is_none() {
            fitting.retain(|(_, fit)| *fit == Fit::Full);
        }
        // Of tables that were damaged half may be left, which fits twice the grain.
        if let ([(mended, _)], None) = (&fitting[..], &why)
            && !sets_agree(mended, store, limits)?
        {
            return Ok(None);
        }
        let [(mended, _)] = fitting[..] else { return Ok(None) };
        Ok(Some({
            let (at, name, value, found) = if mended.grainSize == raw.grainSize {
                let [value, found] = [mended, raw].map(|it| u64::from(it.numGTEsPerGT.get()));
                (offset_of!(SparseHeader, numGTEsPerGT), "numGTEsPerGT", value, found)
            } else {
                let [value, found] = [mended, raw].map(|it| it.grainSize.get());
                (offset_of!(SparseHeader, grainSize), "grainSize", value, found)
            };
            let why = why.unwrap_or_else(|| {
                format!("{name} is {found}, and directories, tables and grains fit {value}")
            });
            let remedy = format!("{name} becomes {value}, which is all that fits the tables");
            Self { at: HostOffset(at as u64), why, remedy, mended }
        }))
    }
}

/// The headers with another value that one of the two can have.
fn others(raw: &SparseHeader) -> Vec<SparseHeader> {
    let (grain, entries) = (raw.grainSize.get(), raw.numGTEsPerGT.get());
    let grains = (0..64).map(|bit| 1 << bit).take_while(|grain| *grain <= limits::GRAIN_SECTORS);
    let grains = grains.filter(|other| *other != grain);
    let tables = (0..32).map(|bit| 1 << bit).take_while(|count| *count <= limits::TABLE_ENTRIES);
    let tables = tables.filter(|other| *other != entries);
    let grains = grains.map(|grain: u64| SparseHeader { grainSize: grain.into(), ..*raw });
    let tables = tables.map(|count: u32| SparseHeader { numGTEsPerGT: count.into(), ..*raw });
    grains.chain(tables).collect()
}

/// The headers that this one may have been before one bit was changed.
fn candidates(raw: &SparseHeader) -> Vec<SparseHeader> {
    let (grain, entries) = (raw.grainSize.get(), raw.numGTEsPerGT.get());
    let is_grain = |grain: &u64| grain.is_power_of_two() && *grain <= limits::GRAIN_SECTORS;
    let is_table = |entries: &u32| entries.is_power_of_two() && *entries <= limits::TABLE_ENTRIES;
    match (is_grain(&grain), is_table(&entries)) {
        (false, true) => {
            let grains = (0..64).map(|bit| grain ^ 1 << bit).filter(is_grain);
            grains.map(|grain| SparseHeader { grainSize: grain.into(), ..*raw }).collect()
        }
        (true, false) => {
            let tables = (0..32).map(|bit| entries ^ 1 << bit).filter(is_table);
            tables.map(|count| SparseHeader { numGTEsPerGT: count.into(), ..*raw }).collect()
        }
        _ => Vec::new(),
    }
}

/// How all else in a file fits a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Nothing contradicts it.
    Some,
    /// The grains that are named fill all of the file behind the metadata.
    Full,
}

/// How all else in the file fits a header, if it does.
fn fit(raw: &SparseHeader, store: &dyn Storage, limits: &Limits) -> Result<Option<Fit>> {
    let Ok(header) = Header::parse(raw.as_bytes(), HostOffset::ZERO, limits) else {
        return Ok(None);
    };
    let Some(directory) = header.directory else {
        let agrees = has_footer(&header, store, limits);
        return Ok(agrees.then_some(Fit::Full));
    };
    if header.capacity == 0 || !header.overhead.get().is_multiple_of(header.grain) {
        return Ok(None);
    }
    let Some(first) = tables(&header, store, directory)? else { return Ok(None) };
    let end = first.end();
    let lies_well = match header.redundant {
        None => end <= header.overhead,
        Some(redundant) => {
            let Some(second) = tables(&header, store, redundant)? else { return Ok(None) };
            let second_end = second.end();
            // Whichever of the two comes first.
            match redundant < directory {
                true => second_end == directory && end <= header.overhead,
                false => end == redundant && second_end <= header.overhead,
            }
        }
    };
    if lies_well { grains_fit(&header, store, first) } else { Ok(None) }
}

/// Whether both sets of tables say the same, and of more than one grain.
fn sets_agree(raw: &SparseHeader, store: &dyn Storage, limits: &Limits) -> Result<bool> {
    let Ok(header) = Header::parse(raw.as_bytes(), HostOffset::ZERO, limits) else {
        return Ok(false);
    };
    let (Some(directory), Some(redundant)) = (header.directory, header.redundant) else {
        return Ok(false);
    };
    let [Some(first), Some(second)] =
        [tables(&header, store, directory)?, tables(&header, store, redundant)?]
    else {
        return Ok(false);
    };
    let len = usize::try_from(table_len(&header)).expect("2 KiB at most");
    let (mut one, mut other, mut named) = (vec![0; len], vec![0; len], 0);
    for (first, second) in first.places().zip(second.places()) {
        store.read_padded_at(first, &mut one)?;
        store.read_padded_at(second, &mut other)?;
        if one != other {
            return Ok(false);
        }
        named += one.as_chunks::<4>().0.iter().filter(|entry| **entry != [0; 4]).count();
    }
    Ok(named > 1)
}

/// Whether a stream has the same header at its end.
fn has_footer(header: &Header, store: &dyn Storage, limits: &Limits) -> bool {
    let footer = read_footer(store, limits, header.has(flags::MARKERS));
    footer.is_ok_and(|footer| header.agrees_with(&footer))
}

/// Tables that lie one behind the other.
#[derive(Clone, Copy, Debug)]
struct Row {
    first: HostOffset,
    count: u64,
    /// Bytes of each.
    len: u64,
}

impl Row {
    fn place(&self, number: u64) -> HostOffset {
        self.first.saturating_add(number.saturating_mul(self.len))
    }

    fn places(self) -> impl Iterator<Item = HostOffset> {
        (0..self.count).map(move |number| self.place(number))
    }

    fn end(&self) -> HostOffset {
        self.place(self.count)
    }
}

/// The tables of a directory, if they lie right behind it, one behind the other.
fn tables(header: &Header, store: &dyn Storage, directory: HostOffset) -> Result<Option<Row>> {
    let len = header.tables().saturating_mul(ENTRY).next_multiple_of(SECTOR);
    let first = directory.saturating_add(len);
    if first.get() > store.len()? {
        return Ok(None);
    }
    let row = Row { first, count: header.tables(), len: table_len(header) };
    let mut bytes = vec![0; AT_ONCE];
    let mut number = 0;
    for at in (0..len).step_by(AT_ONCE) {
        let piece = usize::try_from(len - at).unwrap_or(AT_ONCE).min(AT_ONCE);
        let piece = &mut bytes[..piece];
        store.read_exact_at(directory.saturating_add(at), piece)?;
        for entry in piece.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)) {
            let is_right = match number < row.count {
                true => sector_at(entry.into()) == row.place(number),
                false => entry == 0,
            };
            if !is_right {
                return Ok(None);
            }
            number += 1;
        }
    }
    Ok(Some(row))
}

fn table_len(header: &Header) -> u64 {
    (u64::from(header.entries) * ENTRY).next_multiple_of(SECTOR)
}

/// How grains fit: those that the first tables name lie a whole number of grains apart, behind the
/// metadata.
fn grains_fit(header: &Header, store: &dyn Storage, tables: Row) -> Result<Option<Fit>> {
    let len = u64::from(header.entries) * ENTRY;
    let mut bytes = vec![0; usize::try_from(len).expect("2 KiB at most")];
    let file_end = HostOffset(store.len()?);
    let mut count = 0;
    for table in tables.places() {
        store.read_padded_at(table, &mut bytes)?;
        for entry in bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)) {
            let at = sector_at(entry.into());
            // Nothing, or zeroes.
            if entry < 2 {
                continue;
            }
            let is_inside = at >= header.overhead && at < file_end;
            if !is_inside || !at.get().is_multiple_of(header.grain) {
                return Ok(None);
            }
            count += 1;
        }
    }
    let stored = store.len()?.saturating_sub(header.overhead.get());
    let fills = stored.div_ceil(header.grain) == count;
    Ok(Some(if fills { Fit::Full } else { Fit::Some }))
}
