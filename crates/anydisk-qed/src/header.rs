//! The header: bytes to checked values. Pure but for the name of the backing file.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{
    Error, HostOffset, Invalid, Reference, Result, Storage, StorageExt, Value, invalid_field,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::NAME;
use crate::layout::{MAGIC, RawHeader, feature};
use crate::limits::{self, BACKING_NAME};
use crate::piece::Piece;

/// The header as it stands in the file now, and the name that it points to.
#[derive(Clone, Debug)]
pub(crate) struct HeaderNow {
    pub(crate) header: Header,
    pub(crate) backing: Option<Vec<u8>>,
}

/// A header that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Binary logarithm of the cluster size in bytes, 12 to 26.
    pub cluster_bits: u32,
    /// Clusters of a table: 1, 2, 4, 8 or 16.
    pub table_size: u32,
    /// Clusters that the header takes.
    pub header_size: u32,
    /// Bits of [`feature`].
    pub features: u64,
    /// Features that readers may ignore; none is known.
    pub compat_features: u64,
    /// Features that who writes and does not know them clears; none is known.
    pub autoclear_features: u64,
    /// Where the L1 table is.
    pub l1_table_offset: HostOffset,
    /// Size of the disk in bytes.
    pub image_size: u64,
    /// Where the name of the backing file stands, and its length in bytes.
    pub backing_filename: Option<(HostOffset, u32)>,
}

impl Header {
    /// Reads the header from the first bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field, [`Error::Unsupported`] for features nobody here knows.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| Invalid {
            format: NAME,
            field: "header".into(),
            at: HostOffset(bytes.len() as u64),
            found: Value::Missing,
            expected: "64 bytes".into(),
        })?;
        check_units(raw)?;
        check_features(raw)?;
        let header = Self {
            cluster_bits: raw.cluster_size.get().trailing_zeros(),
            table_size: raw.table_size.get(),
            header_size: raw.header_size.get(),
            features: raw.features.get(),
            compat_features: raw.compat_features.get(),
            autoclear_features: raw.autoclear_features.get(),
            l1_table_offset: HostOffset(raw.l1_table_offset.get()),
            image_size: raw.image_size.get(),
            backing_filename: backing_filename(raw)?,
        };
        header.check_size()?;
        header.check_l1(file_len)?;
        Ok(header)
    }

    /// Reads the header of the image in `store`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of the store.
    pub fn read(store: &dyn Storage) -> Result<Self> {
        let mut bytes = [0; size_of::<RawHeader>()];
        let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
        Self::parse(bytes.get(..count).unwrap_or_default(), store.len()?)
    }

    /// Bytes of a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of a table, at most 1 GiB.
    #[must_use]
    pub fn table_len(&self) -> u64 {
        u64::from(self.table_size) << self.cluster_bits
    }

    /// Bytes that the header takes.
    #[must_use]
    pub fn header_len(&self) -> u64 {
        u64::from(self.header_size) << self.cluster_bits
    }

    /// As it stands in the file.
    pub(crate) fn to_bytes(&self) -> [u8; 64] {
        let (at, len) = self.backing_filename.unwrap_or((HostOffset::ZERO, 0));
        let raw = RawHeader {
            magic: MAGIC,
            cluster_size: u32::try_from(self.cluster_size()).unwrap_or(u32::MAX).into(),
            table_size: self.table_size.into(),
            header_size: self.header_size.into(),
            features: self.features.into(),
            compat_features: self.compat_features.into(),
            autoclear_features: self.autoclear_features.into(),
            l1_table_offset: self.l1_table_offset.get().into(),
            image_size: self.image_size.into(),
            backing_filename_offset: u32::try_from(at.get()).unwrap_or(u32::MAX).into(),
            backing_filename_size: len.into(),
        };
        let mut bytes = [0; size_of::<RawHeader>()];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The clusters of the header; a header that says it has none has one.
    pub(crate) fn piece(&self) -> Piece {
        Piece::new(HostOffset::ZERO, self.header_len().max(self.cluster_size()))
    }

    /// The L1 table.
    pub(crate) fn l1_piece(&self) -> Piece {
        Piece::new(self.l1_table_offset, self.table_len())
    }

    /// Clears the features that are to be cleared by who writes and does not know them; durable.
    pub(crate) fn clear_unknown(&self, store: &dyn Storage) -> Result<()> {
        if self.autoclear_features == 0 {
            return Ok(());
        }
        let cleared = Self { autoclear_features: 0, ..self.clone() };
        store.write_at(HostOffset::ZERO, &cleared.to_bytes())?;
        Ok(store.flush()?)
    }

    /// The image was not closed cleanly.
    #[must_use]
    pub fn needs_check(&self) -> bool {
        self.features & feature::NEED_CHECK != 0
    }

    /// The backing file is raw, whatever it begins with.
    #[must_use]
    pub fn backing_is_raw(&self) -> bool {
        self.features & feature::BACKING_FORMAT_NO_PROBE != 0
    }

    /// The name of the backing file, byte for byte.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is not in the file or holds a NUL; those of the store.
    pub fn read_backing_name(&self, store: &dyn Storage) -> Result<Option<Vec<u8>>> {
        let Some((at, len)) = self.backing_filename else { return Ok(None) };
        if at.get().saturating_add(len.into()) > store.len()? {
            let expected = "bytes of the file";
            let field = invalid_field!(NAME, RawHeader, backing_filename_offset, at, "{expected}");
            return Err(field.into());
        }
        let mut name = vec![0; usize::try_from(len).expect("at most 1023")];
        store.read_exact_at(at, &mut name)?;
        match name.contains(&0) {
            false => Ok(Some(name)),
            true => Err(Invalid {
                format: NAME,
                field: "backing file name".into(),
                at,
                found: Value::from(&*name),
                expected: "a name without a NUL".into(),
            }
            .into()),
        }
    }

    pub(crate) fn check_size(&self) -> Result<()> {
        let size = self.image_size;
        if !size.is_multiple_of(512) {
            return Err(
                invalid_field!(NAME, RawHeader, image_size, size, "a multiple of 512").into()
            );
        }
        let entries = u128::from(self.table_len() / 8);
        let most = entries.saturating_mul(entries).saturating_mul(self.cluster_size().into());
        if u128::from(size) > most || size > limits::FILE {
            let expected = format!("at most {most} bytes, which the tables can map");
            return Err(invalid_field!(NAME, RawHeader, image_size, size, "{expected}").into());
        }
        Ok(())
    }

    fn check_l1(&self, file_len: u64) -> Result<()> {
        let at = self.l1_table_offset;
        let file_end = file_len & !self.cluster_size().saturating_sub(1);
        let aligned = at.get().is_multiple_of(self.cluster_size());
        let inside = at.checked_add(self.table_len()).is_some_and(|end| end.get() <= file_end);
        if aligned && inside && at.get() >= self.header_len() && at != HostOffset::ZERO {
            return Ok(());
        }
        let expected = "whole clusters of the file, behind the header";
        Err(invalid_field!(NAME, RawHeader, l1_table_offset, at, "{expected}").into())
    }
}

