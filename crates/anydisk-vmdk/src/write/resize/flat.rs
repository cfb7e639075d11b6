//! The file of a flat extent, made longer and shorter.

use anydisk_core::{Error, HostOffset, Preallocation, Result, Storage, StorageExt};

use crate::NAME;
use crate::extent::Flat;

/// Makes the file hold `len` bytes of the extent instead of `old`, what is new reading as zero; durable.
pub(super) fn grow(
    flat: &Flat,
    store: &dyn Storage,
    (old, len): (u64, u64),
    how: Preallocation,
) -> Result<()> {
    let (from, end) = (flat.at.saturating_add(old), flat.at.saturating_add(len));
    lengthen(store, from, end, how)?;
    Ok(store.flush()?)
}

/// Cuts the file behind the first `len` bytes of the extent; durable.
pub(super) fn shrink(flat: &Flat, store: &dyn Storage, len: u64) -> Result<()> {
    let end = flat.at.saturating_add(len);
    match store.set_len(end.get()) {
        Ok(()) => flat.set_end(end),
        // A device keeps its length.
        Err(anydisk_storage::Error::Unsupported { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(store.flush()?)
}

/// Makes the file reach from `old` to `end`, and read as zero there, whatever it held.
fn lengthen(
    store: &dyn Storage,
    old: HostOffset,
    end: HostOffset,
    how: Preallocation,
) -> Result<()> {
    let file = HostOffset(store.len()?);
    let stale = file.min(end).checked_since(old).unwrap_or(0);
    if stale > 0 {
        store.write_zeroes_at(old, stale)?;
    }
    if file < end {
        store.set_len(end.get())?;
    }
    let len = end.checked_since(old).unwrap_or(0);
    match how {
        Preallocation::Off | Preallocation::Metadata => Ok(()),
        Preallocation::Falloc => match store.space() {
            Some(space) => Ok(space.allocate(old, len)?),
            None => {
                let feature = "preallocation=falloc on this store".into();
                Err(Error::Unsupported { format: NAME, feature })
            }
        },
        Preallocation::Full => Ok(store.write_zeroes_at(old, len)?),
    }
}
