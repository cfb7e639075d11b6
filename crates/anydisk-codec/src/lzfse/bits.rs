//! Bits that were written forwards and are read from their end.

/// Bits of a payload, the last ones first.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// How many are left.
    left: usize,
}

impl<'a> Bits<'a> {
    /// The bits of `bytes`, of which the last `unused` (0 to 7) are none.
    pub(super) fn new(bytes: &'a [u8], unused: u32) -> Option<Self> {
        let all = bytes.len().checked_mul(8)?;
        Some(Self { bytes, left: all.checked_sub(usize::try_from(unused).ok()?)? })
    }

    /// The last `count` bits, at most 32; `None` if there are fewer.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        self.left = self.left.checked_sub(usize::try_from(count).ok()?)?;
        let at = self.left >> 3;
        let word = match self.bytes.get(at..).and_then(<[u8]>::first_chunk) {
            Some(word) => u64::from_le_bytes(*word),
            None => self.last_word(at),
        };
        let mask = u64::MAX.checked_shr(64_u32.saturating_sub(count)).unwrap_or(0);
        u32::try_from(word >> (self.left & 7) & mask).ok()
    }

    /// The last bytes from `at` on, fewer than 8.
    #[cold]
    fn last_word(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        let rest = self.bytes.get(at..).unwrap_or_default();
        word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_from_the_end() {
        let bytes = [0b1010_0101, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0b0000_0111];
        let mut bits = Bits::new(&bytes, 5).expect("80 bits");
        assert_eq!(bits.take(2), Some(3));
        assert_eq!(bits.take(1), Some(1));
        assert_eq!(bits.take(0), Some(0));
        assert_eq!(bits.take(32), Some(0));
        assert_eq!(bits.take(24), Some(0));
        assert_eq!(bits.take(12), Some(0xFFA));
        assert_eq!(bits.take(5), None, "four are left");
    }
}
