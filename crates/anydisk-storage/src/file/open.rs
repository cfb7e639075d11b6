//! How a file is opened: access, kind, locks.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;

use super::FileStorage;
use super::direct::Direct;
use super::kind::{self, FileKind};
use super::lock::LockMode;
use crate::{Error, Result, name};

/// What a file is opened for. Cautious where nothing is said: read-only, regular files only,
/// existing files only, locked as the access needs.
///
/// ```
/// use anydisk_storage::{FileStorage, LockMode, OpenOptions, Storage};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("disk.raw");
/// let options = OpenOptions::new().write(true).create_new(true).lock(LockMode::Writer);
/// let disk = FileStorage::open(&path, &options)?;
/// disk.set_len(1 << 30)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct OpenOptions {
    write: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
    direct: bool,
    follow: bool,
    block_devices: bool,
    lock: Option<LockMode>,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Read-only, an existing regular file, symbolic links followed, a reader's lock.
    pub const fn new() -> Self {
        Self {
            write: false,
            create: false,
            create_new: false,
            truncate: false,
            direct: false,
            follow: true,
            block_devices: false,
            lock: None,
            mode: 0o666,
        }
    }

    /// Whether to open for writing as well as reading.
    pub const fn write(mut self, yes: bool) -> Self {
        self.write = yes;
        self
    }

    /// Whether to create a file that does not exist. Needs `write`.
    pub const fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Whether to create the file and refuse one that exists. Needs `write`.
    pub const fn create_new(mut self, yes: bool) -> Self {
        self.create_new = yes;
        self
    }

    /// Whether to empty the file. Needs `write`. Done last, after the kind of the file is known
    /// and its lock is held, so that a refused file keeps its bytes. A device keeps its length.
    pub const fn truncate(mut self, yes: bool) -> Self {
        self.truncate = yes;
        self
    }

    /// Whether to pass the page cache by (`O_DIRECT`). Any request is accepted all the same: what
    /// is not aligned goes through a buffer. [`Error::Unsupported`] where there is no direct I/O.
    pub const fn direct(mut self, yes: bool) -> Self {
        self.direct = yes;
        self
    }

    /// Whether the last component of the path may be a symbolic link (yes, if nothing is said).
    pub const fn follow(mut self, yes: bool) -> Self {
        self.follow = yes;
        self
    }

    /// Whether block devices are accepted beside regular files.
    ///
    /// Character devices, FIFOs, sockets and directories are always refused.
    pub const fn block_devices(mut self, yes: bool) -> Self {
        self.block_devices = yes;
        self
    }

    /// Which lock to hold. If nothing is said: [`LockMode::Writer`] for writing, else
    /// [`LockMode::Reader`], and none where the file system has no locks.
    pub const fn lock(mut self, mode: LockMode) -> Self {
        self.lock = Some(mode);
        self
    }

    /// Permission bits of a file that is created, before the umask; 0o666 if nothing is said.
    pub const fn mode(mut self, bits: u32) -> Self {
        self.mode = bits;
        self
    }

    /// The flags for `open`. Never `O_TRUNC` (see [`truncate`](Self::truncate)); `O_NONBLOCK`, so
    /// that opening a FIFO returns and can be refused.
    pub(super) fn flags(&self) -> OFlags {
        let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | self.direct_flag();
        flags |= if self.write { OFlags::RDWR } else { OFlags::RDONLY };
        flags.set(OFlags::CREATE, self.create || self.create_new);
        flags.set(OFlags::EXCL, self.create_new);
        flags.set(OFlags::NOFOLLOW, !self.follow);
        flags
    }

    /// The flags for a file that is new whatever it will be called.
    pub(crate) fn new_file_flags(&self) -> OFlags {
        OFlags::CLOEXEC | OFlags::RDWR | self.direct_flag()
    }

    fn direct_flag(&self) -> OFlags {
        #[cfg(target_os = "linux")]
        if self.direct {
            return OFlags::DIRECT;
        }
        OFlags::empty()
    }

    /// Permission bits as `open` takes them.
    #[allow(clippy::cast_possible_truncation, reason = "twelve bits fit every system's mode")]
    pub(crate) const fn mode_bits(&self) -> Mode {
        Mode::from_bits_truncate((self.mode & 0o7777) as RawMode)
    }

    /// Turns a descriptor that was opened with [`flags`](Self::flags) into a store: checks what
    /// it is, makes it blocking, locks it, empties it.
    pub(super) fn finish(&self, fd: OwnedFd, name: Box<str>) -> Result<FileStorage> {
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::whole("examine", &*name, e))?;
        let kind = self.accept(&stat, &name)?;
        clear_nonblock(&fd).map_err(|e| Error::whole("open", &*name, e))?;
        let direct = if self.direct { Some(Direct::of(&fd, kind, &name)?) } else { None };
        let store = FileStorage::build(File::from(fd), name, kind, &stat, self.write, direct);
        self.take_lock(&store)?;
        if self.truncate && kind == FileKind::Regular {
            crate::Storage::set_len(&store, 0)?;
        }
        Ok(store)
    }

    fn accept(&self, stat: &Stat, name: &str) -> Result<FileKind> {
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let expected = match self.block_devices {
            true => "a regular file or a block device",
            false => "a regular file",
        };
        match kind::of(file_type) {
            Some(FileKind::Regular) => Ok(FileKind::Regular),
            Some(FileKind::Block) if self.block_devices => Ok(FileKind::Block),
            _ => {
                Err(Error::WrongKind { store: name.into(), found: kind::word(file_type), expected })
            }
        }
    }

    fn take_lock(&self, store: &FileStorage) -> Result<()> {
        match self.lock {
            Some(mode) => store.lock(mode),
            None if self.write => store.lock_if_possible(LockMode::Writer),
            None => store.lock_if_possible(LockMode::Reader),
        }
    }
}

