//! Space for parts of a raw disk before anything is written there.

use anydisk_core::{Error, Preallocation, Result, Storage};
use anydisk_storage::HostOffset;

use crate::NAME;

/// Bytes of zeroes that are written at once.
const PIECE: usize = 1 << 20;

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
        Preallocation::Full => write_zeroes(store, at, len),
        Preallocation::Metadata => Err(unsupported("preallocation=metadata")),
    }
}

fn unsupported(feature: &'static str) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}

fn write_zeroes(store: &dyn Storage, at: HostOffset, len: u64) -> Result<()> {
    let zeroes = vec![0; PIECE];
    let mut done = 0;
    while done < len {
        let part = usize::try_from(len - done).unwrap_or(PIECE).min(PIECE);
        store.write_at(at.saturating_add(done), &zeroes[..part])?;
        done += part as u64;
    }
    Ok(())
}
