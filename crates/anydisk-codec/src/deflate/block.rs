//! Blocks: counting symbols, choosing how to write them, writing them (RFC 1951, 3.2.3 to 3.2.7).

use super::bits::BitWriter;
use super::huffman::Code;
use super::matches::{Match, SHORTEST};

/// Symbols of literals and lengths; two more have a fixed code and never occur.
pub(super) const LITERALS: usize = 286;
/// Symbols of distances.
pub(super) const DISTANCES: usize = 30;
const LENGTHS: usize = 19;
const END: usize = 256;

/// The order in which a header tells the code of code lengths.
const LENGTH_ORDER: [usize; LENGTHS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// A literal byte or a match, in one word.
#[derive(Clone, Copy)]
pub(super) struct Token(u32);

impl Token {
    pub(super) fn literal(byte: u8) -> Self {
        Self(u32::from(byte))
    }

    pub(super) fn repeat(found: Match) -> Self {
        Self(found.len << 16 | found.distance)
    }
}

/// How often each symbol occurs.
#[derive(Clone)]
pub(super) struct Counts {
    pub(super) literals: [u32; LITERALS],
    pub(super) distances: [u32; DISTANCES],
}

impl Counts {
    pub(super) const NONE: Self = Self { literals: [0; LITERALS], distances: [0; DISTANCES] };

    #[inline]
    pub(super) fn literal(&mut self, byte: u8) {
        self.literals[usize::from(byte)] += 1;
    }

    #[inline]
    pub(super) fn repeat(&mut self, found: Match) {
        self.literals[length_symbol(found.len).0] += 1;
        self.distances[distance_symbol(found.distance).0] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.literals.iter_mut().zip(&other.literals).for_each(|(sum, count)| *sum += count);
        self.distances.iter_mut().zip(&other.distances).for_each(|(sum, count)| *sum += count);
    }

    /// Bits that lengths and distances have behind their symbols.
    fn extra_bits(&self) -> u64 {
        let lengths = (0..)
            .zip(&self.literals[257..])
            .map(|(symbol, &count)| u64::from(LENGTH_SYMBOLS[symbol].1) * u64::from(count));
        let distances = (0_u64..).zip(&self.distances);
        let distances =
            distances.map(|(symbol, &count)| (symbol / 2).saturating_sub(1) * u64::from(count));
        lengths.chain(distances).sum()
    }
}

/// First length and number of extra bits of the symbols from 257 on.
const LENGTH_SYMBOLS: [(u16, u8); 29] = length_symbols();

const fn length_symbols() -> [(u16, u8); 29] {
    let mut symbols = [(0, 0); 29];
    let (mut symbol, mut first, mut bits) = (0, 3, 0);
    while symbol < 28 {
        // Every four symbols from the ninth on have a bit more.
        if symbol >= 8 && symbol % 4 == 0 {
            bits += 1;
        }
        symbols[symbol] = (first, bits);
        first += 1 << bits;
        symbol += 1;
    }
    symbols[28] = (258, 0);
    symbols
}

/// By length: the place of its symbol in `LENGTH_SYMBOLS`.
const SYMBOL_OF_LENGTH: [u8; 259] = symbol_of_length();

const fn symbol_of_length() -> [u8; 259] {
    let mut table = [0; 259];
    let (mut length, mut symbol) = (3, 0);
    while length < 259 {
        if symbol < 28 && LENGTH_SYMBOLS[symbol as usize + 1].0 as usize <= length {
            symbol += 1;
        }
        table[length] = symbol;
        length += 1;
    }
    table
}

/// Symbol of a length, value and number of its extra bits.
#[inline]
fn length_symbol(length: u32) -> (usize, u32, u32) {
    let symbol = usize::from(SYMBOL_OF_LENGTH[length as usize]);
    let (first, bits) = LENGTH_SYMBOLS[symbol];
    (257 + symbol, length - u32::from(first), u32::from(bits))
}

/// Symbol of a distance, value and number of its extra bits.
#[inline]
fn distance_symbol(distance: u32) -> (usize, u32, u32) {
    let from_zero = distance - 1;
    if from_zero < 4 {
        return (from_zero as usize, 0, 0);
    }
    let bits = from_zero.ilog2() - 1;
    let symbol = 2 * bits + (from_zero >> bits);
    (symbol as usize, from_zero & ((1 << bits) - 1), bits)
}

/// What one block holds.
pub(super) struct Block<'a> {
    pub(super) tokens: &'a [Token],
    /// The same without the end symbol.
    pub(super) counts: &'a Counts,
    /// The same as plain bytes.
    pub(super) plain: &'a [u8],
    pub(super) last: bool,
}

