//! Answers to those who read.

use std::io::{Read, Write};

use anydisk_core::GuestRange;
use zerocopy::IntoBytes;

use super::{
    Answered, Failed, Request, Session, bytes_of, done, lock, raw_chunk, simple_reply, write_all,
};
use crate::error::protocol;
use crate::layout::{DONE, chunk, flag};

/// Zeroes that are not worth an answer of their own.
const LEAST_HOLE: u64 = 32 << 10;

impl<R: Read + Send, W: Write + Send> Session<'_, R, W> {
    /// Data and zeroes each for itself: what is zero is not sent to who understands that.
    pub(super) fn read(&self, request: &Request<'_>, range: GuestRange) -> Answered<()> {
        let cookie = request.cookie;
        if !self.agreed.structured {
            return self.send_whole(simple_reply(cookie, 0).as_bytes(), range);
        }
        if range.is_empty() {
            return Ok(self.send_chunk(cookie, DONE, chunk::NONE, &[])?);
        }
        if request.flags & flag::DF != 0 {
            return self.send_whole(&data_head(cookie, DONE, range), range);
        }
        let parts = self.parts(range)?;
        for (number, (part, zero)) in (1..).zip(&parts) {
            let is_last = number == parts.len();
            let at = part.start().get().to_be_bytes();
            let len = u32::try_from(part.len()).unwrap_or_default();
            if *zero {
                let data: [&[u8]; 2] = [&at, &len.to_be_bytes()];
                self.send_chunk(cookie, done(is_last), chunk::OFFSET_HOLE, &data)?;
            } else {
                self.by_pieces(*part, |piece, data| {
                    let flags = done(is_last && piece.end() == part.end());
                    Ok(self.send(&[&data_head(cookie, flags, piece), data])?)
                })?;
            }
        }
        Ok(())
    }

    /// Sends `head`, and the bytes of a range behind it, in one part: an error cannot be told in the
    /// middle of it, so what takes more than one piece is read once before.
    fn send_whole(&self, head: &[u8], range: GuestRange) -> Answered<()> {
        let mut piece = self.budget.piece(bytes_of(range.len()));
        if piece.len() == bytes_of(range.len()) {
            let data = piece.first(usize::MAX);
            self.export().disk().read(range.start(), data)?;
            return Ok(self.send(&[head, data])?);
        }
        drop(piece);
        self.by_pieces(range, |_, _| Ok(()))?;
        let mut output = lock(&self.output);
        let sent = write_all(&mut *output, &[head])
            .map_err(Failed::from)
            .and_then(|()| self.by_pieces(range, |_, data| Ok(write_all(&mut *output, &[data])?)));
        sent.map_err(|failed| match failed {
            Failed::Refused(_, why) => Failed::Broken(protocol(why)),
            broken => broken,
        })
    }

    /// Reads a range in pieces that there is memory for.
    pub(super) fn by_pieces(
        &self,
        range: GuestRange,
        mut take: impl FnMut(GuestRange, &[u8]) -> Answered<()>,
    ) -> Answered<()> {
        let mut rest = range;
        let mut memory = self.budget.piece(bytes_of(range.len()));
        while !rest.is_empty() {
            let data = memory.first(bytes_of(rest.len()));
            let piece = rest.first(data.len() as u64);
            self.export().disk().read(piece.start(), data)?;
            take(piece, data)?;
            rest = rest.skip(piece.len());
        }
        Ok(())
    }

    /// A range in parts, of which those that are zero are so by the tables of the image.
    fn parts(&self, range: GuestRange) -> Answered<Vec<(GuestRange, bool)>> {
        let mut parts: Vec<(GuestRange, bool)> = Vec::new();
        let mut rest = range;
        while !rest.is_empty() {
            let (len, zero) = self.export().zero_run(rest)?;
            let run = rest.first(len);
            let zero = zero && run.len() >= LEAST_HOLE.min(range.len());
            match parts.last_mut() {
                Some((last, same)) if *same == zero => {
                    *last = GuestRange::between(last.start(), run.end());
                }
                _ => parts.push((run, zero)),
            }
            rest = rest.skip(run.len());
        }
        Ok(parts)
    }
}

/// What stands before the bytes of a range, as a part of an answer.
fn data_head(cookie: u64, flags: u16, range: GuestRange) -> Vec<u8> {
    let at = range.start().get().to_be_bytes();
    let head = raw_chunk(cookie, flags, chunk::OFFSET_DATA, at.len() as u64 + range.len());
    [head.as_bytes(), &at].concat()
}
