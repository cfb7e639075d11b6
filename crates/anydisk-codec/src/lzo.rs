//! Decoding of LZO1X: literals and copies, with lengths and distances in the bytes between.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::output::Output;
use crate::{DecodeError, Decoded};

pub(crate) const NAME: &str = "lzo1x";

/// What stands before an instruction, which decides what the short ones mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A copy, and no literal.
    Copy,
    /// A copy, and one to three literals behind it.
    FewLiterals,
    /// Four literals or more.
    Literals,
}

/// An instruction.
enum Step {
    Literals(usize),
    Copy {
        len: usize,
        distance: usize,
        /// Literals that follow: 0 to 3.
        literals: usize,
    },
    End,
}

/// Decodes the unit at the start of `stream`, up to the mark of its end.
pub(crate) fn run(stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
    let mut out = Output::new(NAME, out);
    let mut rest = Rest(stream);
    let mut before = match rest.first_literals() {
        Some(len) => {
            rest.literals(len, &mut out)?;
            if len < 4 { Before::FewLiterals } else { Before::Literals }
        }
        None => Before::Copy,
    };
    loop {
        before = match rest.step(before).ok_or_else(|| out.short())? {
            Step::End => {
                let used = stream.len().saturating_sub(rest.0.len());
                return Ok(Decoded::new(out.came(), Some(used)));
            }
            Step::Literals(len) => {
                rest.literals(len, &mut out)?;
                Before::Literals
            }
            Step::Copy { len, distance, literals } => {
                out.copy(len, distance)?;
                rest.literals(literals, &mut out)?;
                if literals == 0 { Before::Copy } else { Before::FewLiterals }
            }
        };
    }
}

/// What is left of the stream.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> Option<usize> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(usize::from(*byte))
    }

    fn word(&mut self) -> Option<usize> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(usize::from(u16::from_le_bytes(*word)))
    }

    fn literals(&mut self, len: usize, out: &mut Output<'_>) -> Result<(), DecodeError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(|| out.short())?;
        self.0 = rest;
        out.literal(bytes)
    }

    /// The literals that a stream may begin with.
    fn first_literals(&mut self) -> Option<usize> {
        let (&first, rest) = self.0.split_first()?;
        let len = usize::from(first).checked_sub(17).filter(|len| *len > 0)?;
        self.0 = rest;
        Some(len)
    }

    /// A length: `low`, or, where that is 0, `most` and the bytes that follow, up to one that is not 0.
    fn length(&mut self, low: usize, most: usize) -> Option<usize> {
        if low > 0 {
            return Some(low);
        }
        let mut len = most;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255)?,
                last => return len.checked_add(last),
            }
        }
    }

    fn step(&mut self, before: Before) -> Option<Step> {
        let first = self.byte()?;
        let copy = |len, distance, literals: usize| {
            Some(Step::Copy { len, distance, literals: literals & 3 })
        };
        match first {
            64.. => {
                let len = match first {
                    128.. => (first >> 5 & 3).checked_add(5)?,
                    _ => (first >> 5 & 1).checked_add(3)?,
                };
                let distance = self.byte()? << 3 | first >> 2 & 7;
                copy(len, distance.checked_add(1)?, first)
            }
            32.. => {
                let len = self.length(first & 31, 31)?.checked_add(2)?;
                let word = self.word()?;
                copy(len, (word >> 2).checked_add(1)?, word)
            }
            16.. => {
                let len = self.length(first & 7, 7)?.checked_add(2)?;
                let word = self.word()?;
                match (first & 8) << 11 | word >> 2 {
                    0 => Some(Step::End),
                    distance => copy(len, distance.checked_add(16_384)?, word),
                }
            }
            _ if before == Before::Copy => {
                Some(Step::Literals(self.length(first & 15, 15)?.checked_add(3)?))
            }
            _ => {
                let (len, least) = if before == Before::Literals { (3, 2049) } else { (2, 1) };
                let distance = self.byte()? << 2 | first >> 2;
                copy(len, distance.checked_add(least)?, first)
            }
        }
    }
}
