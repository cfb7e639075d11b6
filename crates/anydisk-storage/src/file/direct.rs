//! Direct I/O: past the page cache, in whole blocks.
//!
//! What is not aligned goes through an aligned buffer; a write that covers a block in part reads
//! it first. Such a write must not run beside another that touches the same block, or the bytes
//! of the other are lost: whole-block operations hold the gate shared, partial ones alone.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::io::Errno;

use super::kind::FileKind;
use super::{FileStorage, io};
use crate::{AlignedBuffer, Error, HostOffset, Result, Storage};

/// Bytes that pass through the buffer at a time.
const BOUNCE: usize = 1 << 20;

/// What direct I/O on one file asks for.
#[derive(Debug)]
pub(super) struct Direct {
    /// Offsets, lengths and addresses are multiples of this; a power of two.
    alignment: usize,
    gate: RwLock<()>,
}

impl Direct {
    /// Asks the kernel what the file needs.
    pub(super) fn of(fd: impl AsFd, kind: FileKind, name: &str) -> Result<Self> {
        let unsupported = || Error::Unsupported { store: name.into(), what: "direct I/O" };
        let alignment = find_alignment(fd, kind)
            .map_err(|errno| Error::whole("find the alignment of", name, errno))?
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| bytes.is_power_of_two() && *bytes <= BOUNCE)
            .ok_or_else(unsupported)?;
        Ok(Self { alignment, gate: RwLock::new(()) })
    }

    /// See [`Storage::alignment`].
    pub(super) const fn alignment(&self) -> usize {
        self.alignment
    }

    /// Held while whole blocks are read or changed.
    pub(super) fn whole_blocks(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a part of a block is changed.
    fn partial_blocks(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, at: HostOffset, memory: &[u8]) -> bool {
        at.is_aligned(self.alignment as u64) && self.fits_memory(memory)
    }

    fn fits_memory(&self, memory: &[u8]) -> bool {
        (memory.as_ptr().addr() | memory.len()) & (self.alignment - 1) == 0
    }
}