/// The features of an image that lies over another one, or over none.
pub(crate) fn feature_bits(backing: Option<&Reference>) -> u64 {
    match backing {
        Some(backing) if backing.format.as_deref() == Some("raw") => {
            feature::BACKING_FILE | feature::BACKING_FORMAT_NO_PROBE
        }
        Some(_) => feature::BACKING_FILE,
        None => 0,
    }
}

fn check_units(raw: &RawHeader) -> Result<()> {
    let (magic, cluster, table) = (raw.magic, raw.cluster_size.get(), raw.table_size.get());
    if magic != MAGIC {
        return Err(invalid_field!(NAME, RawHeader, magic, &magic[..], "\"QED\\x00\"").into());
    }
    if !cluster.is_power_of_two() || !(4 << 10..=64 << 20).contains(&cluster) {
        let expected = "a power of two, 4096 to 67108864";
        return Err(invalid_field!(NAME, RawHeader, cluster_size, cluster, "{expected}").into());
    }
    if !table.is_power_of_two() || table > 16 {
        let expected = "1, 2, 4, 8 or 16";
        return Err(invalid_field!(NAME, RawHeader, table_size, table, "{expected}").into());
    }
    let header = raw.header_size.get();
    if header.checked_mul(cluster).is_none() {
        let expected = "clusters of less than 4 GiB";
        return Err(invalid_field!(NAME, RawHeader, header_size, header, "{expected}").into());
    }
    Ok(())
}

fn check_features(raw: &RawHeader) -> Result<()> {
    let unknown = raw.features.get() & !feature::KNOWN;
    match unknown {
        0 => Ok(()),
        _ => {
            let feature = format!("feature bit {}", unknown.trailing_zeros()).into();
            Err(Error::Unsupported { format: NAME, feature })
        }
    }
}

