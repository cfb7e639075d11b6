//! Decoding of deflate and zlib streams.

use std::borrow::Cow;

use flate2::{Decompress, DecompressError, FlushDecompress, Status};

use crate::{Codec, DecodeError, Decoded};

type Reason = Cow<'static, str>;

/// The state of an inflater, for one of the two wrappings.
pub(crate) struct Inflater {
    state: Decompress,
    codec: Codec,
}

impl Inflater {
    pub(crate) fn deflate() -> Self {
        Self { state: Decompress::new(false), codec: Codec::Deflate }
    }

    pub(crate) fn zlib() -> Self {
        Self { state: Decompress::new(true), codec: Codec::Zlib }
    }

    /// Decodes the unit at the start of `stream`.
    pub(crate) fn run(&mut self, stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
        let zlib = matches!(self.codec, Codec::Zlib);
        self.state.reset(zlib);
        let status = self.step(stream, out, out.len())?;
        let came = self.came(out.len());
        match status {
            Status::StreamEnd => Ok(Decoded::new(came, self.used())),
            // The output lies in one piece, so that distances of any length are answered from it,
            // and a stream that goes on behind the unit is left there, as qemu does.
            _ if came == out.len() && !zlib => Ok(Decoded::new(came, None)),
            _ if came == out.len() => self.end(stream, came),
            _ => Err(DecodeError::Short { codec: self.codec.name(), came, expected: out.len() }),
        }
    }

    /// Decides about a zlib stream that filled the unit and did not end: one byte more, or cut?
    fn end(&mut self, stream: &[u8], expected: usize) -> Result<Decoded, DecodeError> {
        let rest = self.used().and_then(|used| stream.get(used..)).unwrap_or_default();
        match self.step(rest, &mut [0], expected)? {
            Status::StreamEnd if self.came(usize::MAX) == expected => {
                Ok(Decoded::new(expected, self.used()))
            }
            _ if self.came(usize::MAX) > expected => {
                Err(DecodeError::Long { codec: self.codec.name(), expected })
            }
            _ => Err(self.invalid(expected, expected, "the stream is cut before its end".into())),
        }
    }

    fn step(
        &mut self,
        stream: &[u8],
        out: &mut [u8],
        expected: usize,
    ) -> Result<Status, DecodeError> {
        let result = self.state.decompress(stream, out, FlushDecompress::Finish);
        result.map_err(|error| self.invalid(self.came(expected), expected, reason(&error)))
    }

    /// Bytes of the stream taken since the start.
    fn used(&self) -> Option<usize> {
        usize::try_from(self.state.total_in()).ok()
    }

    /// Bytes decoded since the start, at most `expected`.
    fn came(&self, expected: usize) -> usize {
        usize::try_from(self.state.total_out()).unwrap_or(usize::MAX).min(expected)
    }

    fn invalid(&self, came: usize, expected: usize, reason: Reason) -> DecodeError {
        DecodeError::Invalid { codec: self.codec.name(), came, expected, reason }
    }
}

fn reason(error: &DecompressError) -> Reason {
    match (error.needs_dictionary(), error.message()) {
        (Some(_), _) => "it needs a preset dictionary".into(),
        (None, Some(message)) => message.to_owned().into(),
        (None, None) => "not a stream of this codec".into(),
    }
}
