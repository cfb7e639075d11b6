//! An encrypted store, seen plainly.

use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(unix)]
use anydisk_storage::RawFile;
use anydisk_storage::{
    AlignedBuffer, CopyFrom, Error, Holes, HostOffset, Identity, Result, Space, Storage, StorageExt,
};

use crate::SectorCipher;
use crate::sector::{MAX_SECTOR, SECTOR};

/// What lies past the end of the encrypted store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PastEnd {
    /// Nothing: reads end with its last whole sector, and writes do not go further (a LUKS volume,
    /// which is as long as its file).
    Nothing,
    /// Zero bytes of **ciphertext**, which decrypt to noise. Reads are never short, writes make the
    /// store longer (qcow2, the file of which may end inside a cluster; as qemu reads it).
    Ciphertext,
}

/// A decrypting and encrypting view of another store. Byte `n` here is byte `n` there; the IV of a
/// sector is its position in the store, in 512-byte units, plus a number that is the same for all.
///
/// ```text
///   plain       | sector | sector | se###or | sector |      any bytes are read and written
///                                     |
///   encrypted   | ...... | ...... | ####### | ...... |      whole sectors, read, changed, written
/// ```
///
/// Reads and writes of other bytes do not disturb each other, also in the same sector: whoever
/// writes holds a part of the store for itself, 256 KiB long, that others read together.
///
/// It has no [`fd`](Storage::fd), since bytes are changed on the way, no
/// [`holes`](Storage::holes), since a hole does not read as zero, and so no
/// [`space`](Storage::space) and no [`copier`](Storage::copier).
#[derive(Debug)]
pub struct EncryptedStorage {
    store: Arc<dyn Storage>,
    cipher: Arc<SectorCipher>,
    first: u64,
    past_end: PastEnd,
    locks: Arc<[RwLock<()>]>,
}

/// Bytes that are locked, read and written at once. A power of two.
const REGION: u64 = 256 << 10;

/// Regions share this many locks.
const LOCKS: usize = 64;

