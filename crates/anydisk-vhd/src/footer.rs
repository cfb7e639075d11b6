//! Bytes to a checked footer. Pure.

use std::mem::offset_of;

use anydisk_core::{Error, HostOffset, Invalid, Result, Uuid, Value};
use zerocopy::{FromBytes, IntoBytes};

use crate::geometry::Geometry;
use crate::layout::{COOKIE, RawFooter, SECTOR, VERSION, kind};
use crate::{NAME, limits};

/// Bytes of a footer.
pub(crate) const FOOTER_LEN: usize = size_of::<RawFooter>();

/// Bytes of the footers of Virtual PC before 2004: the last one is missing.
const OLD_LEN: usize = FOOTER_LEN - 1;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The bytes of the disk, then the footer.
    Fixed,
    /// Blocks are added as they are written.
    Dynamic,
    /// Over a parent, sector by sector.
    Differencing,
}

/// A footer whose numbers can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// As it stands in the file.
    pub(crate) raw: RawFooter,
    pub(crate) kind: Kind,
    /// Bytes of the disk, whole sectors.
    pub(crate) size: u64,
}

/// Where the footer that counts was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// At the end of the file, beginning there.
    End(HostOffset),
    /// Only the copy at the start of the file is good.
    Start,
}

impl Footer {
    /// Checks a footer that lies at `at`.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Unsupported`] for versions and types from elsewhere;
    /// [`Error::Limit`].
    pub(crate) fn parse(bytes: &[u8], at: HostOffset) -> Result<Self> {
        let Ok((raw, _)) = RawFooter::read_from_prefix(bytes) else {
            return Err(too_short(bytes.len()));
        };
        if raw.cookie != COOKIE {
            // Its bytes are not told: a child may name any file as its parent.
            return Err(invalid!(at, RawFooter, cookie, Value::Missing, "\"conectix\""));
        }
        let sum = checksum(raw.as_bytes(), offset_of!(RawFooter, checksum));
        if raw.checksum.get() != sum {
            let found = Value::Hex(raw.checksum.get().into());
            return Err(invalid!(at, RawFooter, checksum, found, "{sum:#x}"));
        }
        check_version(raw.version.get())?;
        let kind = match raw.disk_type.get() {
            kind::FIXED => Kind::Fixed,
            kind::DYNAMIC => Kind::Dynamic,
            kind::DIFFERENCING => Kind::Differencing,
            other => return Err(unsupported(format!("disk type {other}"))),
        };
        let size = disk_size(&raw);
        limit("size of the disk in bytes", size, limits::DISK)?;
        Ok(Self { raw, kind, size })
    }

    /// The footer of a file: the one at the end, else the copy at the start, where that is one of a
    /// disk that has a copy there. `head` and `tail` are the first and the last 512 bytes.
    ///
    /// What lies at the start of a fixed disk was written by its guest: it counts only if there is
    /// no footer at the end.
    ///
    /// # Errors
    /// What is wrong with the footer at the end.
    pub(crate) fn of_file(head: &[u8], tail: &[u8], len: u64) -> Result<(Self, Found)> {
        let at = HostOffset(len.saturating_sub(FOOTER_LEN as u64));
        let error = match Self::parse(tail, at) {
            Ok(footer) => return Ok((footer, Found::End(at))),
            Err(error) => error,
        };
        let old = old_footer(tail);
        if old.starts_with(&COOKIE) {
            let at = at.saturating_add(1);
            return Ok((Self::parse(&old, at)?, Found::End(at)));
        }
        match Self::parse(head, HostOffset::ZERO) {
            Ok(footer) if footer.kind != Kind::Fixed => Ok((footer, Found::Start)),
            // A version from elsewhere is told as such, whichever of the two says so.
            Err(told @ Error::Unsupported { .. }) => Err(told),
            _ => Err(error),
        }
    }

    /// The number by which children know the disk.
    pub(crate) fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.unique_id)
    }

    /// Where the dynamic header is.
    pub(crate) fn header_at(&self) -> HostOffset {
        HostOffset(self.raw.data_offset.get())
    }
}

/// The size that the guest sees. Virtual PC shows what the geometry holds, and qemu does so for its
/// images and for those it makes itself; others show `current_size`.
fn disk_size(raw: &RawFooter) -> u64 {
    let geometry = Geometry::of(raw);
    let by_geometry = matches!(&raw.creator_application, b"vpc " | b"qemu");
    if by_geometry && !geometry.is_largest() && geometry.sectors() > 0 {
        return geometry.sectors() * SECTOR;
    }
    raw.current_size.get() / SECTOR * SECTOR
}

/// The last 511 bytes of a file as a footer.
fn old_footer(tail: &[u8]) -> Vec<u8> {
    let start = tail.len().saturating_sub(OLD_LEN);
    let mut bytes = tail.get(start..).unwrap_or_default().to_vec();
    bytes.push(0);
    bytes
}

