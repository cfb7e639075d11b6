//! System calls that move bytes, made whole: short counts and signals never get past here.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::FileStorage;
use super::kind::FileKind;
use crate::{HostOffset, Result, Storage};

/// No file reaches this far; beyond, the kernel answers `EINVAL` where there is simply nothing.
/// A whole bounce buffer below the largest `off_t`, so that rounding up stays in range.
pub(super) const END_OF_OFFSETS: u64 = (1 << 63) - (1 << 24);

/// Reads until `buf` is full or the file ends; returns the bytes read.
///
/// A count that is no multiple of `alignment` is the end of the file: with direct I/O the next
/// call would be refused.
pub(super) fn read_full(
    fd: BorrowedFd<'_>,
    at: u64,
    buf: &mut [u8],
    alignment: usize,
) -> Result<usize, Errno> {
    let room = usize::try_from(END_OF_OFFSETS.saturating_sub(at)).unwrap_or(usize::MAX);
    let room = room.min(buf.len());
    let buf = &mut buf[..room];
    let mut done = 0;
    while done < buf.len() && done.is_multiple_of(alignment) {
        match rustix::io::pread(fd, &mut buf[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes all of `data`.
pub(super) fn write_full(fd: BorrowedFd<'_>, at: u64, data: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < data.len() {
        let place = at.checked_add(done as u64).filter(|&place| place < END_OF_OFFSETS);
        match rustix::io::pwrite(fd, &data[done..], place.ok_or(Errno::FBIG)?) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The length now, in bytes.
pub(super) fn len(fd: BorrowedFd<'_>, kind: FileKind) -> Result<u64, Errno> {
    match kind {
        FileKind::Regular => {
            let stat = rustix::fs::fstat(fd)?;
            u64::try_from(stat.st_size).map_err(|_| Errno::OVERFLOW)
        }
        FileKind::Block => rustix::fs::seek(fd, rustix::fs::SeekFrom::End(0)),
    }
}

/// Puts data, and what is needed to find it, on stable storage.
pub(super) fn flush(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| {
        // macOS: fsync leaves the data in the drive's cache.
        #[cfg(target_vendor = "apple")]
        return rustix::fs::fcntl_fullfsync(fd);
        #[cfg(not(target_vendor = "apple"))]
        return rustix::fs::fdatasync(fd);
    })
}

/// Starts reading a range into the page cache.
pub(super) fn prefetch(fd: BorrowedFd<'_>, at: u64, len: u64) {
    #[cfg(target_os = "linux")]
    if let Some(len) = std::num::NonZeroU64::new(len) {
        // Only a hint: what went wrong will be told by the read.
        let _ = rustix::fs::fadvise(fd, at, Some(len), rustix::fs::Advice::WillNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (fd, at, len);
}

impl FileStorage {
    /// `preadv` until all is full or the file ends. The caller's slices are not advanced.
    pub(super) fn read_vectored(
        &self,
        at: HostOffset,
        mut bufs: &mut [IoSliceMut<'_>],
    ) -> Result<usize> {
        let mut done = 0;
        while !bufs.is_empty() {
            let place = at.saturating_add(done as u64);
            let count = rustix::io::preadv(self.file.as_fd(), bufs, place.get()).unwrap_or(0);
            let (whole, part) = split(bufs.iter().map(|buf| buf.len()), count);
            done += count;
            bufs = &mut bufs[whole..];
            // A signal, an error, the end or a short count: the plain call finds out which.
            if !bufs.is_empty() && (part > 0 || count == 0) {
                let buf = &mut bufs[0][part..];
                let more = self.read_at(at.saturating_add(done as u64), buf)?;
                done += more;
                if more < buf.len() {
                    return Ok(done);
                }
                bufs = &mut bufs[1..];
            }
        }
        Ok(done)
    }

    /// `pwritev` until all is written.
    pub(super) fn write_vectored(&self, at: HostOffset, mut data: &[IoSlice<'_>]) -> Result<()> {
        let mut done = 0;
        while !data.is_empty() {
            let place = at.saturating_add(done as u64);
            let count = rustix::io::pwritev(self.file.as_fd(), data, place.get()).unwrap_or(0);
            self.runs.written();
            let (whole, part) = split(data.iter().map(|part| part.len()), count);
            done += count;
            data = &data[whole..];
            if !data.is_empty() && (part > 0 || count == 0) {
                let rest = &data[0][part..];
                self.write_at(at.saturating_add(done as u64), rest)?;
                done += rest.len();
                data = &data[1..];
            }
        }
        Ok(())
    }
}

/// How many whole buffers `count` bytes fill, and how many bytes of the next one.
fn split(lens: impl Iterator<Item = usize>, mut count: usize) -> (usize, usize) {
    let mut whole = 0;
    for len in lens {
        if count < len {
            break;
        }
        count -= len;
        whole += 1;
    }
    (whole, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_split_into_whole_buffers_and_the_rest() {
        let lens = [3, 0, 5, 2];
        for (count, expected) in
            [(0, (0, 0)), (2, (0, 2)), (3, (2, 0)), (4, (2, 1)), (8, (3, 0)), (10, (4, 0))]
        {
            assert_eq!(split(lens.into_iter(), count), expected, "{count} bytes");
        }
    }
}
