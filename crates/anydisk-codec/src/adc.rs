//! Decoding of ADC, Apple's data compression: literals and copies, no entropy coding.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::output::Output;
use crate::{DecodeError, Decoded};

const NAME: &str = "adc";

/// What one control byte begins.
enum Step {
    /// So many bytes of the stream follow as they are.
    Literal(usize),
    /// So many bytes from so far back.
    Copy { len: usize, distance: usize },
}

/// Decodes the unit at the start of `stream`. Nothing marks its end: the stream must end with it.
pub(crate) fn run(stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
    let mut out = Output::new(NAME, out);
    let mut rest = stream;
    while let Some((&control, behind)) = rest.split_first() {
        let (step, behind) = step(control, behind).ok_or_else(|| out.short())?;
        rest = match step {
            Step::Literal(len) => {
                let (bytes, behind) = behind.split_at_checked(len).ok_or_else(|| out.short())?;
                out.literal(bytes)?;
                behind
            }
            Step::Copy { len, distance } => {
                out.copy(len, distance)?;
                behind
            }
        };
    }
    Ok(Decoded::new(out.came(), Some(stream.len())))
}

/// The step that `control` begins, and what of the stream follows it; `None` if it is cut.
fn step(control: u8, rest: &[u8]) -> Option<(Step, &[u8])> {
    let low = |bits: u8| usize::from(control & bits);
    match (control, rest) {
        (0x80.., _) => Some((Step::Literal(low(0x7F).saturating_add(1)), rest)),
        (0x40.., [high, next, rest @ ..]) => {
            let distance = usize::from(u16::from_be_bytes([*high, *next])).saturating_add(1);
            Some((Step::Copy { len: low(0x3F).saturating_add(4), distance }, rest))
        }
        (..0x40, [next, rest @ ..]) => {
            let high = control & 3;
            let distance = usize::from(u16::from_be_bytes([high, *next])).saturating_add(1);
            let len = usize::from(control >> 2).saturating_add(3);
            Some((Step::Copy { len, distance }, rest))
        }
        _ => None,
    }
}
