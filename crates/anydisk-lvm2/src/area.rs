//! Metadata areas: the text of a volume group out of a ring buffer.

use anydisk_core::{HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value};
use zerocopy::FromBytes;

use crate::layout::{AREA_IGNORED, AREA_MAGIC, AreaHeader, RawLocation, SECTOR, SECTOR_LEN};
use crate::{NAME, checksum, limits};

/// Where a text is on its device, in one piece or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Position of the area.
    area: HostOffset,
    /// Bytes of the area.
    size: u64,
    /// From the start of the area to the text.
    offset: u64,
    /// Bytes of text, with the final NUL.
    pub(crate) len: u64,
    pub(crate) checksum: u32,
}

/// Where the current text of the metadata area at `at` is; `None` if the area holds none (the physical
/// volume belongs to no group, or the area is switched off).
///
/// # Errors
/// [`Invalid`] for a header that breaks a rule, [`Error::Limit`](anydisk_core::Error::Limit) for a text
/// that is too long.
pub(crate) fn place_of_text(
    store: &dyn Storage,
    at: HostOffset,
    size: u64,
    limits: &Limits,
) -> Result<Option<Place>> {
    let mut header = [0; SECTOR_LEN];
    store.read_exact_at(at, &mut header)?;
    let Some(place) = parse(&header, at, size, store.len()?)? else { return Ok(None) };
    limits::check("size of a volume group's text in bytes", place.len, limits::text(limits))?;
    Ok(Some(place))
}

impl Place {
    /// The text.
    ///
    /// # Errors
    /// [`Invalid`] for one whose checksum is wrong.
    pub(crate) fn read(&self, store: &dyn Storage) -> Result<Vec<u8>> {
        let mut text = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        // The ring begins behind the header: what passes the end of the area goes on there.
        let until_end = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
        let until_end = until_end.min(text.len());
        let (head, tail) = text.split_at_mut(until_end);
        store.read_exact_at(self.area.saturating_add(self.offset), head)?;
        store.read_exact_at(self.area.saturating_add(SECTOR), tail)?;
        if checksum::lvm(&text) != self.checksum || text.last() != Some(&0) {
            let found = Value::Hex(checksum::lvm(&text).into());
            let expected = format!("{:#x}, and a final NUL", self.checksum);
            return Err(invalid("checksum of the text", self.area, found, expected).into());
        }
        Ok(text)
    }
}

/// The place of the committed text. Pure.
fn parse(header: &[u8], at: HostOffset, size: u64, device: u64) -> Result<Option<Place>> {
    let (area, list) = AreaHeader::read_from_prefix(header)
        .map_err(|_| invalid("metadata area", at, Value::Missing, "a header of 512 bytes"))?;
    let crc = checksum::lvm(header.get(4..).unwrap_or_default());
    if area.magic != AREA_MAGIC {
        let expected = "\" LVM2 x[5A%r0N*>\"";
        return Err(invalid("magic", at, Value::from(&area.magic[..]), expected).into());
    }
    if area.checksum.get() != crc {
        let found = Value::Hex(area.checksum.get().into());
        return Err(invalid("checksum", at, found, format!("{crc:#x}")).into());
    }
    check_area(&area, at, size, device)?;
    // The first entry is the committed text; a second one is an update that was under way.
    let Ok((raw, _)) = RawLocation::read_from_prefix(list) else { return Ok(None) };
    let unused = raw.offset.get() == 0 || raw.size.get() == 0;
    if unused || raw.flags.get() & AREA_IGNORED != 0 {
        return Ok(None);
    }
    let (size, offset, len) = (area.size.get(), raw.offset.get(), raw.size.get());
    if !(SECTOR..size).contains(&offset) || len > size - SECTOR {
        let found = Value::Text(format!("{len} bytes at {offset:#x}").into_bytes());
        return Err(invalid("place of the text", at, found, "inside the ring of the area").into());
    }
    Ok(Some(Place { area: at, size, offset, len, checksum: raw.checksum.get() }))
}

