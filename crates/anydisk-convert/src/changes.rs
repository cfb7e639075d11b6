//! Copying what changed: an increment of a backup.

use anydisk_core::{Changes, Disk, GuestOffset, GuestRange};
use anydisk_storage::is_zero;

use crate::{Error, Result, Watch};

/// Bytes that are read at once, and below which zeroes are not looked for.
const PIECE: u64 = 1 << 20;

/// Copies the ranges that `changes` tells from `source` to `target`, in order, and returns how many
/// bytes of the source that were. Zeroes are zeroes in the target, also over a backing file that
/// holds something there. Nothing else of either disk is read or written.
///
/// So a new overlay over the last backup becomes the next one. Durable after the target's flush,
/// which is left to the caller.
///
/// # Errors
/// [`Error::TargetTooSmall`], [`Error::Cancelled`] if `watch` says so, [`Error::Read`] (also for
/// what the changes say) and [`Error::Write`].
pub fn copy_changes(
    source: &Disk,
    changes: &mut dyn Changes,
    target: &Disk,
    watch: &dyn Watch,
) -> Result<u64> {
    let (source_size, target_size) = (source.size(), target.size());
    if target_size < source_size {
        return Err(Error::TargetTooSmall { source_size, target_size });
    }
    let whole = GuestRange::whole(source_size);
    let (mut at, mut copied) = (GuestOffset::ZERO, 0);
    let mut buffer = vec![0; usize::try_from(PIECE).unwrap_or(1)];
    while let Some(range) = next(changes, at)? {
        at = range.end();
        let mut rest = range.before(whole.end());
        copied += rest.len();
        while !rest.is_empty() {
            let piece = rest.first(PIECE);
            copy_piece(source, target, piece, &mut buffer)?;
            rest = rest.skip(piece.len());
            let done = piece.end().get();
            if watch.progress(done, source_size).is_break() {
                return Err(Error::Cancelled);
            }
        }
    }
    Ok(copied)
}

fn next(changes: &mut dyn Changes, at: GuestOffset) -> Result<Option<GuestRange>> {
    changes.next(at).map_err(|source| Error::Read { at: at.get(), source })
}

fn copy_piece(source: &Disk, target: &Disk, piece: GuestRange, buffer: &mut [u8]) -> Result<()> {
    let at = piece.start();
    let bytes = &mut buffer[..usize::try_from(piece.len()).unwrap_or(0)];
    source.read(at, bytes).map_err(|source| Error::Read { at: at.get(), source })?;
    let written = if is_zero(bytes) { target.zero(piece, true) } else { target.write(at, bytes) };
    written.map_err(|source| Error::Write { at: at.get(), source })
}
