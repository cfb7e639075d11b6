//! The rules for the bitmaps extension and for the entries of the directory (qcow2, "Bitmaps"). Who
//! opens an image goes by them, and so does a check. Pure.

#![deny(clippy::indexing_slicing)]

use anydisk_core::{HostOffset, Invalid, Value, invalid_field};

use super::BitmapEntry;
use crate::layout::bitmap::{AUTO, DIRTY_TRACKING, IN_USE};
use crate::layout::{RawBitmap, RawBitmaps};
use crate::{NAME, limits};

/// What is wrong with an entry of the directory.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It has what is not known here: flags, a type, extra data. It may be right for whoever wrote
    /// it, and name more than can be seen.
    Unknown(Invalid),
    /// It breaks the format.
    Broken(Invalid),
}

impl From<Fault> for Invalid {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unknown(invalid) | Fault::Broken(invalid) => invalid,
        }
    }
}

/// The place in the file of the extension is not known here; offsets are those in its data.
pub(crate) fn check_extension(raw: &RawBitmaps, cluster: u64) -> Result<(), Invalid> {
    let count = raw.nb_bitmaps.get();
    if count == 0 || count > limits::BITMAPS {
        let most = limits::BITMAPS;
        return Err(invalid_field!(NAME, RawBitmaps, nb_bitmaps, count, "1 to {most}"));
    }
    let reserved = raw.reserved32.get();
    if reserved != 0 {
        return Err(invalid_field!(NAME, RawBitmaps, reserved32, reserved, "0"));
    }
    let (len, most) = (raw.bitmap_directory_size.get(), limits::BITMAP_DIRECTORY);
    if len == 0 || len > most {
        return Err(invalid_field!(NAME, RawBitmaps, bitmap_directory_size, len, "1 to {most}"));
    }
    let at = HostOffset(raw.bitmap_directory_offset.get());
    if !is_place(at, len, cluster) {
        let expected = "a multiple of the cluster size, not 0";
        return Err(invalid_field!(NAME, RawBitmaps, bitmap_directory_offset, at, "{expected}"));
    }
    Ok(())
}

fn is_place(at: HostOffset, len: u64, cluster: u64) -> bool {
    let end = at.get().checked_add(len);
    at.get() != 0 && at.is_aligned(cluster) && end.is_some_and(|end| end <= limits::OFFSET)
}

/// Looks at the fixed part of an entry at `at`.
pub(crate) fn check_entry(raw: &RawBitmap, at: HostOffset, cluster: u64) -> Result<(), Fault> {
    check_known(raw, at).map_err(Fault::Unknown)?;
    check_values(raw, at, cluster).map_err(Fault::Broken)
}

fn check_known(raw: &RawBitmap, at: HostOffset) -> Result<(), Invalid> {
    let (flags, extra) = (raw.flags.get(), raw.extra_data_size.get());
    if flags & !(IN_USE | AUTO) != 0 {
        let found = Value::Hex(flags.into());
        let expected = "no other flags than 0x1 and 0x2";
        return Err(invalid_field!(NAME, at => RawBitmap, flags, found, "{expected}"));
    }
    if raw.kind != DIRTY_TRACKING {
        let found = u32::from(raw.kind);
        return Err(invalid_field!(NAME, at => RawBitmap, kind, found, "{DIRTY_TRACKING}"));
    }
    if extra != 0 {
        return Err(invalid_field!(NAME, at => RawBitmap, extra_data_size, extra, "0"));
    }
    Ok(())
}

fn check_values(raw: &RawBitmap, at: HostOffset, cluster: u64) -> Result<(), Invalid> {
    macro_rules! refuse {
        ($field:ident, $found:expr, $($expected:tt)+) => {
            Err(invalid_field!(NAME, at => RawBitmap, $field, $found, $($expected)+))
        };
    }
    let (table, entries) = (HostOffset(raw.bitmap_table_offset.get()), raw.bitmap_table_size.get());
    if !is_place(table, u64::from(entries) * 8, cluster) {
        return refuse!(bitmap_table_offset, table, "a multiple of the cluster size, not 0");
    }
    if entries == 0 || entries > limits::BITMAP_TABLE {
        return refuse!(bitmap_table_size, entries, "1 to {}", limits::BITMAP_TABLE);
    }
    if u64::from(entries) * cluster > limits::BITMAP.max(cluster) {
        let most = limits::BITMAP / cluster;
        return refuse!(bitmap_table_size, entries, "at most {most}, for 512 MiB of bits");
    }
    let granularity = u32::from(raw.granularity_bits);
    if !limits::GRANULARITY_BITS.contains(&granularity) {
        let (least, most) = limits::GRANULARITY_BITS.into_inner();
        return refuse!(granularity_bits, granularity, "{least} to {most}");
    }
    if usize::from(raw.name_size.get()) > limits::BITMAP_NAME {
        let found = u32::from(raw.name_size.get());
        return refuse!(name_size, found, "at most {}", limits::BITMAP_NAME);
    }
    Ok(())
}

/// The table of a bitmap that is trusted, whose entry is at `at`, covers the disk and no more.
pub(crate) fn check_table_size(
    entry: &BitmapEntry,
    at: HostOffset,
    disk: u64,
    cluster_bits: u32,
) -> Result<(), Invalid> {
    let needed = entry.scale(disk, cluster_bits).clusters().max(1);
    let found = entry.table_entries;
    if entry.is_in_use() || u64::from(found) == needed {
        return Ok(());
    }
    let expected = "for a disk of this size";
    Err(invalid_field!(NAME, at => RawBitmap, bitmap_table_size, found, "{needed} {expected}"))
}
