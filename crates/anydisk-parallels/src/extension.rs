//! The format extension: a cluster with features that the header has no room for.
//!
//! ```text
//!   magic | MD5 of what follows | feature: magic, flags, length | data | feature ... | magic 0
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::ops::Range;

use anydisk_core::{HostOffset, Invalid, Limits, Result, Storage, StorageExt, Uuid, Value};
use md5::{Digest, Md5};
use zerocopy::{FromBytes, IntoBytes};

use crate::header::{Header, limit};
use crate::layout::{
    DIRTY_BITMAP, EXTENSION_MAGIC, RawBitmap, RawExtension, RawFeature, SECTOR, feature,
};
use crate::{NAME, limits};

/// A format extension that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    /// Its cluster.
    pub(crate) at: HostOffset,
    pub(crate) bitmaps: Vec<StoredBitmap>,
    pub(crate) others: Vec<Other>,
}

/// A dirty bitmap as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredBitmap {
    pub(crate) id: Uuid,
    /// Bytes of the disk that one bit stands for.
    pub(crate) granularity: u64,
    /// For each cluster of bits: 0 all clear, 1 all set, else its sector.
    pub(crate) table: Vec<u64>,
}

/// A feature that is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) magic: u64,
    pub(crate) flags: u64,
    /// Where its header and data are in the cluster.
    pub(crate) place: Range<usize>,
}

impl Extension {
    /// Its clusters in the file: its own, and those of the bitmaps.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = HostOffset> + '_ {
        std::iter::once(self.at).chain(self.bitmaps.iter().flat_map(StoredBitmap::clusters))
    }

    /// Whether it stays as it is when the disk is written to.
    pub(crate) fn is_kept(&self) -> bool {
        self.bitmaps.is_empty() && self.others.iter().all(Other::is_kept)
    }

    /// The cluster of these bytes with nothing in it but the features that are kept.
    pub(crate) fn without_dropped(&self, bytes: &[u8]) -> Vec<u8> {
        let kept = self.others.iter().filter(|other| other.is_kept());
        let features = kept.flat_map(|other| bytes.get(other.place.clone()).unwrap_or_default());
        let mut rest: Vec<u8> = features.copied().collect();
        rest.resize(bytes.len().saturating_sub(size_of::<RawExtension>()), 0);
        let check_sum = Md5::digest(&rest).into();
        let raw = RawExtension { magic: EXTENSION_MAGIC.into(), check_sum };
        [raw.as_bytes(), &rest].concat()
    }
}

impl Other {
    /// Who does not know it must not write.
    pub(crate) fn is_necessary(&self) -> bool {
        self.flags & feature::NECESSARY != 0
    }

    /// Who does not know it keeps it.
    pub(crate) fn is_kept(&self) -> bool {
        self.flags & feature::TRANSIT != 0
    }
}

impl StoredBitmap {
    /// Where the clusters of bits are that it has in the file.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = HostOffset> + '_ {
        let places = self.table.iter().filter(|entry| **entry > 1);
        places.map(|sector| HostOffset(sector.saturating_mul(SECTOR)))
    }
}

/// Reads the format extension of an image, if it has one.
///
/// # Errors
/// [`Error::Invalid`](anydisk_core::Error::Invalid) for one that is damaged, `Limit` for one that is
/// too large to be read.
pub(crate) fn read(
    header: &Header,
    store: &dyn Storage,
    len: u64,
    limits: &Limits,
) -> Result<Option<Extension>> {
    let Some(at) = header.extension else { return Ok(None) };
    let end = at.saturating_add(header.cluster);
    if at < header.table_end() || end.get() > len {
        let expected = format!("a whole cluster of the file, which ends at {len:#x}");
        return Err(invalid("ext_off", HostOffset(0x38), Value::Hex(at.get()), expected).into());
    }
    limit("size of the format extension in bytes", header.cluster, limits.unit)?;
    let mut bytes = vec![0; usize::try_from(header.cluster).expect("limited above")];
    store.read_exact_at(at, &mut bytes)?;
    Extension::parse(&bytes, at, header).map(Some)
}

impl Extension {
    /// Checks the bytes of the cluster at `at`.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn parse(bytes: &[u8], at: HostOffset, header: &Header) -> Result<Self> {
        let (raw, rest) = RawExtension::read_from_prefix(bytes)
            .map_err(|_| invalid("format extension", at, Value::Missing, "24 bytes".into()))?;
        if raw.magic.get() != EXTENSION_MAGIC {
            let expected = format!("{EXTENSION_MAGIC:#x}");
            let found = Value::Hex(raw.magic.get());
            return Err(invalid("magic of the format extension", at, found, expected).into());
        }
        if Md5::digest(rest)[..] != raw.check_sum {
            let expected = "the MD5 of what follows it".into();
            let found = Value::from(&raw.check_sum[..]);
            let field = "check_sum of the format extension";
            return Err(invalid(field, at.saturating_add(8), found, expected).into());
        }
        Features { bytes, at, header }.parse()
    }
}

