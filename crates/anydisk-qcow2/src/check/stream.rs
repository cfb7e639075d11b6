//! A list in the file whose entries have different lengths, read from its beginning.

use anydisk_core::Result;
use zerocopy::FromBytes;

use super::subject::Subject;

/// Bytes that are read at once.
const BUFFER: u64 = 64 << 10;

/// Reads on from one place.
pub(super) struct Stream<'a> {
    subject: &'a Subject,
    at: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins.
    base: u64,
}

impl<'a> Stream<'a> {
    pub(super) fn new(subject: &'a Subject, at: u64) -> Self {
        Self { subject, at, buffer: Vec::new(), base: at }
    }

    /// Where it has come to.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next bytes, at most 64 KiB; zeroes past the end of the file.
    pub(super) fn take(&mut self, len: u64) -> Result<&[u8]> {
        let held = self.base + self.buffer.len() as u64;
        if self.at < self.base || self.at.saturating_add(len) > held {
            self.buffer.resize(usize::try_from(BUFFER).unwrap_or(0), 0);
            self.subject.read(self.at, &mut self.buffer)?;
            self.base = self.at;
        }
        let from = usize::try_from(self.at - self.base).unwrap_or(0);
        self.at += len;
        Ok(&self.buffer[from..][..usize::try_from(len).unwrap_or(0)])
    }

    /// The next structure.
    pub(super) fn take_struct<T: FromBytes>(&mut self) -> Result<T> {
        let bytes = self.take(size_of::<T>() as u64)?;
        Ok(T::read_from_bytes(bytes).expect("as many bytes as it has were taken"))
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, len: u64) {
        self.at = self.at.saturating_add(len);
    }
}
