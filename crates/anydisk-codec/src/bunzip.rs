//! Decoding of bzip2 streams.

use bzip2::{Decompress, Error, Status};

use crate::{DecodeError, Decoded};

const NAME: &str = "bzip2";

/// Decodes the unit at the start of `stream`.
///
/// Takes up to 4 MiB while it works, which is not kept: a stream is as large as a DMG's chunk.
pub(crate) fn run(stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
    let mut unit = Unit { state: Decompress::new(false), stream, expected: out.len() };
    loop {
        let before = (unit.used(), unit.came());
        let status = unit.step(out)?;
        let (used, came) = (unit.used(), unit.came());
        match status {
            Status::StreamEnd => return Ok(Decoded::new(came, Some(used))),
            _ if came == unit.expected => return unit.end(),
            _ if before == (used, came) => {
                return Err(DecodeError::Short { codec: NAME, came, expected: unit.expected });
            }
            _ => {}
        }
    }
}

/// A stream on the way.
struct Unit<'a> {
    state: Decompress,
    stream: &'a [u8],
    expected: usize,
}

impl Unit<'_> {
    fn step(&mut self, out: &mut [u8]) -> Result<Status, DecodeError> {
        let came = self.came().min(out.len());
        self.fill(&mut out[came..])
    }

    fn fill(&mut self, space: &mut [u8]) -> Result<Status, DecodeError> {
        let rest = self.stream.get(self.used()..).unwrap_or_default();
        self.state.decompress(rest, space).map_err(|error| self.invalid(reason(error)))
    }

    /// Decides about a stream that filled the unit and did not end: one byte more, or cut?
    fn end(&mut self) -> Result<Decoded, DecodeError> {
        match self.fill(&mut [0])? {
            _ if self.came() > self.expected => {
                Err(DecodeError::Long { codec: NAME, expected: self.expected })
            }
            Status::StreamEnd => Ok(Decoded::new(self.expected, Some(self.used()))),
            _ => Err(self.invalid("the stream is cut before its end")),
        }
    }

    fn used(&self) -> usize {
        usize::try_from(self.state.total_in()).unwrap_or(usize::MAX)
    }

    fn came(&self) -> usize {
        usize::try_from(self.state.total_out()).unwrap_or(usize::MAX)
    }

    fn invalid(&self, reason: &'static str) -> DecodeError {
        let (came, expected) = (self.came().min(self.expected), self.expected);
        DecodeError::Invalid { codec: NAME, came, expected, reason: reason.into() }
    }
}

fn reason(error: Error) -> &'static str {
    match error {
        Error::DataMagic => "not a stream of this codec",
        _ => "the data is broken",
    }
}
