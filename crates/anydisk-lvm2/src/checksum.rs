//! The two checksums: CRC-32 of labels, metadata areas and texts, CRC-32C of the blocks of
//! device-mapper.

/// The start value of LVM's checksum.
const LVM_SEED: u32 = 0xF597_A6CF;

const LVM: [u32; 256] = table(0xEDB8_8320);
const CASTAGNOLI: [u32; 256] = table(0x82F6_3B78);

/// What one byte does to the remainder, for a reflected polynomial.
const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let (mut rest, mut bit) = (byte, 0);
        while bit < 8 {
            rest = if rest & 1 == 1 { rest >> 1 ^ polynomial } else { rest >> 1 };
            bit += 1;
        }
        table[byte as usize] = rest;
        byte += 1;
    }
    table
}

fn crc(table: &[u32; 256], seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |rest, &byte| {
        let [low, ..] = rest.to_le_bytes();
        rest >> 8 ^ table[usize::from(low ^ byte)]
    })
}

/// The checksum of labels, metadata areas and the text: not inverted at the end.
pub(crate) fn lvm(bytes: &[u8]) -> u32 {
    crc(&LVM, LVM_SEED, bytes)
}

/// The checksum of a block of thin or cache metadata. `kind` is the constant of its kind.
pub(crate) fn block(bytes: &[u8], kind: u32) -> u32 {
    crc(&CASTAGNOLI, u32::MAX, bytes) ^ kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_and_inverted_as_usual_both_give_the_published_check_values() {
        assert_eq!(!crc(&LVM, u32::MAX, b"123456789"), 0xCBF4_3926);
        assert_eq!(!block(b"123456789", 0), 0xE306_9283);
    }
}
