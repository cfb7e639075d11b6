//! The transmission: requests, by several threads, and their answers.

mod read;
mod receive;

use std::io::{self, IoSlice, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{Error as DiskError, GuestRange, on_threads};
use anydisk_storage::Error as StorageError;
use zerocopy::IntoBytes;

use crate::budget::{Budget, Piece};
use crate::error::{Error, Result};
use crate::export::{Durability, Export, MOST};
use crate::layout::{
    CHUNK, DONE, RawChunk, RawSimpleReply, SIMPLE_REPLY, chunk, command, errno, flag,
};
use crate::negotiate::Agreed;

/// The most bytes of a text for people.
const LONGEST_TEXT: usize = 4096;

/// The most runs of one answer about status. A client asks again for the rest.
const MOST_RUNS: usize = 1024;

/// A client that was agreed with. Its threads take turns: one waits for the next request, the
/// others do theirs.
pub(crate) struct Session<'a, R, W> {
    agreed: Agreed<'a>,
    budget: &'a Budget,
    input: Mutex<R>,
    output: Mutex<W>,
    /// No more requests are taken.
    ended: AtomicBool,
    /// Why, if that was not the client's wish.
    failure: Mutex<Option<Error>>,
}

/// What a client wants.
struct Request<'a> {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
    data: Data<'a>,
}

/// The data of a request.
enum Data<'a> {
    None,
    /// Of a write, all of it.
    Whole(Piece<'a>),
    /// It was too long to be kept, and was written as it came.
    Written(Answered<()>),
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
    pub(crate) fn new(agreed: Agreed<'a>, budget: &'a Budget, input: R, output: W) -> Self {
        Self {
            agreed,
            budget,
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
                if let Err(error) = self.answer(request) {
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

    fn next(&self) -> Option<Request<'a>> {
        let mut input = lock(&self.input);
        if self.ended.load(SeqCst) {
            return None;
        }
        match self.receive(&mut *input) {
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

    fn answer(&self, mut request: Request<'_>) -> Result<()> {
        let data = std::mem::replace(&mut request.data, Data::None);
        let request = &request;
        match self.work(request, data) {
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
                self.send(&[simple_reply(request.cookie, number).as_bytes()])
            }
        }
    }

    /// Does what is asked, and says so.
    fn work(&self, request: &Request<'_>, data: Data<'_>) -> Answered<()> {
        let range = self.checked(request)?;
        let disk = self.export().disk();
        let has = |flag| request.flags & flag != 0;
        match request.command {
            command::READ => return self.read(request, range),
            command::BLOCK_STATUS => return self.send_status(request, range),
            command::WRITE => match data {
                Data::Whole(mut piece) => disk.write(range.start(), piece.first(usize::MAX))?,
                Data::Written(answer) => answer?,
                Data::None => {}
            },
            command::TRIM => disk.discard(range)?,
            command::WRITE_ZEROES => self.zero(range, !has(flag::NO_HOLE), has(flag::FAST_ZERO))?,
            command::CACHE => self.by_pieces(range, |_, _| Ok(()))?,
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
        Ok(self.send(&[simple_reply(request.cookie, 0).as_bytes()])?)
    }

    fn zero(&self, range: GuestRange, unmap: bool, fast: bool) -> Answered<()> {
        let disk = self.export().disk();
        if !fast {
            return Ok(disk.zero(range, unmap)?);
        }
        let why = || Failed::Refused(errno::ENOTSUP, "zeroes are to be written".into());
        disk.zero_fast(range, unmap)?.then_some(()).ok_or_else(why)
    }

    /// The range of a request that can be done.
    fn checked(&self, request: &Request<'_>) -> Answered<GuestRange> {
        let (command, length) = (request.command, request.length);
        let known = match command {
            command::READ => flag::DF,
            command::WRITE | command::TRIM | command::FLUSH | command::CACHE => 0,
            command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
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

    fn send_status(&self, request: &Request<'_>, range: GuestRange) -> Answered<()> {
        let most = if request.flags & flag::REQ_ONE != 0 { 1 } else { MOST_RUNS };
        let contexts = &self.agreed.contexts;
        let runs = contexts.iter().map(|(_, context)| self.export().runs(context, range, most));
        // All of them first: an error comes alone.
        let answers: Vec<_> = runs.collect::<std::result::Result<_, DiskError>>()?;
        for (index, ((number, _), runs)) in (1..).zip(contexts.iter().zip(&answers)) {
            let flags = done(index == answers.len());
            let data = [&number.to_be_bytes(), runs.as_bytes()];
            self.send_chunk(request.cookie, flags, chunk::BLOCK_STATUS, &data)?;
        }
        Ok(())
    }

    fn send_chunk(&self, cookie: u64, flags: u16, kind: u16, data: &[&[u8]]) -> Result<()> {
        let data = data.concat();
        let head = raw_chunk(cookie, flags, kind, data.len() as u64);
        self.send(&[head.as_bytes(), &data])
    }

    /// Sends a message.
    fn send(&self, parts: &[&[u8]]) -> Result<()> {
        write_all(&mut *lock(&self.output), parts)
    }
}

/// Writes parts one behind the other, short ones together with what follows.
fn write_all(output: &mut impl Write, parts: &[&[u8]]) -> Result<()> {
    let mut parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = &mut parts[..];
    while !left.is_empty() {
        match output.write_vectored(left) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(output.flush()?)
}

fn bytes_of(len: impl TryInto<usize>) -> usize {
    len.try_into().unwrap_or(usize::MAX)
}

/// The flags of a part of an answer.
fn done(is_last: bool) -> u16 {
    if is_last { DONE } else { 0 }
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
