//! Bytes to a checked header. Pure.

use std::mem::offset_of;

use anydisk_core::{
    Error, HostOffset, Id, Invalid, Reference, Result, Role, Uuid, Value, invalid_field,
};
use zerocopy::FromBytes;

use crate::NAME;
use crate::layout::{
    ENTRY, HeaderV0, HeaderV1, PreHeader, RawGeometry, SECTOR, SIGNATURE, ZERO_EXPAND, kind,
};
use crate::limits;
use crate::state::{ALLOCATED, SIZE};

/// Bytes from the start of a file that hold any header.
pub(crate) const HEADER_LEN: usize = size_of::<HeaderV1>();

/// Bytes of the shorter header of version 1, with what precedes it.
const SHORT_V1: usize = offset_of!(HeaderV1, lchs_geometry);

/// An [`Invalid`] for a field of a layout struct.
macro_rules! invalid {
    ($layout:ty, $field:ident, $found:expr, $($expected:tt)+) => {
        Error::from(invalid_field!(NAME, $layout, $field, $found, $($expected)+))
    };
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Blocks are added as they are written.
    Normal,
    /// Every block has its place from the start.
    Fixed,
    /// Over a parent; made by old versions, which treat it as the next one.
    Undo,
    /// Over a parent.
    Differencing,
}

impl Kind {
    /// The field's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Normal => "dynamic",
            Self::Fixed => "fixed",
            Self::Undo => "undo",
            Self::Differencing => "differencing",
        }
    }
}

/// Which header it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 0.x: the map directly behind the header, the blocks directly behind the map.
    Old,
    /// 1.x.
    One,
}

/// Cylinders, heads and sectors, as the guest's firmware counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cylinders: u32,
    pub(crate) heads: u32,
    pub(crate) sectors: u32,
}

/// The names by which images know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uuids {
    /// Of the image.
    pub(crate) create: Uuid,
    /// Of its content.
    pub(crate) modify: Uuid,
    /// The `create` of the parent, nil if there is none.
    pub(crate) linkage: Uuid,
    /// The `modify` of the parent, nil if it is not known.
    pub(crate) parent_modify: Uuid,
}

/// A header whose numbers can be trusted. Sizes and places in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: Version,
    /// Bytes from the start of the file that are the header, as far as its fields are known: what
    /// lies behind may be the map.
    pub(crate) len: usize,
    pub(crate) kind: Kind,
    /// What people wrote into it, as text.
    pub(crate) comment: String,
    /// The first entry of the block map.
    pub(crate) table: HostOffset,
    /// The first block.
    pub(crate) first: HostOffset,
    /// Bytes of the disk, whole sectors.
    pub(crate) size: u64,
    /// Bytes of a block, a power of two.
    pub(crate) block: u64,
    /// Bytes before the data of a block.
    pub(crate) extra: u64,
    /// Entries of the map.
    pub(crate) blocks: u64,
    /// Blocks in the file.
    pub(crate) allocated: u64,
    pub(crate) uuids: Uuids,
    /// The geometry that is stored, if one is.
    pub(crate) lchs: Option<Geometry>,
}

impl Header {
    /// Checks the header in the first [`HEADER_LEN`] bytes of a file, or in all there are. `len` is
    /// the length of the file.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] for versions, types and flags from elsewhere, and
    /// [`Error::Limit`].
    pub(crate) fn parse(bytes: &[u8], len: u64) -> Result<Self> {
        let version = version(bytes)?;
        let header = match version {
            Version::Old => Self::old(read(bytes, "header of version 0")?)?,
            Version::One => Self::one(bytes)?,
        };
        header.check_sizes(len)?;
        Ok(header)
    }