/// Opens `path` itself, relative to the working directory.
pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<FileStorage> {
    let name: Box<str> = name::of(path).into();
    options.check(&name)?;
    let fd =
        rustix::io::retry_on_intr(|| rustix::fs::open(path, options.flags(), options.mode_bits()))
            .map_err(|errno| options.open_error(&name, errno, || rustix::fs::stat(path)))?;
    options.finish(fd, name)
}

impl OpenOptions {
    /// Refuses what cannot be meant.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let creates = self.create || self.create_new || self.truncate;
        if creates && !self.write {
            return Err(Error::ReadOnly { store: name.into() });
        }
        if self.direct && !cfg!(target_os = "linux") {
            return Err(Error::Unsupported { store: name.into(), what: "direct I/O" });
        }
        Ok(())
    }

    /// The error of a failed `open`, told as what it means. `stat` looks at what is there.
    #[cold]
    pub(crate) fn open_error(
        &self,
        name: &str,
        errno: Errno,
        stat: impl FnOnce() -> Result<Stat, Errno>,
    ) -> Error {
        match errno {
            // What a file system without direct I/O answers.
            Errno::INVAL if self.direct => {
                Error::Unsupported { store: name.into(), what: "direct I/O" }
            }
            Errno::LOOP if !self.follow => {
                Error::Denied { store: name.into(), reason: "it is a symbolic link" }
            }
            // A FIFO without a reader, a socket, a directory: say what it is.
            Errno::NXIO | Errno::ISDIR => match stat().map(|stat| self.accept(&stat, name)) {
                Ok(Err(wrong_kind)) => wrong_kind,
                _ => Error::whole("open", name, errno),
            },
            _ => Error::whole("open", name, errno),
        }
    }
}

/// `O_NONBLOCK` was for the open only; reads of a device must wait.
fn clear_nonblock(fd: &OwnedFd) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags.difference(OFlags::NONBLOCK))
}
