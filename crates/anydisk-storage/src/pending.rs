//! A file that appears under its name only when it is whole.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::file::kind;
use crate::{Error, FileStorage, LockMode, OpenOptions, Result, Storage, name};

/// A new file that has no name yet, in the directory where it will have one.
///
/// It is written through [`storage`](Self::storage) and gets its name by
/// [`publish`](Self::publish), at once and durably: whoever opens the name sees the old file or
/// the whole new one, also after a power loss. If it is dropped before, it is gone. An existing
/// file of that name keeps its bytes until then, and is locked so that no other process (qemu,
/// say) starts using what is about to be replaced.
///
/// ```
/// use anydisk_storage::{HostOffset, OpenOptions, PendingFile, Storage};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("disk.raw");
/// let pending = PendingFile::create(&path, &OpenOptions::new())?;
/// pending.storage().write_at(HostOffset::ZERO, b"all of it")?;
/// assert!(!path.exists());
/// pending.publish(false)?;
/// assert_eq!(std::fs::read(&path)?, b"all of it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PendingFile {
    storage: Arc<FileStorage>,
    place: Place,
    temporary: Temporary,
    /// The file that may be replaced, locked.
    replaced: Option<FileStorage>,
}

/// The directory and the name in it that the file will have.
#[derive(Debug)]
struct Place {
    dir: OwnedFd,
    name: OsString,
    /// As the caller named it.
    path: Box<str>,
}

/// What the file is called meanwhile.
#[derive(Debug)]
enum Temporary {
    /// Nothing: the kernel drops it with its last descriptor, even when the process is killed.
    Unnamed,
    /// A hidden name in the directory, where files without names are not possible.
    Named(OsString),
    /// By its final name.
    Published,
}

impl PendingFile {
    /// A new, empty file that will be called `path`. Of `options` count whether I/O is direct and
    /// the permission bits. If `path` is a symbolic link, what it points to is meant.
    ///
    /// # Errors
    /// [`Error::WrongKind`] if `path` is a device, a FIFO or a directory: such a thing cannot be
    /// replaced; what can be written to in place must be opened with [`FileStorage::open`].
    /// [`Error::Locked`] if another process uses the file that is there.
    pub fn create(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let place = Place::of(path.as_ref())?;
        let replaced = place.lock_existing()?;
        let new = place
            .new_file(options)
            .map_err(|errno| options.open_error(&place.path, errno, || Err(errno)))?;
        Self::of(place, replaced, new)
    }

    fn of(
        place: Place,
        replaced: Option<FileStorage>,
        (file, temporary): (File, Temporary),
    ) -> Result<Self> {
        let storage = FileStorage::from_file(file, place.path.clone())
            .inspect_err(|_| place.remove(&temporary))?;
        let pending = Self { storage: Arc::new(storage), place, temporary, replaced };
        // It has a name soon, and may still be written to then.
        pending.storage.lock_if_possible(LockMode::Writer)?;
        Ok(pending)
    }

    /// The store to write to. Its name in messages is the final path.
    #[must_use]
    pub fn storage(&self) -> &Arc<FileStorage> {
        &self.storage
    }