/// The features of an extension, while they are read.
struct Features<'a> {
    bytes: &'a [u8],
    at: HostOffset,
    header: &'a Header,
}

impl Features<'_> {
    fn parse(&self) -> Result<Extension> {
        let mut found = Extension { at: self.at, bitmaps: Vec::new(), others: Vec::new() };
        let mut next = size_of::<RawExtension>();
        while let Some((raw, place)) = self.feature(next)? {
            let count = found.bitmaps.len() + found.others.len();
            limit("features of the format extension", count as u64 + 1, limits::FEATURES)?;
            let (magic, flags) = (raw.magic.get(), raw.flags.get());
            next = place.end;
            match magic {
                DIRTY_BITMAP => found.bitmaps.push(self.bitmap(&raw, &place)?),
                _ => found.others.push(Other { magic, flags, place }),
            }
        }
        Ok(found)
    }

    /// The feature at `start`, and where it lies with its data; `None` at the end of the list.
    fn feature(&self, start: usize) -> Result<Option<(RawFeature, Range<usize>)>> {
        let from_start = self.bytes.get(start..).unwrap_or_default();
        let Ok((raw, data)) = RawFeature::read_from_prefix(from_start) else {
            let expected = "a feature of magic 0 at the end of the list".into();
            return Err(self.invalid("features", start, Value::Missing, expected));
        };
        if raw.magic.get() == 0 {
            return Ok(None);
        }
        let len = u64::from(raw.data_size.get()).next_multiple_of(8);
        match usize::try_from(len).ok().filter(|len| *len <= data.len()) {
            Some(len) => Ok(Some((raw, start..start + size_of::<RawFeature>() + len))),
            None => {
                let found = Value::Number(raw.data_size.get().into());
                let expected = format!("{} or less, the rest of the cluster", data.len());
                Err(self.invalid("data_size of a feature", start + 16, found, expected))
            }
        }
    }

    fn bitmap(&self, feature: &RawFeature, place: &Range<usize>) -> Result<StoredBitmap> {
        let start = place.start + size_of::<RawFeature>();
        let data_size = usize::try_from(feature.data_size.get()).unwrap_or(usize::MAX);
        let data = self.bytes.get(start..).and_then(|data| data.get(..data_size));
        let data = data.unwrap_or_default();
        let Ok((raw, table)) = RawBitmap::read_from_prefix(data) else {
            let expected = format!("{} or more, for a dirty bitmap", size_of::<RawBitmap>());
            let found = Value::Number(data_size as u64);
            return Err(self.invalid("data_size of a feature", place.start + 16, found, expected));
        };
        let sectors = self.header.size / SECTOR;
        if raw.size.get() != sectors {
            let found = Value::Number(raw.size.get());
            let expected = format!("{sectors}, the sectors of the disk");
            return Err(self.invalid("size of a dirty bitmap", start, found, expected));
        }
        let granularity = u64::from(raw.granularity.get());
        if !granularity.is_power_of_two() {
            let expected = "a power of two".into();
            let found = Value::Number(granularity);
            return Err(self.invalid("granularity of a dirty bitmap", start + 24, found, expected));
        }
        // Each entry stands for a cluster of bits.
        let needed = sectors.div_ceil(granularity).div_ceil(self.header.cluster * 8);
        let entries: Vec<u64> =
            table.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
        let count = u64::from(raw.l1_size.get());
        if count != needed || entries.len() as u64 != needed {
            let found = Value::Number(count);
            let expected = format!("{needed}, with as many entries behind it");
            return Err(self.invalid("l1_size of a dirty bitmap", start + 28, found, expected));
        }
        Ok(StoredBitmap {
            id: Uuid::from_bytes(raw.id),
            granularity: granularity * SECTOR,
            table: entries,
        })
    }

    fn invalid(
        &self,
        field: &'static str,
        within: usize,
        found: Value,
        expected: String,
    ) -> anydisk_core::Error {
        invalid(field, self.at.saturating_add(within as u64), found, expected).into()
    }
}

