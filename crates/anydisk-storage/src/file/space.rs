//! Zeroing, discarding and reserving without passing bytes.

use rustix::io::Errno;

use super::kind::FileKind;
use super::{Direct, FileStorage};
use crate::{HostOffset, Result, Space, Storage};

/// Zeroes written by hand at the edges of a device's blocks, at most.
const LARGEST_BLOCK: usize = 1 << 16;

impl Space for FileStorage {
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> Result<()> {
        self.check_writable()?;
        let Some(range) = self.inside(at, len)? else { return Ok(()) };
        match self.kind {
            FileKind::Regular => self.change("zero", range, |r| self.zero_blocks(r, unmap)),
            FileKind::Block => self.zero_device(range, unmap),
        }
    }

    fn discard(&self, at: HostOffset, len: u64) -> Result<()> {
        self.check_writable()?;
        let Some(range) = self.inside(at, len)? else { return Ok(()) };
        match self.kind {
            FileKind::Regular => {
                self.change("discard", range, |r| sys::punch(&self.file, r.at, r.len))
            }
            FileKind::Block => match range.whole_blocks(self.device_block()?) {
                Some(blocks) => {
                    self.change("discard", blocks, |r| sys::discard_device(&self.file, r.at, r.len))
                }
                None => Ok(()),
            },
        }
    }

    fn allocate(&self, at: HostOffset, len: u64) -> Result<()> {
        self.check_writable()?;
        match self.kind {
            _ if len == 0 => Ok(()),
            FileKind::Regular => {
                let range = Range { at: at.get(), len };
                self.change("allocate", range, |r| sys::allocate(&self.file, r.at, r.len))
            }
            // The space of a device is there already.
            FileKind::Block if at.saturating_add(len).get() <= self.len()? => Ok(()),
            FileKind::Block => Err(self.unsupported("growing a block device")),
        }
    }
}

/// Some bytes of the store, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    at: u64,
    len: u64,
}

impl Range {
    /// The blocks that lie wholly inside, if any. `block` is a power of two.
    fn whole_blocks(self, block: u64) -> Option<Self> {
        let start = self.at.checked_next_multiple_of(block)?;
        let end = (self.at + self.len) & !(block - 1);
        (start < end).then(|| Self { at: start, len: end - start })
    }
}

impl FileStorage {
    /// The part of the range that lies inside the store.
    fn inside(&self, at: HostOffset, len: u64) -> Result<Option<Range>> {
        let len = len.min(self.len()?.saturating_sub(at.get()));
        Ok((len > 0).then_some(Range { at: at.get(), len }))
    }

    /// Does one operation on a range, with the errors and counters that every one needs.
    fn change(
        &self,
        operation: &'static str,
        range: Range,
        act: impl Fn(Range) -> Result<(), Errno>,
    ) -> Result<()> {
        let _no_edges = self.direct.as_ref().map(Direct::whole_blocks);
        let result = rustix::io::retry_on_intr(|| act(range));
        self.runs.changed();
        result.map_err(|errno| match errno {
            errno if is_unsupported(errno) => self.unsupported(operation),
            errno => self.write_error(operation, HostOffset(range.at), range.len, errno),
        })
    }

    fn zero_blocks(&self, range: Range, unmap: bool) -> Result<(), Errno> {
        if unmap {
            match sys::punch(&self.file, range.at, range.len) {
                Err(errno) if is_unsupported(errno) => {}
                result => return result,
            }
        }
        sys::zero(&self.file, range.at, range.len)
    }

    /// A device zeroes whole blocks; the bytes around them are written. The blocks first: if they
    /// cannot be zeroed, nothing has been changed.
    fn zero_device(&self, range: Range, unmap: bool) -> Result<()> {
        let block = self.device_block()?;
        let Some(blocks) = range.whole_blocks(block) else {
            return self.write_zeroes(range.at, range.len);
        };
        self.change("zero", blocks, |r| self.zero_blocks(r, unmap))?;
        self.write_zeroes(range.at, blocks.at - range.at)?;
        let end = blocks.at + blocks.len;
        self.write_zeroes(end, range.at + range.len - end)
    }

    fn write_zeroes(&self, at: u64, len: u64) -> Result<()> {
        let zeroes = [0; LARGEST_BLOCK];
        let mut done = 0;
        while done < len {
            let count = usize::try_from(len - done).unwrap_or(LARGEST_BLOCK).min(LARGEST_BLOCK);
            self.write_at(HostOffset(at + done), &zeroes[..count])?;
            done += count as u64;
        }
        Ok(())
    }

    /// The device's logical block in bytes.
    fn device_block(&self) -> Result<u64> {
        sys::device_block(&self.file)
            .map_err(|errno| crate::Error::whole("find the block size of", self.name(), errno))
    }
}

/// What file systems and devices answer when they cannot do it, before they change anything.
fn is_unsupported(errno: Errno) -> bool {
    [Errno::OPNOTSUPP, Errno::NOSYS, Errno::NODEV, Errno::NOTTY].contains(&errno)
}

#[cfg(target_os = "linux")]
mod sys {
    use std::fs::File;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    use rustix::ioctl::{Setter, ioctl, opcode};

    /// `BLKDISCARD` of `linux/fs.h`: start and length in bytes.
    const BLKDISCARD: rustix::ioctl::Opcode = opcode::none(0x12, 119);

    pub(super) fn punch(file: &File, at: u64, len: u64) -> Result<(), Errno> {
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len)
    }

    /// On a block device the kernel makes `BLKZEROOUT` of this.
    pub(super) fn zero(file: &File, at: u64, len: u64) -> Result<(), Errno> {
        fallocate(file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, at, len)
    }

    /// The system call itself; the C library's `posix_fallocate` would write zeroes.
    pub(super) fn allocate(file: &File, at: u64, len: u64) -> Result<(), Errno> {
        fallocate(file, FallocateFlags::empty(), at, len)
    }

    #[expect(unsafe_code, reason = "an ioctl that rustix does not have")]
    pub(super) fn discard_device(file: &File, at: u64, len: u64) -> Result<(), Errno> {
        // SAFETY: BLKDISCARD reads two u64 through its pointer and writes nothing, and the
        // setter passes a pointer to exactly that.
        unsafe { ioctl(file, Setter::<BLKDISCARD, [u64; 2]>::new([at, len])) }
    }

    pub(super) fn device_block(file: &File) -> Result<u64, Errno> {
        rustix::fs::ioctl_blksszget(file).map(u64::from)
    }
}

/// Elsewhere [`Storage::space`] answers `None` and none of this is reached.
#[cfg(not(target_os = "linux"))]
mod sys {
    use std::fs::File;

    use rustix::io::Errno;

    pub(super) fn punch(_: &File, _: u64, _: u64) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    pub(super) use self::punch as zero;
    pub(super) use self::punch as allocate;
    pub(super) use self::punch as discard_device;

    pub(super) fn device_block(_: &File) -> Result<u64, Errno> {
        Err(Errno::OPNOTSUPP)
    }
}

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn only_whole_blocks_are_left_of_a_range() {
        let whole = |at, len| Range { at, len }.whole_blocks(512);
        assert_eq!(whole(0, 512), Some(Range { at: 0, len: 512 }));
        assert_eq!(whole(1, 1535), Some(Range { at: 512, len: 1024 }));
        assert_eq!(whole(1, 1022), None);
        assert_eq!(whole(100, 50), None);
    }
}
