//! Checksums: what the file says, and the CRC-32 of long runs.

use crc32fast::Hasher;

use crate::layout::{RawChecksum, checksum};

/// A checksum as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// There is none.
    None,
    /// A CRC-32.
    Crc32(u32),
    /// One of a kind that is not verified: its number.
    Other(u32),
}

impl Checksum {
    pub(crate) fn of(raw: &RawChecksum) -> Self {
        let [a, b, c, d, ..] = raw.value;
        match (raw.kind.get(), raw.bits.get()) {
            (checksum::NONE, _) => Self::None,
            (checksum::CRC32, 32) => Self::Crc32(u32::from_be_bytes([a, b, c, d])),
            (kind, _) => Self::Other(kind),
        }
    }
}

/// The CRC-32 of `len` bytes of zeroes, in no time.
pub(crate) fn of_zeroes(len: u64) -> Hasher {
    const PIECE: [u8; 4096] = [0; 4096];
    let mut all = Hasher::new();
    let rest = usize::try_from(len % 4096).unwrap_or(0);
    all.update(&PIECE[..rest]);
    let mut piece = Hasher::new();
    piece.update(&PIECE);
    let mut pieces = len / 4096;
    while pieces > 0 {
        if pieces % 2 == 1 {
            all.combine(&piece);
        }
        let half = piece.clone();
        piece.combine(&half);
        pieces /= 2;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_have_the_checksum_that_hashing_them_gives() {
        for len in [0, 1, 511, 4096, 4097, 40_961, 1 << 20, (3 << 20) + 700] {
            let mut slow = Hasher::new();
            slow.update(&vec![0; len]);
            assert_eq!(of_zeroes(len as u64).finalize(), slow.finalize(), "{len}");
        }
    }
}
