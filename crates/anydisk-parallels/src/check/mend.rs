//! Mending: what was found wrong is made good, each step durable before the next.

use anydisk_core::{Block, BlockEntries, HostOffset, Result, Storage, narrow};

use super::MOST_FAULTS;
use crate::copy::copy_cluster;
use crate::header::{Header, limit};
use crate::layout::SECTOR;
use crate::state::HeaderState;
use crate::table::Entries;

/// What a repair does, in the end or at once; nothing if none was asked for.
pub(super) struct Mending<'a> {
    store: &'a dyn Storage,
    state: HeaderState,
    is_asked: bool,
    /// Entries, and the places of clusters of which they get a copy.
    copies: Vec<(HostOffset, HostOffset)>,
    /// Entries that are cleared.
    cleared: Vec<HostOffset>,
}

impl<'a> Mending<'a> {
    pub(super) fn new(
        bytes: &[u8],
        header: &Header,
        store: &'a dyn Storage,
        is_asked: bool,
    ) -> Self {
        let state = HeaderState::new(bytes, header);
        Self { store, state, is_asked, copies: Vec::new(), cleared: Vec::new() }
    }

    /// Writes where the clusters begin.
    pub(super) fn set_first(&self, first: HostOffset) -> Result<()> {
        self.edit(|raw| raw.data_off = narrow(first.get() / SECTOR).into())
    }

    /// The image has no format extension from now on.
    pub(super) fn drop_extension(&self) -> Result<()> {
        self.edit(|raw| raw.ext_off = 0.into())
    }

    fn edit(&self, change: impl FnOnce(&mut crate::layout::RawHeader)) -> Result<()> {
        if !self.is_asked {
            return Ok(());
        }
        self.state.edit(self.store, change)?;
        Ok(self.store.flush()?)
    }

    /// Keeps in mind that the entry at `at` is wrong: it is cleared, or gets a copy of what is at
    /// `place`.
    pub(super) fn note(&mut self, at: HostOffset, place: HostOffset, is_lost: bool) -> Result<()> {
        let count = (self.copies.len() + self.cleared.len()) as u64;
        limit("damage to be repaired, in entries", count, MOST_FAULTS)?;
        match is_lost {
            true => self.cleared.push(at),
            false => self.copies.push((at, place)),
        }
        Ok(())
    }

    /// Mends the entries that were noted: first those that are cleared, so that none names a place behind
    /// the end of the file; the copies behind its `in_file` clusters; then the entries that name them.
    pub(super) fn finish(&self, header: &Header, in_file: u64) -> Result<()> {
        if self.copies.is_empty() && self.cleared.is_empty() {
            return Ok(());
        }
        self.state.mark_open(self.store)?;
        let entries = Entries::of(header);
        self.put_entries(self.cleared.iter().map(|at| (*at, 0)))?;
        let mut changes = Vec::with_capacity(self.copies.len());
        for ((at, from), number) in self.copies.iter().zip(in_file..) {
            let to = header.cluster_at(number);
            let entry = entries.encode(Block::At(to), header.first);
            let entry = entry.ok_or_else(|| entries.full(to))?;
            copy_cluster(self.store, *from, to, header.cluster)?;
            changes.push((*at, narrow(entry)));
        }
        self.store.flush()?;
        self.put_entries(changes)
    }

    fn put_entries(&self, entries: impl IntoIterator<Item = (HostOffset, u32)>) -> Result<()> {
        for (at, entry) in entries {
            self.store.write_at(at, &entry.to_le_bytes())?;
        }
        Ok(self.store.flush()?)
    }

    /// Takes the mark back, if all is good now.
    pub(super) fn close(&self, is_good: bool) -> Result<()> {
        if !self.is_asked || !is_good {
            return Ok(());
        }
        self.state.mark_closed(self.store)?;
        Ok(self.store.flush()?)
    }
}
