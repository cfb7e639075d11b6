//! The header of a block with entropy coding, and the frequencies behind it.

/// Literals that a block can have, a multiple of 4 in it.
const LITERALS: usize = 40_000;

/// Copies that a block can have.
const MATCHES: usize = 10_000;

/// Bytes before the frequencies.
const FIXED: usize = 32;

/// Symbols of the lengths of literals, of copies, of distances, and of the literals themselves.
pub(super) const SYMBOLS: [usize; 4] = [20, 20, 64, 256];

/// States of their tables.
pub(super) const STATES: [u16; 4] = [64, 64, 256, 1024];

/// A header.
pub(super) struct Header {
    /// Bytes that the block unpacks to.
    pub(super) len: usize,
    pub(super) literals: usize,
    pub(super) literal_bytes: usize,
    pub(super) literal_unused: u32,
    pub(super) literal_states: [u16; 4],
    pub(super) matches: usize,
    pub(super) match_bytes: usize,
    pub(super) match_unused: u32,
    /// Of literal lengths, copy lengths, distances.
    pub(super) match_states: [u16; 3],
    /// Bytes of the header with the frequencies.
    pub(super) header: usize,
}

impl Header {
    /// Reads the header of a block that begins with its magic; `None` if it breaks the rules.
    pub(super) fn parse(block: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(*block.get(at..)?.first_chunk()?));
        let (first, second, third) = (word(8)?, word(16)?, word(24)?);
        let len = u32::from_le_bytes(*block.get(4..)?.first_chunk()?);
        let header = Self {
            len: usize::try_from(len).ok()?,
            literals: field(first, 0, 20)?,
            literal_bytes: field(first, 20, 20)?,
            matches: field(first, 40, 20)?,
            literal_unused: unused(first)?,
            literal_states: [
                state(second, 0)?,
                state(second, 10)?,
                state(second, 20)?,
                state(second, 30)?,
            ],
            match_bytes: field(second, 40, 20)?,
            match_unused: unused(second)?,
            header: field(third, 0, 32)?,
            match_states: [state(third, 32)?, state(third, 42)?, state(third, 52)?],
        };
        let fits = header.literals <= LITERALS
            && header.literals.is_multiple_of(4)
            && header.matches <= MATCHES
            // Each adds a byte at least: steps that add none would cost time for nothing.
            && header.matches <= header.len
            && header.header >= FIXED;
        fits.then_some(header)
    }

    /// The frequencies of all symbols: those of the four tables, one after the other.
    pub(super) fn frequencies(&self, block: &[u8]) -> Option<Vec<u16>> {
        let packed = block.get(FIXED..self.header)?;
        let count = SYMBOLS.iter().sum();
        // They may be left out, if all tables are empty.
        match packed {
            [] => Some(vec![0; count]),
            _ => frequencies(packed, count),
        }
    }
}

fn field(word: u64, shift: u32, bits: u32) -> Option<usize> {
    let mask = u64::MAX.checked_shr(64_u32.checked_sub(bits)?)?;
    usize::try_from(word.checked_shr(shift)? & mask).ok()
}

fn state(word: u64, shift: u32) -> Option<u16> {
    u16::try_from(field(word, shift, 10)?).ok()
}

/// Bits of the payload's last byte that are none, in the three bits at 60: 7 means none of them.
fn unused(word: u64) -> Option<u32> {
    7_u32.checked_sub(u32::try_from(field(word, 60, 3)?).ok()?)
}

/// Reads `count` numbers of 2 to 14 bits each, packed from the lowest bit on.
fn frequencies(packed: &[u8], count: usize) -> Option<Vec<u16>> {
    let mut bytes = packed.iter();
    let (mut word, mut held) = (0_u32, 0_u32);
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        while held <= 24 {
            let Some(byte) = bytes.next() else { break };
            word |= u32::from(*byte).checked_shl(held)?;
            held = held.saturating_add(8);
        }
        let (bits, frequency) = frequency(word);
        held = held.checked_sub(bits)?;
        word >>= bits;
        all.push(frequency);
    }
    // Less than a byte is left, and no byte behind it.
    (held < 8 && bytes.next().is_none()).then_some(all)
}

/// The number at the low end of `word`, and its bits.
fn frequency(word: u32) -> (u32, u16) {
    let low = |shift: u32, mask: u32| u16::try_from(word >> shift & mask).unwrap_or(0);
    match word & 31 {
        bits if bits & 3 == 0 => (2, 0),
        bits if bits & 3 == 2 => (2, 1),
        bits if bits & 7 == 1 => (3, 2),
        bits if bits & 7 == 5 => (3, 3),
        bits if bits & 7 == 3 => (5, low(3, 3).saturating_add(4)),
        bits if bits & 15 == 7 => (8, low(4, 15).saturating_add(8)),
        _ => (14, low(4, 0x3FF).saturating_add(24)),
    }
}
