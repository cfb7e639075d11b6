//! What a header must obey: one function per group of fields, in the order in which a hostile
//! file can do harm. Pure.

#![deny(clippy::indexing_slicing)]

use anydisk_core::{Error, HostOffset, Result, Value, check_limit, invalid_field};
use zerocopy::FromBytes;
use zerocopy::big_endian::U64;

use crate::extensions::{Extension, find};
use crate::features::{autoclear, incompatible, unknown_incompatible};
use crate::layout::{RawHeader, RawSnapshot, V2_HEADER_LEN, V3_HEADER_MIN, extension};
use crate::{NAME, limits};

/// `wrong!(field, found, "expected")`: the error for a field of the header.
macro_rules! wrong {
    ($field:ident, $found:expr, $($expected:tt)+) => {
        Error::from(invalid_field!(NAME, RawHeader, $field, $found, $($expected)+))
    };
}

/// The same as the result of a check.
macro_rules! refuse {
    ($($wrong:tt)+) => { Err($crate::rules::wrong!($($wrong)+)) };
}

pub(crate) use {refuse, wrong};

/// Everything but what the extensions hold and where the backing file's name is. `extensions` name
/// unknown features.
pub(crate) fn check(raw: &RawHeader, extensions: &[Extension]) -> Result<()> {
    check_features(raw, extensions)?;
    check_refcounts(raw)?;
    check_size(raw)?;
    check_tables(raw)
}

/// The numbers that all others are read by.
pub(crate) fn check_units(raw: &RawHeader) -> Result<()> {
    let bits = raw.cluster_bits.get();
    if !limits::CLUSTER_BITS.contains(&bits) {
        let (least, most) = limits::CLUSTER_BITS.into_inner();
        return refuse!(cluster_bits, bits, "{least} to {most}");
    }
    let (length, cluster) = (raw.header_length.get(), 1_u32 << bits);
    let least = if raw.version.get() == 2 { V2_HEADER_LEN } else { V3_HEADER_MIN };
    if (length as usize) < least || length > cluster {
        return refuse!(header_length, length, "{least} to the cluster size ({cluster})");
    }
    Ok(())
}

/// Bytes in a cluster. The units must have been checked.
pub(crate) fn cluster_size(raw: &RawHeader) -> u64 {
    1 << raw.cluster_bits.get()
}

fn check_features(raw: &RawHeader, extensions: &[Extension]) -> Result<()> {
    let bits = raw.incompatible_features.get();
    if let Some(names) = unknown_incompatible(bits, find(extensions, extension::FEATURE_NAMES)) {
        return Err(unsupported(format!("feature(s) {names}")));
    }
    check_compression(raw)?;
    let (cluster_bits, least) = (raw.cluster_bits.get(), limits::EXTENDED_CLUSTER_BITS);
    if bits & incompatible::EXTENDED_L2 != 0 && cluster_bits < least {
        return refuse!(cluster_bits, cluster_bits, "at least {least} with extended L2 entries");
    }
    let (raw_data_file, data_file) = (autoclear::RAW_DATA_FILE, incompatible::DATA_FILE);
    let autoclear = raw.autoclear_features.get();
    if autoclear & raw_data_file != 0 && bits & data_file == 0 {
        let found = Value::Hex(autoclear);
        return refuse!(autoclear_features, found, "bit 1 only with an external data file");
    }
    Ok(())
}

fn check_compression(raw: &RawHeader) -> Result<()> {
    let (kind, bit) = (raw.compression_type, incompatible::COMPRESSION);
    match (raw.incompatible_features.get() & bit != 0, kind) {
        (false, 0) | (true, 1) => Ok(()),
        (true, 2..) => Err(unsupported(format!("compression type {kind}"))),
        (true, 0) => refuse!(compression_type, u32::from(kind), "1, as feature bit 3 is set"),
        (false, _) => refuse!(compression_type, u32::from(kind), "0, as feature bit 3 is clear"),
    }
}

fn unsupported(feature: String) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}

