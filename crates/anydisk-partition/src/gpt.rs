//! GPT: two copies of a header and its entries, each under checksums.

use anydisk_core::{
    Error, HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value, check_limit,
};
use zerocopy::FromBytes;

use crate::layout::{GPT_MAGIC, GptEntry, GptHeader};
use crate::{NAME, Partition, kinds};

/// Bytes of a sector that disks have.
pub(crate) const SECTORS: [u64; 2] = [512, 4096];

/// A table that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) partitions: Vec<Partition>,
    /// What is wrong with the copy that was not used.
    pub(crate) problem: Option<String>,
}

/// One copy of the table.
struct Copy {
    partitions: Vec<Partition>,
    /// The sector that it says the header of the other copy is in.
    other: u64,
}

/// The table of a disk: the first copy, or the one at the end where the first is broken. `None` if
/// neither place has a header.
///
/// # Errors
/// What is wrong with the first copy, if both are broken; [`Error::Limit`].
pub(crate) fn read(disk: &dyn Storage, limits: &Limits) -> Result<Option<Table>> {
    let mut problem = None;
    for sector in SECTORS {
        match copy(disk, sector, 1, limits) {
            Ok(None) => {}
            Ok(Some(first)) => return Ok(Some(with_other(disk, sector, first, limits))),
            Err(error) => problem = Some(only_broken(error)?),
        }
    }
    let len = disk.len()?;
    for sector in SECTORS {
        let Some(last) = (len / sector).checked_sub(1) else { continue };
        match copy(disk, sector, last, limits) {
            Ok(None) => {}
            Ok(Some(Copy { partitions, .. })) => {
                let why = problem.map_or("it is not there".to_owned(), |e| e.to_string());
                let problem = Some(format!("the table at the start was not used: {why}"));
                return Ok(Some(Table { partitions, problem }));
            }
            Err(error) => problem = Some(problem.unwrap_or(only_broken(error)?)),
        }
    }
    problem.map_or(Ok(None), Err)
}

/// The table of the first copy, after a look at the other one.
fn with_other(disk: &dyn Storage, sector: u64, first: Copy, limits: &Limits) -> Table {
    let inside = first.other.checked_mul(sector).is_some();
    let other = if inside { copy(disk, sector, first.other, limits) } else { Ok(None) };
    let problem = match other {
        Ok(Some(_)) if first.other == 1 => Some("it is the first itself".to_owned()),
        Ok(Some(other)) if other.partitions == first.partitions => None,
        Ok(Some(_)) => Some("it differs".to_owned()),
        Ok(None) => Some("it is not where the first says".to_owned()),
        // Also where the medium fails: the first copy is good.
        Err(error) => Some(error.to_string()),
    };
    let problem = problem.map(|why| format!("the copy of the table is not good: {why}"));
    Table { partitions: first.partitions, problem }
}

/// An error that another copy may help against.
fn only_broken(error: Error) -> Result<Error> {
    match error {
        Error::Storage(error) => Err(error.into()),
        other => Ok(other),
    }
}

/// The copy whose header is in sector `number`; `None` if none is there.
fn copy(disk: &dyn Storage, sector: u64, number: u64, limits: &Limits) -> Result<Option<Copy>> {
    let at = HostOffset(number * sector);
    let mut bytes = vec![0; usize::try_from(sector).unwrap_or(4096)];
    disk.read_padded_at(at, &mut bytes)?;
    let Ok((header, _)) = GptHeader::read_from_prefix(&bytes) else { return Ok(None) };
    if header.magic != GPT_MAGIC {
        return Ok(None);
    }
    check_header(&header, &bytes, at, number)?;
    let entries = read_entries(disk, &header, at, sector, limits)?;
    let size = usize::try_from(header.entry_size.get()).unwrap_or(usize::MAX);
    let entries = entries.chunks_exact(size);
    let read = (1..).zip(entries).filter_map(|(number, bytes)| {
        let (entry, _) = GptEntry::read_from_prefix(bytes).ok()?;
        partition(number, &entry, sector)
    });
    let partitions = read.collect();
    Ok(Some(Copy { partitions, other: header.alternate_lba.get() }))
}

fn check_header(header: &GptHeader, bytes: &[u8], at: HostOffset, number: u64) -> Result<()> {
    let size = usize::try_from(header.header_size.get()).unwrap_or(usize::MAX);
    let Some(covered) = bytes.get(..size).filter(|_| size >= size_of::<GptHeader>()) else {
        let found = header.header_size.get();
        return Err(invalid("header_size", at, found.into(), "92 up to a sector").into());
    };
    let mut covered = covered.to_vec();
    covered[16..20].fill(0);
    let crc = crc32fast::hash(&covered);
    if header.header_crc.get() != crc {
        let found = Value::Hex(header.header_crc.get().into());
        return Err(invalid("header_crc", at, found, format!("{crc:#x}")).into());
    }
    if header.my_lba.get() != number {
        return Err(invalid("my_lba", at, header.my_lba.get().into(), number.to_string()).into());
    }
    let size = header.entry_size.get();
    if size < 128 || !size.is_power_of_two() {
        let expected = "a power of two of at least 128";
        return Err(invalid("entry_size", at, size.into(), expected).into());
    }
    Ok(())
}

fn read_entries(
    disk: &dyn Storage,
    header: &GptHeader,
    at: HostOffset,
    sector: u64,
    limits: &Limits,
) -> Result<Vec<u8>> {
    let found = u64::from(header.entry_count.get()) * u64::from(header.entry_size.get());
    let what = "size of the partition entries in bytes";
    check_limit(NAME, what, found, limits.descriptor as u64)?;
    let start = header.entries_lba.get();
    let place = start.checked_mul(sector).and_then(|place| place.checked_add(found).map(|_| place));
    let mut entries = vec![0; usize::try_from(found).unwrap_or(0)];
    let count = match place {
        Some(place) => disk.read_at(HostOffset(place), &mut entries)?,
        None => 0,
    };
    if place.is_none() || count < entries.len() {
        return Err(invalid("entries_lba", at, start.into(), "entries inside the disk").into());
    }
    let crc = crc32fast::hash(&entries);
    if header.entries_crc.get() != crc {
        let found = Value::Hex(header.entries_crc.get().into());
        return Err(invalid("entries_crc", at, found, format!("{crc:#x}")).into());
    }
    Ok(entries)
}

/// The partition of an entry; `None` for one that is not in use.
fn partition(number: u32, entry: &GptEntry, sector: u64) -> Option<Partition> {
    if entry.type_guid == [0; 16] {
        return None;
    }
    let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
    let count = last.checked_sub(first).and_then(|count| count.checked_add(1));
    let start = first.checked_mul(sector);
    let len = count.and_then(|count| count.checked_mul(sector));
    let place = start.zip(len);
    // The others are as good as if it were not there.
    let problem = place.is_none().then(|| format!("its sectors are {first} to {last}"));
    let (start, len) = place.unwrap_or_default();
    let units: Vec<u16> =
        entry.name.iter().map(|unit| unit.get()).take_while(|u| *u != 0).collect();
    let name = String::from_utf16_lossy(&units);
    Some(Partition {
        number,
        start,
        len,
        kind: kinds::of_gpt(&entry.type_guid),
        name: (!name.is_empty()).then_some(name),
        extended: false,
        problem,
    })
}

fn invalid(
    field: &'static str,
    at: HostOffset,
    found: Value,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Invalid {
    let field = format!("GPT {field}").into();
    Invalid { format: NAME, field, at, found, expected: expected.into() }
}
