//! The header as it stands in the file, and the fields of it that change while an image is open.

use std::mem::offset_of;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{HostOffset, Result, Storage, Uuid};

use crate::header::{Header, Uuids, Version};
use crate::layout::{HeaderV0, HeaderV1};

/// The header of an open image. It is written as a whole, inside one sector: the file has the old or
/// the new one.
#[derive(Debug)]
pub(crate) struct HeaderState {
    version: Version,
    /// `uuidModify` is that of this session's content.
    renewed: AtomicBool,
    now: Mutex<Now>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Now {
    bytes: Vec<u8>,
    uuids: Uuids,
}

/// A field of the header, by its place in both versions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    one: usize,
    /// `None`: version 0 has no such field.
    old: Option<usize>,
}

/// The place of a field that both versions have.
macro_rules! field {
    ($name:ident) => {
        Field { one: offset_of!(HeaderV1, $name), old: Some(offset_of!(HeaderV0, $name)) }
    };
}

const ALLOCATED: Field = field!(cBlocksAllocated);
const MODIFY: Field = field!(uuidModify);

impl HeaderState {
    /// The header in `bytes`. `is_new`: the image was just made, so nothing can have been made for
    /// its content yet.
    pub(crate) fn new(bytes: Vec<u8>, header: &Header, is_new: bool) -> Self {
        Self {
            version: header.version,
            renewed: AtomicBool::new(is_new),
            now: Mutex::new(Now { bytes, uuids: header.uuids }),
        }
    }

    /// The UUIDs now.
    pub(crate) fn uuids(&self) -> Uuids {
        self.lock().uuids
    }

    /// Gives the content a new name before it is changed for the first time: every image that was
    /// made over the old content is thereby told apart. Not flushed here; it is durable no later
    /// than what is written next.
    ///
    /// # Errors
    /// Those of the store; then it is tried again the next time.
    pub(crate) fn renew(&self, store: &dyn Storage) -> Result<()> {
        if self.renewed.load(Acquire) {
            return Ok(());
        }
        let mut now = self.lock();
        if self.renewed.load(Relaxed) {
            return Ok(());
        }
        let mut next = now.clone();
        next.uuids.modify = Uuid::random();
        self.put(&mut next.bytes, MODIFY, &next.uuids.modify.to_mixed_endian());
        Self::write(&mut now, next, store)?;
        self.renewed.store(true, Release);
        Ok(())
    }

    /// Writes the number of blocks in the file, if it changed.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn set_allocated(&self, count: u64, store: &dyn Storage) -> Result<()> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut now = self.lock();
        let mut next = now.clone();
        self.put(&mut next.bytes, ALLOCATED, &count.to_le_bytes());
        Self::write(&mut now, next, store)
    }

    fn write(now: &mut Now, next: Now, store: &dyn Storage) -> Result<()> {
        if *now != next {
            store.write_at(HostOffset::ZERO, &next.bytes)?;
            *now = next;
        }
        Ok(())
    }

    fn put(&self, bytes: &mut [u8], field: Field, value: &[u8]) {
        let at = if self.version == Version::One { Some(field.one) } else { field.old };
        let place = at.and_then(|at| bytes.get_mut(at..)?.get_mut(..value.len()));
        if let Some(place) = place {
            place.copy_from_slice(value);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
