//! A plain reader of deflate (RFC 1951) that tells how far back a stream reaches. Trusts its input.

use std::collections::HashMap;

/// What a stream holds, and its longest distance.
pub(crate) struct Inflated {
    pub(crate) unit: Vec<u8>,
    pub(crate) farthest: usize,
}

pub(crate) fn inflate(stream: &[u8]) -> Inflated {
    let mut bits = Bits { stream, at: 0 };
    let mut inflated = Inflated { unit: Vec::new(), farthest: 0 };
    loop {
        let last = bits.take(1) == 1;
        match bits.take(2) {
            0 => stored(&mut bits, &mut inflated),
            1 => coded(&mut bits, &mut inflated, &fixed(), &code(&[5; 30])),
            2 => {
                let (literals, distances) = codes(&mut bits);
                coded(&mut bits, &mut inflated, &literals, &distances);
            }
            _ => panic!("a block of no type"),
        }
        if last {
            return inflated;
        }
    }
}

struct Bits<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |sum, n| sum | self.bit() << n)
    }

    fn bit(&mut self) -> usize {
        let bit = self.stream[self.at / 8] >> (self.at % 8) & 1;
        self.at += 1;
        bit.into()
    }
}

/// Symbols by length and bits of their code.
type Code = HashMap<(usize, usize), usize>;

fn code(lengths: &[usize]) -> Code {
    let (mut table, mut next) = (Code::new(), 0);
    for length in 1..=15 {
        next <<= 1;
        for (symbol, _) in lengths.iter().enumerate().filter(|(_, each)| **each == length) {
            table.insert((length, next), symbol);
            next += 1;
        }
        assert!(next <= 1 << length, "more codes of {length} bits than there are");
    }
    table
}

fn symbol(bits: &mut Bits<'_>, code: &Code) -> usize {
    let (mut length, mut value) = (0, 0);
    loop {
        (length, value) = (length + 1, value << 1 | bits.bit());
        if let Some(&symbol) = code.get(&(length, value)) {
            return symbol;
        }
        assert!(length < 15, "no such code");
    }
}

fn fixed() -> Code {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    code(&lengths)
}

fn codes(bits: &mut Bits<'_>) -> (Code, Code) {
    let (literals, distances) = (bits.take(5) + 257, bits.take(5) + 1);
    let told = bits.take(4) + 4;
    let mut lengths = [0; 19];
    for symbol in
        [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].iter().take(told)
    {
        lengths[*symbol] = bits.take(3);
    }
    let of_lengths = code(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match symbol(bits, &of_lengths) {
            16 => (*lengths.last().unwrap(), 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            18 => (0, 11 + bits.take(7)),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    (code(&lengths[..literals]), code(&lengths[literals..]))
}

fn stored(bits: &mut Bits<'_>, inflated: &mut Inflated) {
    bits.at = bits.at.next_multiple_of(8);
    let (len, complement) = (bits.take(16), bits.take(16));
    assert_eq!(len ^ complement, 0xffff);
    inflated.unit.extend_from_slice(&bits.stream[bits.at / 8..][..len]);
    bits.at += 8 * len;
}

fn coded(bits: &mut Bits<'_>, inflated: &mut Inflated, literals: &Code, distances: &Code) {
    loop {
        let len = match symbol(bits, literals) {
            256 => return,
            symbol @ 257..=264 => symbol - 254,
            285 => 258,
            symbol @ 265.. => {
                let extra = (symbol - 261) / 4;
                ((4 + (symbol - 261) % 4) << extra) + 3 + bits.take(extra)
            }
            literal => {
                inflated.unit.push(u8::try_from(literal).unwrap());
                continue;
            }
        };
        let distance = match symbol(bits, distances) {
            symbol @ 0..=3 => symbol + 1,
            symbol => {
                let extra = symbol / 2 - 1;
                ((2 + symbol % 2) << extra) + 1 + bits.take(extra)
            }
        };
        inflated.farthest = inflated.farthest.max(distance);
        for _ in 0..len {
            inflated.unit.push(inflated.unit[inflated.unit.len() - distance]);
        }
    }
}
