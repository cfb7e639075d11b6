//! Space for parts of a raw disk before anything is written there.

use anydisk_core::{Error, Preallocation, Result, Storage, StorageExt};
use anydisk_storage::HostOffset;

use crate::NAME;

/// Gives `len` bytes from `at` on, which are zero, space on the medium.
pub(crate) fn reserve(
    store: &dyn Storage,
    at: HostOffset,
    len: u64,
    how: Preallocation,
) -> Result<()> {
    match how {
        Preallocation::Off => Ok(()),
        Preallocation::Falloc => match store.space() {
            Some(space) => Ok(space.allocate(at, len)?),
            None => Err(unsupported("preallocation=falloc on this store")),
        },
        Preallocation::Full => Ok(store.write_zeroes_at(at, len)?),
        Preallocation::Metadata => Err(unsupported("preallocation=metadata")),
    }
}

fn unsupported(feature: &'static str) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}