/// The name must lie in the clusters of the header.
fn backing_filename(raw: &RawHeader) -> Result<Option<(HostOffset, u32)>> {
    if raw.features.get() & feature::BACKING_FILE == 0 {
        return Ok(None);
    }
    let (at, len) = (raw.backing_filename_offset.get(), raw.backing_filename_size.get());
    if len > BACKING_NAME {
        let expected = "at most 1023";
        return Err(
            invalid_field!(NAME, RawHeader, backing_filename_size, len, "{expected}").into()
        );
    }
    let room = raw.header_size.get().saturating_mul(raw.cluster_size.get());
    if at.checked_add(len).is_none_or(|end| end > room) {
        let (found, expected) = (Value::Hex(at.into()), "a name inside the header");
        let field = invalid_field!(NAME, RawHeader, backing_filename_offset, found, "{expected}");
        return Err(field.into());
    }
    Ok(Some((HostOffset(at.into()), len)).filter(|(_, len)| *len > 0))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    const FILE: u64 = 1 << 20;

    fn header(change: impl FnOnce(&mut RawHeader)) -> Result<Header> {
        let mut raw = RawHeader::new_zeroed();
        raw.magic = MAGIC;
        (raw.cluster_size, raw.table_size, raw.header_size) = (4096.into(), 2.into(), 1.into());
        (raw.l1_table_offset, raw.image_size) = (4096.into(), (1 << 20).into());
        change(&mut raw);
        Header::parse(raw.as_bytes(), FILE)
    }

    fn refusal(change: impl FnOnce(&mut RawHeader)) -> String {
        header(change).unwrap_err().to_string()
    }

    #[test]
    fn a_good_header_is_read() {
        let header = header(|raw| {
            raw.features = 7.into();
            (raw.backing_filename_offset, raw.backing_filename_size) = (64.into(), 9.into());
        })
        .expect("it is good");
        assert_eq!((header.cluster_size(), header.table_len()), (4096, 8192));
        assert!(header.needs_check() && header.backing_is_raw());
        assert_eq!(header.backing_filename, Some((HostOffset(64), 9)));
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        for (error, expected) in [
            (
                refusal(|raw| raw.magic = *b"QFI\xfb"),
                "qed: magic at 0x0 is \"QFI\\xfb\", expected \"QED\\x00\"",
            ),
            (
                refusal(|raw| raw.cluster_size = 12288.into()),
                "qed: cluster_size at 0x4 is 12288, expected a power of two, 4096 to 67108864",
            ),
            (
                refusal(|raw| raw.table_size = 3.into()),
                "qed: table_size at 0x8 is 3, expected 1, 2, 4, 8 or 16",
            ),
            (
                refusal(|raw| raw.header_size = u32::MAX.into()),
                "qed: header_size at 0xc is 4294967295, expected clusters of less than 4 GiB",
            ),
            (refusal(|raw| raw.features = 8.into()), "qed: feature bit 3 is not supported"),
            (
                refusal(|raw| raw.image_size = 513.into()),
                "qed: image_size at 0x30 is 513, expected a multiple of 512",
            ),
            (
                refusal(|raw| raw.image_size = (1 << 40).into()),
                "qed: image_size at 0x30 is 1099511627776, expected at most 4294967296 bytes, which the \
                 tables can map",
            ),
            (
                refusal(|raw| raw.l1_table_offset = (FILE - 4096).into()),
                "qed: l1_table_offset at 0x28 is 0xff000, expected whole clusters of the file, behind \
                 the header",
            ),
            (
                refusal(|raw| {
                    raw.features = 1.into();
                    (raw.backing_filename_offset, raw.backing_filename_size) =
                        (4090.into(), 9.into());
                }),
                "qed: backing_filename_offset at 0x38 is 0xffa, expected a name inside the header",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_header_is_written_as_it_was_read() {
        let header = header(|raw| {
            (raw.features, raw.compat_features, raw.autoclear_features) =
                (5.into(), 8.into(), 9.into());
            (raw.backing_filename_offset, raw.backing_filename_size) = (64.into(), 9.into());
        })
        .expect("it is good");
        assert_eq!(Header::parse(&header.to_bytes(), FILE).expect("it is good"), header);
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), len in any::<u64>()) {
            let mut bytes = bytes;
            let _ = Header::parse(&bytes, len);
            if bytes.len() >= 12 {
                bytes[..12].copy_from_slice(b"QED\0\0\0\x01\0\x04\0\0\0");
            }
            let _ = Header::parse(&bytes, len);
        }
    }
}
