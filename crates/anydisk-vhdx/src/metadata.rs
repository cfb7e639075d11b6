//! Bytes of the metadata region to what the disk is. Pure.

use std::collections::BTreeMap;

use anydisk_core::{HostOffset, Id, Reference, Result, Role, Uuid, Value};
use zerocopy::FromBytes;

use crate::NAME;
use crate::header::{Place, invalid, limit, unsupported};
use crate::layout::{
    HAS_PARENT, IS_REQUIRED, IS_USER, LEAVE_BLOCKS, METADATA_SIGNATURE, MIB, MOST_ENTRIES, RawItem,
    RawKeyValue, RawLocator, RawMetadataTable, TABLE_LEN, guid,
};
use crate::limits;

/// What the metadata says. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// A power of two.
    pub(crate) block: u64,
    /// Blocks stay where they are once they are there: a fixed disk.
    pub(crate) is_fixed: bool,
    pub(crate) has_parent: bool,
    pub(crate) size: u64,
    /// What a bit of a bitmap stands for: 512 or 4096.
    pub(crate) sector: u64,
    /// Of the medium that the disk stands for.
    pub(crate) physical_sector: u64,
}

/// Where the items that we read are, by their GUIDs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Items {
    known: BTreeMap<[u8; 16], Place>,
    /// All that have a place, those we do not know too.
    pub(crate) all: Vec<Place>,
    /// Entries of the table.
    pub(crate) count: usize,
}

impl Items {
    /// Looks through the table at the start of the region.
    ///
    /// # Errors
    /// [`Error::Invalid`](anydisk_core::Error::Invalid), `Unsupported` for an item that must be
    /// known.
    pub(crate) fn parse(bytes: &[u8], region: Place) -> Result<Self> {
        let at = region.at;
        let Ok((raw, rest)) = RawMetadataTable::read_from_prefix(bytes) else {
            return Err(invalid("metadata table", at, Value::Missing, "64 KiB"));
        };
        if raw.Signature != METADATA_SIGNATURE {
            let found = Value::from(&raw.Signature[..]);
            return Err(invalid("Signature", at, found, "\"metadata\""));
        }
        let count = usize::from(raw.EntryCount.get());
        if count > MOST_ENTRIES {
            let found = Value::Number(count as u64);
            return Err(invalid("EntryCount", at.saturating_add(10), found, "2047 at most"));
        }
        let mut items = Self { count, ..Self::default() };
        let mut seen = std::collections::BTreeSet::new();
        let entries = rest.chunks_exact(size_of::<RawItem>()).take(count);
        for (entry, number) in entries.zip(1_u64..) {
            let at = at.saturating_add(number * size_of::<RawItem>() as u64);
            let Ok(item) = RawItem::read_from_bytes(entry) else { continue };
            let is_user = item.Flags.get() & IS_USER == IS_USER;
            if !seen.insert((item.ItemId, is_user)) {
                let found = Value::from(&item.ItemId[..]);
                return Err(invalid("ItemId", at, found, "each item once"));
            }
            let place = place_of(&item, region, at)?;
            items.all.extend(Some(place).filter(|place| place.len > 0));
            match is_known(&item.ItemId) && !is_user {
                true => drop(items.known.insert(item.ItemId, place)),
                false if item.Flags.get() & IS_REQUIRED == 0 => {}
                false => {
                    let id = Uuid::from_mixed_endian(item.ItemId);
                    return Err(unsupported(format!("the required metadata item {id}")));
                }
            }
        }
        Ok(items)
    }

    /// Where the parent locator is, if there is one.
    pub(crate) fn parent_locator(&self) -> Option<Place> {
        self.known.get(&guid::PARENT_LOCATOR).copied()
    }

    /// Where the size of the medium's sectors is.
    pub(crate) fn physical_sector(&self) -> Option<Place> {
        self.known.get(&guid::PHYSICAL_SECTOR).copied()
    }

