//! LZVN: opcodes of a few bytes, each with literals, a copy, or both.

use crate::DecodeError;
use crate::output::Output;

/// One opcode: literals, which follow it, then a copy.
struct Op {
    /// Bytes of the opcode.
    len: usize,
    literals: usize,
    copy: usize,
    /// `None`: as the copy before.
    distance: Option<usize>,
}

/// What an opcode is.
enum Kind {
    Op(Op),
    Nothing,
    End,
}

/// Runs the opcodes up to their mark of the end.
pub(super) fn run(ops: &[u8], out: &mut Output<'_>) -> Result<(), DecodeError> {
    let mut rest = ops;
    let mut distance = 0;
    loop {
        let op = match decode(rest) {
            None => return Err(out.invalid("an opcode that is cut or not defined")),
            Some(Kind::End) => return Ok(()),
            Some(Kind::Nothing) => Op { len: 1, literals: 0, copy: 0, distance: None },
            Some(Kind::Op(op)) => op,
        };
        let behind = rest.get(op.len..).unwrap_or_default();
        let literals = behind.split_at_checked(op.literals).ok_or_else(|| out.short())?;
        out.literal(literals.0)?;
        distance = op.distance.unwrap_or(distance);
        if op.copy > 0 {
            out.copy(op.copy, distance)?;
        }
        rest = literals.1;
    }
}

/// The opcode at the start; `None` if it is cut or not defined.
fn decode(ops: &[u8]) -> Option<Kind> {
    let (&first, rest) = ops.split_first()?;
    let next = |index: usize| rest.get(index).copied().map(usize::from);
    let op = |len, literals: u8, copy: usize, distance| {
        Some(Kind::Op(Op { len, literals: literals.into(), copy, distance }))
    };
    let word = || Some(usize::from(u16::from_le_bytes([*rest.first()?, *rest.get(1)?])));
    let (literals, copy) = (first >> 6, usize::from(first >> 3 & 7).saturating_add(3));
    match first {
        0x06 => Some(Kind::End),
        0x0E | 0x16 => Some(Kind::Nothing),
        0x1E | 0x26 | 0x2E | 0x36 | 0x3E | 0x70..=0x7F | 0xD0..=0xDF => None,
        0xA0..=0xBF => {
            let word = word()?;
            let copy = (usize::from(first & 7) << 2 | word & 3).saturating_add(3);
            op(3, first >> 3 & 3, copy, Some(word >> 2))
        }
        0xE0 => Some(Kind::Op(Op {
            len: 2,
            literals: next(0)?.saturating_add(16),
            copy: 0,
            distance: None,
        })),
        0xE1..=0xEF => op(1, first & 15, 0, None),
        0xF0 => op(2, 0, next(0)?.saturating_add(16), None),
        0xF1..=0xFF => op(1, 0, usize::from(first & 15), None),
        _ if first & 7 == 6 => op(1, literals, copy, None),
        _ if first & 7 == 7 => op(3, literals, copy, Some(word()?)),
        _ => op(2, literals, copy, Some(usize::from(first & 7) << 8 | next(0)?)),
    }
}