    /// Whether there was a file of that name when this one was made.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.replaced.is_some()
    }

    /// Takes the name away from the file that has it, durably, before this one gets it: for a file that
    /// must not be found beside the new ones that it would be taken to belong to.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove_replaced(&self) -> Result<()> {
        self.place.check_replaceable()?;
        match rustix::fs::unlinkat(&self.place.dir, &self.place.name, AtFlags::empty()) {
            Ok(()) => self.place.flush_dir(),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.place.error("remove", errno)),
        }
    }

    /// Flushes the file, gives it its name, and flushes the directory. With `replace` an existing
    /// file of that name is replaced, and its permissions and owner are kept as far as allowed.
    ///
    /// # Errors
    /// Without `replace`, one of the kind [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if
    /// the name is taken. After any error the new file is gone, unless only the last step, the
    /// flush of the directory, has failed.
    pub fn publish(mut self, replace: bool) -> Result<()> {
        self.storage.flush()?;
        self.give_name(replace)?;
        self.place.flush_dir()
    }

    /// As [`publish`](Self::publish), without a flush: after a power loss the name may show the old
    /// file, the new one, or part of it. As fast as the page cache, for files that can be made again.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_unflushed(mut self, replace: bool) -> Result<()> {
        self.give_name(replace)
    }

    fn give_name(&mut self, replace: bool) -> Result<()> {
        self.place.check_replaceable()?;
        if let Some(old) = self.replaced.as_ref().filter(|_| replace) {
            self.inherit(old)?;
        }
        let named = if replace { self.rename_over() } else { self.name_as_new() };
        named.map_err(|errno| self.place.error("publish", errno))?;
        self.temporary = Temporary::Published;
        Ok(())
    }

    /// Permissions and owner of the file that is replaced. Who may not give files away keeps them.
    fn inherit(&self, old: &FileStorage) -> Result<()> {
        let inherit = || -> Result<(), Errno> {
            let wanted = rustix::fs::fstat(old)?;
            let now = rustix::fs::fstat(&self.storage)?;
            if (wanted.st_uid, wanted.st_gid) != (now.st_uid, now.st_gid) {
                let owner = rustix::fs::Uid::from_raw(wanted.st_uid);
                let group = rustix::fs::Gid::from_raw(wanted.st_gid);
                match rustix::fs::fchown(&self.storage, Some(owner), Some(group)) {
                    Ok(()) | Err(Errno::PERM) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let bits = Mode::from_raw_mode(wanted.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
            rustix::fs::fchmod(&self.storage, bits)
        };
        inherit().map_err(|errno| self.place.error("set the permissions of", errno))
    }

    /// A rename replaces in one step; a link does not. So a file without a name gets one first.
    fn rename_over(&mut self) -> Result<(), Errno> {
        let hidden = match &self.temporary {
            Temporary::Named(hidden) => hidden.clone(),
            _ => self.link_hidden()?,
        };
        rustix::fs::renameat(&self.place.dir, &hidden, &self.place.dir, &self.place.name)
    }

    fn link_hidden(&mut self) -> Result<OsString, Errno> {
        let hidden = retry_taken(|hidden| self.link(hidden).map(|()| hidden.to_owned()))?;
        self.temporary = Temporary::Named(hidden.clone());
        Ok(hidden)
    }

    fn name_as_new(&self) -> Result<(), Errno> {
        let Place { dir, name, .. } = &self.place;
        match &self.temporary {
            Temporary::Named(hidden) => rename_to_free(dir, hidden, name),
            _ => self.link(name),
        }
    }

    /// Gives the unnamed file a name that is free.
    fn link(&self, name: &OsStr) -> Result<(), Errno> {
        let (file, dir) = (self.storage.as_fd(), &self.place.dir);
        match sys::link_unnamed(file, dir.as_fd(), name) {
            // Without the privilege for this form the way through /proc does the same.
            Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
                rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
            }
            result => result,
        }
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        self.place.remove(&self.temporary);
    }
}

impl Place {
    fn of(path: &Path) -> Result<Self> {
        let shown: Box<str> = name::of(path).into();
        let fail = |errno: std::io::Error| Error::whole("create", &*shown, errno);
        // Before the links are resolved: /dev/stdout resolves to a name that does not exist.
        refuse_irreplaceable(rustix::fs::stat(path), &shown)?;
        let target = resolve_link(path).map_err(fail)?;
        let why = if path.as_os_str().is_empty() { Errno::NOENT } else { Errno::ISDIR };
        let name = target.file_name().ok_or(why).map_err(|e| fail(e.into()))?.to_owned();
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        Ok(Self { dir, name, path: shown })
    }

    fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn check_replaceable(&self) -> Result<()> {
        refuse_irreplaceable(self.stat(), &self.path)
    }

    /// Opens and locks the file that is there, if one is.
    fn lock_existing(&self) -> Result<Option<FileStorage>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Ok(fd) => {
                let old = FileStorage::from_file(File::from(fd), self.path.clone())?;
                old.lock_if_possible(LockMode::Writer)?;
                Ok(Some(old))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("open", errno)),
        }
    }

    fn new_file(&self, options: &OpenOptions) -> Result<(File, Temporary), Errno> {
        let flags = options.new_file_flags();
        match sys::open_unnamed(self.dir.as_fd(), flags, options.mode_bits()) {
            Ok(fd) => Ok((File::from(fd), Temporary::Unnamed)),
            // File systems without unnamed files, and kernels that take the flag for a directory.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
                self.new_hidden_file(options)
            }
            Err(errno) => Err(errno),
        }
    }

    fn new_hidden_file(&self, options: &OpenOptions) -> Result<(File, Temporary), Errno> {
        let flags = options.new_file_flags() | OFlags::CREATE | OFlags::EXCL;
        retry_taken(|hidden| {
            let fd = rustix::fs::openat(&self.dir, hidden, flags, options.mode_bits())?;
            Ok((File::from(fd), Temporary::Named(hidden.to_owned())))
        })
    }

    fn remove(&self, temporary: &Temporary) {
        if let Temporary::Named(hidden) = temporary {
            // Nobody is left who could be told of an error.
            let _ = rustix::fs::unlinkat(&self.dir, hidden, AtFlags::empty());
        }
    }

    fn flush_dir(&self) -> Result<()> {
        match rustix::io::retry_on_intr(|| rustix::fs::fsync(&self.dir)) {
            // A file system that keeps its directories by itself.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(self.error("flush the directory of", errno)),
        }
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::whole(operation, &*self.path, errno)
    }
}

