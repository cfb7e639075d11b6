//! Bytes to a checked dynamic header, and what it says of a parent. Pure.

use std::mem::offset_of;

use anydisk_core::{HostOffset, Id, Reference, Result, Role, Uuid, Value};
use zerocopy::{FromBytes, IntoBytes};

use crate::footer::{check_version, checksum, limit};
use crate::layout::{DYNAMIC_COOKIE, ENTRY, Locator, RawHeader, SECTOR, code};
use crate::{NAME, limits};

/// Bytes of a dynamic header.
pub(crate) const HEADER_LEN: usize = size_of::<RawHeader>();

/// A dynamic header whose numbers can be trusted. Sizes and places in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// As it stands in the file.
    pub(crate) raw: RawHeader,
    /// The block allocation table.
    pub(crate) table: HostOffset,
    /// Its entries: enough for the disk.
    pub(crate) entries: u64,
    /// Bytes of a block without its bitmap, a power of two.
    pub(crate) block: u64,
}

impl Header {
    /// Checks the header at `at` of a file of `len` bytes, which describes a disk of `size` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] for another version, [`Error::Limit`].
    pub(crate) fn parse(bytes: &[u8], at: HostOffset, size: u64, len: u64) -> Result<Self> {
        let Ok((raw, _)) = RawHeader::read_from_prefix(bytes) else {
            return Err(invalid!(at, RawHeader, cookie, Value::Missing, "\"cxsparse\""));
        };
        if raw.cookie != DYNAMIC_COOKIE {
            return Err(invalid!(at, RawHeader, cookie, &raw.cookie[..], "\"cxsparse\""));
        }
        let sum = checksum(raw.as_bytes(), offset_of!(RawHeader, checksum));
        if raw.checksum.get() != sum {
            let found = Value::Hex(raw.checksum.get().into());
            return Err(invalid!(at, RawHeader, checksum, found, "{sum:#x}"));
        }
        check_version(raw.header_version.get())?;
        let block = u64::from(raw.block_size.get());
        if !block.is_power_of_two() || block < limits::SMALLEST_BLOCK {
            return Err(invalid!(at, RawHeader, block_size, block, "a power of two from 4096 on"));
        }
        limit("size of a block in bytes", block, limits::BLOCK)?;
        let entries = u64::from(raw.max_table_entries.get());
        let needed = size.div_ceil(block);
        if entries < needed {
            return Err(invalid!(
                at,
                RawHeader,
                max_table_entries,
                entries,
                "{needed} or more, for a disk of {size} bytes"
            ));
        }
        let table = HostOffset(raw.table_offset.get());
        let end = table.checked_add(entries * ENTRY).filter(|end| end.get() <= len);
        if end.is_none() {
            return Err(invalid!(
                at,
                RawHeader,
                table_offset,
                table,
                "a place for {entries} entries before the end of the file, {len:#x}"
            ));
        }
        if table.get() < SECTOR {
            return Err(invalid!(
                at,
                RawHeader,
                table_offset,
                table,
                "a place behind the footer's copy"
            ));
        }
        Ok(Self { raw, table, entries, block })
    }

    /// The parent's number.
    pub(crate) fn parent_uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.parent_unique_id)
    }

    /// The locators that are in use and that we read, with the text's place and length.
    ///
    /// # Errors
    /// [`Error::Limit`] for a text that is too long, [`Error::Invalid`] for one that is not in the
    /// file.
    pub(crate) fn locators(&self, at: HostOffset, len: u64) -> Result<Vec<LocatorAt>> {
        let mut found = Vec::new();
        let first = at.saturating_add(offset_of!(RawHeader, parent_locators) as u64);
        for (raw, index) in self.raw.parent_locators.iter().zip(0_u64..) {
            if !matches!(raw.code, code::RELATIVE | code::ABSOLUTE) {
                continue;
            }
            let at = first.saturating_add(index * size_of::<Locator>() as u64);
            let length = u64::from(raw.data_length.get());
            limit("length of a parent locator in bytes", length, limits::LOCATOR)?;
            let place = HostOffset(raw.data_offset.get());
            if place.checked_add(length).is_none_or(|end| end.get() > len) {
                return Err(invalid!(
                    at,
                    Locator,
                    data_offset,
                    place,
                    "a place for {length} bytes before the end of the file, {len:#x}"
                ));
            }
            found.push(LocatorAt { code: raw.code, place, length });
        }
        Ok(found)
    }

    /// The image below: the name that the locators' texts, or else the header's own, give it.
    pub(crate) fn backing(&self, texts: &[(LocatorAt, Vec<u8>)]) -> Reference {
        let text = |code| {
            let (_, bytes) = texts.iter().find(|(locator, _)| locator.code == code)?;
            Some(from_utf16(bytes, u16::from_le_bytes)).filter(|text| !text.is_empty())
        };
        let own = from_utf16(&self.raw.parent_unicode_name, u16::from_be_bytes);
        let name = match (text(code::RELATIVE), text(code::ABSOLUTE)) {
            (Some(relative), _) => relative_path(&relative),
            // A path of this system, as we write it.
            (None, Some(absolute)) if absolute.starts_with('/') => absolute,
            (None, absolute) => {
                last_part(if own.is_empty() { absolute.as_deref() } else { Some(&own) })
            }
        };
        let mut reference = Reference::new(Role::Backing, name);
        reference.format = Some(NAME.to_owned());
        reference.id = Some(self.parent_uuid()).filter(|uuid| !uuid.is_nil()).map(Id::Uuid);
        reference
    }
}

