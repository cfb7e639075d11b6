//! What must hold before a sparse extent is written: the tables are where tables belong, every
//! grain is in the file. Else a write might land in the metadata, or in another grain.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{Error, HostOffset, Owners, Result, Storage, StorageExt};

use crate::NAME;
use crate::extent::Sparse;
use crate::header::limit;
use crate::limits;
use crate::table::{ENTRY, Grain, sector_at};

/// Tables that are read at once when they lie in a row: 1 MiB.
const TABLES_AT_ONCE: usize = 512;

/// Where the tables of an extent are, and their second copies.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// Sectors of the tables, rising, each with that of its second copy.
    pairs: Mutex<Vec<(u32, u32)>>,
}

impl Mirror {
    /// Checks an extent and finds its tables. `reserved`: what else lies among the metadata;
    /// `is_new`: the tables were just made, they name nothing.
    ///
    /// # Errors
    /// [`Error::NeedsRepair`] for tables or grains that must not be written to,
    /// [`Error::Unsupported`] for directories that name no table.
    pub(crate) fn of(
        sparse: &Sparse,
        store: &dyn Storage,
        reserved: &[(HostOffset, u64)],
        is_new: bool,
    ) -> Result<Self> {
        let primary = directory(sparse, store, sparse.directory())?;
        let second = match sparse.redundant() {
            Some(at) => Some(directory(sparse, store, at)?),
            None => None,
        };
        let lacks = |tables: &[u32]| tables.contains(&0);
        if second.as_deref().is_some_and(|second| lacks(second) || lacks(&primary)) {
            let feature = "writing to a sparse extent without all of its grain tables";
            return Err(Error::Unsupported { format: NAME, feature: feature.into() });
        }
        let metadata = check_places(sparse, reserved, &primary, second.as_deref())?;
        if !is_new {
            check_grains(sparse, store, &primary, &metadata)?;
            let sets = (&*primary, second.as_deref().unwrap_or_default());
            take_second(sparse, store, sets, &metadata)?;
        }
        let second = second.unwrap_or_default();
        let mut pairs: Vec<_> = primary.into_iter().zip(second).collect();
        pairs.sort_unstable();
        Ok(Self { pairs: pairs.into() })
    }

    /// Where the second copy of the table at `table` is, if there is one.
    pub(crate) fn second(&self, table: HostOffset) -> Option<HostOffset> {
        let pairs = self.lock();
        let index = pairs.binary_search_by_key(&table, |pair| sector_at(pair.0.into())).ok()?;
        Some(sector_at(pairs[index].1.into()))
    }