/// Refuses a path that names something else than a regular file. One that names nothing is fine.
fn refuse_irreplaceable(stat: Result<Stat, Errno>, path: &str) -> Result<()> {
    let Ok(stat) = stat else { return Ok(()) };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        other => Err(Error::WrongKind {
            store: path.into(),
            found: kind::word(other),
            expected: "a regular file, which a new one can replace",
        }),
    }
}

/// What a symbolic link points to, also when nothing is there yet; other paths as they are.
fn resolve_link(path: &Path) -> std::io::Result<PathBuf> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => match std::fs::canonicalize(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let target = std::fs::read_link(path)?;
                Ok(path.parent().unwrap_or(Path::new("")).join(target))
            }
            resolved => resolved,
        },
        _ => Ok(path.to_owned()),
    }
}

/// Calls `attempt` with fresh hidden names until one is free.
fn retry_taken<T>(mut attempt: impl FnMut(&OsStr) -> Result<T, Errno>) -> Result<T, Errno> {
    /// More than one collision of 64 random bits is no accident.
    const ATTEMPTS: usize = 16;
    for _ in 0..ATTEMPTS {
        let number = RandomState::new().build_hasher().finish();
        match attempt(OsStr::new(&format!(".anydisk-{number:016x}"))) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
    Err(Errno::EXIST)
}

/// Renames, but not over a file that is there.
fn rename_to_free(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    match rustix::fs::renameat_with(dir, from, dir, to, rustix::fs::RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        result => return result,
    }
    rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())?;
    rustix::fs::unlinkat(dir, from, AtFlags::empty())
}

#[cfg(target_os = "linux")]
mod sys {
    use std::ffi::OsStr;
    use std::os::fd::{BorrowedFd, OwnedFd};

    use rustix::fs::{AtFlags, Mode, OFlags};
    use rustix::io::Errno;

    pub(super) fn open_unnamed(
        dir: BorrowedFd<'_>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(dir, ".", flags | OFlags::TMPFILE, mode)
    }

    pub(super) fn link_unnamed(
        file: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Errno> {
        rustix::fs::linkat(file, "", dir, name, AtFlags::EMPTY_PATH)
    }
}

/// Elsewhere every new file has a hidden name.
#[cfg(not(target_os = "linux"))]
mod sys {
    use std::ffi::OsStr;
    use std::os::fd::{BorrowedFd, OwnedFd};

    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;

    pub(super) fn open_unnamed(_: BorrowedFd<'_>, _: OFlags, _: Mode) -> Result<OwnedFd, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    pub(super) fn link_unnamed(
        _: BorrowedFd<'_>,
        _: BorrowedFd<'_>,
        _: &OsStr,
    ) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::HostOffset;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.0.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn pending(path: &Path, bytes: &[u8]) -> PendingFile {
        let pending = PendingFile::create(path, &OpenOptions::new()).unwrap();
        pending.storage().write_at(HostOffset::ZERO, bytes).unwrap();
        pending
    }

