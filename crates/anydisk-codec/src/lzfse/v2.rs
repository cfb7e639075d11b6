//! A block with entropy coding: its literals, then lengths and distances that put them together.

use super::bits::Bits;
use super::fse::{Symbol, Table};
use super::header::{Header, STATES, SYMBOLS};
use crate::DecodeError;
use crate::output::Output;

/// The tables and literals of a block, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Of literal lengths, copy lengths, distances, and literals.
    tables: [Table; 4],
    literals: Vec<u8>,
}

/// A step of a block: so many literals, then a copy.
struct Step {
    literals: usize,
    copy: usize,
    /// 0: as before.
    distance: usize,
}

impl Tables {
    /// Decodes the block that `rest` begins with, magic and all: returns what follows it.
    pub(super) fn block<'s>(
        &mut self,
        rest: &'s [u8],
        out: &mut Output<'_>,
    ) -> Result<&'s [u8], DecodeError> {
        let header = Header::parse(rest).ok_or_else(|| out.invalid("a header of a block"))?;
        let frequencies = header.frequencies(rest);
        let filled = frequencies.and_then(|frequencies| self.fill(&frequencies));
        filled.ok_or_else(|| out.invalid("frequencies that do not fit"))?;
        let behind = rest.get(header.header..).unwrap_or_default();
        let parts = behind.split_at_checked(header.literal_bytes);
        let (packed, behind) = parts.ok_or_else(|| out.short())?;
        let parts = behind.split_at_checked(header.match_bytes);
        let (steps, behind) = parts.ok_or_else(|| out.short())?;
        self.unpack_literals(&header, packed).ok_or_else(|| out.invalid("literals"))?;
        self.play(&header, steps, out)?;
        Ok(behind)
    }

    fn fill(&mut self, frequencies: &[u16]) -> Option<()> {
        let symbols: [fn(usize) -> Option<Symbol>; 4] =
            [literal_length, copy_length, distance, literal];
        let mut rest = frequencies;
        for (((table, states), count), symbol) in
            self.tables.iter_mut().zip(STATES).zip(SYMBOLS).zip(symbols)
        {
            let (own, behind) = rest.split_at_checked(count)?;
            table.fill(states, own, symbol)?;
            rest = behind;
        }
        Some(())
    }

    /// Four states take turns.
    fn unpack_literals(&mut self, header: &Header, packed: &[u8]) -> Option<()> {
        let [.., table] = &self.tables;
        let mut bits = Bits::new(packed, header.literal_unused)?;
        let mut states = header.literal_states;
        self.literals.clear();
        for _ in 0..header.literals >> 2 {
            for state in &mut states {
                self.literals.push(u8::try_from(table.value(state, &mut bits)?).ok()?);
            }
        }
        Some(())
    }

    fn play(
        &self,
        header: &Header,
        packed: &[u8],
        out: &mut Output<'_>,
    ) -> Result<(), DecodeError> {
        let end = out.came().saturating_add(header.len);
        let bits = Bits::new(packed, header.match_unused);
        let mut bits = bits.ok_or_else(|| out.invalid("lengths and distances"))?;
        let mut states = header.match_states;
        let (mut literals, mut distance) = (self.literals.as_slice(), 0);
        for _ in 0..header.matches {
            let step = self.step(&mut states, &mut bits);
            let step = step.ok_or_else(|| out.invalid("lengths and distances"))?;
            let parts = literals.split_at_checked(step.literals);
            let (own, behind) = parts.ok_or_else(|| out.invalid("more literals than there are"))?;
            out.literal(own)?;
            literals = behind;
            distance = if step.distance > 0 { step.distance } else { distance };
            if step.copy > 0 {
                out.copy(step.copy, distance)?;
            }
        }
        match out.came() == end {
            true => Ok(()),
            false => Err(out.invalid("a block of another length than it says")),
        }
    }

    #[inline]
    fn step(&self, states: &mut [u16; 3], bits: &mut Bits<'_>) -> Option<Step> {
        let [literals, copies, distances, _] = &self.tables;
        let [l, m, d] = states;
        let mut number = |table: &Table, state| usize::try_from(table.value(state, bits)?).ok();
        let (literals, copy) = (number(literals, l)?, number(copies, m)?);
        Some(Step { literals, copy, distance: number(distances, d)? })
    }
}

fn literal(number: usize) -> Option<Symbol> {
    Some((u32::try_from(number).ok()?, 0))
}

fn literal_length(number: usize) -> Option<Symbol> {
    let wide = [(16, 2), (20, 3), (28, 5), (60, 8)];
    length(number, wide)
}

fn copy_length(number: usize) -> Option<Symbol> {
    let wide = [(16, 3), (24, 5), (56, 8), (312, 11)];
    length(number, wide)
}

/// The first 16 stand for themselves.
fn length(number: usize, wide: [Symbol; 4]) -> Option<Symbol> {
    match number.checked_sub(16) {
        None => literal(number),
        Some(number) => wide.get(number).copied(),
    }
}

/// Four symbols of each width: 0 to 3, then steps of 2, of 4, ...
fn distance(number: usize) -> Option<Symbol> {
    let (extra, within) = (u32::try_from(number >> 2).ok()?, u32::try_from(number & 3).ok()?);
    let base = 4_u32.checked_shl(extra)?.checked_sub(4)?.checked_add(within.checked_shl(extra)?)?;
    Some((base, u8::try_from(extra).ok()?))
}
