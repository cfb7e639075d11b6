//! Mending: each step durable before the next.

use anydisk_core::{HostOffset, Result, StorageExt};

use super::{Check, Headers};
use crate::header::limit;
use crate::layout::MIB;
use crate::limits;
use crate::table::{ENTRY, Shape};

/// Entries that one repair mends: they are kept in memory, and copies take space.
const MOST: u64 = 1 << 20;

/// What is done about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It becomes this.
    Entry(u64),
    /// What it names is copied to a place of its own.
    Copy,
    /// The file gets all of what it names.
    Fill,
}

/// Entries that are to be mended: their numbers, what they are, what is done.
#[derive(Debug)]
pub(super) struct Mend {
    entries: Vec<(u64, u64, Change)>,
    /// Bytes that the file is to have beside copies.
    end: u64,
    block: u64,
}

impl Mend {
    pub(super) fn new(shape: &Shape) -> Self {
        let end = shape.end.get().next_multiple_of(MIB);
        Self { entries: Vec::new(), end, block: shape.block }
    }

    /// # Errors
    /// `Limit` for more damage than can be kept in mind.
    pub(super) fn push(&mut self, number: u64, entry: u64, change: Change) -> Result<()> {
        limit("damage to be repaired, in entries", self.entries.len() as u64, MOST)?;
        if change == Change::Fill {
            // The block that the file ends in.
            self.end = self.end.max((entry & !(MIB - 1)) + self.block);
        }
        self.entries.push((number, entry, change));
        Ok(())
    }
}

impl Check<'_> {
    /// Writes headers anew, if one was damaged or the log is done with.
    pub(super) fn put_headers(&self) -> Result<()> {
        match self.headers {
            Some(Headers::ForgetLog) => self.state.forget_log(&*self.file),
            Some(Headers::Renew) if self.mends() => self.state.renew_file(&*self.file),
            _ => Ok(()),
        }
    }

    pub(super) fn put_region_table(&self) -> Result<()> {
        match &self.region_table {
            Some((at, bytes)) if self.mends() => {
                self.file.write_at(*at, bytes)?;
                Ok(self.file.flush()?)
            }
            _ => Ok(()),
        }
    }

    /// Entries that change, so that none names a place behind the end of the file; the length of the file and
    /// copies there; then the entries that name them.
    pub(super) fn mend(&self, shape: &Shape, mend: &Mend) -> Result<()> {
        if mend.entries.is_empty() && mend.end == shape.end.get() {
            return Ok(());
        }
        self.state.renew_file(&*self.file)?;
        self.put_entries(
            shape,
            mend.entries.iter().filter_map(|(number, _, change)| match change {
                Change::Entry(entry) => Some((*number, *entry)),
                Change::Copy | Change::Fill => None,
            }),
        )?;
        let (mut end, mut entries) = (mend.end, Vec::new());
        for (number, entry, change) in &mend.entries {
            let (at, slot) = (HostOffset(entry & !(MIB - 1)), shape.slot(*number));
            match change {
                Change::Entry(_) | Change::Fill => {}
                Change::Copy => {
                    self.copy(at, HostOffset(end), shape.len_of(slot))?;
                    entries.push((*number, end | entry & 7));
                    end += shape.len_of(slot);
                    limit("size of the file in bytes", end, limits::FILE)?;
                }
            }
        }
        if end != shape.end.get() {
            self.file.set_len(end)?;
        }
        self.file.flush()?;
        self.put_entries(shape, entries)
    }

    fn put_entries(
        &self,
        shape: &Shape,
        entries: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<()> {
        for (number, entry) in entries {
            let at = shape.table.saturating_add(number * ENTRY);
            self.file.write_at(at, &entry.to_le_bytes())?;
        }
        Ok(self.file.flush()?)
    }

    fn copy(&self, from: HostOffset, to: HostOffset, len: u64) -> Result<()> {
        let mut done = 0;
        while done < len {
            let count = (len - done).min(MIB);
            let mut bytes = vec![0; usize::try_from(count).expect("1 MiB at most")];
            self.file.read_padded_at(from.saturating_add(done), &mut bytes)?;
            self.file.write_at(to.saturating_add(done), &bytes)?;
            done += count;
        }
        Ok(())
    }
}