    fn one(bytes: &[u8]) -> Result<Self> {
        let mut padded = [0; HEADER_LEN];
        let given = bytes.get(..bytes.len().min(HEADER_LEN)).unwrap_or_default();
        if given.len() < SHORT_V1 {
            return Err(too_short("header of version 1", bytes.len(), SHORT_V1));
        }
        padded.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
        let raw: HeaderV1 = read(&padded, "header")?;
        check_flags(raw.flags.get())?;
        let end = offset_of!(HeaderV1, cbHeader) as u64 + u64::from(raw.cbHeader.get());
        if end < SHORT_V1 as u64 {
            return Err(invalid!(HeaderV1, cbHeader, raw.cbHeader.get(), "384 or more"));
        }
        let table = HostOffset(raw.offBlocks.get().into());
        if table.get() < end {
            return Err(invalid!(
                HeaderV1,
                offBlocks,
                table,
                "a place behind the header, {end:#x}"
            ));
        }
        let has_lchs = end >= HEADER_LEN as u64;
        Ok(Self {
            version: Version::One,
            len: if has_lchs { HEADER_LEN } else { SHORT_V1 },
            kind: kind_of(raw.r#type.get())?,
            comment: text(&raw.comment),
            table,
            first: HostOffset(raw.offData.get().into()),
            size: disk_size(raw.cbDisk.get())?,
            block: block_size(raw.cbBlock.get(), offset_of!(HeaderV1, cbBlock))?,
            extra: extra(raw.cbBlockExtra.get())?,
            blocks: raw.cBlocks.get().into(),
            allocated: raw.cBlocksAllocated.get().into(),
            uuids: Uuids {
                create: uuid(raw.uuidCreate, "uuidCreate", offset_of!(HeaderV1, uuidCreate))?,
                modify: uuid(raw.uuidModify, "uuidModify", offset_of!(HeaderV1, uuidModify))?,
                linkage: Uuid::from_mixed_endian(raw.uuidLinkage),
                parent_modify: Uuid::from_mixed_endian(raw.uuidParentModify),
            },
            lchs: geometry(if has_lchs { &raw.lchs_geometry } else { &raw.legacy_geometry }),
        })
    }

    fn old(raw: HeaderV0) -> Result<Self> {
        check_flags(raw.flags.get())?;
        let table = HostOffset(size_of::<HeaderV0>() as u64);
        let blocks = u64::from(raw.cBlocks.get());
        Ok(Self {
            version: Version::Old,
            len: size_of::<HeaderV0>(),
            kind: kind_of(raw.r#type.get())?,
            comment: text(&raw.comment),
            table,
            first: table.saturating_add(blocks * ENTRY),
            size: disk_size(raw.cbDisk.get())?,
            block: block_size(raw.cbBlock.get(), offset_of!(HeaderV0, cbBlock))?,
            extra: 0,
            blocks,
            allocated: raw.cBlocksAllocated.get().into(),
            uuids: Uuids {
                create: uuid(raw.uuidCreate, "uuidCreate", offset_of!(HeaderV0, uuidCreate))?,
                modify: uuid(raw.uuidModify, "uuidModify", offset_of!(HeaderV0, uuidModify))?,
                linkage: Uuid::from_mixed_endian(raw.uuidLinkage),
                parent_modify: Uuid::NIL,
            },
            lchs: geometry(&raw.legacy_geometry),
        })
    }

    pub(crate) fn check_sizes(&self, len: u64) -> Result<()> {
        let needed = self.size.div_ceil(self.block);
        let at = |one, old| HostOffset(if self.version == Version::One { one } else { old } as u64);
        let field = |field: &'static str, at, found: Value, expected: String| {
            Error::from(Invalid {
                format: NAME,
                field: field.into(),
                at,
                found,
                expected: expected.into(),
            })
        };
        if self.blocks < needed {
            let at = at(offset_of!(HeaderV1, cBlocks), offset_of!(HeaderV0, cBlocks));
            let expected = format!("{needed} or more, for a disk of {} bytes", self.size);
            return Err(field("cBlocks", at, self.blocks.into(), expected));
        }
        let end = self.table.saturating_add(self.blocks * ENTRY);
        if self.first < end {
            let at = HostOffset(offset_of!(HeaderV1, offData) as u64);
            let expected = format!("a place behind the block map, {end}");
            return Err(field("offData", at, self.first.into(), expected));
        }
        if end.get() > len {
            let expected = format!("the whole block map, which ends at {end}");
            return Err(field("block map", HostOffset(len), Value::Missing, expected));
        }
        if matches!(self.kind, Kind::Differencing | Kind::Undo) && self.uuids.linkage.is_nil() {
            let at = at(offset_of!(HeaderV1, uuidLinkage), offset_of!(HeaderV0, uuidLinkage));
            let expected = format!("the parent of an image of type {}", self.kind.word());
            return Err(field("uuidLinkage", at, Value::Missing, expected));
        }
        Ok(())
    }

    /// Where the size of the disk is.
    pub(crate) fn size_at(&self) -> usize {
        SIZE.at(self.version).unwrap_or_default()
    }

    /// Where the number of blocks in the file is.
    pub(crate) fn allocated_at(&self) -> usize {
        ALLOCATED.at(self.version).unwrap_or_default()
    }

    /// Bytes of the file from one block to the next.
    pub(crate) fn stride(&self) -> u64 {
        self.block + self.extra
    }

    /// Where the block of this number begins.
    pub(crate) fn block_at(&self, number: u64) -> HostOffset {
        self.first.saturating_add(number.saturating_mul(self.stride()))
    }

    /// How many blocks begin in a file of `len` bytes.
    pub(crate) fn blocks_in(&self, len: u64) -> u64 {
        len.saturating_sub(self.first.get()).div_ceil(self.stride())
    }
}

impl Uuids {
    /// The image below, known by its number alone.
    pub(crate) fn backing(&self) -> Option<Reference> {
        if self.linkage.is_nil() {
            return None;
        }
        let mut reference = Reference::by_id(Role::Backing, Id::Uuid(self.linkage));
        reference.format = Some(NAME.to_owned());
        reference.content_id = Some(self.parent_modify).filter(|id| !id.is_nil()).map(Id::Uuid);
        Some(reference)
    }
}

/// Whether a file begins as a VDI does.
pub(crate) fn has_signature(bytes: &[u8]) -> bool {
    PreHeader::read_from_prefix(bytes).is_ok_and(|(pre, _)| pre.signature.get() == SIGNATURE)
}

fn version(bytes: &[u8]) -> Result<Version> {
    let pre: PreHeader = read(bytes, "header")?;
    if pre.signature.get() != SIGNATURE {
        let found = Value::Hex(pre.signature.get().into());
        return Err(invalid!(PreHeader, signature, found, "0xbeda107f"));
    }
    let found = pre.version.get();
    match found >> 16 {
        0 => Ok(Version::Old),
        1 => Ok(Version::One),
        major => Err(unsupported(format!("version {major}.{}", found & 0xFFFF))),
    }
}

fn read<T: FromBytes>(bytes: &[u8], what: &'static str) -> Result<T> {
    let (raw, _) =
        T::read_from_prefix(bytes).map_err(|_| too_short(what, bytes.len(), size_of::<T>()))?;
    Ok(raw)
}

fn too_short(what: &'static str, found: usize, expected: usize) -> Error {
    Invalid {
        format: NAME,
        field: what.into(),
        at: HostOffset::ZERO,
        found: Value::Number(found as u64),
        expected: format!("{expected} bytes").into(),
    }
    .into()
}

fn kind_of(found: u32) -> Result<Kind> {
    match found {
        kind::NORMAL => Ok(Kind::Normal),
        kind::FIXED => Ok(Kind::Fixed),
        kind::UNDO => Ok(Kind::Undo),
        kind::DIFFERENCING => Ok(Kind::Differencing),
        other => Err(unsupported(format!("image type {other}"))),
    }
}

fn check_flags(flags: u32) -> Result<()> {
    match flags & !ZERO_EXPAND {
        0 => Ok(()),
        unknown => Err(unsupported(format!("flag bit {}", unknown.trailing_zeros()))),
    }
}

/// The size of the disk: VirtualBox takes the whole sectors.
fn disk_size(found: u64) -> Result<u64> {
    limit("size of the disk in bytes", found, limits::DISK)?;
    Ok(found / SECTOR * SECTOR)
}

fn block_size(found: u32, at: usize) -> Result<u64> {
    let size = u64::from(found);
    if !size.is_power_of_two() || size < SECTOR {
        return Err(Invalid {
            format: NAME,
            field: "cbBlock".into(),
            at: HostOffset(at as u64),
            found: size.into(),
            expected: "a power of two from 512 on".into(),
        }
        .into());
    }
    limit("size of a block in bytes", size, limits::BLOCK)?;
    Ok(size)
}

fn extra(found: u32) -> Result<u64> {
    if found != 0 && !found.is_power_of_two() {
        return Err(invalid!(HeaderV1, cbBlockExtra, found, "0 or a power of two"));
    }
    limit("size of the extra data of a block in bytes", found.into(), limits::BLOCK)?;
    Ok(found.into())
}

fn uuid(bytes: [u8; 16], field: &'static str, at: usize) -> Result<Uuid> {
    let uuid = Uuid::from_mixed_endian(bytes);
    if uuid.is_nil() {
        return Err(Invalid {
            format: NAME,
            field: field.into(),
            at: HostOffset(at as u64),
            found: Value::Number(0),
            expected: "a UUID that is not nil".into(),
        }
        .into());
    }
    Ok(uuid)
}

/// The comment ends at its first NUL.
fn text(comment: &[u8]) -> String {
    let end = comment.iter().position(|byte| *byte == 0).unwrap_or(comment.len());
    String::from_utf8_lossy(comment.get(..end).unwrap_or_default()).into_owned()
}

fn geometry(raw: &RawGeometry) -> Option<Geometry> {
    let geometry = Geometry {
        cylinders: raw.cylinders.get(),
        heads: raw.heads.get(),
        sectors: raw.sectors.get(),
    };
    (geometry.cylinders != 0).then_some(geometry)
}

/// Refuses what is legal and too large.
pub(crate) fn limit(what: &'static str, found: u64, limit: u64) -> Result<()> {
    anydisk_core::check_limit(NAME, what, found, limit)
}

pub(crate) fn unsupported(feature: impl Into<anydisk_core::Feature>) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;
    use zerocopy::little_endian::U32;

