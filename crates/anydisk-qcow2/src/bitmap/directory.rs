//! The bitmaps extension and the bitmap directory: bytes to checked values, and back. Pure, but for
//! reading the directory and looking over the tables.

#![deny(clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::mem::offset_of;

use anydisk_core::{
    BitmapInfo, Error, HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value,
    invalid_field,
};
use anydisk_storage::name;
use zerocopy::{FromBytes, IntoBytes};

use super::rules::{check_entry, check_extension, check_table_size};
use crate::alloc::words_of;
use crate::features::autoclear;
use crate::layout::bitmap::{ALL_ONES, AUTO, DIRTY_TRACKING, IN_USE, OFFSET};
use crate::layout::{RawBitmap, RawBitmaps, extension};
use crate::{Header, NAME};

/// Bytes of a table that are read at once.
const PIECE: u64 = 64 << 10;

/// Where the bitmap directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) count: u32,
    pub(crate) at: HostOffset,
    pub(crate) len: u64,
}

/// Where a directory is said to be, and what is wrong with that.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) place: Place,
    pub(crate) fault: Option<Invalid>,
}

/// One bitmap, as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapEntry {
    /// Where its table is.
    pub table: HostOffset,
    /// Entries of the table.
    pub table_entries: u32,
    /// Bits of [`layout::bitmap`](crate::layout::bitmap).
    pub flags: u32,
    /// Binary logarithm of the bytes that a bit stands for.
    pub granularity_bits: u32,
    /// Its name, byte for byte.
    pub name: Vec<u8>,
}

/// How a disk is spread over the bits, bytes and clusters of a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) size: u64,
    pub(crate) granularity_bits: u32,
    pub(crate) cluster_bits: u32,
}

/// A bitmap directory that can be relied on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) place: Option<Place>,
    pub(crate) entries: Vec<BitmapEntry>,
}

/// What an entry of a bitmap table says about its part of the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Zeroes,
    Ones,
    At(HostOffset),
}

impl Scale {
    pub(crate) fn bits(self) -> u64 {
        self.size.div_ceil(1 << self.granularity_bits)
    }

    pub(crate) fn bytes(self) -> u64 {
        self.bits().div_ceil(8)
    }

    /// Entries that the table must have.
    pub(crate) fn clusters(self) -> u64 {
        self.bytes().div_ceil(1 << self.cluster_bits)
    }
}

impl Place {
    /// Where the header says that the directory is; `None` if the image has no bitmaps that can be
    /// relied on.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field of the extension.
    pub(crate) fn of(header: &Header) -> Result<Option<Self>> {
        match Self::claimed(header)? {
            None => Ok(None),
            Some(Claimed { place, fault: None }) => Ok(Some(place)),
            Some(Claimed { fault: Some(invalid), .. }) => Err(invalid.into()),
        }
    }

    /// The same, whatever the fields say.
    ///
    /// # Errors
    /// [`Invalid`] for an extension of another length.
    pub(crate) fn claimed(header: &Header) -> Result<Option<Claimed>, Invalid> {
        let Some(data) = header.extension(extension::BITMAPS) else { return Ok(None) };
        if header.version < 3 || header.autoclear_features & autoclear::BITMAPS == 0 {
            return Ok(None);
        }
        let Ok(raw) = RawBitmaps::read_from_bytes(data) else {
            let (found, expected) = (data.len() as u64, size_of::<RawBitmaps>());
            let expected = format!("{expected} bytes");
            return Err(invalid(HostOffset::ZERO, "bitmaps extension", found, expected));
        };
        let place = Self {
            count: raw.nb_bitmaps.get(),
            at: HostOffset(raw.bitmap_directory_offset.get()),
            len: raw.bitmap_directory_size.get(),
        };
        let fault = check_extension(&raw, header.cluster_size()).err();
        Ok(Some(Claimed { place, fault }))
    }

    /// The data of the extension.
    pub(crate) fn to_extension(self) -> Vec<u8> {
        let raw = RawBitmaps {
            nb_bitmaps: self.count.into(),
            reserved32: 0.into(),
            bitmap_directory_size: self.len.into(),
            bitmap_directory_offset: self.at.get().into(),
        };
        raw.as_bytes().to_vec()
    }
}

/// Reads a directory of `count` entries from `bytes`, which lie at `at` in the file. Whether the
/// tables fit a disk is not looked at.
///
/// # Errors
/// [`Error::Invalid`] with the first field that breaks the format.
pub fn read_directory(
    bytes: &[u8],
    at: HostOffset,
    count: u32,
    cluster_bits: u32,
) -> Result<Vec<BitmapEntry>> {
    let (mut entries, mut names, mut done) = (Vec::new(), BTreeSet::new(), 0);
    for _ in 0..count {
        let place = at.saturating_add(done as u64);
        let rest = bytes.get(done..).unwrap_or_default();
        let (entry, len) = read_entry(rest, place, cluster_bits)?;
        if !names.insert(entry.name.clone()) {
            let found = Value::from(&*entry.name);
            return Err(invalid(place, "name of a bitmap", found, "one of its own").into());
        }
        entries.push(entry);
        done += len;
    }
    if done != bytes.len() {
        let expected = format!("{done} bytes for {count} entries");
        return Err(invalid(at, "bitmap directory", bytes.len() as u64, expected).into());
    }
    Ok(entries)
}

