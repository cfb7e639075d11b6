//! Bits, packed from the lowest of each byte up (RFC 1951, 3.1.1).

/// Writes bits into a slice that is known to be long enough.
pub(super) struct BitWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    pending: u64,
    /// Bits in `pending`: below 8 between calls.
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// A writer at the start of `out`, which must have 8 bytes more than will be written.
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, pending: 0, count: 0 }
    }

    /// Appends the low `count` bits of `bits`, at most 56; the others must be zero.
    #[inline]
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        self.out[self.at..self.at + 8].copy_from_slice(&self.pending.to_le_bytes());
        let whole = self.count & !7;
        self.at += (whole / 8) as usize;
        // Two shifts: `whole` may be 64 in theory, and then one would not be defined.
        self.pending = self.pending >> (whole / 2) >> (whole / 2);
        self.count &= 7;
    }

    /// Fills the last byte with zero bits.
    pub(super) fn align(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }

    /// Appends whole bytes; the writer must be aligned.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Bits written so far that do not fill a byte.
    pub(super) fn odd_bits(&self) -> u32 {
        self.count
    }

    /// Bytes written so far; the writer must be aligned.
    pub(super) fn len(&self) -> usize {
        self.at
    }
}
