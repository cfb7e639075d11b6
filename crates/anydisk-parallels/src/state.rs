//! The header as it stands in the file, and the fields of it that change while an image is open.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{Doubt, HostOffset, Result, Storage};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::header::{Header, Kind};
use crate::layout::{EMPTY, RawHeader, SECTOR, in_use};

/// The header of an open image. It is written as a whole, inside one sector: the file has the old or
/// the new one.
#[derive(Debug)]
pub(crate) struct HeaderState {
    now: Mutex<RawHeader>,
    /// The value of `in_use` that says that nobody writes.
    closed: u32,
    /// Something was written since the image was opened.
    begun: AtomicBool,
    /// Entries of the block table may have changed since it was written.
    changed: AtomicBool,
    /// Whether the size and the length of the table are those that are known.
    pub(crate) doubt: Doubt,
}

impl HeaderState {
    /// The header in `bytes`, which was parsed.
    pub(crate) fn new(bytes: &[u8], header: &Header) -> Self {
        let raw = RawHeader::read_from_prefix(bytes).map(|(raw, _)| raw);
        let closed = match header.kind {
            _ if !header.is_open() => header.in_use,
            Kind::Extended => in_use::CLOSED,
            Kind::Old => in_use::UNKNOWING,
        };
        Self {
            now: Mutex::new(raw.unwrap_or_else(|_| RawHeader::new_zeroed())),
            closed,
            begun: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            doubt: Doubt::default(),
        }
    }

    /// The cluster of the format extension, if there is one now.
    pub(crate) fn extension(&self) -> Option<HostOffset> {
        let sectors = self.lock().ext_off.get();
        (sectors != 0).then(|| HostOffset(sectors.saturating_mul(SECTOR)))
    }

    /// Whether the file says that somebody writes.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().in_use.get() == in_use::OPEN
    }

    /// Whether something was written since the image was opened.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Acquire)
    }

    /// Something is written from now on.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Release);
    }

    /// An entry of the block table is about to change: call it **before** it does.
    pub(crate) fn note_change(&self) {
        if !self.changed.load(Acquire) {
            self.changed.store(true, Release);
        }
    }

    /// Whether entries may have changed.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed.load(Acquire)
    }

    /// The same, and from now on none has.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, AcqRel)
    }

    /// Says in the file that somebody writes. Not flushed here.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn mark_open(&self, store: &dyn Storage) -> Result<()> {
        self.edit(store, |raw| {
            raw.in_use = in_use::OPEN.into();
            raw.flags = (raw.flags.get() & !EMPTY).into();
        })
    }

    /// Says in the file that nobody writes. Not flushed here.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn mark_closed(&self, store: &dyn Storage) -> Result<()> {
        self.edit(store, |raw| raw.in_use = self.closed.into())
    }

    /// Names another cluster as the format extension, or none. Not flushed here.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn set_extension(&self, at: HostOffset, store: &dyn Storage) -> Result<()> {
        self.edit(store, |raw| raw.ext_off = (at.get() / SECTOR).into())
    }

    /// Changes fields of the header, and writes it if one is different.
    pub(crate) fn edit(
        &self,
        store: &dyn Storage,
        change: impl FnOnce(&mut RawHeader),
    ) -> Result<()> {
        let mut now = self.lock();
        let mut next = *now;
        change(&mut next);
        if now.as_bytes() != next.as_bytes() {
            store.write_at(HostOffset::ZERO, next.as_bytes())?;
            *now = next;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, RawHeader> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
