//! What a child says of its parent: keys and values. Pure.

use std::collections::BTreeMap;

use anydisk_core::{HostOffset, Id, Reference, Result, Role, Uuid, Value};
use zerocopy::{FromBytes, IntoBytes};

use crate::NAME;
use crate::header::{invalid, unsupported};
use crate::layout::{RawKeyValue, RawLocator, guid};

mod key {
    pub(super) const LINKAGE: &str = "parent_linkage";
    pub(super) const OTHER_LINKAGE: &str = "parent_linkage2";
    pub(super) const RELATIVE: &str = "relative_path";
    pub(super) const ABSOLUTE: &str = "absolute_win32_path";
    pub(super) const VOLUME: &str = "volume_path";
}

/// The item that names this parent.
///
/// # Errors
/// `Unsupported` for a parent of another format, or a name that cannot be told.
pub(crate) fn locator(reference: &Reference) -> Result<Vec<u8>> {
    if reference.format.as_deref().is_some_and(|format| format != NAME) {
        return Err(unsupported("a parent of another format"));
    }
    let Ok(path) = std::str::from_utf8(&reference.name) else {
        return Err(unsupported("a parent whose name is no text"));
    };
    let is_file = path.rsplit('/').next().is_some_and(|last| !last.is_empty());
    if !is_file || path.contains(['\\', '\0']) || path.encode_utf16().count() > 4096 {
        return Err(unsupported("a parent of this name"));
    }
    let (name, path) = match path.starts_with('/') {
        true => (key::ABSOLUTE, path.to_owned()),
        false => (key::RELATIVE, format!(".\\{}", path.replace('/', "\\"))),
    };
    let linkage = reference.content_id.and_then(Id::uuid);
    let linkage = linkage.map(|uuid| (key::LINKAGE, format!("{{{uuid}}}")));
    Ok(item(&linkage.into_iter().chain([(name, path)]).collect::<Vec<_>>()))
}

/// An item with these keys and values.
fn item(values: &[(&str, String)]) -> Vec<u8> {
    let count = values.len();
    let raw = RawLocator {
        LocatorType: guid::VHDX_PARENT,
        Reserved: 0.into(),
        KeyValueCount: u16::try_from(count).unwrap_or_default().into(),
    };
    let (mut bytes, mut texts) = (raw.as_bytes().to_vec(), Vec::<u8>::new());
    let first = size_of::<RawLocator>() + count * size_of::<RawKeyValue>();
    for (key, value) in values {
        let mut put = |text: &str| {
            let at = u32::try_from(first + texts.len()).unwrap_or(u32::MAX);
            let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            texts.extend(&text);
            (at, u16::try_from(text.len()).unwrap_or(u16::MAX))
        };
        let ((key_at, key_len), (value_at, value_len)) = (put(key), put(value));
        let raw = RawKeyValue {
            KeyOffset: key_at.into(),
            ValueOffset: value_at.into(),
            KeyLength: key_len.into(),
            ValueLength: value_len.into(),
        };
        bytes.extend(raw.as_bytes());
    }
    bytes.extend(texts);
    bytes
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
    let name = match (value(key::RELATIVE), value(key::ABSOLUTE)) {
        (Some(path), _) => relative_path(path),
        // A path of this system, as we write it.
        (None, Some(path)) if path.starts_with('/') => path.to_owned(),
        (None, absolute) => last_part(absolute.or_else(|| value(key::VOLUME)).unwrap_or_default()),
    };
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = Some(NAME.to_owned());
    // While a merge goes on either of two contents is right.
    if value(key::OTHER_LINKAGE).is_none() {
        let linkage = value(key::LINKAGE).and_then(|text| text.parse::<Uuid>().ok());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> Reference {
        let values: Vec<_> =
            values.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        backing(&item(&values), HostOffset::ZERO).expect("it can be read")
    }

    #[test]
    fn a_parent_is_named_by_its_relative_path_else_by_the_last_part_of_what_there_is() {
        let (relative, absolute, volume) = (key::RELATIVE, key::ABSOLUTE, key::VOLUME);
        let name = |values: &[(&str, &str)]| read(values).display_name();
        assert_eq!(name(&[(absolute, "C:\\a.vhdx"), (relative, ".\\b.vhdx")]), "b.vhdx");
        assert_eq!(name(&[(relative, "..\\up\\b.vhdx")]), "../up/b.vhdx");
        assert_eq!(name(&[(volume, "\\\\?\\Volume{1}\\c.vhdx")]), "c.vhdx");
        assert_eq!(name(&[(absolute, "\\\\host\\share\\a.vhdx")]), "a.vhdx");
        assert_eq!(name(&[(absolute, "/disks/a.vhdx")]), "/disks/a.vhdx");
    }

    #[test]
    fn what_is_written_of_a_parent_is_read_again() {
        for name in ["parent.vhdx", "up/the parent.vhdx", "../äöü.vhdx", "/a/b.vhdx"] {
            let mut parent = Reference::new(Role::Backing, name);
            parent.format = Some(NAME.to_owned());
            parent.content_id = Some(Id::Uuid(Uuid::random()));
            let bytes = locator(&parent).expect("it can be told");
            assert_eq!(backing(&bytes, HostOffset::ZERO).expect("it can be read"), parent);
        }
        for name in ["", "a/", "a\\b", "a\0"] {
            assert!(locator(&Reference::new(Role::Backing, name)).is_err(), "{name}");
        }
    }

    #[test]
    fn during_a_merge_either_content_is_right() {
        let guid = "{11111111-2222-3333-4444-555555555555}";
        let one = [(key::RELATIVE, "a"), (key::LINKAGE, guid)];
        assert!(read(&one).content_id.is_some());
        let two = [(key::RELATIVE, "a"), (key::LINKAGE, guid), (key::OTHER_LINKAGE, guid)];
        assert!(read(&two).content_id.is_none());
    }
}