impl EncryptedStorage {
    /// The bytes of `store`, of which those past the end are what `past_end` says. Its first byte
    /// is in sector `first`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Storage>,
        cipher: SectorCipher,
        first: u64,
        past_end: PastEnd,
    ) -> Self {
        let locks = (0..LOCKS).map(|_| RwLock::new(())).collect();
        Self { store, cipher: Arc::new(cipher), first, past_end, locks }
    }

    /// Another view of the same store, the first byte of which is in sector `first`. Both keep to
    /// the same locks.
    #[must_use]
    pub(crate) fn renumbered(&self, first: u64) -> Self {
        let (store, cipher) = (Arc::clone(&self.store), Arc::clone(&self.cipher));
        Self { store, cipher, first, past_end: self.past_end, locks: Arc::clone(&self.locks) }
    }

    /// The store with the encrypted bytes.
    #[must_use]
    pub fn encrypted(&self) -> &Arc<dyn Storage> {
        &self.store
    }

    /// The encryption.
    #[must_use]
    pub fn cipher(&self) -> &SectorCipher {
        &self.cipher
    }

    fn sector(&self) -> u64 {
        self.cipher.sector_size() as u64
    }

    fn number(&self, at: u64) -> u64 {
        self.first.wrapping_add(at / SECTOR)
    }

    fn lock_of(&self, at: u64) -> &RwLock<()> {
        &self.locks[usize::try_from(at / REGION % LOCKS as u64).unwrap_or(0)]
    }

    fn shared(&self, at: u64) -> RwLockReadGuard<'_, ()> {
        self.lock_of(at).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self, at: u64) -> RwLockWriteGuard<'_, ()> {
        self.lock_of(at).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads whole sectors as they lie in the store, and says how many of the bytes are there.
    fn read_sectors(&self, at: u64, buf: &mut [u8]) -> Result<usize> {
        let count = self.store.read_at(HostOffset(at), buf)?;
        match self.past_end {
            PastEnd::Nothing => Ok(count - count % self.cipher.sector_size()),
            PastEnd::Ciphertext => {
                buf[count..].fill(0);
                Ok(buf.len())
            }
        }
    }

    /// Reads and decrypts whole sectors, and says how many bytes there are.
    fn read_whole(&self, at: u64, buf: &mut [u8]) -> Result<usize> {
        let count = self.read_sectors(at, buf)?;
        self.cipher.decrypt(self.number(at), &mut buf[..count]);
        Ok(count)
    }

    /// Reads a part of one region.
    fn read_part(&self, at: u64, buf: &mut [u8]) -> Result<usize> {
        let _shared = self.shared(at);
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            let (wanted, count) = self.read_piece(at + done as u64, rest)?;
            done += count;
            if count < wanted {
                break;
            }
        }
        Ok(done)
    }

    /// Reads as many whole sectors as there are at the start of `buf`, or else the part of one
    /// sector. Answers how many bytes that would be, and how many it was.
    fn read_piece(&self, at: u64, buf: &mut [u8]) -> Result<(usize, usize)> {
        let sector = self.cipher.sector_size();
        let inside = len_of(at % self.sector());
        let whole = buf.len() - buf.len() % sector;
        if inside == 0 && whole > 0 {
            return Ok((whole, self.read_whole(at, &mut buf[..whole])?));
        }
        let mut scratch = [0; MAX_SECTOR];
        let count = self.read_whole(at - inside as u64, &mut scratch[..sector])?;
        let wanted = buf.len().min(sector - inside);
        let found = wanted.min(count.saturating_sub(inside));
        buf[..found].copy_from_slice(&scratch[inside..inside + found]);
        Ok((wanted, found))
    }

    /// Writes a part of one region.
    fn write_part(&self, at: u64, len: usize, parts: &mut Parts<'_, '_>) -> Result<()> {
        let sector = self.sector();
        let start = at - at % sector;
        let end = (at + len as u64).next_multiple_of(sector);
        let mut buffer = AlignedBuffer::zeroed(len_of(end - start), self.store.alignment());
        let inside = len_of(at - start);
        if start == at && end == at + len as u64 {
            parts.take(&mut buffer);
            self.cipher.encrypt(self.number(start), &mut buffer);
            let _alone = self.alone(at);
            return self.store.write_at(HostOffset(start), &buffer);
        }
        let _alone = self.alone(at);
        self.read_edges(start, inside, len, &mut buffer)?;
        parts.take(&mut buffer[inside..inside + len]);
        self.cipher.encrypt(self.number(start), &mut buffer);
        self.store.write_at(HostOffset(start), &buffer)
    }

    /// Reads the first and the last sector of `buffer`, where the `len` bytes from `inside` on do
    /// not cover them.
    fn read_edges(&self, start: u64, inside: usize, len: usize, buffer: &mut [u8]) -> Result<()> {
        let sector = self.cipher.sector_size();
        let last = buffer.len() - sector;
        if inside > 0 || len < sector {
            self.read_whole(start, &mut buffer[..sector])?;
        }
        if last > 0 && inside + len < buffer.len() {
            self.read_whole(start + last as u64, &mut buffer[last..])?;
        }
        Ok(())
    }

    fn write_all(&self, at: HostOffset, parts: &[IoSlice<'_>]) -> Result<()> {
        let total: u64 = parts.iter().map(|part| part.len() as u64).sum();
        self.check_write(at, total)?;
        let mut parts = Parts { rest: parts, skip: 0 };
        let mut done = 0;
        while done < total {
            let here = at.get() + done;
            let len = (REGION - here % REGION).min(total - done);
            self.write_part(here, len_of(len), &mut parts)?;
            done += len;
        }
        Ok(())
    }

    /// No write reaches past the end, unless the store may grow; and none past the last address.
    fn check_write(&self, at: HostOffset, len: u64) -> Result<()> {
        // A sector more, so that rounding up cannot overflow.
        let end = at.checked_add(len).filter(|end| end.get() <= u64::MAX - MAX_SECTOR as u64);
        let fits = match (end, self.past_end) {
            (Some(_), PastEnd::Ciphertext) => true,
            (Some(end), PastEnd::Nothing) => len == 0 || end.get() <= self.len()?,
            (None, _) => false,
        };
        if fits { Ok(()) } else { Err(self.out_of_range(at, len)) }
    }

    /// Writes encrypted zeroes, so that what is new reads as zero.
    fn zero_from(&self, mut at: u64, end: u64) -> Result<()> {
        let zeroes = vec![0; len_of(REGION)];
        while at < end {
            let len = (REGION - at % REGION).min(end - at);
            self.write_all(HostOffset(at), &[IoSlice::new(&zeroes[..len_of(len)])])?;
            at += len;
        }
        Ok(())
    }
}

