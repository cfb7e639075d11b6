//! Memory for big and direct I/O, and the test for zeroes.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Zeroed memory on the heap whose address is a multiple of an alignment, as direct I/O needs it.
///
/// Large ones come as untouched zero pages from the operating system, so that making one costs
/// nothing until it is used.
pub struct AlignedBuffer {
    /// Longer than asked for; never grows, so that its address holds.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `len` bytes of zero at an address that is a multiple of `alignment` bytes.
    ///
    /// # Panics
    /// If `alignment` is not a power of two, or the memory is longer than an address can tell.
    #[must_use]
    pub fn zeroed(len: usize, alignment: usize) -> Self {
        assert!(alignment.is_power_of_two(), "an alignment of {alignment} bytes");
        let whole = len.checked_add(alignment - 1).expect("no buffer is as long as memory");
        let memory = vec![0; whole];
        let start = memory.as_ptr().addr().wrapping_neg() & (alignment - 1);
        Self { memory, start, len }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Whether all bytes are zero. Stops at the first few hundred bytes that hold something.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    /// Bytes between two looks at the result; long enough that the looks cost nothing.
    const STRIDE: usize = 256;
    let mut strides = bytes.chunks_exact(STRIDE);
    strides.all(any_bit_free) && any_bit_free(strides.remainder())
}

/// One `or` over all bytes: no branch inside, so that the compiler makes vector code of it.
#[inline]
fn any_bit_free(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |bits, byte| bits | byte) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zero_as_long_as_asked_and_aligned() {
        for alignment in [1, 2, 512, 4096, 1 << 20] {
            for len in [0, 1, 511, 4096, 100_000] {
                let buffer = AlignedBuffer::zeroed(len, alignment);
                assert_eq!(buffer.len(), len);
                assert_eq!(buffer.as_ptr().addr() % alignment, 0, "{alignment}");
                assert!(is_zero(&buffer));
            }
        }
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        for len in [1, 7, 255, 256, 257, 1000, 4096] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn nothing_is_zero() {
        assert!(is_zero(&[]));
    }
}
