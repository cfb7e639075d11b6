//! Opening a name that a stranger chose, without leaving a directory.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::{FileStorage, OpenOptions};
use crate::{Error, Result, name as names};

impl FileStorage {
    /// Opens `name` below `dir` as `options` say; for names that come out of an image.
    ///
    /// No symbolic link is followed below `dir` (`dir` itself is the caller's and may be one), not
    /// even one that stays inside, and no component is `..`. The check and the opening are one: a
    /// directory that is swapped for a link meanwhile is refused.
    ///
    /// # Errors
    /// [`Error::Denied`] for a name that leads elsewhere, otherwise as [`FileStorage::open`].
    pub fn open_beneath(
        dir: impl AsRef<Path>,
        name: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> Result<Self> {
        open_beneath(dir.as_ref(), name.as_ref(), options, open_at_once)
    }
}

/// How the kernel is asked: in one call, or component by component.
type Opener = fn(&OwnedFd, &Path, &OpenOptions) -> Result<OwnedFd, Errno>;

fn open_beneath(
    dir: &Path,
    name: &Path,
    options: &OpenOptions,
    opener: Opener,
) -> Result<FileStorage> {
    let path: Box<str> = names::of(&dir.join(name)).into();
    options.check(&path)?;
    if !stays_below(name) {
        return Err(Error::Denied { store: path, reason: "the name leads out of its directory" });
    }
    let dir =
        open_dir(dir).map_err(|errno| Error::whole("open the directory of", &*path, errno))?;
    let fd = opener(&dir, name, options).map_err(|errno| match errno {
        Errno::LOOP | Errno::XDEV => {
            Error::Denied { store: path.clone(), reason: "the name leads through a symbolic link" }
        }
        errno => options.open_error(&path, errno, || statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)),
    })?;
    options.finish(fd, path)
}

/// Whether the name has components, and none that climbs or starts anew.
fn stays_below(name: &Path) -> bool {
    let mut names = 0;
    for component in name.components() {
        match component {
            Component::Normal(_) => names += 1,
            Component::CurDir => {}
            _ => return false,
        }
    }
    names > 0
}

fn open_dir(dir: &Path) -> Result<OwnedFd, Errno> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    rustix::fs::open(dir, DIRECTORY, rustix::fs::Mode::empty())
}

#[cfg(target_os = "linux")]
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The kernel resolves the whole name and watches the rules.
#[cfg(target_os = "linux")]
fn open_at_once(dir: &OwnedFd, name: &Path, options: &OpenOptions) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, ResolveFlags, openat2};

    let flags = options.flags();
    // openat2 refuses permission bits where nothing is created.
    let mode = if flags.contains(OFlags::CREATE) { options.mode_bits() } else { Mode::empty() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::io::retry_on_intr(|| openat2(dir, name, flags, mode, resolve)) {
        // A kernel before 5.6, a sandbox that does not know the call (some answer EPERM), or a
        // rename that came between.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_in_steps(dir, name, options),
        result => result,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_at_once(dir: &OwnedFd, name: &Path, options: &OpenOptions) -> Result<OwnedFd, Errno> {
    open_in_steps(dir, name, options)
}

/// Goes down one directory at a time, each opened without following a link.
fn open_in_steps(dir: &OwnedFd, name: &Path, options: &OpenOptions) -> Result<OwnedFd, Errno> {
    let mut names: Vec<&OsStr> = name
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let last = names.pop().ok_or(Errno::NOENT)?;
    let mut dir = dir.try_clone().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    for name in names {
        dir = step(&dir, name)?;
    }
    let flags = options.flags() | OFlags::NOFOLLOW;
    rustix::io::retry_on_intr(|| openat(&dir, last, flags, options.mode_bits()))
}

fn step(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    match openat(dir, name, flags, rustix::fs::Mode::empty()) {
        // A link is no directory either; say which.
        Err(Errno::NOTDIR) if is_link(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)) => {
            Err(Errno::LOOP)
        }
        result => result,
    }
}

fn is_link(stat: Result<Stat, Errno>) -> bool {
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Storage;

    const OPENERS: [Opener; 2] = [open_at_once, open_in_steps];

    /// `in/sub/disk.raw`, beside it links of every kind, and `secret` outside of `in`.
    fn tree() -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        std::fs::create_dir_all(path("in/sub")).unwrap();
        std::fs::write(path("in/sub/disk.raw"), b"disk").unwrap();
        std::fs::write(path("secret"), b"secret").unwrap();
        symlink("sub/disk.raw", path("in/link")).unwrap();
        symlink("sub", path("in/linked")).unwrap();
        symlink("../secret", path("in/out")).unwrap();
        symlink(path("secret"), path("in/absolute")).unwrap();
        top
    }

    fn open(top: &tempfile::TempDir, name: &str, opener: Opener) -> Result<FileStorage> {
        open_beneath(&top.path().join("in"), Path::new(name), &OpenOptions::new(), opener)
    }

    #[test]
    fn a_file_below_the_directory_is_opened() {
        let top = tree();
        for opener in OPENERS {
            for name in ["sub/disk.raw", "./sub/./disk.raw"] {
                assert_eq!(open(&top, name, opener).unwrap().len().unwrap(), 4);
            }
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_denied() {
        let top = tree();
        let absolute = top.path().join("secret");
        let absolute = absolute.to_str().unwrap();
        let names = ["link", "linked/disk.raw", "out", "absolute", "../secret", absolute, "", "."];
        for opener in OPENERS {
            for name in names.into_iter().chain(["sub/../sub/disk.raw", "sub/../../secret"]) {
                let error = open(&top, name, opener).unwrap_err();
                assert!(matches!(error, Error::Denied { .. }), "{name}: {error}");
            }
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_by_its_kind() {
        let top = tree();
        for opener in OPENERS {
            let error = open(&top, "sub", opener).unwrap_err();
            assert!(error.to_string().ends_with("is a directory, expected a regular file"));
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_an_ordinary_error() {
        let top = tree();
        for opener in OPENERS {
            let error = open(&top, "sub/none", opener).unwrap_err();
            assert_eq!(error.io_kind(), Some(std::io::ErrorKind::NotFound));
        }
    }

    #[test]
    fn a_new_file_is_created_below_the_directory_only() {
        let top = tree();
        let options = OpenOptions::new().write(true).create(true);
        let dir = top.path().join("in");
        for (number, opener) in OPENERS.into_iter().enumerate() {
            let name = format!("sub/new{number}");
            open_beneath(&dir, Path::new(&name), &options, opener).unwrap();
            assert!(dir.join(name).exists());
            let error = open_beneath(&dir, Path::new("linked/x"), &options, opener).unwrap_err();
            assert!(matches!(error, Error::Denied { .. }), "{error}");
        }
        assert!(!dir.join("sub/x").exists());
    }
}
