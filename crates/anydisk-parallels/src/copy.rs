//! Copying clusters from one place of a file to another.

use anydisk_core::{HostOffset, Result, Storage, StorageExt};

/// Bytes that are copied at once.
const AT_ONCE: u64 = 1 << 20;

/// Copies `len` bytes from one place of the store to another, zeroes for those behind its end. The two
/// do not overlap. Not flushed here.
///
/// # Errors
/// Those of the store.
pub(crate) fn copy_cluster(
    store: &dyn Storage,
    from: HostOffset,
    to: HostOffset,
    len: u64,
) -> Result<()> {
    let mut done = 0;
    while done < len {
        let count = (len - done).min(AT_ONCE);
        let mut bytes = vec![0; usize::try_from(count).expect("1 MiB at most")];
        store.read_padded_at(from.saturating_add(done), &mut bytes)?;
        store.write_at(to.saturating_add(done), &bytes)?;
        done += count;
    }
    Ok(())
}
