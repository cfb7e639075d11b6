//! Copying between files inside the kernel.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{Direct, FileStorage};
use crate::{Copied, CopyFrom, Error, HostOffset, Result, Storage, StorageExt};

/// One copy between two descriptors.
#[derive(Clone, Copy, Debug)]
struct Job<'a> {
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing copies there"))]
    source: BorrowedFd<'a>,
    from: u64,
    to: u64,
    len: u64,
}

impl CopyFrom for FileStorage {
    fn copy_from(
        &self,
        source: &dyn Storage,
        from: HostOffset,
        to: HostOffset,
        len: u64,
    ) -> Result<Option<Copied>> {
        let job = self.job(source, from, to, len)?;
        job.map_or(Ok(None), |job| self.run(source, job, Self::copy))
    }

    fn shares_with(&self, source: &dyn Storage) -> bool {
        source.fd().is_some_and(|file| sys::can_clone(&self.file, file.fd))
    }

    fn share_from(
        &self,
        source: &dyn Storage,
        from: HostOffset,
        to: HostOffset,
        len: u64,
    ) -> Result<u64> {
        let job = self.job(source, from, to, len)?;
        job.map_or(Ok(0), |job| self.run(source, job, Self::share))
    }
}

impl FileStorage {
    /// What to do, if there is a file behind the source.
    fn job<'a>(
        &self,
        source: &'a dyn Storage,
        from: HostOffset,
        to: HostOffset,
        len: u64,
    ) -> Result<Option<Job<'a>>> {
        self.check_writable()?;
        let end = source.len()?;
        if from.checked_add(len).is_none_or(|last| last.get() > end) {
            return Err(source.out_of_range(from, len));
        }
        let Some(file) = source.fd() else { return Ok(None) };
        let from = file.start.checked_add(from.get());
        Ok(from.map(|from| Job { source: file.fd, from: from.get(), to: to.get(), len }))
    }

    fn run<R>(
        &self,
        source: &dyn Storage,
        job: Job<'_>,
        act: impl FnOnce(&Self, Job<'_>) -> Result<R, Errno>,
    ) -> Result<R> {
        let _no_edges = self.direct.as_ref().map(Direct::whole_blocks);
        let result = act(self, job);
        self.runs.changed();
        result.map_err(|errno| self.copy_error(source, HostOffset(job.to), job.len, errno))
    }

    fn copy(&self, job: Job<'_>) -> Result<Option<Copied>, Errno> {
        let shared = self.share(job)?;
        let rest = job.after(shared);
        match rest.len {
            0 => Ok(Some(Copied::Shared)),
            _ if !self.copy_in_kernel(rest)? => Ok(None),
            // The odd bytes at the end of the source cannot be shared; that they were copied
            // does not make the whole a copy.
            _ if shared > rest.len => Ok(Some(Copied::Shared)),
            _ => Ok(Some(Copied::InKernel)),
        }
    }

    /// Shares as many bytes from the front as whole blocks allow, and says how many.
    fn share(&self, job: Job<'_>) -> Result<u64, Errno> {
        let block = self.sharing_block()?;
        let len = job.len & !(block - 1);
        if len == 0 || (job.from | job.to) & (block - 1) != 0 {
            return Ok(0);
        }
        match sys::clone_range(&self.file, Job { len, ..job }) {
            Ok(()) => Ok(len),
            Err(errno) if is_impossible(errno) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    /// The block in which the file system shares: bytes, a power of two.
    fn sharing_block(&self) -> Result<u64, Errno> {
        let stat = rustix::fs::fstatvfs(&self.file)?;
        Ok(Some(stat.f_bsize).filter(|block| block.is_power_of_two()).unwrap_or(4096))
    }

    /// Whether the kernel could copy; if not, some bytes may have been copied nevertheless.
    fn copy_in_kernel(&self, mut job: Job<'_>) -> Result<bool, Errno> {
        while job.len > 0 {
            match sys::copy_range(&self.file, job) {
                // The source became shorter: reading by hand will tell.
                Ok(0) => return Ok(false),
                Ok(count) => job = job.after(count),
                Err(Errno::INTR) => {}
                Err(errno) if is_impossible(errno) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    #[cold]
    fn copy_error(&self, source: &dyn Storage, to: HostOffset, len: u64, errno: Errno) -> Error {
        let cause = std::io::Error::from(errno);
        let told = std::io::Error::new(cause.kind(), format!("from {}: {cause}", source.name()));
        Error::io("copy", &*self.name, to, len, told)
    }
}

impl Job<'_> {
    /// What is left when `done` bytes are done.
    const fn after(self, done: u64) -> Self {
        Self { from: self.from + done, to: self.to + done, len: self.len - done, ..self }
    }
}

/// Answers that mean "not for this pair of files", as opposed to "it went wrong".
fn is_impossible(errno: Errno) -> bool {
    [
        Errno::XDEV,
        Errno::INVAL,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::NOTTY,
        Errno::BADF,
        Errno::PERM,
        Errno::TXTBSY,
    ]
    .contains(&errno)
}

#[cfg(target_os = "linux")]
mod sys {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

    use rustix::io::Errno;
    use rustix::ioctl::{Setter, ioctl, opcode};

    use super::Job;

    /// `struct file_clone_range` of `linux/fs.h`.
    #[repr(C)]
    struct FileCloneRange {
        src_fd: i64,
        src_offset: u64,
        src_length: u64,
        dest_offset: u64,
    }

    /// `FICLONERANGE` of `linux/fs.h`.
    const FICLONERANGE: rustix::ioctl::Opcode = opcode::write::<FileCloneRange>(0x94, 13);

    /// Blocks of file systems are no larger, in bytes.
    const LARGEST_BLOCK: u64 = 1 << 20;

    /// Whether the two files can share: asks to share what follows the end of the source, which is
    /// nothing. What cannot at all says so first. Should the source grow in this moment, that goes
    /// behind the end of the file, not over its bytes.
    pub(super) fn can_clone(file: &File, source: BorrowedFd<'_>) -> bool {
        let end =
            |file| rustix::fs::fstat(file).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
        let (Some(from), Some(to)) = (end(source), end(file.as_fd())) else { return false };
        let to = to.next_multiple_of(LARGEST_BLOCK);
        clone_range(file, Job { source, from, to, len: 0 }).is_ok()
    }

    #[expect(unsafe_code, reason = "an ioctl that rustix does not have")]
    pub(super) fn clone_range(file: &File, job: Job<'_>) -> Result<(), Errno> {
        let argument = FileCloneRange {
            src_fd: job.source.as_raw_fd().into(),
            src_offset: job.from,
            src_length: job.len,
            dest_offset: job.to,
        };
        // SAFETY: FICLONERANGE reads one `struct file_clone_range` through its pointer and writes
        // nothing, and the setter passes a pointer to exactly that; the source descriptor in it
        // is open as long as the job borrows it.
        unsafe { ioctl(file, Setter::<FICLONERANGE, FileCloneRange>::new(argument)) }
    }

    pub(super) fn copy_range(file: &File, mut job: Job<'_>) -> Result<u64, Errno> {
        let len = usize::try_from(job.len).unwrap_or(usize::MAX);
        rustix::fs::copy_file_range(job.source, Some(&mut job.from), file, Some(&mut job.to), len)
            .map(|count| count as u64)
    }
}

/// Elsewhere [`Storage::copier`] answers `None` and none of this is reached.
#[cfg(not(target_os = "linux"))]
mod sys {
    use std::fs::File;
    use std::os::fd::BorrowedFd;

    use rustix::io::Errno;

    use super::Job;

    pub(super) fn can_clone(_: &File, _: BorrowedFd<'_>) -> bool {
        false
    }

    pub(super) fn clone_range(_: &File, _: Job<'_>) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    pub(super) fn copy_range(_: &File, _: Job<'_>) -> Result<u64, Errno> {
        Err(Errno::OPNOTSUPP)
    }
}