    /// The same as on a file system without unnamed files.
    fn hidden(path: &Path, bytes: &[u8]) -> PendingFile {
        let place = Place::of(path).unwrap();
        let replaced = place.lock_existing().unwrap();
        let new = place.new_hidden_file(&OpenOptions::new()).unwrap();
        let pending = PendingFile::of(place, replaced, new).unwrap();
        pending.storage().write_at(HostOffset::ZERO, bytes).unwrap();
        pending
    }

    const KINDS: [fn(&Path, &[u8]) -> PendingFile; 2] = [pending, hidden];

    #[test]
    fn a_file_appears_whole_under_its_name_and_leaves_nothing_else() {
        for kind in KINDS {
            for replace in [false, true] {
                let dir = Dir::new();
                kind(&dir.path("disk"), b"new").publish(replace).unwrap();
                assert_eq!(dir.names(), ["disk"]);
                assert_eq!(std::fs::read(dir.path("disk")).unwrap(), b"new");
            }
        }
    }

    #[test]
    fn a_dropped_file_leaves_nothing_and_the_old_one_as_it_was() {
        for kind in KINDS {
            let dir = Dir::new();
            std::fs::write(dir.path("disk"), b"old").unwrap();
            drop(kind(&dir.path("disk"), b"new"));
            assert_eq!(dir.names(), ["disk"]);
            assert_eq!(std::fs::read(dir.path("disk")).unwrap(), b"old");
        }
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_asked_and_keeps_its_permissions() {
        for kind in KINDS {
            let dir = Dir::new();
            let path = dir.path("disk");
            std::fs::write(&path, b"old").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
            let error = kind(&path, b"new").publish(false).unwrap_err();
            assert_eq!(error.io_kind(), Some(ErrorKind::AlreadyExists), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            kind(&path, b"new").publish(true).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
            assert_eq!(dir.names(), ["disk"]);
        }
    }

    #[test]
    fn a_symbolic_link_stays_and_its_target_is_replaced_or_made() {
        let dir = Dir::new();
        std::fs::write(dir.path("there"), b"old").unwrap();
        for target in ["there", "missing"] {
            let link = dir.path(&format!("to-{target}"));
            symlink(target, &link).unwrap();
            pending(&link, b"new").publish(true).unwrap();
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(std::fs::read(dir.path(target)).unwrap(), b"new");
        }
    }

    #[test]
    fn what_is_no_regular_file_cannot_be_replaced() {
        let dir = Dir::new();
        rustix::fs::mknodat(CWD, dir.path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for (path, found) in [
            (dir.path("fifo"), "a FIFO"),
            (dir.path("."), "a directory"),
            (PathBuf::from("/dev/null"), "a character device"),
        ] {
            let error = PendingFile::create(&path, &OpenOptions::new()).unwrap_err();
            let expected = format!(
                "{}: is {found}, expected a regular file, which a new one can replace",
                path.display()
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_file_that_is_in_use_is_not_replaced() {
        let dir = Dir::new();
        let options = OpenOptions::new().write(true).create(true);
        let _in_use = FileStorage::open(dir.path("disk"), &options).unwrap();
        let error = PendingFile::create(dir.path("disk"), &OpenOptions::new()).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
    }

    #[test]
    fn a_file_that_got_a_hidden_name_but_not_its_final_one_leaves_nothing() {
        let dir = Dir::new();
        let mut pending = pending(&dir.path("disk"), b"new");
        pending.link_hidden().unwrap();
        drop(pending);
        assert_eq!(dir.names(), [""; 0]);
    }

    #[test]
    fn direct_io_and_permissions_are_as_asked() {
        let dir = Dir::new();
        let options = OpenOptions::new().direct(true).mode(0o600);
        let pending = PendingFile::create(dir.path("disk"), &options).unwrap();
        assert!(pending.storage().alignment() > 1);
        pending.storage().write_at(HostOffset(1), b"odd").unwrap();
        pending.publish(false).unwrap();
        assert_eq!(std::fs::read(dir.path("disk")).unwrap(), b"\0odd");
        assert_eq!(std::fs::metadata(dir.path("disk")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_missing_directory_is_told() {
        let dir = Dir::new();
        let error = PendingFile::create(dir.path("no/disk"), &OpenOptions::new()).unwrap_err();
        assert_eq!(error.io_kind(), Some(ErrorKind::NotFound), "{error}");
    }
}
