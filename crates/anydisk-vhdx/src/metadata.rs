//! Bytes of the metadata region to what the disk is. Pure.

use std::collections::BTreeMap;

use anydisk_core::{HostOffset, Result, Uuid, Value};
use zerocopy::FromBytes;

use crate::header::{Place, invalid, limit, unsupported};
use crate::layout::{
    HAS_PARENT, IS_REQUIRED, IS_USER, LEAVE_BLOCKS, METADATA_SIGNATURE, MIB, MOST_ENTRIES, RawItem,
    RawMetadataTable, TABLE_LEN, guid,
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
    /// Tells the disk from every other one.
    pub(crate) id: Uuid,
}

/// Where the items that we read are, by their GUIDs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Items {
    /// With the places of their entries.
    known: BTreeMap<[u8; 16], (Place, HostOffset)>,
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
                true => drop(items.known.insert(item.ItemId, (place, at))),
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
        Some(self.known.get(&guid::PARENT_LOCATOR)?.0)
    }

    /// Where the table says where the parent locator is.
    pub(crate) fn parent_entry(&self) -> Option<HostOffset> {
        Some(self.known.get(&guid::PARENT_LOCATOR)?.1)
    }

    /// Where the file parameters are.
    pub(crate) fn parameters(&self) -> Option<Place> {
        Some(self.known.get(&guid::FILE_PARAMETERS)?.0)
    }

    /// Where the size of the disk is.
    pub(crate) fn disk_size(&self) -> Option<Place> {
        Some(self.known.get(&guid::DISK_SIZE)?.0)
    }

    /// Where the size of the medium's sectors is.
    pub(crate) fn physical_sector(&self) -> Option<Place> {
        Some(self.known.get(&guid::PHYSICAL_SECTOR)?.0)
    }

    /// What the items say; `read` gives the bytes at a place.
    ///
    /// # Errors
    /// Those of reading; `Invalid` for what is missing or not as it must be, `Limit`.
    pub(crate) fn read(&self, read: impl Fn(Place) -> Result<Vec<u8>>) -> Result<Metadata> {
        let number = |guid, field, len: usize| -> Result<(u64, HostOffset)> {
            let Some((place, _)) = self.known.get(&guid).copied() else {
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
        let id = self.known.get(&guid::DISK_ID).map(|(place, _)| read(*place)).transpose()?;
        let id = id.and_then(|bytes| bytes.try_into().ok()).map(Uuid::from_mixed_endian);
        let (size, at) = number(guid::DISK_SIZE, "virtual disk size", 8)?;
        limit("size of the disk in bytes", size, limits::DISK)?;
        if !size.is_multiple_of(sector) {
            let expected = format!("a multiple of {sector}");
            return Err(invalid("VirtualDiskSize", at, size.into(), expected));
        }
        let bit = |bit: u32| (parameters >> 32) & u64::from(bit) != 0;
        let (is_fixed, has_parent) = (bit(LEAVE_BLOCKS), bit(HAS_PARENT));
        let id = id.unwrap_or(Uuid::NIL);
        Ok(Metadata { block, is_fixed, has_parent, size, sector, physical_sector, id })
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