fn invalid(field: &'static str, at: HostOffset, found: Value, expected: String) -> Invalid {
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Kind;

    const CLUSTER: u64 = 4096;

    /// Of a disk whose 8192 sectors need one cluster of bits.
    fn header() -> Header {
        Header {
            kind: Kind::Extended,
            cluster: CLUSTER,
            entries: 1024,
            size: 4 << 20,
            first: HostOffset(2 * CLUSTER),
            wrong_data_off: false,
            in_use: 0,
            is_empty: false,
            extension: Some(HostOffset(2 * CLUSTER)),
        }
    }

    fn feature(magic: u64, flags: u64, data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(data.len()).expect("small");
        let mut bytes =
            [&magic.to_le_bytes()[..], &flags.to_le_bytes(), &size.to_le_bytes()].concat();
        bytes.extend([0; 4]);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn bitmap(size: u64, granularity: u32, l1_size: u32, table: &[u64]) -> Vec<u8> {
        let mut data = [&size.to_le_bytes()[..], &[7; 16], &granularity.to_le_bytes()].concat();
        data.extend(l1_size.to_le_bytes());
        data.extend(table.iter().flat_map(|entry| entry.to_le_bytes()));
        feature(DIRTY_BITMAP, 0, &data)
    }

    fn parse(features: &[Vec<u8>]) -> Result<Extension> {
        let mut rest = features.concat();
        rest.resize(usize::try_from(CLUSTER).expect("small") - 24, 0);
        let sum = Md5::digest(&rest);
        let bytes = [&EXTENSION_MAGIC.to_le_bytes()[..], &sum, &rest].concat();
        Extension::parse(&bytes, HostOffset(0x2000), &header())
    }

    #[test]
    fn bitmaps_and_features_that_are_not_known_are_listed() {
        let others =
            [feature(5, feature::TRANSIT, b"nine bytes"), feature(6, feature::NECESSARY, b"")];
        let found = parse(&[bitmap(8192, 1, 1, &[1]), others.concat()]).expect("it is good");
        let stored =
            StoredBitmap { id: Uuid::from_bytes([7; 16]), granularity: 512, table: vec![1] };
        assert_eq!(found.bitmaps, [stored]);
        let flags = |other: &Other| (other.magic, other.is_kept(), other.is_necessary());
        assert_eq!(
            found.others.iter().map(flags).collect::<Vec<_>>(),
            [(5, true, false), (6, false, true)]
        );
    }

    #[test]
    fn a_broken_feature_is_refused_with_its_place_and_value() {
        let mut long = feature(5, 0, b"");
        long[16..20].copy_from_slice(&4049_u32.to_le_bytes());
        let many: Vec<_> = (0..169).map(|_| feature(5, 0, b"")).collect();
        for (features, expected) in [
            (
                vec![long],
                "data_size of a feature at 0x2028 is 4049, expected 4048 or less, the rest of the cluster",
            ),
            (
                many,
                "features at 0x2ff0 is missing, expected a feature of magic 0 at the end of the list",
            ),
            (
                vec![feature(DIRTY_BITMAP, 0, b"short")],
                "data_size of a feature at 0x2028 is 5, expected 32 or more, for a dirty bitmap",
            ),
            (
                vec![bitmap(8191, 1, 1, &[1])],
                "size of a dirty bitmap at 0x2030 is 8191, expected 8192, the sectors of the disk",
            ),
            (
                vec![bitmap(8192, 3, 1, &[1])],
                "granularity of a dirty bitmap at 0x2048 is 3, expected a power of two",
            ),
            (
                vec![bitmap(8192, 1, 2, &[1, 1])],
                "l1_size of a dirty bitmap at 0x204c is 2, expected 1, with as many entries behind it",
            ),
            (
                vec![bitmap(8192, 1, 1, &[])],
                "l1_size of a dirty bitmap at 0x204c is 1, expected 1, with as many entries behind it",
            ),
        ] {
            let found = parse(&features).expect_err("it is refused").to_string();
            assert_eq!(found, format!("parallels: {expected}"));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut bytes = [&EXTENSION_MAGIC.to_le_bytes()[..], &[0; 16], &[0; 4072]].concat();
        let sum = Md5::digest(&bytes[24..]);
        bytes[8..24].copy_from_slice(&sum);
        let parse = |bytes: &[u8]| Extension::parse(bytes, HostOffset(0x2000), &header());
        assert!(parse(&bytes).is_ok());
        for at in [24, 4095] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = parse(&changed).expect_err("it is refused").to_string();
            assert!(
                error.starts_with("parallels: check_sum of the format extension at 0x2008"),
                "{error}"
            );
        }
        bytes[0] ^= 1;
        let error = parse(&bytes).expect_err("it is refused").to_string();
        assert!(error.starts_with("parallels: magic of the format extension at 0x2000"), "{error}");
    }
}
