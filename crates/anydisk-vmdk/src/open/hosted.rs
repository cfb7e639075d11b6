//! Hosted sparse extents: the header, and the footer where that is the one that counts.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use anydisk_core::{HostOffset, KnownTables, Limits, Result, Storage, StorageExt, Value};
use anydisk_storage::is_zero;
use zerocopy::FromBytes;

use super::{check_inside, text_invalid};
use crate::extent::{Entries, Packed, Shape, Sparse};
use crate::header::{Header, invalid};
use crate::layout::{MetadataMarker, SECTOR, SparseHeader, flags, marker};
use crate::limits;
use crate::second::Survey;
use crate::table::Geometry;

/// Reads the header of a hosted sparse extent, and its footer if that is the one that counts.
pub(crate) fn read_header(store: &dyn Storage, limits: &Limits) -> Result<Header> {
    let mut bytes = [0; 512];
    let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
    let header = Header::parse(&bytes[..count], HostOffset::ZERO, limits)?;
    if header.directory.is_some() || header.capacity == 0 {
        return Ok(header);
    }
    let footer = read_footer(store, limits, header.has(flags::MARKERS))?;
    if !header.agrees_with(&footer) {
        let at = HostOffset(store.len()?.saturating_sub(2 * SECTOR));
        let expected = "the capacity, grain size, table size and flags of the header";
        return Err(text_invalid("footer", at, Value::Number(footer.capacity), expected).into());
    }
    // The descriptor is where the header says: the footer's copy may be older.
    Ok(Header { descriptor: header.descriptor, ..footer })
}

/// Zeroes that may stand behind a stream: who puts it into an archive, or on a tape, fills it up.
const PADDING: u64 = 64 << 10;

/// The footer: the sector before the end-of-stream marker, behind its own (where blocks are marked).
/// The end of stream is a sector of zeroes, so it and what a stream is filled up with look alike.
pub(crate) fn read_footer(store: &dyn Storage, limits: &Limits, marked: bool) -> Result<Header> {
    let len = store.len()?;
    let start = (len.saturating_sub(PADDING) / SECTOR).saturating_sub(2) * SECTOR;
    let mut bytes = vec![0; usize::try_from(len - start).expect("little more than the padding")];
    store.read_padded_at(HostOffset(start), &mut bytes)?;
    let (sectors, rest) = bytes.as_chunks::<512>();
    let last = sectors.iter().rposition(|sector| !is_zero(sector)).unwrap_or(0);
    let is_marker = |bytes: &[u8; 512]| {
        MetadataMarker::read_from_bytes(bytes).is_ok_and(|marker| {
            let MetadataMarker { value, size, kind, .. } = marker;
            (value.get(), size.get(), kind.get()) == (1, 0, marker::FOOTER)
        })
    };
    let before = last.checked_sub(1).and_then(|index| sectors.get(index));
    let marked_so = !marked || before.is_some_and(is_marker);
    // Behind it there is the end of the stream.
    let footer =
        sectors.get(last).filter(|_| marked_so && last + 1 < sectors.len() && is_zero(rest));
    let place = start + (last as u64).saturating_sub(1) * SECTOR;
    let Some(footer) = footer.filter(|_| len >= 4 * SECTOR) else {
        let expected = "a footer between its marker and the end-of-stream marker, as gdOffset says; \
                        a repair makes it anew from the grains";
        let at = HostOffset(place);
        return Err(text_invalid("footer", at, Value::Missing, expected).into());
    };
    let at = HostOffset(place);
    let at = at.saturating_add(SECTOR);
    let footer = Header::parse(footer, at, limits)?;
    if footer.directory.is_none() {
        let found = Value::Hex(u64::MAX);
        let expected = "the place of the directory";
        return Err(invalid!(SparseHeader, gdOffset, at, found, expected).into());
    }
    Ok(footer)
}

/// The extent that begins with `header`, in file number `file`.
///
/// # Errors
/// `Invalid` for a directory that is not in the file.
pub(crate) fn extent(file: usize, store: &dyn Storage, header: &Header) -> Result<Sparse> {
    let directory = header.directory.ok_or_else(|| {
        let (found, expected) = (Value::Number(0), "the place of the directory");
        invalid!(SparseHeader, gdOffset, HostOffset::ZERO, found, expected)
    })?;
    let geometry = Geometry::new(header.grain, header.entries, header.capacity);
    let end = HostOffset(store.len()?);
    let is_inside = |at: HostOffset| at.saturating_add(geometry.directory_len()) <= end;
    // The second directory serves where the first cannot.
    let second = header.redundant.filter(|at| !is_inside(directory) && is_inside(*at));
    let better = match header.redundant.filter(|_| second.is_none()) {
        Some(second) if is_misled(store, &geometry, directory, second)? => Some(second),
        _ => None,
    };
    let sparse = Sparse {
        file,
        shape: Shape::new(
            geometry,
            second.or(better).unwrap_or(directory),
            header.redundant.filter(|_| second.is_none() && better.is_none()),
        ),
        damaged: second.is_some(),
        entries: Entries::Sectors { zeroed: header.has(flags::ZEROED_GRAIN) },
        packed: match (header.has(flags::COMPRESSED), header.has(flags::MARKERS)) {
            (false, _) => Packed::No,
            (true, true) => Packed::Marked,
            (true, false) => Packed::Counted,
        },
        overhead: header.overhead,
        unclean: header.unclean,
        unclean_at: HostOffset(std::mem::offset_of!(SparseHeader, uncleanShutdown) as u64),
        free_sector_at: None,
        passed_over: better.map(|_| directory),
        header_len: SECTOR,
        end: AtomicU64::new(end.get()),
        known: KnownTables::new(geometry.tables(), SECTOR),
        survey: Survey::default(),
        writer: OnceLock::new(),
    };
    check_inside("overHead", header.overhead, 0, &sparse)?;
    check_inside("gdOffset", sparse.directory(), sparse.geometry().directory_len(), &sparse)?;
    Ok(sparse)
}

/// Whether the directory at `first` names one place for two tables, or for parts of them, and the one at
/// `second` does not and names as many. Directories that nobody writes to are not looked at if they are
/// very long.
fn is_misled(
    store: &dyn Storage,
    geometry: &Geometry,
    first: HostOffset,
    second: HostOffset,
) -> Result<bool> {
    if geometry.directory_len() > limits::WRITABLE_DIRECTORY {
        return Ok(false);
    }
    let (one, is_apart) = named(store, geometry, first)?;
    if is_apart {
        return Ok(false);
    }
    let (other, is_apart) = named(store, geometry, second)?;
    Ok(is_apart && other >= one)
}

/// How many tables a directory names, and whether all lie in the file and none on another.
fn named(store: &dyn Storage, geometry: &Geometry, at: HostOffset) -> Result<(usize, bool)> {
    let len = usize::try_from(geometry.directory_len()).expect("limited by the caller");
    let mut bytes = vec![0; len];
    store.read_padded_at(at, &mut bytes)?;
    let entries = bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry));
    let mut tables: Vec<_> = entries.filter(|entry| *entry != 0).map(u64::from).collect();
    tables.sort_unstable();
    let table = geometry.table_len().div_ceil(SECTOR);
    let is_inside = tables.last().is_none_or(|last| {
        last.saturating_add(table).saturating_mul(SECTOR) <= store.len().unwrap_or(0)
    });
    let pairs = tables.iter().zip(tables.iter().skip(1));
    let is_apart = is_inside && pairs.into_iter().all(|(one, next)| one + table <= *next);
    Ok((tables.len(), is_apart))
}
