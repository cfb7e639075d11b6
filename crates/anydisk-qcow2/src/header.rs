//! The header: bytes to checked values, and back. Pure.

use anydisk_core::{Codec, Error, HostOffset, Limits, Result, Storage, Value, invalid_field};
use zerocopy::big_endian::U64;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::extensions::{self, Extension, Head, find};
use crate::features::{autoclear, compatible, incompatible};
use crate::layout::{MAGIC, RawHeader, V2_HEADER_LEN, V3_HEADER_MIN, extension};
use crate::rules::{cluster_size, refuse};
use crate::{NAME, limits, rules};

/// Bytes of the header that this crate knows.
const KNOWN_LEN: usize = size_of::<RawHeader>();
/// Bytes that are read to learn the cluster size.
const FIRST_READ: usize = 4096;

/// A header that obeys the specification and the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version 2 or 3.
    pub version: u32,
    /// Binary logarithm of the cluster size in bytes, 9 to 21.
    pub cluster_bits: u32,
    /// Virtual size in bytes, as it stands in the file.
    pub size: u64,
    /// How guest data is encrypted.
    pub crypt_method: u32,
    /// Entries of the active L1 table.
    pub l1_size: u32,
    /// Where the active L1 table is.
    pub l1_table_offset: HostOffset,
    /// Where the refcount table is.
    pub refcount_table_offset: HostOffset,
    /// Length of the refcount table in clusters.
    pub refcount_table_clusters: u32,
    /// Number of internal snapshots.
    pub nb_snapshots: u32,
    /// Where the snapshot table is.
    pub snapshots_offset: HostOffset,
    /// Bits of [`incompatible`].
    pub incompatible_features: u64,
    /// Bits of [`compatible`], known and unknown.
    pub compatible_features: u64,
    /// Bits of [`autoclear`](crate::features::autoclear), known and unknown.
    pub autoclear_features: u64,
    /// Binary logarithm of the width of a refcount in bits, 0 to 6.
    pub refcount_order: u32,
    /// How compressed clusters are packed.
    pub compression: Compression,
    /// Fields of the header behind those we know, kept as they are.
    pub unknown_fields: Vec<u8>,
    /// All extensions in the order of the file, without the end marker.
    pub extensions: Vec<Extension>,
    /// Name of the backing file, byte for byte.
    pub backing_file: Option<Vec<u8>>,
}

/// How compressed clusters are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate; qemu calls it `zlib`.
    Deflate,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    /// The name that qemu gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deflate => "zlib",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of a compressed cluster.
    #[must_use]
    pub fn codec(self) -> Codec {
        match self {
            Self::Deflate => Codec::Deflate,
            Self::Zstd => Codec::Zstd,
        }
    }
}

impl Header {
    /// Reads the header from `head`, the first bytes of a file of `file_len` bytes: a cluster, or
    /// all there is, or as much as the caller is willing to read.
    ///
    /// Rules are checked in the order in which a hostile file can do harm, and nothing larger than
    /// `head` is allocated (qcow2, "Header", "Header extensions").
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field, [`Error::Unsupported`] for versions and features nobody
    /// here knows, [`Error::Limit`] for tables that are too large and for a header that goes on
    /// behind `head`.
    pub fn parse(head: &[u8], file_len: u64) -> Result<Self> {
        let header = Self::parse_to_check(head, file_len)?;
        rules::check_refcount_table(header.refcount_table_clusters)?;
        Ok(header)
    }

    /// As [`parse`](Self::parse), also for an image that has lost its refcount table.
    fn parse_to_check(head: &[u8], file_len: u64) -> Result<Self> {
        let head = Head { bytes: head, file_len };
        let raw = read_fields(head)?;
        rules::check_units(&raw)?;
        let extensions = read_extensions(head, &raw);
        rules::check(&raw, extensions.as_deref().unwrap_or_default())?;
        let backing_file = read_backing_file(head, &raw)?;
        let extensions = extensions?;
        rules::check_extensions(&raw, &extensions)?;
        let unknown = u64::from(raw.header_length.get()).saturating_sub(KNOWN_LEN as u64);
        let unknown_fields = head.get(KNOWN_LEN as u64, unknown)?.into_owned();
        Ok(Self::from_checked(&raw, unknown_fields, extensions, backing_file))
    }

    /// Reads the header of the image in `store`, and no more of it than the limit on descriptors
    /// allows.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of the store.
    pub fn read(store: &dyn Storage, limits: &Limits) -> Result<Self> {
        let (head, file_len) = read_first_cluster(store, limits)?;
        Self::parse(&head, file_len)
    }

