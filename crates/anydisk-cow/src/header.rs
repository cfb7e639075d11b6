//! Headers: which of the kinds it is, and bytes to checked values. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use anydisk_core::{Error, HostOffset, Invalid, Result, Value};
use zerocopy::byteorder::{BigEndian, LittleEndian};
use zerocopy::{FromBytes, IntoBytes};

use crate::NAME;
use crate::layout::{MAGIC, NAME_LEN, Qemu32, Qemu64, Start, Uml1, Uml1Long, Uml2, Uml3, Uml3Long};

/// Sectors of QEMU's images.
pub(crate) const SECTOR: u32 = 512;

/// Largest unit that one bit may stand for, in bytes. Larger ones would let a size be taken for it.
const LARGEST_SECTOR: u32 = 64 << 10;

/// Largest alignment of bitmap and data, in bytes.
const LARGEST_ALIGNMENT: u32 = 1 << 20;

/// File offsets are signed.
const LONGEST_FILE: u64 = i64::MAX.unsigned_abs();

/// Which program wrote a header in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// QEMU, numbers of 64 bits aligned to 8 bytes.
    Qemu64,
    /// QEMU, numbers of 64 bits aligned to 4 bytes.
    Qemu32,
    /// User-mode Linux, version 1, 2 or 3.
    Uml(u32),
}

impl Kind {
    /// Whether images of this kind are written here.
    #[must_use]
    pub fn is_writable(self) -> bool {
        matches!(self, Self::Qemu64 | Self::Qemu32)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qemu64 => f.write_str("QEMU, numbers aligned to 8 bytes"),
            Self::Qemu32 => f.write_str("QEMU, numbers aligned to 4 bytes"),
            Self::Uml(version) => write!(f, "user-mode Linux, version {version}"),
        }
    }
}

/// A header that obeys the rules, and where the rest of the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who wrote it.
    pub kind: Kind,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Bytes of the disk that one bit stands for, a power of two.
    pub sector: u32,
    /// When the backing file was changed last, in seconds since 1970.
    pub mtime: i64,
    /// Name of the backing file, byte for byte.
    pub backing_file: Option<Vec<u8>>,
    /// Where the bitmap is.
    pub bitmap: HostOffset,
    /// Length of the bitmap in bytes.
    pub bitmap_len: u64,
    /// Where sector 0 of the disk is.
    pub data: HostOffset,
}

/// The values of a header, whatever its kind, with the places of those that may be wrong.
#[derive(Clone, Copy, Debug)]
struct Fields<'a> {
    kind: Kind,
    len: u64,
    size: u64,
    size_at: usize,
    sector: u32,
    sector_at: usize,
    mtime: i64,
    name: &'a [u8],
    name_at: usize,
    /// Version 3 of user-mode Linux: alignment of bitmap and data, with its place.
    alignment: Option<(u32, usize)>,
}

impl Header {
    /// Reads the header of a file of `file_len` bytes from its first bytes: 4132, or all there are.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field of the kind that comes nearest, [`Error::Unsupported`] for
    /// other versions.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self> {
        let (start, _) = Start::read_from_prefix(bytes)
            .map_err(|_| missing("header", bytes.len() as u64, "8 bytes"))?;
        let candidates = match (start.magic.get(), start.version.get()) {
            (MAGIC, 1) => uml1::<BigEndian>(bytes),
            (magic, version) if is_swapped(magic, version) => uml1::<LittleEndian>(bytes),
            (MAGIC, 2) => version2(bytes),
            (MAGIC, 3) => version3(bytes)?,
            (MAGIC, version) => {
                let feature = format!("version {version}").into();
                return Err(Error::Unsupported { format: NAME, feature });
            }
            (magic, _) => {
                let expected = format!("{MAGIC:#x}").into();
                return Err(invalid("magic", 0, Value::Hex(magic.into()), expected));
            }
        };
        choose(&candidates, file_len)
    }

    /// Whether the first bytes are those of a cow image of any kind, broken or not.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        let Ok((start, _)) = Start::read_from_prefix(bytes) else { return false };
        let (magic, version) = (start.magic.get(), start.version.get());
        is_swapped(magic, version) || magic == MAGIC && (1..=3).contains(&version)
    }

    /// The header of a new image of `size` bytes, whole sectors: the name must have been checked.
    pub(crate) fn new(size: u64, name: Vec<u8>) -> Result<Self> {
        let raw = raw(size, &name);
        let size_at = std::mem::offset_of!(Qemu64, size);
        check(&qemu64(&raw), u64::MAX)?.ok_or_else(|| {
            invalid("size", size_at, Value::Number(size), "a multiple of 512".into())
        })
    }

    /// The header as it stands in the file, as QEMU on 64-bit machines wrote it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        raw(self.size, self.backing_file.as_deref().unwrap_or_default()).as_bytes().to_vec()
    }

    /// Number of sectors of the disk; the last may be cut.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.size.div_ceil(self.sector.into())
    }

    /// The first byte behind the bitmap.
    #[must_use]
    pub fn bitmap_end(&self) -> HostOffset {
        self.bitmap.saturating_add(self.bitmap_len)
    }
}