/// The sum that a footer or a dynamic header carries: the complement of the sum of all its bytes,
/// those at `skipped`, where it stands, left out.
pub(crate) fn checksum(bytes: &[u8], skipped: usize) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(at, _)| !(skipped..skipped + 4).contains(at));
    !counted.fold(0_u32, |sum, (_, byte)| sum.wrapping_add((*byte).into()))
}

/// Only another major version is another format.
pub(crate) fn check_version(version: u32) -> Result<()> {
    match version >> 16 == VERSION >> 16 {
        true => Ok(()),
        false => Err(unsupported(format!("version {}.{}", version >> 16, version & 0xFFFF))),
    }
}

fn too_short(found: usize) -> Error {
    Invalid {
        format: NAME,
        field: "footer".into(),
        at: HostOffset::ZERO,
        found: Value::Number(found as u64),
        expected: format!("{FOOTER_LEN} bytes").into(),
    }
    .into()
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
    use zerocopy::FromZeros;

    use super::*;

    fn footer(change: impl FnOnce(&mut RawFooter)) -> Vec<u8> {
        let mut raw = RawFooter::new_zeroed();
        raw.cookie = COOKIE;
        raw.version = VERSION.into();
        raw.disk_type = kind::DYNAMIC.into();
        raw.current_size = (10 << 20).into();
        change(&mut raw);
        raw.checksum = checksum(raw.as_bytes(), offset_of!(RawFooter, checksum)).into();
        raw.as_bytes().to_vec()
    }

    fn parsed(bytes: &[u8]) -> Result<Footer> {
        Footer::parse(bytes, HostOffset(0x1000))
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_value() {
        let mut bytes = footer(|_| ());
        bytes[0] = b'C';
        let error = parsed(&bytes).unwrap_err().to_string();
        assert_eq!(error, "vpc: cookie at 0x1000 is missing, expected \"conectix\"");
        let mut bytes = footer(|_| ());
        bytes[100] ^= 1;
        let error = parsed(&bytes).unwrap_err().to_string();
        assert!(error.starts_with("vpc: checksum at 0x1040 is 0x"), "{error}");
        let error = parsed(&footer(|raw| raw.version = 0x2_0001.into())).unwrap_err();
        assert_eq!(error.to_string(), "vpc: version 2.1 is not supported");
        let error = parsed(&footer(|raw| raw.disk_type = 5.into())).unwrap_err();
        assert_eq!(error.to_string(), "vpc: disk type 5 is not supported");
        let error = parsed(&footer(|raw| raw.current_size = u64::MAX.into())).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: limits::DISK, .. }), "{error}");
        let error = parsed(&footer(|_| ())[..511]).unwrap_err().to_string();
        assert_eq!(error, "vpc: footer at 0x0 is 511, expected 512 bytes");
    }

    #[test]
    fn the_geometry_counts_for_virtual_pc_and_qemu_and_the_size_for_others() {
        let size = |creator: &[u8; 4], cylinders: u16, heads, sectors| {
            let bytes = footer(|raw| {
                raw.creator_application = *creator;
                raw.cylinders = cylinders.into();
                (raw.heads, raw.sectors) = (heads, sectors);
            });
            parsed(&bytes).expect("good").size
        };
        let chs = 100 * 4 * 17 * 512;
        assert_eq!(size(b"vpc ", 100, 4, 17), chs);
        assert_eq!(size(b"qemu", 100, 4, 17), chs);
        for creator in [b"win ", b"qem2", b"d2v\0", b"tap\0", b"CTXS", b"vbox", b"vs  "] {
            assert_eq!(size(creator, 100, 4, 17), 10 << 20);
        }
        assert_eq!(size(b"qemu", 65535, 16, 255), 10 << 20, "the largest says nothing");
        assert_eq!(size(b"vpc ", 0, 0, 0), 10 << 20, "no geometry");
    }

    #[test]
    fn the_end_counts_and_the_start_only_where_there_is_no_footer_at_the_end() {
        let fixed = footer(|raw| raw.disk_type = kind::FIXED.into());
        let (dynamic, nothing) = (footer(|_| ()), vec![0; 512]);
        let of_file = |head: &[u8], tail: &[u8]| Footer::of_file(head, tail, 0x2200);
        let found = of_file(&dynamic, &fixed).expect("a footer at the end");
        assert_eq!((found.0.kind, found.1), (Kind::Fixed, Found::End(HostOffset(0x2000))));
        let found = of_file(&dynamic, &nothing).expect("a copy at the start");
        assert_eq!((found.0.kind, found.1), (Kind::Dynamic, Found::Start));
        let error = of_file(&fixed, &nothing).unwrap_err().to_string();
        assert!(error.starts_with("vpc: cookie at 0x2000 is"), "{error}");
        let old = [&[7][..], &fixed[..511]].concat();
        let found = of_file(&nothing, &old).expect("a footer of 511 bytes");
        assert_eq!(found.1, Found::End(HostOffset(0x2001)));
    }
}
