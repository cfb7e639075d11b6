//! The unit as it comes: literals, and copies of what came before.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use crate::DecodeError;

/// The bytes of a unit, filled from the front by a codec of this crate.
pub(crate) struct Output<'a> {
    codec: &'static str,
    bytes: &'a mut [u8],
    came: usize,
}

impl<'a> Output<'a> {
    pub(crate) fn new(codec: &'static str, bytes: &'a mut [u8]) -> Self {
        Self { codec, bytes, came: 0 }
    }

    /// Bytes that are there.
    pub(crate) fn came(&self) -> usize {
        self.came
    }

    /// Bytes of the stream as they are.
    #[inline]
    pub(crate) fn literal(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let space = self.bytes.get_mut(self.came..).and_then(|rest| rest.get_mut(..bytes.len()));
        let Some(space) = space else { return Err(self.long()) };
        space.copy_from_slice(bytes);
        self.came = self.came.saturating_add(bytes.len());
        Ok(())
    }

    /// `len` bytes from `distance` bytes back; they may reach into themselves.
    #[inline]
    pub(crate) fn copy(&mut self, len: usize, distance: usize) -> Result<(), DecodeError> {
        let Some(from) = self.came.checked_sub(distance).filter(|_| distance > 0) else {
            return Err(self.invalid("a copy from before the start"));
        };
        let Some(end) = self.came.checked_add(len).filter(|end| *end <= self.bytes.len()) else {
            return Err(self.long());
        };
        // Each round doubles what can be copied in one piece.
        let mut done = self.came;
        while done < end {
            let piece = done.saturating_sub(from).min(end.saturating_sub(done));
            self.bytes.copy_within(from..from.saturating_add(piece), done);
            done = done.saturating_add(piece);
        }
        self.came = end;
        Ok(())
    }

    /// The refusal of bytes that break the rules of the codec.
    #[cold]
    pub(crate) fn invalid(&self, reason: impl Into<Cow<'static, str>>) -> DecodeError {
        let (codec, came, expected) = (self.codec, self.came, self.bytes.len());
        DecodeError::Invalid { codec, came, expected, reason: reason.into() }
    }

    /// The refusal of a stream that is cut.
    #[cold]
    pub(crate) fn short(&self) -> DecodeError {
        DecodeError::Short { codec: self.codec, came: self.came, expected: self.bytes.len() }
    }

    /// The refusal of a stream that holds more than the unit.
    #[cold]
    pub(crate) fn long(&self) -> DecodeError {
        DecodeError::Long { codec: self.codec, expected: self.bytes.len() }
    }
}
