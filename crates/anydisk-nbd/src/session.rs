//! The transmission: requests, by several threads, and their answers.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{Error as DiskError, GuestRange, on_threads};
use anydisk_storage::Error as StorageError;
use zerocopy::IntoBytes;

use crate::error::{Error, Result, protocol};
use crate::export::{Durability, Export, MOST};
use crate::layout::{
    CHUNK, DONE, REQUEST, RawChunk, RawRequest, RawSimpleReply, SIMPLE_REPLY, chunk, command,
    errno, flag,
};
use crate::negotiate::Agreed;
use crate::wire;

/// Zeroes that are not worth an answer of their own.
const LEAST_HOLE: u64 = 32 << 10;

/// The most bytes of a text for people.
const LONGEST_TEXT: usize = 4096;

/// The most runs of one answer about status. A client asks again for the rest.
const MOST_RUNS: usize = 1024;

/// A client that was agreed with. Its threads take turns: one waits for the next request, the
/// others do theirs.
pub(crate) struct Session<'a, R, W> {
    agreed: Agreed<'a>,
    input: Mutex<R>,
    output: Mutex<W>,
    /// No more requests are taken.
    ended: AtomicBool,
    /// Why, if that was not the client's wish.
    failure: Mutex<Option<Error>>,
}

/// What a client wants.
struct Request {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
    /// The data of a write, unless it is too long.
    data: Vec<u8>,
}

/// Why a request is not answered as it should be.
enum Failed {
    /// It is not done: the number on the wire, and a text for people.
    Refused(u32, String),
    /// The client cannot be told.
    Broken(Error),
}

