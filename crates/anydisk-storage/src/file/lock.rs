//! Locks that qemu understands.
//!
//! qemu locks single bytes of an image file with open-file-description locks, all of them shared:
//! byte `100 + bit` says "I use this permission", byte `200 + bit` says "I do not share it". Who
//! opens a file takes its own bytes first and then tests whether anyone holds the opposite ones;
//! so two that start at once may both fail, but never both succeed. The bytes lie inside the
//! image; a lock does not touch what is stored there.
//!
//! ```text
//!            consistent read   write   write unchanged   resize
//! used              100         101          102           103
//! not shared        200         201          202           203
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;

use rustix::io::Errno;

use super::FileStorage;
use crate::{Error, Result};

/// How a file is locked against other processes, qemu among them, and against other opens in
/// this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockMode {
    /// No lock, and none of others respected.
    #[default]
    Off,
    /// Reads a file that others may write at the same time (`qemu-img -U`).
    ForceShare,
    /// Reads, and keeps others from writing and resizing, as qemu does for a format's file.
    Reader,
    /// Writes, and keeps others from writing and from reading what must stay as it is.
    Writer,
}

/// Permissions by bit, as qemu numbers them.
const PERMISSIONS: [&str; 4] = ["consistent read", "write", "write unchanged", "resize"];

const CONSISTENT_READ: u8 = 1 << 0;
const WRITE: u8 = 1 << 1;
const RESIZE: u8 = 1 << 3;

/// First byte of "I use it".
const USED_BASE: u64 = 100;
/// First byte of "I do not share it".
const UNSHARED_BASE: u64 = 200;

/// The bytes that one open file holds, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    used: u8,
    unshared: u8,
}

impl LockMode {
    const fn bits(self) -> Held {
        match self {
            Self::Off => Held { used: 0, unshared: 0 },
            Self::ForceShare => Held { used: CONSISTENT_READ, unshared: 0 },
            Self::Reader => Held { used: CONSISTENT_READ, unshared: WRITE | RESIZE },
            Self::Writer => {
                Held { used: CONSISTENT_READ | WRITE | RESIZE, unshared: WRITE | RESIZE }
            }
        }
    }

    /// Whether no process that respects locks can write to the file meanwhile.
    pub(super) const fn excludes_other_writers(self) -> bool {
        self.bits().unshared & WRITE != 0
    }
}

impl Held {
    const fn union(self, other: Self) -> Self {
        Self { used: self.used | other.used, unshared: self.unshared | other.unshared }
    }

    const fn without(self, other: Self) -> Self {
        Self { used: self.used & !other.used, unshared: self.unshared & !other.unshared }
    }

    /// The bytes in the file that these bits are.
    fn bytes(self) -> impl Iterator<Item = u64> {
        set_bits(self.used)
            .map(|bit| USED_BASE + bit)
            .chain(set_bits(self.unshared).map(|bit| UNSHARED_BASE + bit))
    }
}

fn set_bits(bits: u8) -> impl Iterator<Item = u64> {
    (0..8).filter(move |bit| bits & (1 << bit) != 0)
}

