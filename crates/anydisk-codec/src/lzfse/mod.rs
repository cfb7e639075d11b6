//! Decoding of LZFSE streams: blocks that are stored, packed by LZVN, or by LZ77 with finite state
//! entropy coding.
//!
//! ```text
//!   bvx-  length        bytes                          stored
//!   bvxn  length, packed length   opcodes              LZVN, for short ones
//!   bvx2  header, frequencies | literals | L, M, D     read from their ends
//!   bvx$                                               the end
//! ```
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod bits;
mod fse;
mod header;
mod lzvn;
mod v2;

use crate::output::Output;
use crate::{DecodeError, Decoded};

pub(crate) const NAME: &str = "lzfse";

/// Decodes the unit at the start of `stream`, up to the mark of its end.
pub(crate) fn run(stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder { out: Output::new(NAME, out), v2: v2::Tables::default() };
    let mut rest = stream;
    loop {
        let (magic, behind) = rest.split_first_chunk().ok_or_else(|| decoder.out.short())?;
        rest = match magic {
            b"bvx$" => {
                let used = stream.len().saturating_sub(behind.len());
                return Ok(Decoded::new(decoder.out.came(), Some(used)));
            }
            b"bvx-" => decoder.stored(behind)?,
            b"bvxn" => decoder.lzvn(behind)?,
            b"bvx2" => decoder.v2.block(rest, &mut decoder.out)?,
            _ => return Err(decoder.out.invalid("not a block of this codec")),
        };
    }
}

struct Decoder<'a> {
    out: Output<'a>,
    v2: v2::Tables,
}

impl Decoder<'_> {
    /// A block as it is: returns what follows it.
    fn stored<'s>(&mut self, block: &'s [u8]) -> Result<&'s [u8], DecodeError> {
        let (len, rest) = length(block).ok_or_else(|| self.out.short())?;
        let (bytes, rest) = rest.split_at_checked(len).ok_or_else(|| self.out.short())?;
        self.out.literal(bytes)?;
        Ok(rest)
    }

    fn lzvn<'s>(&mut self, block: &'s [u8]) -> Result<&'s [u8], DecodeError> {
        let lengths = length(block).and_then(|(len, rest)| Some((len, length(rest)?)));
        let (len, (packed, rest)) = lengths.ok_or_else(|| self.out.short())?;
        let (ops, rest) = rest.split_at_checked(packed).ok_or_else(|| self.out.short())?;
        let end = self.out.came().saturating_add(len);
        lzvn::run(ops, &mut self.out)?;
        if self.out.came() != end {
            return Err(self.out.invalid("a block of another length than it says"));
        }
        Ok(rest)
    }
}

/// A length, and what follows it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_le_bytes(*word)).ok()?, rest))
}
