//! Space for parts of a raw disk before anything is written there.

use anydisk_core::{Error, Preallocation, Result, Storage, StorageExt};
use anydisk_storage::HostOffset;

use crate::NAME;

/// Fails where [`reserve`] would, before anything was changed.
pub(crate) fn check(store: &dyn Storage, how: Preallocation) -> Result<()> {
    match how {
        Preallocation::Falloc if store.space().is_none() => {
            Err(unsupported("preallocation=falloc on this store"))
        }
        Preallocation::Metadata => Err(unsupported("preallocation=metadata")),
        _ => Ok(()),
    }
}

/// Gives `len` bytes from `at` on, which are zero, space on the medium.
pub(crate) fn reserve(
    store: &dyn Storage,
    at: HostOffset,
    len: u64,
    how: Preallocation,
) -> Result<()> {
    check(store, how)?;
    match (how, store.space()) {
        (Preallocation::Falloc, Some(space)) => Ok(space.allocate(at, len)?),
        (Preallocation::Full, _) => Ok(store.write_zeroes_at(at, len)?),
        _ => Ok(()),
    }
}

fn unsupported(feature: &'static str) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}