    /// Takes new tables in, each with its second copy.
    pub(crate) fn extend(&self, added: impl Iterator<Item = (u32, u32)>) {
        let mut pairs = self.lock();
        pairs.extend(added);
        pairs.sort_unstable();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u32, u32)>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All entries of a directory, as they are in the file.
pub(crate) fn directory(sparse: &Sparse, store: &dyn Storage, at: HostOffset) -> Result<Vec<u32>> {
    let len = sparse.geometry().tables() * ENTRY;
    limit("size of a grain directory to be written, in bytes", len, limits::WRITABLE_DIRECTORY)?;
    entries(store, at, len)
}

/// The entries of a table of `len` bytes.
fn entries(store: &dyn Storage, at: HostOffset, len: u64) -> Result<Vec<u32>> {
    let mut bytes = vec![0; usize::try_from(len).expect("limited by the caller")];
    store.read_padded_at(at, &mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect())
}

/// No two pieces of metadata share a byte, and all lie in the file: where they are, rising.
fn check_places(
    sparse: &Sparse,
    reserved: &[(HostOffset, u64)],
    primary: &[u32],
    second: Option<&[u32]>,
) -> Result<Vec<(HostOffset, u64)>> {
    let directory_len = sparse.geometry().tables() * ENTRY;
    let table_len = u64::from(sparse.geometry().entries()) * ENTRY;
    let mut pieces =
        vec![(HostOffset::ZERO, sparse.header_len), (sparse.directory(), directory_len)];
    pieces.extend_from_slice(reserved);
    pieces.extend(sparse.redundant().map(|at| (at, directory_len)));
    let tables = primary.iter().chain(second.unwrap_or_default()).filter(|sector| **sector != 0);
    pieces.extend(tables.map(|sector| (sector_at((*sector).into()), table_len)));
    pieces.sort_unstable();
    let mut end = HostOffset::ZERO;
    for (at, len) in &pieces {
        if *at < end {
            return Err(Error::needs_repair(
                NAME,
                format!("metadata at {at} lies on other metadata"),
            ));
        }
        end = at.saturating_add(*len);
    }
    if end > sparse.end() {
        let file = sparse.end();
        return Err(Error::needs_repair(
            NAME,
            format!("metadata reaches to {end}, and the file to {file}"),
        ));
    }
    Ok(pieces)
}

/// Whether `len` bytes at `at` have none in common with the pieces.
fn is_apart(pieces: &[(HostOffset, u64)], at: HostOffset, len: u64) -> bool {
    let end = at.saturating_add(len);
    let before = pieces.partition_point(|(piece, _)| *piece < end);
    before == 0 || pieces[before - 1].0.saturating_add(pieces[before - 1].1) <= at
}

/// Every grain that a table names lies in the file, where a grain behind its end would be handed out
/// again, and apart from the metadata and from all others.
fn check_grains(
    sparse: &Sparse,
    store: &dyn Storage,
    tables: &[u32],
    metadata: &[(HostOffset, u64)],
) -> Result<()> {
    let each = u64::from(sparse.geometry().entries());
    let grains = sparse.geometry().capacity().div_ceil(sparse.geometry().grain());
    let mut owners = Owners::new(sparse.grain_sectors());
    let mut number = 0;
    while let Some((_, rest)) = tables.split_at_checked(number).filter(|(_, rest)| !rest.is_empty())
    {
        let row = in_a_row(sparse, rest);
        if rest[0] != 0 {
            let at = sector_at(rest[0].into());
            let entries = entries(store, at, row as u64 * each * ENTRY)?;
            // Entries behind the end of the disk mean nothing.
            let first = number as u64 * each;
            let left = usize::try_from(grains.saturating_sub(first)).unwrap_or(usize::MAX);
            for (entry, place) in entries.into_iter().take(left).zip(0_u64..) {
                let at = at.saturating_add(place * ENTRY);
                let from_start = (first + place).saturating_mul(sparse.geometry().grain());
                check_grain(sparse, entry, (at, from_start), metadata, &mut owners)?;
            }
        }
        number += row;
    }
    Ok(())
}

/// What the second tables name where the first ones say nothing would be lost with the next write: a
/// crash left it between the two, or the first table was damaged. It is taken, as it is read, unless
/// a grain of the first tables has that place.
fn take_second(
    sparse: &Sparse,
    store: &dyn Storage,
    (first, second): (&[u32], &[u32]),
    metadata: &[(HostOffset, u64)],
) -> Result<()> {
    let mut found = Vec::new();
    let mut number = 0;
    while let (Some(one), Some(other)) = (first.get(number..), second.get(number..))
        && let (Some(at), Some(copy)) = (one.first(), other.first())
    {
        let row = in_a_row(sparse, one).min(in_a_row(sparse, other));
        found.extend(only_second(sparse, store, number, (*at, *copy), row)?);
        if found.len() > MOST_TAKEN {
            return Err(Error::needs_repair(
                NAME,
                "the first grain tables lack what the second ones name",
            ));
        }
        number += row;
    }
    if found.is_empty() {
        return Ok(());
    }
    found.sort_unstable();
    drop_named(sparse, store, first, &mut found)?;
    let mut owners = Owners::new(sparse.grain_sectors());
    for Found { sector, at, from_start } in &found {
        check_grain(sparse, *sector, (*at, *from_start), metadata, &mut owners)?;
    }
    for Found { sector, at, .. } in found {
        store.write_at(at, &sector.to_le_bytes())?;
    }
    Ok(store.flush()?)
}

/// What a second table names where the first says nothing.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// Where the grain is in the file.
    sector: u32,
    /// Where the first table's entry is.
    at: HostOffset,
    /// Where the grain is on the disk, from the start of the extent.
    from_start: u64,
}

/// Entries that are taken from second tables when an image is opened: more are left to a repair.
const MOST_TAKEN: usize = 1 << 20;

