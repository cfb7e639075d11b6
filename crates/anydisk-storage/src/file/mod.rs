//! Files and block devices.

mod beneath;
mod copy;
mod direct;
mod holes;
mod io;
pub(crate) mod kind;
mod lock;
mod open;
mod space;

use std::fmt;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

pub use self::lock::LockMode;
pub use self::open::OpenOptions;

use self::direct::Direct;
use self::holes::RunCache;
use self::kind::FileKind;
use crate::{CopyFrom, Error, Holes, HostOffset, Identity, RawFile, Result, Space, Storage};

/// A regular file or a block device.
///
/// Every read and write is one positional system call in the usual case: no lock, no allocation,
/// no look at the length. The file offset is left alone by reads and writes; looking for holes
/// moves it.
pub struct FileStorage {
    file: File,
    name: Box<str>,
    kind: FileKind,
    writable: bool,
    identity: Identity,
    direct: Option<Direct>,
    runs: RunCache,
    /// A flush has failed: the kernel reports a lost write once and then forgets it, so the
    /// store remembers.
    flush_failed: AtomicBool,
    lock: Mutex<LockMode>,
}

impl FileStorage {
    /// Opens `path` as `options` say.
    ///
    /// # Errors
    /// [`Error::WrongKind`] for a FIFO, a directory and the like, [`Error::Locked`] when another
    /// process uses the file in a way that excludes this one, [`Error::Io`] otherwise.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        open::open(path.as_ref(), options)
    }

    /// A store over a file that is already open, called `name` in messages. No lock is taken.
    ///
    /// Access and direct I/O are as the file was opened.
    ///
    /// # Errors
    /// [`Error::WrongKind`] when it is not a regular file or block device,
    /// [`Error::Unsupported`] when it was opened for writing only or for appending, where
    /// positions do not hold.
    pub fn from_file(file: File, name: impl Into<Box<str>>) -> Result<Self> {
        let name = name.into();
        let stat = rustix::fs::fstat(&file).map_err(|e| Error::whole("examine", &*name, e))?;
        let flags =
            rustix::fs::fcntl_getfl(&file).map_err(|e| Error::whole("examine", &*name, e))?;
        let kind = kind_of(&stat, &name)?;
        let writable = writable_by(flags, &name)?;
        let direct = match is_direct(flags) {
            true => Some(Direct::of(&file, kind, &name)?),
            false => None,
        };
        Ok(Self::build(file, name, kind, &stat, writable, direct))
    }

    fn build(
        file: File,
        name: Box<str>,
        kind: FileKind,
        stat: &Stat,
        writable: bool,
        direct: Option<Direct>,
    ) -> Self {
        Self {
            file,
            name,
            kind,
            writable,
            identity: identity_of(stat, kind),
            direct,
            runs: RunCache::default(),
            flush_failed: AtomicBool::new(false),
            lock: Mutex::new(LockMode::Off),
        }
    }

    /// Whether the store is a block device.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        self.kind == FileKind::Block
    }

    /// What is left of a read after a first call that did not fill `buf`: the end of the store,
    /// a signal, or an error.
    #[cold]
    fn finish_read(&self, at: HostOffset, buf: &mut [u8], done: usize) -> Result<usize> {
        let place = at.saturating_add(done as u64);
        io::read_full(self.file.as_fd(), place.get(), &mut buf[done..], 1)
            .map(|more| done + more)
            .map_err(|errno| self.io_error("read", at, buf.len() as u64, errno))
    }

    #[cold]
    fn finish_write(&self, at: HostOffset, data: &[u8], done: usize) -> Result<()> {
        let place = at.saturating_add(done as u64);
        io::write_full(self.file.as_fd(), place.get(), &data[done..])
            .map_err(|errno| self.write_error("write", at, data.len() as u64, errno))
    }

    #[cold]
    fn io_error(&self, operation: &'static str, at: HostOffset, len: u64, errno: Errno) -> Error {
        Error::io(operation, &*self.name, at, len, errno.into())
    }

    /// The error of an operation that changes the store, told as what it means.
    #[cold]
    fn write_error(
        &self,
        operation: &'static str,
        at: HostOffset,
        len: u64,
        errno: Errno,
    ) -> Error {
        if !self.writable {
            return Error::ReadOnly { store: self.name.clone() };
        }
        let end = self.len().unwrap_or(u64::MAX);
        if self.kind == FileKind::Block && at.saturating_add(len).get() > end {
            return Error::OutOfRange { store: self.name.clone(), at, len, end };
        }
        self.io_error(operation, at, len, errno)
    }

    fn check_writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::ReadOnly { store: self.name.clone() }) }
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { store: self.name.clone(), what }
    }
}