/// The bytes of the entry at the start of a directory, with their fixed part, and those behind it.
pub(crate) fn split_entry(bytes: &[u8]) -> Option<(RawBitmap, &[u8], &[u8])> {
    let (raw, _) = RawBitmap::read_from_prefix(bytes).ok()?;
    let strings = u64::from(raw.extra_data_size.get()) + u64::from(raw.name_size.get());
    let len = (size_of::<RawBitmap>() as u64 + strings).next_multiple_of(8);
    let (entry, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    Some((raw, entry, rest))
}

/// The entry at the start of `bytes`, and its length with the padding.
///
/// # Errors
/// [`Error::Invalid`] with the first field that breaks the format.
pub(crate) fn read_entry(
    bytes: &[u8],
    at: HostOffset,
    cluster_bits: u32,
) -> Result<(BitmapEntry, usize)> {
    let Ok((raw, rest)) = RawBitmap::read_from_prefix(bytes) else {
        return Err(invalid(at, "bitmap directory", Value::Missing, "another entry").into());
    };
    check_entry(&raw, at, 1 << cluster_bits).map_err(Invalid::from)?;
    let name_len = usize::from(raw.name_size.get());
    let len = (size_of::<RawBitmap>() + name_len).next_multiple_of(8);
    let name = rest.get(..name_len).filter(|_| len <= bytes.len());
    let Some(name) = name else {
        let found = raw.name_size.get();
        let most = rest.len();
        return Err(invalid_field!(
            NAME,
            at => RawBitmap,
            name_size,
            u32::from(found),
            "at most {most}"
        )
        .into());
    };
    Ok((BitmapEntry::new(&raw, name), len))
}

fn invalid(
    at: HostOffset,
    field: &'static str,
    found: impl Into<Value>,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Invalid {
    let (found, expected) = (found.into(), expected.into());
    Invalid { format: NAME, field: field.into(), at, found, expected }
}

impl BitmapEntry {
    /// What an entry says, with its name.
    pub(crate) fn new(raw: &RawBitmap, name: &[u8]) -> Self {
        Self {
            table: HostOffset(raw.bitmap_table_offset.get()),
            table_entries: raw.bitmap_table_size.get(),
            flags: raw.flags.get(),
            granularity_bits: raw.granularity_bits.into(),
            name: name.to_vec(),
        }
    }

    /// Bytes in the directory.
    pub(crate) fn len(&self) -> u64 {
        (size_of::<RawBitmap>() as u64 + self.name.len() as u64).next_multiple_of(8)
    }

    /// Writes are recorded in it.
    pub(crate) fn is_enabled(&self) -> bool {
        self.flags & AUTO != 0
    }

    /// Its content is not to be trusted.
    pub(crate) fn is_in_use(&self) -> bool {
        self.flags & IN_USE != 0
    }

    pub(crate) fn display_name(&self) -> String {
        name::shown(&self.name).into_owned()
    }

    pub(crate) fn info(&self) -> BitmapInfo {
        BitmapInfo {
            name: self.display_name(),
            granularity: 1 << self.granularity_bits,
            enabled: self.is_enabled(),
            inconsistent: self.is_in_use(),
        }
    }

    pub(crate) fn scale(&self, size: u64, cluster_bits: u32) -> Scale {
        Scale { size, granularity_bits: self.granularity_bits, cluster_bits }
    }

    fn write_to(&self, bytes: &mut Vec<u8>) {
        let raw = RawBitmap {
            bitmap_table_offset: self.table.get().into(),
            bitmap_table_size: self.table_entries.into(),
            flags: self.flags.into(),
            kind: DIRTY_TRACKING,
            granularity_bits: u8::try_from(self.granularity_bits).unwrap_or(u8::MAX),
            name_size: u16::try_from(self.name.len()).unwrap_or(u16::MAX).into(),
            extra_data_size: 0.into(),
        };
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }

    /// Where entry number `number` of its table is.
    pub(crate) fn table_entry(&self, number: u64) -> HostOffset {
        self.table.saturating_add(number.saturating_mul(8))
    }
}

/// The directory as it stands in the file.
pub(crate) fn to_bytes(entries: &[BitmapEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.write_to(&mut bytes));
    bytes
}

/// Offset of the flags in an entry of the directory.
pub(crate) const FLAGS: u64 = offset_of!(RawBitmap, flags) as u64;

impl Part {
    /// The word of a bitmap table that says so.
    pub(crate) fn word(self) -> u64 {
        match self {
            Self::Zeroes => 0,
            Self::Ones => ALL_ONES,
            Self::At(at) => at.get(),
        }
    }

    /// What the word of a bitmap table at `at` says.
    pub(crate) fn of(word: u64, at: HostOffset, cluster_bits: u32) -> Result<Self> {
        let place = HostOffset(word & OFFSET);
        let rest = word & !OFFSET;
        match (place.get(), rest) {
            (0, 0) => Ok(Self::Zeroes),
            (0, ALL_ONES) => Ok(Self::Ones),
            (_, 0) if place.is_aligned(1 << cluster_bits) => Ok(Self::At(place)),
            _ => {
                let expected = "0, 1, or the offset of a cluster";
                Err(invalid(at, "bitmap table entry", Value::Hex(word), expected).into())
            }
        }
    }
}

impl Directory {
    /// Reads the directory of an image, if it has one that counts, and looks over the tables.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what breaks the format; [`Error::Limit`] for a directory or tables
    /// that are larger than the caller is willing to read.
    pub(crate) fn read(store: &dyn Storage, header: &Header, limits: &Limits) -> Result<Self> {
        let Some(place) = Place::of(header)? else { return Ok(Self::default()) };
        let limit = limits.descriptor as u64;
        if place.len > limit {
            let what = "bitmap directory, in bytes".into();
            return Err(Error::Limit { format: NAME, what, found: place.len, limit });
        }
        let mut bytes = vec![0; usize::try_from(place.len).unwrap_or(0)];
        store.read_padded_at(place.at, &mut bytes)?;
        let entries = read_directory(&bytes, place.at, place.count, header.cluster_bits)?;
        let mut at = place.at;
        for entry in &entries {
            check_table_size(entry, at, header.disk_size(), header.cluster_bits)?;
            at = at.saturating_add(entry.len());
        }
        let tables = entries.iter().map(|entry| u64::from(entry.table_entries) * 8).sum::<u64>();
        let limit = limits.table_cache as u64 / 4;
        if tables > limit {
            let what = "bitmap tables, in bytes".into();
            return Err(Error::Limit { format: NAME, what, found: tables, limit });
        }
        for entry in &entries {
            for_each_part(store, entry, header.cluster_bits, |_| Ok(()))?;
        }
        Ok(Self { place: Some(place), entries })
    }
}

/// Shows what each entry of a bitmap's table says.
pub(crate) fn for_each_part(
    store: &dyn Storage,
    entry: &BitmapEntry,
    cluster_bits: u32,
    mut visit: impl FnMut(Part) -> Result<()>,
) -> Result<()> {
    let len = u64::from(entry.table_entries) * 8;
    let mut done = 0;
    while done < len {
        let mut bytes = vec![0; usize::try_from((len - done).min(PIECE)).unwrap_or(0)];
        let at = entry.table.saturating_add(done);
        store.read_padded_at(at, &mut bytes)?;
        for (index, word) in (0_u64..).zip(words_of(&bytes)) {
            visit(Part::of(word, at.saturating_add(index * 8), cluster_bits)?)?;
        }
        done += bytes.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str) -> BitmapEntry {
        BitmapEntry {
            table: HostOffset(0x50000),
            table_entries: 1,
            flags: AUTO,
            granularity_bits: 16,
            name: name.into(),
        }
    }

    fn read(bytes: &[u8], count: u32) -> Result<Vec<BitmapEntry>> {
        read_directory(bytes, HostOffset(0x10000), count, 16)
    }

    #[test]
    fn a_directory_is_read_as_it_was_written() {
        let entries = [entry("a"), entry(""), entry("a longer name")];
        assert_eq!(read(&to_bytes(&entries), 3).expect("valid"), entries);
    }

    #[test]
    fn a_bitmap_that_breaks_the_format_is_refused_with_field_and_place() {
        let refused = |change: fn(&mut BitmapEntry)| {
            let mut second = entry("b");
            change(&mut second);
            read(&to_bytes(&[entry("a"), second]), 2).unwrap_err().to_string()
        };
        let place = "qcow2: bitmap_table_offset at 0x10020 is 0x50001";
        assert!(refused(|entry| entry.table = HostOffset(0x50001)).starts_with(place));
        assert!(refused(|entry| entry.table_entries = 0).contains("bitmap_table_size at 0x10028"));
        assert!(refused(|entry| entry.flags = 4).contains("flags at 0x1002c is 0x4"));
        assert!(refused(|entry| entry.granularity_bits = 8).contains("expected 9 to 31"));
        assert!(refused(|entry| entry.name = b"a".to_vec()).contains("expected one of its own"));
    }

    #[test]
    fn a_directory_is_as_long_as_its_entries() {
        let bytes = to_bytes(&[entry("a"), entry("b")]);
        assert!(read(&bytes, 1).is_err());
        assert!(read(&bytes, 3).is_err());
        assert!(read(&bytes[..bytes.len() - 8], 2).is_err());
    }

    #[test]
    fn a_table_entry_is_a_place_or_one_of_two_words() {
        let of = |word| Part::of(word, HostOffset(8), 16);
        assert_eq!(of(0).expect("valid"), Part::Zeroes);
        assert_eq!(of(1).expect("valid"), Part::Ones);
        assert_eq!(of(0x30000).expect("valid"), Part::At(HostOffset(0x30000)));
        for word in [2, 0x30001, 0x30200, 1 << 56] {
            let error = of(word).unwrap_err().to_string();
            assert!(error.contains("bitmap table entry at 0x8"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_entries_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0_u32..9) {
            let _ = read(&bytes, count);
        }
    }
}