fn check_area(area: &AreaHeader, at: HostOffset, size: u64, device: u64) -> Result<()> {
    if area.version.get() != 1 {
        return Err(invalid("version", at, area.version.get().into(), "1").into());
    }
    if area.start.get() != at.get() {
        let found = Value::Hex(area.start.get());
        return Err(invalid("start of the metadata area", at, found, format!("{at}")).into());
    }
    let len = area.size.get();
    let end = at.checked_add(len).filter(|end| end.get() <= device && len > SECTOR);
    if end.is_none() || (size != 0 && len != size) {
        let expected = format!("the {size} bytes of the label, inside the device of {device}");
        return Err(invalid("size of the metadata area", at, len.into(), expected).into());
    }
    Ok(())
}

fn invalid(
    field: &'static str,
    at: HostOffset,
    found: Value,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Invalid {
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;
    use zerocopy::IntoBytes;

    const AT: u64 = 4096;
    const SIZE: u64 = 8192;

    /// A device with an area whose text of 1000 bytes begins at `offset` in the area.
    fn device(offset: u64, flags: u32) -> (Vec<u8>, Vec<u8>) {
        let mut text = vec![b'x'; 999];
        text.push(0);
        let mut area = vec![0; 8192];
        for (index, &byte) in text.iter().enumerate() {
            let place = usize::try_from(offset).unwrap() + index;
            let place = if place < area.len() { place } else { place - area.len() + 512 };
            area[place] = byte;
        }
        let header = AreaHeader {
            checksum: 0.into(),
            magic: AREA_MAGIC,
            version: 1.into(),
            start: AT.into(),
            size: SIZE.into(),
        };
        let location = RawLocation {
            offset: offset.into(),
            size: 1000.into(),
            checksum: checksum::lvm(&text).into(),
            flags: flags.into(),
        };
        area[..40].copy_from_slice(header.as_bytes());
        area[40..64].copy_from_slice(location.as_bytes());
        seal(&mut area);
        ([vec![0; 4096], area].concat(), text)
    }

    fn seal(area: &mut [u8]) {
        let crc = checksum::lvm(&area[4..512]);
        area[..4].copy_from_slice(&crc.to_le_bytes());
    }

    fn read(device: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let store = MemoryStorage::new(device);
        let place = place_of_text(&store, HostOffset(AT), SIZE, &Limits::default())?;
        place.map(|place| place.read(&store)).transpose()
    }

    #[test]
    fn a_text_that_passes_the_end_of_the_ring_goes_on_behind_the_header() {
        for offset in [512, 4096, 8192 - 1000, 8192 - 999, 8192 - 512, 8192 - 1] {
            let (device, text) = device(offset, 0);
            assert_eq!(read(device).unwrap().unwrap(), text, "{offset}");
        }
    }

    #[test]
    fn an_area_that_is_switched_off_or_empty_has_no_text() {
        assert_eq!(read(device(512, 1).0).unwrap(), None);
        let (mut device, _) = device(512, 0);
        device[4096 + 40..4096 + 64].fill(0);
        seal(&mut device[4096..]);
        assert_eq!(read(device).unwrap(), None);
    }

    #[test]
    fn each_broken_field_is_named() {
        for (at, byte, field) in [
            (10, 1, "magic"),
            (0, 1, "checksum at"),
            (24, 9, "start of the metadata area"),
            (33, 0xFF, "size of the metadata area"),
            (42, 1, "place of the text"),
            (56, 1, "checksum of the text"),
            (20, 2, "version"),
        ] {
            let (mut device, _) = device(512, 0);
            device[4096 + at] ^= byte;
            if at > 0 {
                seal(&mut device[4096..]);
            }
            let error = read(device).unwrap_err().to_string();
            assert!(error.starts_with(&format!("lvm2: {field}")), "{error}");
        }
    }
}