/// A length that lies in a region, or in a buffer that is in memory already.
fn len_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// What is left to be written of several buffers.
struct Parts<'a, 'b> {
    rest: &'a [IoSlice<'b>],
    /// Bytes of the first that are done.
    skip: usize,
}

impl Parts<'_, '_> {
    /// Fills `buffer` from what is left.
    fn take(&mut self, mut buffer: &mut [u8]) {
        while let (false, Some((first, rest))) = (buffer.is_empty(), self.rest.split_first()) {
            let bytes = &first[self.skip..];
            let len = bytes.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(len);
            now.copy_from_slice(&bytes[..len]);
            buffer = later;
            self.skip += len;
            if self.skip == first.len() {
                (self.rest, self.skip) = (rest, 0);
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for EncryptedStorage {
    fn len(&self) -> Result<u64> {
        let len = self.store.len()?;
        match self.past_end {
            PastEnd::Nothing => Ok(len - len % self.sector()),
            PastEnd::Ciphertext => Ok(len),
        }
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        if at.checked_add(buf.len() as u64 + SECTOR).is_none() {
            return Ok(0); // No store reaches that far.
        }
        let mut done = 0;
        while done < buf.len() {
            let here = at.get() + done as u64;
            let room = len_of(REGION - here % REGION).min(buf.len() - done);
            let count = self.read_part(here, &mut buf[done..done + room])?;
            done += count;
            if count < room {
                break;
            }
        }
        Ok(done)
    }

    fn read_vectored_at(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        let mut done = 0;
        for buf in bufs {
            let count = self.read_at(at.saturating_add(done as u64), buf)?;
            done += count;
            if count < buf.len() {
                break;
            }
        }
        Ok(done)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        self.write_all(at, &[IoSlice::new(data)])
    }

    fn write_vectored_at(&self, at: HostOffset, data: &[IoSlice<'_>]) -> Result<()> {
        self.write_all(at, data)
    }

    /// Growing writes encrypted zeroes, since the bytes that a file grows by decrypt to noise. Where
    /// what lies past the end is noise as it is, it stays so.
    fn set_len(&self, len: u64) -> Result<()> {
        if self.past_end == PastEnd::Ciphertext {
            return self.store.set_len(len);
        }
        let before = self.len()?;
        if !len.is_multiple_of(self.sector()) {
            let (store, what) = (self.name().into(), "this length of an encrypted store");
            return Err(Error::Unsupported { store, what });
        }
        self.store.set_len(len)?;
        self.zero_from(before, len)
    }

    fn flush(&self) -> Result<()> {
        self.store.flush()
    }

    fn is_writable(&self) -> bool {
        self.store.is_writable()
    }

    fn name(&self) -> &str {
        self.store.name()
    }

    fn alignment(&self) -> usize {
        self.store.alignment().max(self.cipher.sector_size())
    }

    fn holes(&self) -> Option<&dyn Holes> {
        None
    }

    fn space(&self) -> Option<&dyn Space> {
        None
    }

    fn copier(&self) -> Option<&dyn CopyFrom> {
        None
    }

    fn identity(&self) -> Option<Identity> {
        self.store.identity()
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<RawFile<'_>> {
        None
    }

    fn prefetch(&self, at: HostOffset, len: u64) {
        self.store.prefetch(at, len);
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
