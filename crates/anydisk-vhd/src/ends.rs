//! The two ends of a file: the footer behind everything else, and its copy at the start.

use std::mem::offset_of;
use std::sync::{MutexGuard, PoisonError};

use anydisk_core::{HostOffset, Result, Storage};
use zerocopy::{FromBytes, IntoBytes};

use crate::footer::{FOOTER_LEN, Found, checksum};
use crate::image::Parts;
use crate::layout::{RawFooter, SECTOR};
use crate::write::Writer;

/// The footer, and where it is.
#[derive(Debug)]
pub(crate) struct Ends {
    bytes: [u8; FOOTER_LEN],
    at: Option<HostOffset>,
    /// The copy at the start of the file is good.
    has_copy: bool,
}

impl Ends {
    pub(crate) fn new(parts: &Parts) -> Self {
        let mut bytes = [0; FOOTER_LEN];
        bytes.copy_from_slice(parts.footer.raw.as_bytes());
        let at = match parts.found {
            Found::End(at) => Some(at),
            Found::Start => None,
        };
        Self { bytes, at, has_copy: parts.has_copy }
    }
}

impl Writer {
    fn lock_ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another footer in place of the one that is there, at the end of the file first, which is
    /// the one that counts, and each durable before the next. What it names is durable.
    ///
    /// # Errors
    /// Those of the store; then nothing is written any more.
    pub(crate) fn switch_footer(
        &self,
        store: &dyn Storage,
        change: impl FnOnce(&mut RawFooter),
    ) -> Result<()> {
        {
            let mut ends = self.lock_ends();
            let mut raw = RawFooter::read_from_bytes(&ends.bytes).expect("it is as long");
            change(&mut raw);
            raw.checksum = checksum(raw.as_bytes(), offset_of!(RawFooter, checksum)).into();
            ends.bytes.copy_from_slice(raw.as_bytes());
            ends.at = None;
        }
        self.doubt.during(|| {
            self.write_end(store)?;
            store.flush()?;
            self.lock_ends().has_copy = false;
            self.write_footer(store)?;
            Ok(store.flush()?)
        })
    }

    /// Sees to it that the copy at the start is good, and durable: before anything is written where
    /// the footer is, since it serves until there is another one.
    pub(crate) fn secure_copy(&self, store: &dyn Storage) -> Result<()> {
        let mut ends = self.lock_ends();
        if !ends.has_copy {
            store.write_at(HostOffset::ZERO, &ends.bytes)?;
            store.flush()?;
            ends.has_copy = true;
        }
        Ok(())
    }

    /// Where the header is.
    pub(crate) fn header_at(&self) -> HostOffset {
        let raw = RawFooter::read_from_bytes(&self.lock_ends().bytes).expect("it is as long");
        HostOffset(raw.data_offset.get())
    }

    /// Ends the file with its footer, and mends the copy.
    pub(crate) fn write_footer(&self, store: &dyn Storage) -> Result<()> {
        let mut ends = self.lock_ends();
        if !ends.has_copy {
            store.write_at(HostOffset::ZERO, &ends.bytes)?;
            ends.has_copy = true;
        }
        drop(ends);
        self.write_end(store)
    }

    fn write_end(&self, store: &dyn Storage) -> Result<()> {
        let mut ends = self.lock_ends();
        self.space.at_end(|end| -> Result<()> {
            let at = HostOffset(end.get().next_multiple_of(SECTOR));
            let (end, len) = (at.saturating_add(FOOTER_LEN as u64).get(), store.len()?);
            if len == end && ends.at == Some(at) {
                return Ok(());
            }
            ends.at = None;
            store.write_at(at, &ends.bytes)?;
            if len > end {
                // The footer that is cut off counts until then.
                store.flush()?;
                store.set_len(end)?;
            }
            ends.at = Some(at);
            Ok(())
        })
    }

    /// Ends the file before what was freed at its end.
    pub(crate) fn shorten(&self, store: &dyn Storage) -> Result<()> {
        let end = self.space.at_end(|end| end.get().next_multiple_of(SECTOR));
        let is_shorter = self.lock_ends().at.is_some_and(|at| end < at.get());
        if is_shorter { self.write_end(store) } else { Ok(()) }
    }
}
