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
use crate::table::{Geometry, sector_at};

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
    // Three sectors before it: marker, footer, end of stream.
    let start = (len.saturating_sub(PADDING) / SECTOR).saturating_sub(3) * SECTOR;
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
    let redundant = header.redundant.filter(|_| second.is_none());
    let misled = match redundant.filter(|at| is_inside(*at)) {
        Some(redundant) => misled(store, &geometry, directory, redundant)?,
        None => Vec::new(),
    };
    let sparse = Sparse {
        file,
        shape: Shape::new(geometry, second.unwrap_or(directory), redundant),
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
        misled: misled.into(),
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

/// Numbers of the tables for which the directory at `first` names a place, or a part of it, that it names for
/// another one too, and the one at `second` a place of their own that says something else. Directories that
/// nobody writes to are not looked at if they are very long.
fn misled(
    store: &dyn Storage,
    geometry: &Geometry,
    first: HostOffset,
    second: HostOffset,
) -> Result<Vec<u64>> {
    if geometry.directory_len() > limits::WRITABLE_DIRECTORY {
        return Ok(Vec::new());
    }
    let one = directory(store, geometry, first)?;
    let sharing = sharing(&one, geometry);
    if sharing.is_empty() {
        return Ok(sharing);
    }
    let other = directory(store, geometry, second)?;
    let not_apart = self::sharing(&other, geometry);
    let end = store.len()?;
    let mut misled = Vec::new();
    for number in sharing {
        let [one, other] = [&one, &other].map(|it| {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            sector_at(it.get(index).copied().unwrap_or(0).into())
        });
        let is_there = |at: HostOffset| {
            at != HostOffset::ZERO && at.saturating_add(geometry.table_len()).get() <= end
        };
        let is_better = is_there(other) && not_apart.binary_search(&number).is_err();
        if is_better && (misled.len() > MOST_COMPARED || !agree(store, geometry, one, other)?) {
            misled.push(number);
        }
    }
    Ok(misled)
}

/// Tables that are compared with their second copies.
const MOST_COMPARED: usize = 1024;

/// The entries of a directory.
fn directory(store: &dyn Storage, geometry: &Geometry, at: HostOffset) -> Result<Vec<u32>> {
    entries(store, at, geometry.directory_len())
}

fn entries(store: &dyn Storage, at: HostOffset, len: u64) -> Result<Vec<u32>> {
    let mut bytes = vec![0; usize::try_from(len).expect("limited by the caller")];
    store.read_padded_at(at, &mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect())
}

/// Numbers of the tables that share sectors with another one, rising.
fn sharing(directory: &[u32], geometry: &Geometry) -> Vec<u64> {
    let mut tables: Vec<_> = directory.iter().copied().zip(0_u64..).collect();
    tables.retain(|(sector, _)| *sector != 0);
    tables.sort_unstable();
    let len = geometry.table_len().div_ceil(SECTOR);
    let meets = |one: &(u32, u64), next: &(u32, u64)| u64::from(one.0) + len > next.0.into();
    let groups = tables.chunk_by(meets).filter(|group| group.len() > 1).flatten();
    let mut numbers: Vec<_> = groups.map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    numbers
}

/// Whether two tables name the same in more entries than not.
fn agree(
    store: &dyn Storage,
    geometry: &Geometry,
    one: HostOffset,
    other: HostOffset,
) -> Result<bool> {
    let one = entries(store, one, geometry.table_len())?;
    let other = entries(store, other, geometry.table_len())?;
    let named = one.iter().zip(&other).filter(|pair| *pair != (&0, &0));
    let (alike, unlike): (Vec<_>, Vec<_>) = named.partition(|(one, other)| one == other);
    Ok(alike.len() > unlike.len())
}