    /// As [`read`](Self::read), also for an image that has lost its refcount table.
    pub(crate) fn read_to_check(store: &dyn Storage, limits: &Limits) -> Result<Self> {
        let (head, file_len) = read_first_cluster(store, limits)?;
        Self::parse_to_check(&head, file_len)
    }
    fn from_checked(
        raw: &RawHeader,
        unknown_fields: Vec<u8>,
        extensions: Vec<Extension>,
        backing_file: Option<Vec<u8>>,
    ) -> Self {
        Self {
            version: raw.version.get(),
            cluster_bits: raw.cluster_bits.get(),
            size: raw.size.get(),
            crypt_method: raw.crypt_method.get(),
            l1_size: raw.l1_size.get(),
            l1_table_offset: HostOffset(raw.l1_table_offset.get()),
            refcount_table_offset: HostOffset(raw.refcount_table_offset.get()),
            refcount_table_clusters: raw.refcount_table_clusters.get(),
            nb_snapshots: raw.nb_snapshots.get(),
            snapshots_offset: HostOffset(raw.snapshots_offset.get()),
            incompatible_features: raw.incompatible_features.get(),
            compatible_features: raw.compatible_features.get(),
            autoclear_features: raw.autoclear_features.get(),
            refcount_order: raw.refcount_order.get(),
            compression: match raw.compression_type {
                0 => Compression::Deflate,
                _ => Compression::Zstd,
            },
            unknown_fields,
            extensions,
            backing_file,
        }
    }

    /// The header with its extensions and the backing file's name, as it stands in the file: all
    /// that belongs into the first cluster, without the zeroes behind it.
    ///
    /// Unknown fields, bits and extensions come out as they came in.
    ///
    /// # Errors
    /// [`Error::Limit`] if it does not fit into a cluster.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.to_bytes_with_name(0)
    }

    /// As [`to_bytes`](Self::to_bytes), with the backing file's name not before `from`.
    pub(crate) fn to_bytes_with_name(&self, from: usize) -> Result<Vec<u8>> {
        let mut raw = self.to_raw();
        let mut bytes = vec![0; V2_HEADER_LEN];
        if self.version >= 3 {
            bytes.resize(KNOWN_LEN, 0);
            bytes.extend_from_slice(&self.unknown_fields);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            raw.header_length = to_u32(bytes.len())?.into();
        }
        bytes.extend_from_slice(&extensions::to_bytes(&self.extensions));
        if let Some(name) = &self.backing_file {
            bytes.resize(bytes.len().max(from), 0);
            raw.backing_file_offset = (bytes.len() as u64).into();
            raw.backing_file_size = to_u32(name.len())?.into();
            bytes.extend_from_slice(name);
        }
        let known = if self.version >= 3 { KNOWN_LEN } else { V2_HEADER_LEN };
        bytes[..known].copy_from_slice(&raw.as_bytes()[..known]);
        let (found, limit) = (bytes.len() as u64, self.cluster_size());
        if found > limit {
            let what = "header with extensions and backing file name, in bytes".into();
            return Err(Error::Limit { format: NAME, what, found, limit });
        }
        Ok(bytes)
    }

    pub(crate) fn to_raw(&self) -> RawHeader {
        RawHeader {
            magic: MAGIC.into(),
            version: self.version.into(),
            backing_file_offset: 0.into(),
            backing_file_size: 0.into(),
            cluster_bits: self.cluster_bits.into(),
            size: self.size.into(),
            crypt_method: self.crypt_method.into(),
            l1_size: self.l1_size.into(),
            l1_table_offset: self.l1_table_offset.get().into(),
            refcount_table_offset: self.refcount_table_offset.get().into(),
            refcount_table_clusters: self.refcount_table_clusters.into(),
            nb_snapshots: self.nb_snapshots.into(),
            snapshots_offset: self.snapshots_offset.get().into(),
            incompatible_features: self.incompatible_features.into(),
            compatible_features: self.compatible_features.into(),
            autoclear_features: self.autoclear_features.into(),
            refcount_order: self.refcount_order.into(),
            header_length: 0.into(),
            compression_type: match self.compression {
                Compression::Deflate => 0,
                Compression::Zstd => 1,
            },
            padding: [0; 7],
        }
    }

    /// Bytes in a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Virtual size of the disk: whole sectors, as qemu counts; a tail of the header's size that
    /// is shorter than a sector does not belong to the disk.
    #[must_use]
    pub fn disk_size(&self) -> u64 {
        self.size & !511
    }

    /// Bits in a refcount.
    #[must_use]
    pub fn refcount_bits(&self) -> u32 {
        1 << self.refcount_order
    }

    /// Refcounts may be stale: a writer was interrupted.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.incompatible_features & incompatible::DIRTY != 0
    }

    /// Structures are known to be damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.incompatible_features & incompatible::CORRUPT != 0
    }

    /// L2 entries have 128 bits and describe subclusters.
    #[must_use]
    pub fn has_extended_l2(&self) -> bool {
        self.incompatible_features & incompatible::EXTENDED_L2 != 0
    }

    /// Guest data lies in another file.
    #[must_use]
    pub fn has_data_file(&self) -> bool {
        self.incompatible_features & incompatible::DATA_FILE != 0
    }

    /// The external data file alone is the disk.
    #[must_use]
    pub fn has_raw_data_file(&self) -> bool {
        self.has_data_file() && self.autoclear_features & autoclear::RAW_DATA_FILE != 0
    }

    /// The name of the external data file, if the image gives one.
    #[must_use]
    pub fn data_file(&self) -> Option<&[u8]> {
        self.extension(extension::DATA_FILE).filter(|name| !name.is_empty())
    }

    /// A writer may postpone refcounts.
    #[must_use]
    pub fn has_lazy_refcounts(&self) -> bool {
        self.compatible_features & compatible::LAZY_REFCOUNTS != 0
    }

    /// Where the LUKS header of the data lies, and how many bytes it has, if the data is encrypted
    /// with LUKS.
    #[must_use]
    pub fn crypto_header(&self) -> Option<(HostOffset, u64)> {
        let pointer = self.extension(extension::CRYPTO_HEADER)?;
        let [at, len] = <[U64; 2]>::read_from_bytes(pointer).ok()?;
        Some((HostOffset(at.get()), len.get()))
    }

    /// The data of the extension of this type; of several the last, as in qemu.
    #[must_use]
    pub fn extension(&self, kind: u32) -> Option<&[u8]> {
        find(&self.extensions, kind)
    }

    /// The format that the image says its backing file has.
    #[must_use]
    pub fn backing_format(&self) -> Option<&[u8]> {
        self.extension(extension::BACKING_FORMAT).filter(|name| !name.is_empty())
    }
}

