//! Packing of units.

use std::fmt::Debug;

use crate::{Codec, EncodeError};

/// Packs whole units (clusters, grains), each by itself. All worker threads share one encoder.
///
/// The same unit, limit and parameters give the same bytes, whichever thread asks and whatever was
/// packed before: a converted image does not depend on the number of threads.
pub trait Encode: Send + Sync + Debug {
    /// How the packed bytes are to be decoded.
    fn codec(&self) -> Codec;

    /// Appends the packed form of `unit` to `out`, if it has fewer than `limit` bytes.
    ///
    /// `Ok(false)`, and `out` as it was: it does not get that small, store the unit plainly.
    /// `usize::MAX` packs every unit, for formats that have no plain form.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Failed`] if the codec refuses; `out` is then as it was.
    fn encode(&self, unit: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<bool, EncodeError>;
}

/// Lends `write` the `bound` bytes behind `out`, which hold any packed unit, and keeps what it
/// wrote if that is below `limit`.
///
/// Always the whole space: some codecs pack otherwise, or give up early, when it gets tight.
pub(crate) fn pack(
    bound: usize,
    limit: usize,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<bool, EncodeError> {
    let start = out.len();
    out.resize(start + bound, 0);
    let packed = write(&mut out[start..]);
    let fits = packed.as_ref().is_ok_and(|&len| len < limit);
    out.truncate(start + packed.as_ref().map_or(0, |&len| if fits { len } else { 0 }));
    packed.map(|_| fits)
}