fn check_refcounts(raw: &RawHeader) -> Result<()> {
    let order = raw.refcount_order.get();
    if order > limits::REFCOUNT_ORDER {
        return refuse!(refcount_order, order, "at most {}", limits::REFCOUNT_ORDER);
    }
    let clusters = raw.refcount_table_clusters.get();
    let len = u64::from(clusters) << raw.cluster_bits.get();
    check_limit(NAME, "refcount table, in bytes", len, limits::REFCOUNT_TABLE)?;
    let at = raw.refcount_table_offset.get();
    check_place(raw, at, len)
        .map_err(|expected| wrong!(refcount_table_offset, HostOffset(at), "{expected}"))
}

/// There is a refcount table: only who repairs an image can do without.
pub(crate) fn check_refcount_table(clusters: u32) -> Result<()> {
    if clusters == 0 {
        return refuse!(refcount_table_clusters, clusters, "at least 1");
    }
    Ok(())
}

fn check_size(raw: &RawHeader) -> Result<()> {
    let size = raw.size.get();
    if size > limits::OFFSET {
        return refuse!(size, size, "at most {}", limits::OFFSET);
    }
    let l1_size = raw.l1_size.get();
    check_limit(NAME, "L1 table, in entries", l1_size.into(), limits::L1_ENTRIES.into())?;
    let extended = raw.incompatible_features.get() & incompatible::EXTENDED_L2 != 0;
    let l2_bits = raw.cluster_bits.get() - if extended { 4 } else { 3 };
    let needed = size.div_ceil(1 << (raw.cluster_bits.get() + l2_bits));
    if u64::from(l1_size) < needed {
        return refuse!(l1_size, l1_size, "at least {needed} for a disk of {size} bytes");
    }
    Ok(())
}

fn check_tables(raw: &RawHeader) -> Result<()> {
    let at = raw.l1_table_offset.get();
    check_place(raw, at, u64::from(raw.l1_size.get()) * 8)
        .map_err(|expected| wrong!(l1_table_offset, HostOffset(at), "{expected}"))?;
    let snapshots = raw.nb_snapshots.get();
    check_limit(NAME, "number of snapshots", snapshots.into(), limits::SNAPSHOTS.into())?;
    let at = raw.snapshots_offset.get();
    check_place(raw, at, u64::from(snapshots) * size_of::<RawSnapshot>() as u64)
        .map_err(|expected| wrong!(snapshots_offset, HostOffset(at), "{expected}"))
}

/// What is expected of the place of a table of `len` bytes, if it is not at such a place.
fn check_place(raw: &RawHeader, at: u64, len: u64) -> Result<(), String> {
    let cluster = cluster_size(raw);
    if !HostOffset(at).is_aligned(cluster) {
        return Err(format!("a multiple of the cluster size ({cluster:#x})"));
    }
    let len = len.max(1).checked_next_multiple_of(cluster);
    if len.and_then(|len| at.checked_add(len)).is_none_or(|end| end > limits::OFFSET) {
        return Err("a place whose clusters end below 2^63".into());
    }
    Ok(())
}

/// What the known extensions hold.
pub(crate) fn check_extensions(raw: &RawHeader, extensions: &[Extension]) -> Result<()> {
    if let Some(name) = find(extensions, extension::BACKING_FORMAT) {
        check_limit(
            NAME,
            "backing format name, in bytes",
            name.len() as u64,
            limits::BACKING_FORMAT as u64,
        )?;
    }
    let method = raw.crypt_method.get();
    match (method, find(extensions, extension::CRYPTO_HEADER)) {
        (0 | 1, None) => Ok(()),
        (2, Some(pointer)) => check_crypto_header(raw, pointer),
        (2, None) => refuse!(crypt_method, method, "0 or 1, as no extension names a crypto header"),
        (0 | 1, _) => refuse!(crypt_method, method, "2, as an extension names a crypto header"),
        _ => refuse!(crypt_method, method, "0, 1 or 2"),
    }
}

fn check_crypto_header(raw: &RawHeader, pointer: &[u8]) -> Result<()> {
    let Ok(words) = <[U64; 2]>::read_from_bytes(pointer) else {
        let found = Value::from(pointer);
        return refuse!(crypt_method, found, "a crypto header extension of 16 bytes");
    };
    let [at, len] = words.map(U64::get);
    check_place(raw, at, len)
        .map_err(|expected| wrong!(crypt_method, HostOffset(at), "a crypto header at {expected}"))
}
