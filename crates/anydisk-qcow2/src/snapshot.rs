//! Internal snapshots: so far only whether their table can be walked.

use anydisk_core::{Error, HostOffset, Result, Storage, StorageExt};
use zerocopy::{FromZeros, IntoBytes};

use crate::layout::RawSnapshot;
use crate::{Header, NAME, limits};

/// Walks the snapshot table and refuses what nobody could walk (qcow2, "Snapshots").
///
/// # Errors
/// As [`walk`].
pub(crate) fn check_table(store: &dyn Storage, header: &Header) -> Result<()> {
    walk(store, header, |_| Ok(())).map(drop)
}

/// Shows each entry of the snapshot table to `visit`, and returns the bytes of the table.
///
/// Reads the fixed part of each entry and allocates nothing. Entries past the end of the file are
/// zeroes, and so is everything behind them.
///
/// # Errors
/// [`Error::Limit`] for extra data or a table that is too long; those of the store and of `visit`.
pub(crate) fn walk(
    store: &dyn Storage,
    header: &Header,
    mut visit: impl FnMut(&RawSnapshot) -> Result<()>,
) -> Result<u64> {
    let file_len = store.len()?;
    let mut walked = 0;
    for _ in 0..header.nb_snapshots {
        let at = header.snapshots_offset.saturating_add(walked);
        if at.get() >= file_len {
            break;
        }
        let entry = read_entry(store, at)?;
        walked += entry_len(&entry)?;
        check_limit("snapshot table, in bytes", walked, limits::SNAPSHOT_TABLE)?;
        visit(&entry)?;
    }
    Ok(walked)
}

fn read_entry(store: &dyn Storage, at: HostOffset) -> Result<RawSnapshot> {
    let mut raw = RawSnapshot::new_zeroed();
    store.read_padded_at(at, raw.as_mut_bytes())?;
    Ok(raw)
}

/// Bytes of an entry, with its padding.
fn entry_len(raw: &RawSnapshot) -> Result<u64> {
    let extra = u64::from(raw.extra_data_size.get());
    check_limit("extra data of a snapshot, in bytes", extra, limits::SNAPSHOT_EXTRA.into())?;
    let strings = u64::from(raw.id_str_size.get()) + u64::from(raw.name_size.get());
    Ok((size_of::<RawSnapshot>() as u64 + extra + strings).next_multiple_of(8))
}

fn check_limit(what: &'static str, found: u64, limit: u64) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::Limit { format: NAME, what: what.into(), found, limit })
}