    /// What the items say; `read` gives the bytes at a place.
    ///
    /// # Errors
    /// Those of reading; `Invalid` for what is missing or not as it must be, `Limit`.
    pub(crate) fn read(&self, read: impl Fn(Place) -> Result<Vec<u8>>) -> Result<Metadata> {
        let number = |guid, field, len: usize| -> Result<(u64, HostOffset)> {
            let Some(place) = self.known.get(&guid).copied() else {
                return Err(invalid(field, HostOffset::ZERO, Value::Missing, "an item"));
            };
            if place.len != len as u64 {
                let expected = format!("{len} bytes");
                return Err(invalid(field, place.at, place.len.into(), expected));
            }
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(read(place)?).for_each(|(to, from)| *to = from);
            Ok((u64::from_le_bytes(bytes), place.at))
        };
        let (parameters, at) = number(guid::FILE_PARAMETERS, "file parameters", 8)?;
        let block = parameters & u64::from(u32::MAX);
        if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) {
            let expected = "a power of two from 1 MiB to 256 MiB";
            return Err(invalid("BlockSize", at, block.into(), expected));
        }
        let (sector, at) = number(guid::LOGICAL_SECTOR, "logical sector size", 4)?;
        if !matches!(sector, 512 | 4096) {
            return Err(invalid("LogicalSectorSize", at, sector.into(), "512 or 4096"));
        }
        let (physical_sector, _) = number(guid::PHYSICAL_SECTOR, "physical sector size", 4)?;
        number(guid::DISK_ID, "virtual disk id", 16)?;
        let (size, at) = number(guid::DISK_SIZE, "virtual disk size", 8)?;
        limit("size of the disk in bytes", size, limits::DISK)?;
        if !size.is_multiple_of(sector) {
            let expected = format!("a multiple of {sector}");
            return Err(invalid("VirtualDiskSize", at, size.into(), expected));
        }
        let bit = |bit: u32| (parameters >> 32) & u64::from(bit) != 0;
        let (is_fixed, has_parent) = (bit(LEAVE_BLOCKS), bit(HAS_PARENT));
        Ok(Metadata { block, is_fixed, has_parent, size, sector, physical_sector })
    }
}

fn is_known(guid: &[u8; 16]) -> bool {
    [
        guid::FILE_PARAMETERS,
        guid::DISK_SIZE,
        guid::DISK_ID,
        guid::LOGICAL_SECTOR,
        guid::PHYSICAL_SECTOR,
        guid::PARENT_LOCATOR,
    ]
    .contains(guid)
}

fn place_of(item: &RawItem, region: Place, entry: HostOffset) -> Result<Place> {
    let (offset, len) = (u64::from(item.Offset.get()), u64::from(item.Length.get()));
    if len == 0 {
        return Ok(Place { at: region.at, len });
    }
    if offset < TABLE_LEN as u64 || len > MIB || offset + len > region.len {
        let expected = "a place of the item in its region, behind the table";
        return Err(invalid("Offset", entry.saturating_add(16), Value::Hex(offset), expected));
    }
    Ok(Place { at: region.at.saturating_add(offset), len })
}

/// The image below, by the bytes of a parent locator at `at`.
///
/// # Errors
/// `Invalid` for keys or values that are not in it, `Unsupported` for a locator of another type.
pub(crate) fn backing(bytes: &[u8], at: HostOffset) -> Result<Reference> {
    let Ok((raw, rest)) = RawLocator::read_from_prefix(bytes) else {
        return Err(invalid("parent locator", at, Value::Missing, "20 bytes"));
    };
    if raw.LocatorType != guid::VHDX_PARENT {
        let id = Uuid::from_mixed_endian(raw.LocatorType);
        return Err(unsupported(format!("the parent locator {id}")));
    }
    let mut values = BTreeMap::new();
    let count = usize::from(raw.KeyValueCount.get());
    let entries = rest.chunks_exact(size_of::<RawKeyValue>()).take(count);
    for entry in entries.filter_map(|entry| RawKeyValue::read_from_bytes(entry).ok()) {
        let text = |offset: u32, len: u16| {
            let start = usize::try_from(offset).ok()?;
            let bytes = bytes.get(start..start.checked_add(usize::from(len))?)?;
            Some(from_utf16(bytes))
        };
        let key = text(entry.KeyOffset.get(), entry.KeyLength.get());
        let value = text(entry.ValueOffset.get(), entry.ValueLength.get());
        let Some((key, value)) = key.zip(value) else {
            let found = Value::Hex(entry.ValueOffset.get().into());
            return Err(invalid("parent locator", at, found, "places inside the item"));
        };
        values.insert(key, value);
    }
    let value = |key: &str| values.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let absolute = || value("absolute_win32_path").or_else(|| value("volume_path"));
    let name = match value("relative_path") {
        Some(path) => relative_path(path),
        None => last_part(absolute().unwrap_or_default()),
    };
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = Some(NAME.to_owned());
    // While a merge goes on either of two contents is right.
    if value("parent_linkage2").is_none() {
        let linkage = value("parent_linkage").and_then(|text| text.parse::<Uuid>().ok());
        reference.content_id = linkage.map(Id::Uuid);
    }
    Ok(reference)
}

fn from_utf16(bytes: &[u8]) -> String {
    let units = bytes.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair));
    let units = units.take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|found| found.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A path of Windows as one of this system.
fn relative_path(text: &str) -> String {
    let path = text.replace('\\', "/");
    let mut rest = path.as_str();
    while let Some(shorter) = rest.strip_prefix("./") {
        rest = shorter;
    }
    rest.to_owned()
}

/// The name of the file that a path ends with.
fn last_part(path: &str) -> String {
    path.rsplit(['\\', '/', ':']).next().unwrap_or_default().to_owned()
}