/// The magic and version 1 in the other byte order.
fn is_swapped(magic: u32, version: u32) -> bool {
    magic.swap_bytes() == MAGIC && version.swap_bytes() == 1
}

fn raw(size: u64, name: &[u8]) -> Qemu64 {
    let mut backing_file = [0; NAME_LEN];
    for (to, from) in backing_file.iter_mut().zip(name) {
        *to = *from;
    }
    Qemu64 {
        magic: MAGIC.into(),
        version: 2.into(),
        backing_file,
        mtime: 0.into(),
        padding: 0.into(),
        size: size.into(),
        sectorsize: SECTOR.into(),
        end_padding: 0.into(),
    }
}

/// The first candidate that obeys all rules; else what is wrong with the first whose sector size
/// makes sense; else what is wrong with the first.
fn choose(candidates: &[Fields<'_>], file_len: u64) -> Result<Header> {
    let mut refusal = None;
    for fields in candidates {
        match check(fields, file_len) {
            Ok(Some(header)) => return Ok(header),
            Ok(None) => {}
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    let Some(first) = candidates.first() else {
        return Err(missing("header", file_len, "the whole of a header"));
    };
    Err(refusal.unwrap_or_else(|| {
        let expected = "the size of a sector, here or where another kind of cow has it".into();
        invalid("sectorsize", first.sector_at, Value::Number(first.sector.into()), expected)
    }))
}

/// `None`: it is not of this kind, as the size of its sectors tells.
fn check(fields: &Fields<'_>, file_len: u64) -> Result<Option<Header>> {
    let sector_fits = match fields.kind {
        Kind::Uml(_) => {
            fields.sector.is_power_of_two() && (SECTOR..=LARGEST_SECTOR).contains(&fields.sector)
        }
        _ => fields.sector == SECTOR,
    };
    if !sector_fits {
        return Ok(None);
    }
    if fields.kind.is_writable() && !fields.size.is_multiple_of(SECTOR.into()) {
        let found = Value::Number(fields.size);
        return Err(invalid("size", fields.size_at, found, "a multiple of 512".into()));
    }
    let header = lay_out(fields)?;
    if header.bitmap_end().get() > file_len {
        let expected = format!("a bitmap that ends at {}", header.bitmap_end());
        return Err(missing("bitmap", file_len, &expected));
    }
    Ok(Some(header))
}

/// Computes where bitmap and data are.
fn lay_out(fields: &Fields<'_>) -> Result<Header> {
    let too_large = || {
        let found = Value::Number(fields.size);
        invalid("size", fields.size_at, found, "a disk whose file ends below 2^63".into())
    };
    let sector = u64::from(fields.sector);
    let (bitmap, alignment) = match fields.alignment {
        None => (fields.len, sector),
        Some((alignment, at)) => {
            if !alignment.is_power_of_two() || alignment > LARGEST_ALIGNMENT {
                let (found, expected) =
                    (Value::Number(alignment.into()), "a power of two, 1 to 1 MiB");
                return Err(invalid("alignment", at, found, expected.into()));
            }
            (fields.len.next_multiple_of(alignment.into()), u64::from(alignment))
        }
    };
    let bitmap_len = match fields.kind {
        // The rounding of those versions: bits of the last byte may be lost.
        Kind::Uml(1 | 2) => {
            let bits = fields.size.checked_add(sector.saturating_sub(1)).ok_or_else(too_large)?;
            bits.div_euclid(sector.saturating_mul(8))
        }
        _ => fields.size.div_ceil(sector).div_ceil(8),
    };
    let data = bitmap.saturating_add(bitmap_len).next_multiple_of(alignment);
    let end = data.checked_add(fields.size).filter(|end| *end <= LONGEST_FILE);
    end.ok_or_else(too_large)?;
    Ok(Header {
        kind: fields.kind,
        size: fields.size,
        sector: fields.sector,
        mtime: fields.mtime,
        backing_file: name(fields)?,
        bitmap: HostOffset(bitmap),
        bitmap_len,
        data: HostOffset(data),
    })
}

/// The name, which ends with the first NUL.
fn name(fields: &Fields<'_>) -> Result<Option<Vec<u8>>> {
    match fields.name.iter().position(|byte| *byte == 0) {
        Some(len) => Ok(fields.name.get(..len).filter(|name| !name.is_empty()).map(<[u8]>::to_vec)),
        None => {
            let found = Value::from(fields.name);
            Err(invalid(
                "backing_file",
                fields.name_at,
                found,
                "a name that ends with a NUL".into(),
            ))
        }
    }
}

/// The fields of a header, whose names are the same in all kinds.
macro_rules! fields {
    ($raw:expr, $layout:ty, $kind:expr) => {
        Fields {
            kind: $kind,
            len: size_of::<$layout>() as u64,
            size: $raw.size.get(),
            size_at: std::mem::offset_of!($layout, size),
            sector: $raw.sectorsize.get(),
            sector_at: std::mem::offset_of!($layout, sectorsize),
            mtime: $raw.mtime.get().into(),
            name: &$raw.backing_file,
            name_at: std::mem::offset_of!($layout, backing_file),
            alignment: None,
        }
    };
}

fn qemu64(raw: &Qemu64) -> Fields<'_> {
    fields!(raw, Qemu64, Kind::Qemu64)
}

/// QEMU's two layouts, the wider one first, then that of user-mode Linux. A file of the narrow
/// layout never fits the wide one; the other way round it happens.
fn version2(bytes: &[u8]) -> Vec<Fields<'_>> {
    let wide = Qemu64::ref_from_prefix(bytes).ok().filter(|(raw, _)| raw.padding.get() == 0);
    let narrow = Qemu32::ref_from_prefix(bytes).ok();
    let uml = Uml2::ref_from_prefix(bytes).ok();
    let wide = wide.map(|(raw, _)| qemu64(raw));
    let narrow = narrow.map(|(raw, _)| fields!(raw, Qemu32, Kind::Qemu32));
    let uml = uml.map(|(raw, _)| fields!(raw, Uml2, Kind::Uml(2)));
    [wide, narrow, uml].into_iter().flatten().collect()
}

fn uml1<O: zerocopy::byteorder::ByteOrder + 'static>(bytes: &[u8]) -> Vec<Fields<'_>> {
    let short = Uml1::<O>::ref_from_prefix(bytes).ok();
    let long = Uml1Long::<O>::ref_from_prefix(bytes).ok();
    let short = short.map(|(raw, _)| fields!(raw, Uml1<O>, Kind::Uml(1)));
    let long = long.map(|(raw, _)| fields!(raw, Uml1Long<O>, Kind::Uml(1)));
    [short, long].into_iter().flatten().collect()
}

/// Where one layout has the start of a name, which is never empty, the other has its format, 0.
fn version3(bytes: &[u8]) -> Result<Vec<Fields<'_>>> {
    let short = Uml3::ref_from_prefix(bytes).ok().map(|(raw, _)| raw);
    let long = Uml3Long::ref_from_prefix(bytes).ok().map(|(raw, _)| raw);
    let formats = [long.map(|raw| raw.cow_format.get()), short.map(|raw| raw.cow_format.get())];
    if formats.iter().flatten().count() > 0 && formats.iter().flatten().all(|format| *format != 0) {
        let feature = "a cow_format other than a bitmap".into();
        return Err(Error::Unsupported { format: NAME, feature });
    }
    let long = long.filter(|raw| raw.cow_format.get() == 0).map(|raw| Fields {
        alignment: Some((raw.alignment.get(), std::mem::offset_of!(Uml3Long, alignment))),
        ..fields!(raw, Uml3Long, Kind::Uml(3))
    });
    let short = short.filter(|raw| raw.cow_format.get() == 0).map(|raw| Fields {
        alignment: Some((raw.alignment.get(), std::mem::offset_of!(Uml3, alignment))),
        ..fields!(raw, Uml3, Kind::Uml(3))
    });
    Ok([long, short].into_iter().flatten().collect())
}

fn invalid(
    field: &'static str,
    at: usize,
    found: Value,
    expected: std::borrow::Cow<'static, str>,
) -> Error {
    let at = HostOffset(at as u64);
    Invalid { format: NAME, field: field.into(), at, found, expected }.into()
}

fn missing(field: &'static str, file_len: u64, expected: &str) -> Error {
    let at = HostOffset(file_len);
    let expected = expected.to_owned().into();
    Invalid { format: NAME, field: field.into(), at, found: Value::Missing, expected }.into()
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that is out of bounds fails"
)]
#[path = "header_tests.rs"]
mod tests;