impl Storage for FileStorage {
    fn len(&self) -> Result<u64> {
        io::len(self.file.as_fd(), self.kind)
            .map_err(|errno| Error::whole("find the length", &*self.name, errno))
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    #[inline]
    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        if let Some(direct) = &self.direct {
            return self.read_direct(direct, at, buf);
        }
        match rustix::io::pread(&self.file, &mut *buf, at.get()) {
            Ok(count) if count == buf.len() => Ok(count),
            first => self.finish_read(at, buf, first.unwrap_or(0)),
        }
    }

    fn read_vectored_at(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        match &self.direct {
            Some(direct) => self.read_direct_vectored(direct, at, bufs),
            None => self.read_vectored(at, bufs),
        }
    }

    #[inline]
    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        if let Some(direct) = &self.direct {
            return self.write_direct(direct, at, data);
        }
        let result = match rustix::io::pwrite(&self.file, data, at.get()) {
            Ok(count) if count == data.len() => Ok(()),
            first => self.finish_write(at, data, first.unwrap_or(0)),
        };
        self.runs.written();
        result
    }

    fn write_vectored_at(&self, at: HostOffset, data: &[IoSlice<'_>]) -> Result<()> {
        match &self.direct {
            Some(direct) => self.write_direct_vectored(direct, at, data),
            None => self.write_vectored(at, data),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.check_writable()?;
        if self.kind == FileKind::Block {
            return if self.len()? == len { Ok(()) } else { Err(self.unsupported("this length")) };
        }
        let _no_edges = self.direct.as_ref().map(Direct::whole_blocks);
        let result = rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.file, len));
        self.runs.changed();
        result.map_err(|errno| Error::whole("set the length", &*self.name, errno))
    }

    fn flush(&self) -> Result<()> {
        if self.flush_failed.load(Ordering::Acquire) {
            let lost = std::io::Error::other("an earlier flush failed, data may be lost");
            return Err(Error::whole("flush", &*self.name, lost));
        }
        io::flush(self.file.as_fd()).map_err(|errno| {
            self.flush_failed.store(true, Ordering::Release);
            Error::whole("flush", &*self.name, errno)
        })
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn alignment(&self) -> usize {
        self.direct.as_ref().map_or(1, Direct::alignment)
    }

    fn holes(&self) -> Option<&dyn Holes> {
        // A block device does not say where its holes are.
        if self.kind == FileKind::Regular { Some(self) } else { None }
    }

    fn space(&self) -> Option<&dyn Space> {
        if cfg!(target_os = "linux") && self.writable { Some(self) } else { None }
    }

    fn copier(&self) -> Option<&dyn CopyFrom> {
        let can = cfg!(target_os = "linux") && self.writable && self.kind == FileKind::Regular;
        if can { Some(self) } else { None }
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity)
    }

    fn fd(&self) -> Option<RawFile<'_>> {
        if self.writable {
            self.runs.written_by_others();
        }
        Some(RawFile::whole(self.file.as_fd()))
    }

    fn prefetch(&self, at: HostOffset, len: u64) {
        if self.direct.is_none() {
            io::prefetch(self.file.as_fd(), at.get(), len);
        }
    }
}

impl Drop for FileStorage {
    /// Gives the lock up by hand: a child process that is just being started holds the descriptor
    /// until it executes its program, and the lock would live as long.
    fn drop(&mut self) {
        // Closing gives it up in any case.
        let _ = self.lock(LockMode::Off);
    }
}

impl AsFd for FileStorage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.writable {
            self.runs.written_by_others();
        }
        self.file.as_fd()
    }
}

impl fmt::Debug for FileStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStorage")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("writable", &self.writable)
            .field("direct", &self.direct)
            .field("lock", &self.lock_mode())
            .finish_non_exhaustive()
    }
}

fn kind_of(stat: &Stat, name: &str) -> Result<FileKind> {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    kind::of(file_type).ok_or_else(|| Error::WrongKind {
        store: name.into(),
        found: kind::word(file_type),
        expected: "a regular file or a block device",
    })
}

fn writable_by(flags: OFlags, name: &str) -> Result<bool> {
    let refuse = |what| Err(Error::Unsupported { store: name.into(), what });
    match flags & OFlags::ACCMODE {
        OFlags::WRONLY => refuse("a file opened for writing only"),
        _ if flags.contains(OFlags::APPEND) => refuse("a file opened for appending"),
        access => Ok(access == OFlags::RDWR),
    }
}

fn is_direct(flags: OFlags) -> bool {
    #[cfg(target_os = "linux")]
    return flags.contains(OFlags::DIRECT);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = flags;
        false
    }
}

/// Device numbers are `i32` on some systems and `u64` on others; what matters is that they differ.
#[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
#[allow(clippy::cast_sign_loss, reason = "only told apart, never computed with")]
fn identity_of(stat: &Stat, kind: FileKind) -> Identity {
    match kind {
        FileKind::Regular => {
            Identity::File { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
        }
        FileKind::Block => Identity::Device(stat.st_rdev as u64),
    }
}