/// Why a lock was not taken.
enum Refusal {
    /// Somebody holds the opposite; in qemu's words.
    Conflict(String),
    /// The system call failed.
    System(Errno),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl FileStorage {
    /// Changes the lock that is held to `mode`: takes, upgrades, downgrades or drops it.
    ///
    /// # Errors
    /// [`Error::Locked`] when another open file stands against it; what was held stays held.
    pub fn lock(&self, mode: LockMode) -> Result<()> {
        self.change_lock(mode).map_err(|refusal| self.lock_error(refusal))
    }

    /// As [`lock`](Self::lock), but a file system without locks is no error.
    pub(crate) fn lock_if_possible(&self, mode: LockMode) -> Result<()> {
        match self.change_lock(mode) {
            Err(Refusal::System(errno)) if has_no_locks(errno) => Ok(()),
            other => other.map_err(|refusal| self.lock_error(refusal)),
        }
    }

    /// The lock that is held now.
    #[must_use]
    pub fn lock_mode(&self) -> LockMode {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_lock(&self, mode: LockMode) -> Result<(), Refusal> {
        let mut current = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        change(self.file.as_fd(), current.bits(), mode.bits())?;
        *current = mode;
        // What was remembered about holes may have rested on the lock.
        self.runs.changed();
        Ok(())
    }

    #[cold]
    fn lock_error(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Conflict(what) => {
                Error::Locked { store: self.name.clone(), what: what.into() }
            }
            Refusal::System(errno) => Error::whole("lock", &*self.name, errno),
        }
    }
}

/// Takes what is new, tests it against others, and only then gives up what is no longer needed:
/// at no moment is less held than both sides agree on.
fn change(fd: BorrowedFd<'_>, old: Held, new: Held) -> Result<(), Refusal> {
    let taken = new.without(old);
    let result = take(fd, taken).and_then(|()| test(fd, new));
    let surplus = if result.is_ok() { old.union(new).without(new) } else { taken };
    for byte in surplus.bytes() {
        sys::unlock(fd, byte)?;
    }
    result
}

fn take(fd: BorrowedFd<'_>, bytes: Held) -> Result<(), Refusal> {
    for byte in bytes.bytes() {
        sys::lock_shared(fd, byte).map_err(|errno| match errno {
            Errno::AGAIN | Errno::ACCESS => Refusal::Conflict(words(byte)),
            other => Refusal::System(other),
        })?;
    }
    Ok(())
}

/// Whether nobody refuses to share what we use, and nobody uses what we refuse to share.
fn test(fd: BorrowedFd<'_>, wanted: Held) -> Result<(), Refusal> {
    for bit in set_bits(wanted.used) {
        if sys::is_held_by_another(fd, UNSHARED_BASE + bit)? {
            return Err(Refusal::Conflict(words(USED_BASE + bit)));
        }
    }
    for bit in set_bits(wanted.unshared) {
        if sys::is_held_by_another(fd, USED_BASE + bit)? {
            return Err(Refusal::Conflict(words(UNSHARED_BASE + bit)));
        }
    }
    Ok(())
}

/// What qemu says when it cannot have this byte.
fn words(byte: u64) -> String {
    let (base, shared) =
        if byte >= UNSHARED_BASE { (UNSHARED_BASE, "shared ") } else { (USED_BASE, "") };
    let permission = usize::try_from(byte - base).ok().and_then(|bit| PERMISSIONS.get(bit));
    format!("Failed to get {shared}\"{}\" lock", permission.unwrap_or(&"unknown"))
}

fn has_no_locks(errno: Errno) -> bool {
    [Errno::NOLCK, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP].contains(&errno)
}

/// `fcntl` with open-file-description locks, which rustix does not have.
#[cfg(target_os = "linux")]
mod sys {
    use std::os::fd::{AsRawFd, BorrowedFd};

    use rustix::io::Errno;

    pub(super) fn lock_shared(fd: BorrowedFd<'_>, byte: u64) -> Result<(), Errno> {
        call(fd, libc::F_OFD_SETLK, libc::F_RDLCK, byte).map(drop)
    }

    pub(super) fn unlock(fd: BorrowedFd<'_>, byte: u64) -> Result<(), Errno> {
        call(fd, libc::F_OFD_SETLK, libc::F_UNLCK, byte).map(drop)
    }

    /// Whether another open file holds any lock on `byte`; our own never counts.
    pub(super) fn is_held_by_another(fd: BorrowedFd<'_>, byte: u64) -> Result<bool, Errno> {
        let found = call(fd, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }

    #[expect(unsafe_code, reason = "a command of fcntl that rustix does not have")]
    fn call(
        fd: BorrowedFd<'_>,
        command: libc::c_int,
        kind: libc::c_int,
        byte: u64,
    ) -> Result<libc::flock, Errno> {
        let mut lock = libc::flock {
            l_type: libc::c_short::try_from(kind).map_err(|_| Errno::INVAL)?,
            l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(|_| Errno::INVAL)?,
            l_start: libc::off_t::try_from(byte).map_err(|_| Errno::INVAL)?,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open as long as it is borrowed, and these commands read and
        // write exactly one `struct flock`, which `lock` is and which outlives the call.
        let answer = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) };
        if answer == 0 { Ok(lock) } else { Err(last_errno()) }
    }

    fn last_errno() -> Errno {
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
    }
}

/// Elsewhere there are no locks of this kind.
#[cfg(not(target_os = "linux"))]
mod sys {
    use std::os::fd::BorrowedFd;

    use rustix::io::Errno;

    pub(super) fn lock_shared(_: BorrowedFd<'_>, _: u64) -> Result<(), Errno> {
        Err(Errno::NOLCK)
    }

    pub(super) fn unlock(_: BorrowedFd<'_>, _: u64) -> Result<(), Errno> {
        Ok(())
    }

    pub(super) fn is_held_by_another(_: BorrowedFd<'_>, _: u64) -> Result<bool, Errno> {
        Err(Errno::NOLCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_refused_byte_are_those_of_qemu() {
        assert_eq!(words(101), "Failed to get \"write\" lock");
        assert_eq!(words(201), "Failed to get shared \"write\" lock");
        assert_eq!(words(100), "Failed to get \"consistent read\" lock");
        assert_eq!(words(203), "Failed to get shared \"resize\" lock");
    }

    #[test]
    fn a_writer_holds_the_bytes_that_qemu_holds_for_a_qcow2_file() {
        let bytes: Vec<u64> = LockMode::Writer.bits().bytes().collect();
        assert_eq!(bytes, [100, 101, 103, 201, 203]);
    }

    #[test]
    fn a_reader_holds_the_bytes_that_qemu_img_convert_holds_on_its_source() {
        let bytes: Vec<u64> = LockMode::Reader.bits().bytes().collect();
        assert_eq!(bytes, [100, 201, 203]);
    }
}
