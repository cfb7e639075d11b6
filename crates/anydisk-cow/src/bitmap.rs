//! Bits of the bitmap, in words of 64. Pure: no I/O, no locks.
//!
//! Bit `n` of the bitmap is bit `n mod 8` of its byte `n / 8`, the lowest bit first; so a word that
//! is read little-endian has bit `n mod 64` of word `n / 64`.

pub(crate) use anydisk_core::bits::{mask, run, words};

/// Words of the bitmap in a slice that is cached as one: 4 KiB, 32768 bits.
pub(crate) const SLICE: usize = 512;

/// Bytes of a slice.
pub(crate) const SLICE_LEN: u64 = SLICE as u64 * 8;

/// Bits of a slice.
pub(crate) const SLICE_BITS: u64 = SLICE_LEN * 8;

/// The words that bytes of the bitmap hold; what is missing of the last one is 0.
pub(crate) fn from_bytes(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks(size_of::<u64>()).map(|chunk| {
        let mut word = [0; size_of::<u64>()];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}
