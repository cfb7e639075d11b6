//! Making a file as short as what it holds.

use crate::Result;

/// Gives back what a file holds for nothing: units of zeroes, space that nothing names, gaps between
/// units that are in use. What the disk reads stays as it is.
pub trait Compact {
    /// Does it, and returns the bytes by which the file became shorter. `progress` is told bytes
    /// done and bytes in all, now and then, and answers whether to go on.
    ///
    /// Reading goes on meanwhile; writes wait. The caller holds no lease and no reservation.
    /// Durable when it returns; after an error, or a power failure on the way, the disk holds what
    /// it held.
    ///
    /// # Errors
    /// Those of the store; [`Error::Cancelled`](crate::Error::Cancelled);
    /// [`Error::Unsupported`](crate::Error::Unsupported) while a lease is held for too long.
    fn compact(&self, progress: &dyn Fn(u64, u64) -> bool) -> Result<u64>;
}
