//! The header: bytes to checked values, and back. Pure but for the name of the backing file.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{
    Error, HostOffset, Invalid, Result, Storage, StorageExt, Value, check_limit, invalid_field,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::create::SECTOR;
use crate::layout::{MAGIC, RawHeader, VERSION};
use crate::table::ENTRY;
use crate::{NAME, limits};

/// A header that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the name of the backing file stands, and its length in bytes.
    pub backing_file: Option<(HostOffset, u32)>,
    /// When the backing file was changed last, in seconds since 1970. Nobody looks at it.
    pub mtime: u32,
    /// Virtual size in bytes, as it stands in the file.
    pub size: u64,
    /// Binary logarithm of the cluster size in bytes, 9 to 16.
    pub cluster_bits: u32,
    /// Binary logarithm of the number of entries in an L2 table, 6 to 13.
    pub l2_bits: u32,
    /// Guest data is encrypted with AES-128 in CBC mode.
    pub encrypted: bool,
    /// Where the L1 table is.
    pub l1_table_offset: HostOffset,
}

impl Header {
    /// Reads the header from the first bytes of a file.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field, [`Error::Unsupported`] for an unknown encryption,
    /// [`Error::Limit`] for a disk that needs too large an L1 table.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| too_short(bytes))?;
        check_kind(raw)?;
        check_geometry(raw)?;
        check_backing(raw)?;
        let header = Self::from_checked(raw);
        header.check_l1()?;
        Ok(header)
    }

    /// Reads the header of the image in `store`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of the store.
    pub fn read(store: &dyn Storage) -> Result<Self> {
        let mut bytes = [0; size_of::<RawHeader>()];
        let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
        Self::parse(bytes.get(..count).unwrap_or_default())
    }

    fn from_checked(raw: &RawHeader) -> Self {
        let name_at = HostOffset(raw.backing_file_offset.get());
        let name = (name_at, raw.backing_file_size.get());
        Self {
            // A name without bytes is no name, as in qemu.
            backing_file: Some(name).filter(|(at, len)| *at != HostOffset::ZERO && *len > 0),
            mtime: raw.mtime.get(),
            size: raw.size.get(),
            cluster_bits: raw.cluster_bits.into(),
            l2_bits: raw.l2_bits.into(),
            encrypted: raw.crypt_method.get() == 1,
            l1_table_offset: HostOffset(raw.l1_table_offset.get()),
        }
    }

    /// The header as it stands in the file, without the name of the backing file.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<RawHeader>()] {
        let (name_at, name_len) = self.backing_file.unwrap_or((HostOffset::ZERO, 0));
        let raw = RawHeader {
            magic: MAGIC.into(),
            version: VERSION.into(),
            backing_file_offset: name_at.get().into(),
            backing_file_size: name_len.into(),
            mtime: self.mtime.into(),
            size: self.size.into(),
            cluster_bits: u8::try_from(self.cluster_bits).expect("at most 16"),
            l2_bits: u8::try_from(self.l2_bits).expect("at most 13"),
            padding: 0.into(),
            crypt_method: u32::from(self.encrypted).into(),
            l1_table_offset: self.l1_table_offset.get().into(),
        };
        let mut bytes = [0; size_of::<RawHeader>()];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Size of the disk in bytes: whole sectors, what is left of one is not part of it.
    #[must_use]
    pub fn disk_size(&self) -> u64 {
        self.size & !0x1ff
    }

    /// Bytes of the disk that one L2 table maps, as a binary logarithm: 15 to 29.
    #[must_use]
    pub fn coverage_bits(&self) -> u32 {
        self.cluster_bits.saturating_add(self.l2_bits)
    }

    /// Number of entries in the L1 table.
    #[must_use]
    pub fn l1_entries(&self) -> u64 {
        self.size.div_ceil(1 << self.coverage_bits())
    }

    /// Bytes that a new image has for its L1 table: whole sectors.
    pub(crate) fn l1_room(&self) -> u64 {
        self.l1_entries().saturating_mul(ENTRY).next_multiple_of(SECTOR)
    }

    /// The name of the backing file, byte for byte.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is not in the file, or that hides a part of itself behind
    /// a NUL; those of the store.
    pub fn read_backing_name(&self, store: &dyn Storage) -> Result<Option<Vec<u8>>> {
        let Some((at, len)) = self.backing_file else { return Ok(None) };
        let end = at.get().saturating_add(len.into());
        if end > store.len()? {
            let expected = "bytes of the file";
            return Err(
                invalid_field!(NAME, RawHeader, backing_file_offset, at, "{expected}").into()
            );
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

    fn check_l1(&self) -> Result<()> {
        let found = self.l1_entries();
        let what = "L1 table of a disk of this size, in entries";
        check_limit(NAME, what, found, limits::L1_ENTRIES)?;
        let at = self.l1_table_offset;
        let end = found.checked_mul(8).and_then(|len| at.checked_add(len));
        if end.is_some_and(|end| end.get() <= limits::FILE) {
            return Ok(());
        }
        let expected = "a table that ends below 2^63";
        Err(invalid_field!(NAME, RawHeader, l1_table_offset, at, "{expected}").into())
    }
}

fn too_short(bytes: &[u8]) -> Invalid {
    Invalid {
        format: NAME,
        field: "header".into(),
        at: HostOffset(bytes.len() as u64),
        found: Value::Missing,
        expected: "48 bytes".into(),
    }
}

fn check_kind(raw: &RawHeader) -> Result<()> {
    let (magic, version, crypt) = (raw.magic.get(), raw.version.get(), raw.crypt_method.get());
    if magic != MAGIC {
        let found = Value::Hex(magic.into());
        return Err(invalid_field!(NAME, RawHeader, magic, found, "{MAGIC:#x}").into());
    }
    if version != VERSION {
        let expected = "1; from 2 on the format is qcow2";
        return Err(invalid_field!(NAME, RawHeader, version, version, "{expected}").into());
    }
    match crypt {
        0 | 1 => Ok(()),
        _ => {
            let feature = format!("encryption method {crypt}").into();
            Err(Error::Unsupported { format: NAME, feature })
        }
    }
}

fn check_geometry(raw: &RawHeader) -> Result<()> {
    let (clusters, tables) = (u32::from(raw.cluster_bits), u32::from(raw.l2_bits));
    if !limits::CLUSTER_BITS.contains(&clusters) {
        return Err(invalid_field!(NAME, RawHeader, cluster_bits, clusters, "9 to 16").into());
    }
    if !limits::L2_BITS.contains(&tables) {
        return Err(invalid_field!(NAME, RawHeader, l2_bits, tables, "6 to 13").into());
    }
    match raw.size.get() {
        0 | 1 => Err(invalid_field!(NAME, RawHeader, size, raw.size.get(), "at least 2").into()),
        _ => Ok(()),
    }
}

fn check_backing(raw: &RawHeader) -> Result<()> {
    let (at, len, most) =
        (raw.backing_file_offset.get(), raw.backing_file_size.get(), limits::BACKING_NAME);
    if at == 0 || len <= most {
        return Ok(());
    }
    Err(invalid_field!(NAME, RawHeader, backing_file_size, len, "at most {most}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            backing_file: None,
            mtime: 0,
            size: 65536,
            cluster_bits: 12,
            l2_bits: 9,
            encrypted: false,
            l1_table_offset: HostOffset(48),
        }
    }

    fn refusal(change: impl FnOnce(&mut RawHeader)) -> String {
        let mut bytes = header().to_bytes();
        change(RawHeader::mut_from_bytes(&mut bytes).expect("the size of a header"));
        Header::parse(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        for (error, expected) in [
            (refusal(|raw| raw.magic = 7.into()), "qcow: magic at 0x0 is 0x7, expected 0x514649fb"),
            (
                refusal(|raw| raw.version = 2.into()),
                "qcow: version at 0x4 is 2, expected 1; from 2 on the format is qcow2",
            ),
            (
                refusal(|raw| raw.cluster_bits = 8),
                "qcow: cluster_bits at 0x20 is 8, expected 9 to 16",
            ),
            (refusal(|raw| raw.l2_bits = 14), "qcow: l2_bits at 0x21 is 14, expected 6 to 13"),
            (refusal(|raw| raw.size = 1.into()), "qcow: size at 0x18 is 1, expected at least 2"),
            (
                refusal(|raw| raw.crypt_method = 2.into()),
                "qcow: encryption method 2 is not supported",
            ),
            (
                refusal(|raw| {
                    raw.backing_file_offset = 48.into();
                    raw.backing_file_size = 1024.into();
                }),
                "qcow: backing_file_size at 0x10 is 1024, expected at most 1023",
            ),
            (
                refusal(|raw| raw.l1_table_offset = ((1 << 63) - 8).into()),
                "qcow: l1_table_offset at 0x28 is 0x7ffffffffffffff8, expected a table that ends \
                 below 2^63",
            ),
            (
                refusal(|raw| raw.size = (1 << 60).into()),
                "qcow: L1 table of a disk of this size, in entries is 549755813888, more than the \
                 limit of 268435455",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_header_that_is_cut_off_is_refused_where_it_ends() {
        let error = Header::parse(&header().to_bytes()[..47]).unwrap_err().to_string();
        assert_eq!(error, "qcow: header at 0x2f is missing, expected 48 bytes");
    }

    #[test]
    fn the_name_of_the_backing_file_must_be_in_the_file_and_hide_nothing() {
        let store = MemoryStorage::new(b"..below.raw\0x".to_vec());
        let name = |at, len| {
            let header = Header { backing_file: Some((HostOffset(at), len)), ..header() };
            header.read_backing_name(&store).map_err(|error| error.to_string())
        };
        assert_eq!(name(2, 9), Ok(Some(b"below.raw".to_vec())));
        let error = name(2, 11).unwrap_err();
        let expected = "qcow: backing file name at 0x2 is \"below.raw\\x00x\", expected a name \
                        without a NUL";
        assert_eq!(error, expected);
        for (at, len) in [(5, 9), (u64::MAX, 1), (14, 1)] {
            assert!(name(at, len).unwrap_err().contains("expected bytes of the file"));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic_and_what_parses_is_written_as_it_was(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            bits in (9u8..17, 6u8..14),
            size in 2u64..1 << 40,
        ) {
            let _ = Header::parse(&bytes);
            let mut good = header().to_bytes();
            good[24..32].copy_from_slice(&size.to_be_bytes());
            (good[32], good[33]) = bits;
            if let Ok(parsed) = Header::parse(&good) {
                prop_assert_eq!(parsed.to_bytes(), good);
            }
        }
    }
}
