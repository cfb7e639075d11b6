//! CRC-32C (Castagnoli), eight bytes at a time. Pure.

const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let (mut byte, mut number) = (0, 0_u32);
    while byte < 256 {
        let mut crc = number;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        (byte, number) = (byte + 1, number + 1);
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[table - 1][byte];
            tables[table][byte] = (crc >> 8) ^ tables[0][(crc & 0xFF) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The checksum of bytes that come in parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc(u32);

impl Crc {
    pub(crate) const fn new() -> Self {
        Self(u32::MAX)
    }

    pub(crate) fn add(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let [a, b, c, d, low @ ..] = *word;
            let [e, f, g, h] = (self.0 ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            let first = [e, f, g, h];
            // The first byte has the longest way to go.
            self.0 = (0..4).fold(0, |crc, at| crc ^ TABLES[7 - at][usize::from(first[at])]);
            self.0 ^= (0..4).fold(0, |crc, at| crc ^ TABLES[3 - at][usize::from(low[at])]);
        }
        for byte in rest {
            let [low, ..] = (self.0 ^ u32::from(*byte)).to_le_bytes();
            self.0 = (self.0 >> 8) ^ TABLES[0][usize::from(low)];
        }
        self
    }

    pub(crate) const fn get(self) -> u32 {
        !self.0
    }
}

/// The checksum of a structure that holds it itself, in four bytes at `at`, which count as zero.
pub(crate) fn of_structure(bytes: &[u8], at: usize) -> u32 {
    let before = bytes.get(..at).unwrap_or_default();
    let behind = bytes.get(at + 4..).unwrap_or_default();
    Crc::new().add(before).add(&[0; 4]).add(behind).get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_polynomial_comes_out_however_the_bytes_are_cut() {
        let text = b"123456789";
        for cut in 0..=text.len() {
            let (first, rest) = text.split_at(cut);
            assert_eq!(Crc::new().add(first).add(rest).get(), 0xE306_9283);
        }
        let long: Vec<u8> = (0..100).collect();
        let (a, b) = long.split_at(13);
        assert_eq!(Crc::new().add(&long).get(), Crc::new().add(a).add(b).get());
        assert_eq!(
            of_structure(&[1, 2, 9, 9, 9, 9, 3], 2),
            of_structure(&[1, 2, 0, 0, 0, 0, 3], 2)
        );
    }
}