    use super::*;
    use crate::create::new_header;

    fn good() -> HeaderV1 {
        new_header(10 << 20, 1 << 20, [7; 16], [8; 16])
    }

    fn parse(header: &HeaderV1) -> Result<Header> {
        Header::parse(header.as_bytes(), 1 << 30)
    }

    fn refusal(change: impl Fn(&mut HeaderV1)) -> String {
        let mut header = good();
        change(&mut header);
        parse(&header).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_header_that_was_made_is_read() {
        let header = parse(&good()).expect("it is good");
        assert_eq!((header.size, header.block, header.blocks), (10 << 20, 1 << 20, 10));
        assert_eq!((header.table, header.first), (HostOffset(1 << 20), HostOffset(2 << 20)));
        assert_eq!((header.kind, header.version), (Kind::Normal, Version::One));
        assert_eq!(header.uuids.backing(), None);
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        for (found, expected) in [
            (
                refusal(|h| h.pre.signature = U32::new(1)),
                "vdi: signature at 0x40 is 0x1, expected 0xbeda107f",
            ),
            (
                refusal(|h| h.pre.version = U32::new(0x0002_0001)),
                "vdi: version 2.1 is not supported",
            ),
            (refusal(|h| h.r#type = U32::new(9)), "vdi: image type 9 is not supported"),
            (refusal(|h| h.flags = U32::new(5)), "vdi: flag bit 2 is not supported"),
            (
                refusal(|h| h.cbBlock = U32::new(3 << 20)),
                "vdi: cbBlock at 0x178 is 3145728, expected a power of two from 512 on",
            ),
            (
                refusal(|h| h.cbBlockExtra = U32::new(3)),
                "vdi: cbBlockExtra at 0x17c is 3, expected 0 or a power of two",
            ),
            (
                refusal(|h| h.cBlocks = U32::new(9)),
                "vdi: cBlocks at 0x180 is 9, expected 10 or more, for a disk of 10485760 bytes",
            ),
            (
                refusal(|h| h.offBlocks = U32::new(471)),
                "vdi: offBlocks at 0x154 is 0x1d7, expected a place behind the header, 0x1d8",
            ),
            (
                refusal(|h| h.offData = U32::new((1 << 20) + 39)),
                "vdi: offData at 0x158 is 0x100027, expected a place behind the block map, \
                 0x100028",
            ),
            (
                refusal(|h| h.cbHeader = U32::new(383)),
                "vdi: cbHeader at 0x48 is 383, expected 384 or more",
            ),
            (
                refusal(|h| h.uuidModify = [0; 16]),
                "vdi: uuidModify at 0x198 is 0, expected a UUID that is not nil",
            ),
            (
                refusal(|h| h.r#type = U32::new(kind::DIFFERENCING)),
                "vdi: uuidLinkage at 0x1a8 is missing, expected the parent of an image of type \
                 differencing",
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_file_that_ends_inside_its_header_or_map_is_refused() {
        let header = good();
        for len in [0, 71, 72, 455] {
            let bytes = &header.as_bytes()[..len];
            let error = Header::parse(bytes, len as u64).expect_err("refused").to_string();
            assert!(error.starts_with("vdi: header"), "{error}");
        }
        let error = Header::parse(header.as_bytes(), (1 << 20) + 39).unwrap_err().to_string();
        assert_eq!(
            error,
            "vdi: block map at 0x100027 is missing, expected the whole block map, which ends at \
             0x100028"
        );
    }

    #[test]
    fn a_disk_ends_at_its_last_whole_sector() {
        let mut header = good();
        header.cbDisk = (1_049_276).into();
        assert_eq!(parse(&header).expect("it is good").size, 1_049_088);
    }
}
