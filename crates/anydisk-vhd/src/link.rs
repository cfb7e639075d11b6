//! What a child says of its parent.

use anydisk_core::{Reference, Result, Uuid};

use crate::NAME;
use crate::footer::unsupported;
use crate::layout::{RawHeader, SECTOR, code};

/// A parent, as the child's header and its one locator name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Nil if it is not known.
    pub(crate) uuid: Uuid,
    /// The name of the file, UTF-16, big-endian.
    pub(crate) name: [u8; 512],
    pub(crate) code: [u8; 4],
    /// The path, UTF-16, little-endian.
    pub(crate) text: Vec<u8>,
}

impl Parent {
    /// # Errors
    /// `Unsupported` for a parent of another format, or a name that cannot be told.
    pub(crate) fn of(reference: &Reference) -> Result<Self> {
        if reference.format.as_deref().is_some_and(|format| !matches!(format, NAME | "vhd")) {
            return Err(unsupported("a parent of another format"));
        }
        let Ok(path) = std::str::from_utf8(&reference.name) else {
            return Err(unsupported("a parent whose name is no text"));
        };
        let last = path.rsplit('/').next().unwrap_or_default();
        // 255 units and the NUL behind them.
        if last.is_empty() || path.contains(['\\', '\0']) || last.encode_utf16().count() > 255 {
            return Err(unsupported("a parent of this name"));
        }
        let (code, text) = match path.starts_with('/') {
            true => (code::ABSOLUTE, path.to_owned()),
            false => (code::RELATIVE, format!(".\\{}", path.replace('/', "\\"))),
        };
        let mut name = [0; 512];
        let bytes = last.encode_utf16().flat_map(u16::to_be_bytes);
        name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let uuid = reference.id.and_then(anydisk_core::Id::uuid).unwrap_or(Uuid::NIL);
        let text = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        Ok(Self { uuid, name, code, text })
    }

    /// Bytes of the file that are kept for the text.
    pub(crate) fn room(&self) -> u64 {
        (self.text.len() as u64).next_multiple_of(SECTOR)
    }

    /// Names it in a header; the text is to be at `at`.
    pub(crate) fn put(&self, raw: &mut RawHeader, at: u64) {
        raw.parent_unique_id = self.uuid.to_bytes();
        raw.parent_time_stamp = 0.into();
        raw.parent_unicode_name = self.name;
        for locator in &mut raw.parent_locators {
            *locator = zerocopy::FromZeros::new_zeroed();
        }
        let [first, ..] = &mut raw.parent_locators;
        first.code = self.code;
        first.data_space = u32::try_from(self.room()).unwrap_or(u32::MAX).into();
        first.data_length = u32::try_from(self.text.len()).unwrap_or(u32::MAX).into();
        first.data_offset = at.into();
    }
}
