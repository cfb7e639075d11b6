//! Requests as they come.

use std::io::{self, Read, Write};

use anydisk_core::GuestOffset;

use super::{Data, Failed, Request, Session, bytes_of};
use crate::error::{Result, protocol};
use crate::layout::{REQUEST, RawRequest, command};
use crate::wire;

impl<'a, R: Read + Send, W: Write + Send> Session<'a, R, W> {
    /// The next request with its data; `None` if the client goes.
    pub(super) fn receive(&self, input: &mut R) -> Result<Option<Request<'a>>> {
        let Some(mut request) = read_request(input)? else { return Ok(None) };
        if request.command == command::WRITE {
            request.data = self.receive_data(&request, input)?;
        }
        Ok(Some(request))
    }

    /// The data of a write: as much as there is memory for is kept, so that the next request can be
    /// taken at once; what is longer is written as it comes.
    fn receive_data(&self, request: &Request<'_>, input: &mut R) -> Result<Data<'a>> {
        let mut piece = self.budget.piece(bytes_of(request.length));
        if piece.len() == bytes_of(request.length) {
            input.read_exact(piece.first(usize::MAX))?;
            return Ok(Data::Whole(piece));
        }
        let mut answer = self.checked(request).map(drop);
        let (mut at, mut left) = (GuestOffset(request.offset), bytes_of(request.length));
        while left > 0 {
            let bytes = piece.first(left);
            input.read_exact(bytes)?;
            if answer.is_ok() {
                answer = self.export().disk().write(at, bytes).map_err(Failed::from);
            }
            at = GuestOffset(at.get().saturating_add(bytes.len() as u64));
            left -= bytes.len();
        }
        Ok(Data::Written(answer))
    }
}

/// The next request without its data; `None` if the client goes, with a word or without.
fn read_request(input: &mut impl Read) -> Result<Option<Request<'static>>> {
    let raw: RawRequest = match wire::read(input) {
        Ok(raw) => raw,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if raw.magic != REQUEST {
        let found = raw.magic.get();
        return Err(protocol(format!("magic {found:#x} of a request, expected {REQUEST:#x}")));
    }
    let (command, length, data) = (raw.command.get(), raw.length.get(), Data::None);
    let (flags, cookie, offset) = (raw.flags.get(), raw.cookie.get(), raw.offset.get());
    let request = Request { flags, command, cookie, offset, length, data };
    Ok((command != command::DISC).then_some(request))
}