/// Where a locator's text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocatorAt {
    code: [u8; 4],
    pub(crate) place: HostOffset,
    /// Bytes of it.
    pub(crate) length: u64,
}

/// Bytes of the bitmap of a block of `block` bytes.
pub(crate) fn bitmap_len(block: u64) -> u64 {
    block.div_ceil(SECTOR * 8).next_multiple_of(SECTOR)
}

/// Text up to its first NUL.
fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks().0.iter().map(|pair| unit(*pair)).take_while(|unit| *unit != 0);
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

/// The name of the file that a path ends with: what is left of a path that this system does not
/// know.
fn last_part(path: Option<&str>) -> String {
    let last = path.and_then(|path| path.rsplit(['\\', '/', ':']).next());
    last.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::layout::VERSION;

    fn header(change: impl FnOnce(&mut RawHeader)) -> RawHeader {
        let mut raw = RawHeader::new_zeroed();
        raw.cookie = DYNAMIC_COOKIE;
        raw.header_version = VERSION.into();
        raw.table_offset = 0x600.into();
        raw.max_table_entries = 5.into();
        raw.block_size = (2 << 20).into();
        change(&mut raw);
        raw.checksum = checksum(raw.as_bytes(), offset_of!(RawHeader, checksum)).into();
        raw
    }

    fn parsed(raw: &RawHeader) -> Result<Header> {
        Header::parse(raw.as_bytes(), HostOffset(0x200), 10 << 20, 0x1000)
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_value() {
        let told = |change: fn(&mut RawHeader)| parsed(&header(change)).unwrap_err().to_string();
        assert_eq!(
            told(|raw| raw.cookie[0] = b'C'),
            "vpc: cookie at 0x200 is \"Cxsparse\", expected \"cxsparse\""
        );
        assert_eq!(
            told(|raw| raw.block_size = 0.into()),
            "vpc: block_size at 0x220 is 0, expected a power of two from 4096 on"
        );
        assert_eq!(
            told(|raw| raw.max_table_entries = 4.into()),
            "vpc: max_table_entries at 0x21c is 4, expected 5 or more, for a disk of 10485760 bytes"
        );
        assert_eq!(
            told(|raw| raw.table_offset = u64::MAX.into()),
            "vpc: table_offset at 0x210 is 0xffffffffffffffff, expected a place for 5 entries \
             before the end of the file, 0x1000"
        );
        assert_eq!(
            told(|raw| raw.block_size = (1 << 30).into()),
            "vpc: size of a block in bytes is 1073741824, more than the limit of 268435456"
        );
        let mut raw = header(|_| ());
        raw.reserved = 1.into();
        assert!(parsed(&raw).unwrap_err().to_string().starts_with("vpc: checksum at 0x224 is 0x"));
    }

    #[test]
    fn a_bitmap_has_a_bit_for_each_sector_and_ends_with_a_whole_one() {
        let lens = [4096, 512 << 10, 2 << 20, 4 << 20].map(bitmap_len);
        assert_eq!(lens, [512, 512, 512, 1024]);
    }

    fn name(texts: &[([u8; 4], &str)], own: &str) -> String {
        let utf16 = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        let raw = header(|raw| {
            let bytes = utf16(own).into_iter().flat_map(u16::to_be_bytes);
            raw.parent_unicode_name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        });
        let texts: Vec<_> = texts
            .iter()
            .map(|(code, text)| {
                let bytes: Vec<u8> = utf16(text).into_iter().flat_map(u16::to_le_bytes).collect();
                let at = LocatorAt { code: *code, place: HostOffset::ZERO, length: 0 };
                (at, bytes)
            })
            .collect();
        parsed(&raw).expect("a good header").backing(&texts).display_name()
    }

    #[test]
    fn a_parent_is_named_by_its_relative_path_else_by_the_last_part_of_what_there_is() {
        let (relative, absolute) = (code::RELATIVE, code::ABSOLUTE);
        let both = [(absolute, "C:\\disks\\a.vhd"), (relative, ".\\b.vhd")];
        assert_eq!(name(&both, "c.vhd"), "b.vhd");
        assert_eq!(name(&[(relative, "..\\up\\b.vhd")], ""), "../up/b.vhd");
        assert_eq!(name(&both[..1], ""), "a.vhd");
        assert_eq!(name(&both[..1], "D:\\c.vhd"), "c.vhd");
        assert_eq!(name(&[(absolute, "\\\\host\\share\\a.vhd")], ""), "a.vhd");
        assert_eq!(name(&[(absolute, "/disks/a.vhd")], "c.vhd"), "/disks/a.vhd");
    }
}