impl Failed {
    fn invalid(why: impl Into<String>) -> Self {
        Self::Refused(errno::EINVAL, why.into())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<DiskError> for Failed {
    fn from(error: DiskError) -> Self {
        let number = match error.kind() {
            DiskError::ReadOnly { .. } | DiskError::Storage(StorageError::ReadOnly { .. }) => {
                errno::EPERM
            }
            DiskError::OutOfRange { .. } => errno::EINVAL,
            DiskError::Unsupported { .. } => errno::ENOTSUP,
            DiskError::Limit { .. } => errno::ENOSPC,
            DiskError::Storage(StorageError::Io(cause)) if is_full(cause.source.kind()) => {
                errno::ENOSPC
            }
            _ => errno::EIO,
        };
        Self::Refused(number, error.to_string())
    }
}

fn is_full(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

type Answered<T> = std::result::Result<T, Failed>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a, R: Read + Send, W: Write + Send> Session<'a, R, W> {
    pub(crate) fn new(agreed: Agreed<'a>, input: R, output: W) -> Self {
        Self {
            agreed,
            input: Mutex::new(input),
            output: Mutex::new(output),
            ended: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Answers requests until the client goes.
    ///
    /// # Errors
    /// A broken connection, and what the protocol does not allow.
    pub(crate) fn run(self, threads: usize) -> Result<()> {
        on_threads(threads, &|| {
            while let Some(request) = self.next() {
                if let Err(error) = self.answer(&request) {
                    self.end(Some(error));
                }
            }
        });
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn end(&self, why: Option<Error>) {
        self.ended.store(true, SeqCst);
        let mut failure = lock(&self.failure);
        *failure = failure.take().or(why);
    }

    fn next(&self) -> Option<Request> {
        let mut input = lock(&self.input);
        if self.ended.load(SeqCst) {
            return None;
        }
        match read_request(&mut *input) {
            Ok(Some(request)) => Some(request),
            Ok(None) => {
                self.end(None);
                None
            }
            Err(error) => {
                self.end(Some(error));
                None
            }
        }
    }

    fn export(&self) -> &Export {
        self.agreed.export
    }

    fn answer(&self, request: &Request) -> Result<()> {
        match self.work(request) {
            Ok(()) => Ok(()),
            Err(Failed::Broken(error)) => Err(error),
            Err(Failed::Refused(number, why)) if self.agreed.structured => {
                let why = why.as_bytes();
                let why = why.get(..LONGEST_TEXT).unwrap_or(why);
                let len = u16::try_from(why.len()).unwrap_or_default();
                let data = [&number.to_be_bytes()[..], &len.to_be_bytes(), why];
                self.send_chunk(request.cookie, DONE, chunk::ERROR, &data)
            }
            Err(Failed::Refused(number, _)) => {
                self.send(simple_reply(request.cookie, number).as_bytes())
            }
        }
    }

    /// Does what is asked, and says so.
    fn work(&self, request: &Request) -> Answered<()> {
        let range = self.checked(request)?;
        let disk = self.export().disk();
        let has = |flag| request.flags & flag != 0;
        match request.command {
            command::READ => return self.read(request, range),
            command::BLOCK_STATUS => return self.send_status(request, range),
            command::WRITE => disk.write(range.start(), &request.data)?,
            command::TRIM => disk.discard(range)?,
            command::WRITE_ZEROES => disk.zero(range, !has(flag::NO_HOLE))?,
            _ => {} // A flush.
        }
        let asks = request.command == command::FLUSH || has(flag::FUA);
        let flushes = match self.export().durability() {
            Durability::OnFlush => asks,
            Durability::Always => true,
            Durability::Never => false,
        };
        if flushes {
            disk.flush()?;
        }
        Ok(self.send(simple_reply(request.cookie, 0).as_bytes())?)
    }

    /// The range of a request that can be done.
    fn checked(&self, request: &Request) -> Answered<GuestRange> {
        let (command, length) = (request.command, request.length);
        let known = match command {
            command::READ => flag::DF,
            command::WRITE | command::TRIM | command::FLUSH => 0,
            command::WRITE_ZEROES => flag::NO_HOLE,
            command::BLOCK_STATUS if self.agreed.contexts.is_empty() => {
                return Err(Failed::invalid("no metadata context was agreed on"));
            }
            command::BLOCK_STATUS => flag::REQ_ONE,
            _ => return Err(Failed::invalid(format!("there is no command {command}"))),
        };
        // Clients set this one where it means nothing, and may.
        let known = known | flag::FUA;
        if request.flags & !known != 0 {
            let flags = request.flags;
            return Err(Failed::invalid(format!("flags {flags:#x}, expected {known:#x} at most")));
        }
        if command == command::FLUSH {
            return Ok(GuestRange::whole(0));
        }
        let writes = matches!(command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if writes && !self.export().is_writable() {
            return Err(Failed::Refused(errno::EPERM, "the export is read-only".into()));
        }
        if matches!(command, command::READ | command::WRITE) && length > MOST {
            return Err(Failed::invalid(format!("{length} bytes, expected {MOST} at most")));
        }
        let size = self.export().disk().size();
        let is_some = length > 0 || command != command::BLOCK_STATUS;
        self.export().range(request.offset, length).filter(|_| is_some).ok_or_else(|| {
            let grows = matches!(command, command::WRITE | command::WRITE_ZEROES);
            let number = if grows { errno::ENOSPC } else { errno::EINVAL };
            let (offset, why) = (request.offset, "a range of the disk");
            Failed::Refused(
                number,
                format!("{length} bytes at {offset:#x} of {size:#x}, expected {why}"),
            )
        })
    }

    /// Data and zeroes each for itself: what is zero is not sent to who understands that.
    fn read(&self, request: &Request, range: GuestRange) -> Answered<()> {
        let cookie = request.cookie;
        if !self.agreed.structured {
            return self.send_behind(simple_reply(cookie, 0).as_bytes(), range);
        }
        if range.is_empty() {
            return Ok(self.send_chunk(cookie, DONE, chunk::NONE, &[])?);
        }
        let whole = request.flags & flag::DF != 0;
        let parts = if whole { vec![(range, false)] } else { self.parts(range)? };
        for (number, (part, zero)) in (1..).zip(&parts) {
            let flags = if number == parts.len() { DONE } else { 0 };
            let at = part.start().get().to_be_bytes();
            let len = u32::try_from(part.len()).unwrap_or_default();
            if *zero {
                let data: [&[u8]; 2] = [&at, &len.to_be_bytes()];
                self.send_chunk(cookie, flags, chunk::OFFSET_HOLE, &data)?;
            } else {
                let head =
                    raw_chunk(cookie, flags, chunk::OFFSET_DATA, at.len() as u64 + part.len());
                self.send_behind(&[head.as_bytes(), &at].concat(), *part)?;
            }
        }
        Ok(())
    }

    /// Sends `head`, and the bytes of a range behind it.
    fn send_behind(&self, head: &[u8], range: GuestRange) -> Answered<()> {
        let mut message = head.to_vec();
        message.resize(head.len() + usize::try_from(range.len()).unwrap_or_default(), 0);
        let data = message.get_mut(head.len()..).unwrap_or_default();
        self.export().disk().read(range.start(), data)?;
        Ok(self.send(&message)?)
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

    fn send_status(&self, request: &Request, range: GuestRange) -> Answered<()> {
        let most = if request.flags & flag::REQ_ONE != 0 { 1 } else { MOST_RUNS };
        let contexts = &self.agreed.contexts;
        let runs = contexts.iter().map(|(_, context)| self.export().runs(context, range, most));
        // All of them first: an error comes alone.
        let answers: Vec<_> = runs.collect::<std::result::Result<_, DiskError>>()?;
        for (index, ((number, _), runs)) in (1..).zip(contexts.iter().zip(&answers)) {
            let flags = if index == answers.len() { DONE } else { 0 };
            let data = [&number.to_be_bytes(), runs.as_bytes()];
            self.send_chunk(request.cookie, flags, chunk::BLOCK_STATUS, &data)?;
        }
        Ok(())
    }

    fn send_chunk(&self, cookie: u64, flags: u16, kind: u16, data: &[&[u8]]) -> Result<()> {
        let data = data.concat();
        let head = raw_chunk(cookie, flags, kind, data.len() as u64);
        self.send(&[head.as_bytes(), &data].concat())
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        let mut output = lock(&self.output);
        output.write_all(message)?;
        Ok(output.flush()?)
    }
}

fn simple_reply(cookie: u64, error: u32) -> RawSimpleReply {
    RawSimpleReply { magic: SIMPLE_REPLY.into(), error: error.into(), cookie: cookie.into() }
}

/// What stands before `len` bytes of a part of an answer.
fn raw_chunk(cookie: u64, flags: u16, kind: u16, len: u64) -> RawChunk {
    RawChunk {
        magic: CHUNK.into(),
        flags: flags.into(),
        chunk: kind.into(),
        cookie: cookie.into(),
        length: u32::try_from(len).unwrap_or(u32::MAX).into(),
    }
}

/// The next request; `None` if the client goes, with a word or without.
fn read_request(input: &mut impl Read) -> Result<Option<Request>> {
    let raw: RawRequest = match wire::read(input) {
        Ok(raw) => raw,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if raw.magic != REQUEST {
        let found = raw.magic.get();
        return Err(protocol(format!("magic {found:#x} of a request, expected {REQUEST:#x}")));
    }
    let (command, length) = (raw.command.get(), raw.length.get());
    let data = match command {
        command::DISC => return Ok(None),
        command::WRITE if length <= MOST => wire::read_bytes(input, length, MOST)?,
        command::WRITE => {
            wire::skip(input, length)?;
            Vec::new()
        }
        _ => Vec::new(),
    };
    let (flags, cookie, offset) = (raw.flags.get(), raw.cookie.get(), raw.offset.get());
    Ok(Some(Request { flags, command, cookie, offset, length, data }))
}