/// The first cluster of a file, as far as the limit on descriptors goes, and the file's length.
fn read_first_cluster(store: &dyn Storage, limits: &Limits) -> Result<(Vec<u8>, u64)> {
    let file_len = store.len()?;
    let mut head = read_head(store, FIRST_READ.min(limits.descriptor))?;
    let bits = match RawHeader::ref_from_prefix(&head) {
        Ok((raw, _)) => raw.cluster_bits.get().min(*limits::CLUSTER_BITS.end()),
        Err(_) => 0,
    };
    let area = limits.descriptor.min(1 << bits);
    if area > head.len() && file_len > head.len() as u64 {
        head = read_head(store, area)?;
    }
    Ok((head, file_len))
}

/// The first `len` bytes of a file, or all there is.
fn read_head(store: &dyn Storage, len: usize) -> Result<Vec<u8>> {
    let mut head = vec![0; len];
    let count = store.read_at(HostOffset::ZERO, &mut head)?;
    head.truncate(count);
    Ok(head)
}

fn to_u32(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::Limit {
        format: NAME,
        what: "header, in bytes".into(),
        found: len as u64,
        limit: u32::MAX.into(),
    })
}

/// The fields that this header has; those it does not have are as their absence means.
fn read_fields(head: Head<'_>) -> Result<RawHeader> {
    let mut raw = RawHeader::new_zeroed();
    let known = head.bytes.len().min(KNOWN_LEN);
    raw.as_mut_bytes()[..known].copy_from_slice(&head.bytes[..known]);
    if raw.magic.get() != MAGIC {
        let found = if known < 4 { Value::Missing } else { Value::Hex(raw.magic.get().into()) };
        return refuse!(magic, found, "{MAGIC:#x}");
    }
    let least = match raw.version.get() {
        2 => V2_HEADER_LEN,
        3 => V3_HEADER_MIN,
        version => {
            let feature = format!("version {version}").into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
    };
    if known < least {
        return refuse!(magic, known as u64, "a header of at least {least} bytes");
    }
    if raw.version.get() == 2 {
        raw.as_mut_bytes()[V2_HEADER_LEN..].fill(0);
        raw.refcount_order = 4.into();
        raw.header_length = 72.into();
    }
    let length = usize::try_from(raw.header_length.get()).unwrap_or(KNOWN_LEN);
    raw.as_mut_bytes()[length.clamp(V3_HEADER_MIN, KNOWN_LEN)..].fill(0);
    Ok(raw)
}

fn read_extensions(head: Head<'_>, raw: &RawHeader) -> Result<Vec<Extension>> {
    let end = match raw.backing_file_offset.get() {
        0 => cluster_size(raw),
        offset => offset.min(cluster_size(raw)),
    };
    extensions::parse(head, raw.header_length.get().into(), end)
}

fn read_backing_file(head: Head<'_>, raw: &RawHeader) -> Result<Option<Vec<u8>>> {
    let (at, len) = (raw.backing_file_offset.get(), u64::from(raw.backing_file_size.get()));
    let cluster = cluster_size(raw);
    if at == 0 {
        return Ok(None); // The size then means nothing.
    }
    if at > cluster {
        return refuse!(backing_file_offset, HostOffset(at), "a place in the first cluster");
    }
    let most = limits::BACKING_NAME.min(cluster - at);
    if len > most {
        return refuse!(backing_file_size, len, "at most {most}");
    }
    // qemu takes the name as a C string, and none at all for an empty one.
    let bytes = head.get(at, len)?;
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((!name.is_empty()).then(|| name.to_vec()))
}

#[cfg(test)]
pub(crate) mod tests;