/// Leaves out of what was found, which is sorted, what shares a sector with a grain that the first tables
/// name.
fn drop_named(
    sparse: &Sparse,
    store: &dyn Storage,
    tables: &[u32],
    found: &mut Vec<Found>,
) -> Result<()> {
    let grain = u32::try_from(sparse.grain_sectors()).unwrap_or(u32::MAX);
    let mut named = vec![false; found.len()];
    let len = u64::from(sparse.geometry().entries()) * ENTRY;
    for table in tables {
        for entry in entries(store, sector_at((*table).into()), len)? {
            if let Grain::Sector(_) = sparse.decode(entry.into()) {
                let first = found.partition_point(|it| it.sector.saturating_add(grain) <= entry);
                let end = found.partition_point(|it| it.sector < entry.saturating_add(grain));
                named.get_mut(first..end).into_iter().flatten().for_each(|named| *named = true);
            }
        }
    }
    let mut named = named.into_iter();
    found.retain(|_| !named.next().unwrap_or(true));
    Ok(())
}

/// Of `row` tables from number `number` on, the entries of the first ones that are 0 where the second
/// ones name a grain.
fn only_second(
    sparse: &Sparse,
    store: &dyn Storage,
    number: usize,
    (first, second): (u32, u32),
    row: usize,
) -> Result<Vec<Found>> {
    let each = u64::from(sparse.geometry().entries());
    let len = row as u64 * each * ENTRY;
    let (first, second) = (sector_at(first.into()), sector_at(second.into()));
    let copies = entries(store, second, len)?;
    if copies.iter().all(|entry| *entry == 0) {
        return Ok(Vec::new());
    }
    let before = number as u64 * each;
    let grain = sparse.geometry().grain();
    let left = sparse.geometry().capacity().div_ceil(grain).saturating_sub(before);
    let pairs = entries(store, first, len)?.into_iter().zip(copies);
    let pairs = pairs.take(usize::try_from(left).unwrap_or(usize::MAX)).zip(0_u64..);
    let names = |entry: u32| match sparse.decode(entry.into()) {
        Grain::Sector(at) => sparse.grain_place(at, 1).is_some(),
        _ => false,
    };
    let lost = pairs.filter(|((entry, copy), _)| *entry == 0 && names(*copy));
    let found = lost.map(|((_, sector), place)| Found {
        sector,
        at: first.saturating_add(place * ENTRY),
        from_start: (before + place).saturating_mul(grain),
    });
    Ok(found.collect())
}

/// Checks what the entry at `at` names, of the grain `from_start` bytes into the extent.
fn check_grain(
    sparse: &Sparse,
    entry: u32,
    (at, from_start): (HostOffset, u64),
    metadata: &[(HostOffset, u64)],
    owners: &mut Owners,
) -> Result<()> {
    let Grain::Sector(sector) = sparse.decode(entry.into()) else { return Ok(()) };
    let checked = sparse.grain_at(sector, 1, at);
    let place = checked.map_err(|error| Error::needs_repair(NAME, error.to_string()))?;
    if place.saturating_add(sparse.grain_len(from_start)) > sparse.end() {
        let end = sparse.end();
        return Err(Error::needs_repair(
            NAME,
            format!("the file ends in the grain at {place}, at {end}"),
        ));
    }
    if !is_apart(metadata, place, sparse.geometry().grain()) {
        return Err(Error::needs_repair(NAME, format!("the grain at {place} lies on metadata")));
    }
    match owners.insert(sector) {
        true => Ok(()),
        false => {
            Err(Error::needs_repair(NAME, format!("another entry names the grain at {place} too")))
        }
    }
}

/// How many of the tables follow each other in the file, so that they can be read at once.
fn in_a_row(sparse: &Sparse, tables: &[u32]) -> usize {
    let table_len = u64::from(sparse.geometry().entries()) * ENTRY;
    if tables.first() == Some(&0) {
        return 1;
    }
    let pairs = tables.iter().zip(tables.iter().skip(1)).take(TABLES_AT_ONCE - 1);
    let follows = |(a, b): &(&u32, &u32)| {
        sector_at((**a).into()).saturating_add(table_len) == sector_at((**b).into())
    };
    1 + pairs.take_while(follows).count()
}
