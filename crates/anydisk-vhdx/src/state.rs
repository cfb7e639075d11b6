//! The headers of an image that is written.

use std::mem::offset_of;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{Doubt, HostOffset, Result, Storage, Uuid};
use zerocopy::IntoBytes;

use crate::crc;
use crate::header::Header;
use crate::layout::{HEADERS, RawHeader};

/// Bytes of a header.
const LEN: usize = 4096;

/// The header that counts, and where it is. Another one is written to the other place first, so that
/// the file has a good one at any time.
#[derive(Debug)]
pub(crate) struct HeaderState {
    now: Mutex<(RawHeader, usize)>,
    /// The GUIDs are those of this session.
    renewed: AtomicBool,
    /// Whether the size and the place of the table are those that are known.
    pub(crate) doubt: Doubt,
}

impl HeaderState {
    /// `is_new`: the image was just made, so nothing can have been made for its content yet.
    pub(crate) fn new(header: &Header, is_new: bool) -> Self {
        let now = Mutex::new((header.raw, header.which));
        Self { now, renewed: AtomicBool::new(is_new), doubt: Doubt::default() }
    }

    /// Names the content now.
    pub(crate) fn data_write(&self) -> Uuid {
        Uuid::from_mixed_endian(self.lock().0.DataWriteGuid)
    }

    /// Gives file and content new names before they are changed for the first time.
    ///
    /// # Errors
    /// Those of the store; then it is tried again the next time. `ReadOnly` where there is doubt.
    pub(crate) fn renew(&self, store: &dyn Storage) -> Result<()> {
        self.doubt.check()?;
        if self.renewed.load(Acquire) {
            return Ok(());
        }
        let mut now = self.lock();
        if self.renewed.load(Relaxed) {
            return Ok(());
        }
        let mut raw = now.0;
        raw.FileWriteGuid = Uuid::random().to_mixed_endian();
        raw.DataWriteGuid = Uuid::random().to_mixed_endian();
        Self::put(&mut now, raw, store)?;
        self.renewed.store(true, Release);
        Ok(())
    }

    /// Gives the file another name, and the content none: what the disk shows stays as it is. Both
    /// headers are written.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn renew_file(&self, store: &dyn Storage) -> Result<()> {
        let mut now = self.lock();
        let mut raw = now.0;
        raw.FileWriteGuid = Uuid::random().to_mixed_endian();
        Self::put(&mut now, raw, store)
    }

    /// Says that entries of this GUID are to be replayed.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn name_log(&self, guid: [u8; 16], store: &dyn Storage) -> Result<()> {
        let mut now = self.lock();
        let raw = RawHeader { LogGuid: guid, LogVersion: 0.into(), ..now.0 };
        Self::put(&mut now, raw, store)
    }

    /// Says that there is nothing to be replayed any more.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn forget_log(&self, store: &dyn Storage) -> Result<()> {
        let mut now = self.lock();
        let raw = RawHeader { LogGuid: [0; 16], ..now.0 };
        Self::put(&mut now, raw, store)
    }

    /// Writes the header over the one that does not count, then over the other, the first durable
    /// before the second is touched.
    fn put(now: &mut (RawHeader, usize), mut raw: RawHeader, store: &dyn Storage) -> Result<()> {
        for _ in HEADERS {
            let other = 1 - now.1.min(1);
            raw.SequenceNumber = now.0.SequenceNumber.get().wrapping_add(1).into();
            let at = HEADERS.get(other).copied().unwrap_or_default();
            store.write_at(HostOffset(at), &bytes_of(&raw))?;
            store.flush()?;
            *now = (raw, other);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, (RawHeader, usize)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All bytes of a header, with its checksum.
pub(crate) fn bytes_of(raw: &RawHeader) -> Vec<u8> {
    let mut bytes = raw.as_bytes().to_vec();
    bytes.resize(LEN, 0);
    seal(&mut bytes, offset_of!(RawHeader, Checksum));
    bytes
}

/// Puts the checksum of a structure at `at`.
pub(crate) fn seal(bytes: &mut [u8], at: usize) {
    let sum = crc::of_structure(bytes, at).to_le_bytes();
    if let Some(place) = bytes.get_mut(at..at + sum.len()) {
        place.copy_from_slice(&sum);
    }
}