/// The alignment in bytes; `None` if the file cannot do direct I/O at all.
#[cfg(target_os = "linux")]
fn find_alignment(fd: impl AsFd, kind: FileKind) -> Result<Option<u32>, Errno> {
    use rustix::fs::{AtFlags, StatxFlags};

    let stat = rustix::fs::statx(fd.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    if let Ok(stat) = stat
        && stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0
    {
        let alignment = stat.stx_dio_offset_align.max(stat.stx_dio_mem_align);
        return Ok((stat.stx_dio_offset_align != 0).then_some(alignment));
    }
    match kind {
        FileKind::Block => rustix::fs::ioctl_blksszget(fd).map(Some),
        // Kernels before 6.1 do not say; no file system in use needs more.
        FileKind::Regular => Ok(Some(4096)),
    }
}

#[cfg(not(target_os = "linux"))]
fn find_alignment(_: impl AsFd, _: FileKind) -> Result<Option<u32>, Errno> {
    Ok(None)
}

impl FileStorage {
    pub(super) fn read_direct(
        &self,
        direct: &Direct,
        at: HostOffset,
        buf: &mut [u8],
    ) -> Result<usize> {
        let len = buf.len() as u64;
        let _shared = direct.whole_blocks();
        let result = match direct.fits(at, buf) {
            true => io::read_full(self.file.as_fd(), at.get(), buf, direct.alignment),
            false => self.read_bounced(direct, at.get(), buf),
        };
        result.map_err(|errno| self.io_error("read", at, len, errno))
    }

    pub(super) fn write_direct(&self, direct: &Direct, at: HostOffset, data: &[u8]) -> Result<()> {
        self.check_writable()?;
        let result = match direct.fits(at, data) {
            true => {
                let _shared = direct.whole_blocks();
                io::write_full(self.file.as_fd(), at.get(), data)
            }
            false => self.write_bounced(direct, at.get(), data),
        };
        self.runs.written();
        result.map_err(|errno| self.write_error("write", at, data.len() as u64, errno))
    }

    pub(super) fn read_direct_vectored(
        &self,
        direct: &Direct,
        at: HostOffset,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Result<usize> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut whole = AlignedBuffer::zeroed(total, direct.alignment);
        let count = self.read_at(at, &mut whole)?;
        let mut rest = &whole[..count];
        for buf in bufs {
            let (part, after) = rest.split_at(rest.len().min(buf.len()));
            buf[..part.len()].copy_from_slice(part);
            rest = after;
        }
        Ok(count)
    }

    pub(super) fn write_direct_vectored(
        &self,
        direct: &Direct,
        at: HostOffset,
        data: &[IoSlice<'_>],
    ) -> Result<()> {
        let total: usize = data.iter().map(|part| part.len()).sum();
        let mut whole = AlignedBuffer::zeroed(total, direct.alignment);
        let mut rest = &mut whole[..];
        for part in data {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        self.write_at(at, &whole)
    }

    /// Reads whole blocks into a buffer and hands on the part that was asked for.
    fn read_bounced(&self, direct: &Direct, at: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut bounce = bounce_for(direct, buf.len());
        let mut done = 0;
        while done < buf.len() {
            let Some(piece) = Piece::at(at, done, buf.len(), direct) else { break };
            let blocks = &mut bounce[..piece.blocks_len];
            let count = io::read_full(self.file.as_fd(), piece.start, blocks, direct.alignment)?;
            let usable = count.min(piece.skip + piece.len).saturating_sub(piece.skip);
            buf[done..][..usable].copy_from_slice(&bounce[piece.skip..][..usable]);
            done += usable;
            if usable < piece.len {
                break;
            }
        }
        Ok(done)
    }

    fn write_bounced(&self, direct: &Direct, at: u64, data: &[u8]) -> Result<(), Errno> {
        let _alone = direct.partial_blocks();
        let len = io::len(self.file.as_fd(), self.kind)?;
        let result = self.write_pieces(direct, at, data);
        self.cut_padding(len.max(at.saturating_add(data.len() as u64)))?;
        result
    }

    fn write_pieces(&self, direct: &Direct, at: u64, data: &[u8]) -> Result<(), Errno> {
        let mut bounce = bounce_for(direct, data.len());
        let mut done = 0;
        while done < data.len() {
            let piece = Piece::at(at, done, data.len(), direct).ok_or(Errno::FBIG)?;
            self.load_edges(direct, &piece, &mut bounce)?;
            bounce[piece.skip..][..piece.len].copy_from_slice(&data[done..][..piece.len]);
            io::write_full(self.file.as_fd(), piece.start, &bounce[..piece.blocks_len])?;
            done += piece.len;
        }
        Ok(())
    }

    /// Reads the first and the last block of `piece` where the write covers them in part.
    fn load_edges(&self, direct: &Direct, piece: &Piece, bounce: &mut [u8]) -> Result<(), Errno> {
        let block = direct.alignment;
        let last = piece.blocks_len - block;
        let head = piece.skip > 0;
        let tail = piece.skip + piece.len < piece.blocks_len;
        if head {
            self.load_block(piece.start, 0, &mut bounce[..block])?;
        }
        if tail && !(head && last == 0) {
            self.load_block(piece.start, last, &mut bounce[last..][..block])?;
        }
        Ok(())
    }

    /// One block; what lies past the end of the file is zero.
    fn load_block(&self, start: u64, within: usize, block: &mut [u8]) -> Result<(), Errno> {
        let count = io::read_full(self.file.as_fd(), start + within as u64, block, block.len())?;
        block[count..].fill(0);
        Ok(())
    }

    /// A partial last block was written whole: gives the file back its length in bytes.
    fn cut_padding(&self, len: u64) -> Result<(), Errno> {
        let padded = self.kind == FileKind::Regular && io::len(self.file.as_fd(), self.kind)? > len;
        if padded { rustix::fs::ftruncate(&self.file, len) } else { Ok(()) }
    }
}

/// Memory for the pieces of a request of `len` bytes.
fn bounce_for(direct: &Direct, len: usize) -> AlignedBuffer {
    // Up to one block before the request and one behind it.
    let most = len.saturating_add(2 * direct.alignment).min(BOUNCE);
    AlignedBuffer::zeroed(most.next_multiple_of(direct.alignment), direct.alignment)
}

/// A part of a request together with the whole blocks that hold it.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    /// Where the blocks begin.
    start: u64,
    /// Bytes of the blocks before the part.
    skip: usize,
    /// Bytes of the part.
    len: usize,
    /// Bytes of the blocks; at most [`BOUNCE`].
    blocks_len: usize,
}

impl Piece {
    /// The piece that begins `done` bytes into a request of `total` bytes at `at`; `None` past the
    /// end of all offsets.
    fn at(at: u64, done: usize, total: usize, direct: &Direct) -> Option<Self> {
        let place = at.checked_add(done as u64).filter(|&place| place < io::END_OF_OFFSETS)?;
        let skip = usize::try_from(place % direct.alignment as u64).ok()?;
        let len = (total - done).min(BOUNCE - skip);
        let blocks_len = (skip + len).next_multiple_of(direct.alignment);
        Some(Self { start: place - skip as u64, skip, len, blocks_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks_of(alignment: usize) -> Direct {
        Direct { alignment, gate: RwLock::new(()) }
    }

    #[test]
    fn a_piece_is_widened_to_whole_blocks() {
        let piece = Piece::at(1000, 0, 100, &blocks_of(512)).unwrap();
        assert_eq!(piece, Piece { start: 512, skip: 488, len: 100, blocks_len: 1024 });
    }

    #[test]
    fn pieces_of_a_long_request_meet_without_gap_and_fit_the_buffer() {
        let direct = blocks_of(4096);
        let total = 3 * BOUNCE + 5;
        let mut done = 0;
        while done < total {
            let piece = Piece::at(7, done, total, &direct).unwrap();
            assert_eq!(piece.start + piece.skip as u64, 7 + done as u64);
            assert!(piece.blocks_len <= BOUNCE && piece.len > 0);
            assert_eq!(piece.blocks_len % 4096, 0);
            done += piece.len;
        }
        assert_eq!(done, total);
    }
}