impl Block<'_> {
    /// Writes the block in the shortest of the three ways.
    pub(super) fn write(&self, out: &mut BitWriter<'_>) {
        let mut counts = self.counts.clone();
        counts.literals[END] = 1;
        let dynamic = Codes::dynamic(&counts);
        let header = Header::new(&dynamic);
        let fixed = Codes::fixed();
        let extra = counts.extra_bits();
        let dynamic_bits = 3 + header.bits() + dynamic.cost(&counts) + extra;
        let fixed_bits = 3 + fixed.cost(&counts) + extra;
        let coded = dynamic_bits.min(fixed_bits);
        if self.stored_bits(out.odd_bits()) <= coded {
            self.write_stored(out);
        } else if fixed_bits <= dynamic_bits {
            out.put(u64::from(self.last) | 1 << 1, 3);
            fixed.write(self.tokens, out);
        } else {
            out.put(u64::from(self.last) | 2 << 1, 3);
            header.write(out);
            dynamic.write(self.tokens, out);
        }
    }

    /// At most: the padding of blocks behind the first is smaller.
    fn stored_bits(&self, odd: u32) -> u64 {
        let pieces = self.plain.len().div_ceil(65535).max(1) as u64;
        let padding = u64::from((8 - (odd + 3) % 8) % 8);
        pieces * (3 + 32) + padding + (pieces - 1) * 5 + 8 * self.plain.len() as u64
    }

    fn write_stored(&self, out: &mut BitWriter<'_>) {
        let mut rest = self.plain;
        loop {
            let (piece, behind) = rest.split_at(rest.len().min(65535));
            out.put(u64::from(self.last && behind.is_empty()), 3);
            out.align();
            let len = u16::try_from(piece.len()).expect("at most 65535");
            out.bytes(&len.to_le_bytes());
            out.bytes(&(!len).to_le_bytes());
            out.bytes(piece);
            rest = behind;
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// The two codes of a block.
struct Codes {
    literals: Code<288>,
    distances: Code<DISTANCES>,
}

impl Codes {
    fn dynamic(counts: &Counts) -> Self {
        Self {
            literals: Code::of_counts(&widened(&counts.literals), 15),
            distances: Code::of_counts(&counts.distances, 15),
        }
    }

    /// The codes of RFC 1951, 3.2.6.
    fn fixed() -> Self {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        Self { literals: Code::of_lengths(lengths), distances: Code::of_lengths([5; DISTANCES]) }
    }

    fn cost(&self, counts: &Counts) -> u64 {
        self.literals.cost(&widened(&counts.literals)) + self.distances.cost(&counts.distances)
    }

    fn write(&self, tokens: &[Token], out: &mut BitWriter<'_>) {
        for &Token(token) in tokens {
            let (len, distance) = (token >> 16, token & 0xffff);
            if len < SHORTEST {
                self.literal(distance as usize, out);
            } else {
                self.repeat(len, distance, out);
            }
        }
        self.literal(END, out);
    }

    #[inline]
    fn literal(&self, symbol: usize, out: &mut BitWriter<'_>) {
        out.put(self.literals.bits[symbol].into(), self.literals.lengths[symbol].into());
    }

    #[inline]
    fn repeat(&self, len: u32, distance: u32, out: &mut BitWriter<'_>) {
        let (symbol, extra, extra_bits) = length_symbol(len);
        let length_bits = u32::from(self.literals.lengths[symbol]);
        let length = u64::from(self.literals.bits[symbol]) | u64::from(extra) << length_bits;
        let total = length_bits + extra_bits;
        let (symbol, extra, extra_bits) = distance_symbol(distance);
        let distance_bits = u32::from(self.distances.lengths[symbol]);
        let distance = u64::from(self.distances.bits[symbol]) | u64::from(extra) << distance_bits;
        out.put(length | distance << total, total + distance_bits + extra_bits);
    }
}

fn widened(counts: &[u32; LITERALS]) -> [u32; 288] {
    let mut wide = [0; 288];
    wide[..LITERALS].copy_from_slice(counts);
    wide
}

/// The header of a dynamic block: its two codes, packed (RFC 1951, 3.2.7).
struct Header {
    literals: usize,
    distances: usize,
    /// Code lengths in runs: symbol, value and number of extra bits.
    runs: Vec<(u8, u8, u8)>,
    code: Code<LENGTHS>,
    /// How many entries of `LENGTH_ORDER` it tells.
    told: usize,
}

impl Header {
    fn new(codes: &Codes) -> Self {
        let used = |lengths: &[u8], least: usize| {
            lengths.iter().rposition(|&length| length > 0).map_or(least, |last| least.max(last + 1))
        };
        let literals = used(&codes.literals.lengths, 257);
        let distances = used(&codes.distances.lengths, 1);
        let mut lengths = [0; LITERALS + DISTANCES];
        lengths[..literals].copy_from_slice(&codes.literals.lengths[..literals]);
        lengths[literals..][..distances].copy_from_slice(&codes.distances.lengths[..distances]);
        let runs = runs(&lengths[..literals + distances]);
        let mut counts = [0; LENGTHS];
        runs.iter().for_each(|&(symbol, ..)| counts[usize::from(symbol)] += 1);
        let code = Code::of_counts(&counts, 7);
        let told = LENGTH_ORDER.iter().rposition(|&symbol| code.lengths[symbol] > 0);
        Self { literals, distances, runs, code, told: told.map_or(4, |last| (last + 1).max(4)) }
    }

    fn bits(&self) -> u64 {
        let runs = self.runs.iter();
        let runs = runs.map(|&(symbol, _, bits)| self.code.lengths[usize::from(symbol)] + bits);
        14 + 3 * self.told as u64 + runs.map(u64::from).sum::<u64>()
    }

    fn write(&self, out: &mut BitWriter<'_>) {
        out.put(self.literals as u64 - 257, 5);
        out.put(self.distances as u64 - 1, 5);
        out.put(self.told as u64 - 4, 4);
        for &symbol in &LENGTH_ORDER[..self.told] {
            out.put(self.code.lengths[symbol].into(), 3);
        }
        for &(symbol, extra, bits) in &self.runs {
            let symbol = usize::from(symbol);
            out.put(self.code.bits[symbol].into(), self.code.lengths[symbol].into());
            out.put(extra.into(), bits.into());
        }
    }
}

/// Code lengths as symbols 0 to 15, 16 (the last one 3 to 6 times more), 17 and 18 (3 to 10 and
/// 11 to 138 zeroes).
fn runs(lengths: &[u8]) -> Vec<(u8, u8, u8)> {
    let mut runs = Vec::with_capacity(lengths.len());
    for run in lengths.chunk_by(|a, b| a == b) {
        let (length, mut left) = (run[0], run.len());
        if length != 0 {
            runs.push((length, 0, 0));
            left -= 1;
        }
        while left >= 3 {
            let (symbol, least, most, bits) = match (length, left) {
                (0, 11..) => (18, 11, 138, 7),
                (0, _) => (17, 3, 10, 3),
                _ => (16, 3, 6, 2),
            };
            let taken = left.min(most);
            runs.push((symbol, u8::try_from(taken - least).expect("seven bits"), bits));
            left -= taken;
        }
        runs.extend(std::iter::repeat_n((length, 0, 0), left));
    }
    runs
}
