//! Another size of the disk: one field of the header.
//!
//! Growing: entries behind the old end are emptied; flush; zeroes where the disk below, or the rest of the last
//! cluster, would show; flush; the header. Shrinking goes the other way: the header first, then what is behind
//! the new end is given back.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{
    Error, GuestOffset, GuestRange, HostOffset, Image, ImageWrite, NewSize, Preallocation, Resize,
    Result, Storage, Updated,
};

use super::index_in;
use crate::image::{Level, Look, QedImage};
use crate::piece::{Piece, each_word};
use crate::table::{ENTRY, SLICE, SLICE_LEN, SliceAt};
use crate::{Header, NAME};

impl Resize for QedImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let writer = self.writing()?;
        let _one = writer.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        if new.preallocation != Preallocation::Off {
            let feature = "preallocation when the size changes".into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
        let size = new.size.checked_next_multiple_of(512).unwrap_or(u64::MAX);
        let header = Header { image_size: size, ..self.lock_now().header.clone() };
        if header.check_size().is_err() || size == 0 {
            let feature = format!("a disk of {size} bytes, with tables of this size").into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
        match size.cmp(&self.size()) {
            std::cmp::Ordering::Less => self.shrink(size, new),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.grow(size, new),
        }
    }
}

impl QedImage {
    fn grow(&self, size: u64, new: &NewSize<'_>) -> Result<()> {
        let old = self.size();
        if self.writing()?.names_behind_end.load(Relaxed) {
            self.empty_behind(old)?;
        }
        self.set_size(size);
        let unit_end = old.next_multiple_of(self.geometry.cluster());
        let shown = GuestOffset(unit_end.max(new.below).min(size));
        let shown = GuestRange::between(GuestOffset(old), shown.max(GuestOffset(old)));
        let grown = (|| {
            if !shown.is_empty() {
                (new.zero)(shown)?;
            }
            self.flush()?;
            self.write_size(size)
        })();
        grown.inspect_err(|_| self.set_size(old))
    }

    fn shrink(&self, size: u64, new: &NewSize<'_>) -> Result<()> {
        let unit_end = size.next_multiple_of(self.geometry.cluster()).min(self.size());
        let rest = GuestRange::between(GuestOffset(size), GuestOffset(unit_end));
        if !rest.is_empty() {
            (new.zero)(rest)?;
        }
        self.flush()?;
        self.writing()?.names_behind_end.store(true, Relaxed);
        self.write_size(size)?;
        self.set_size(size);
        self.empty_behind(size)
    }

    /// The size in the header, durable.
    fn write_size(&self, size: u64) -> Result<()> {
        let mut now = self.lock_now();
        let header = Header { image_size: size, ..now.header.clone() };
        self.writing()?.doubt.during(|| {
            self.store.write_at(HostOffset::ZERO, &header.to_bytes())?;
            Ok(self.store.flush()?)
        })?;
        now.header = header;
        Ok(())
    }

    /// Makes all entries for what lies behind `size` empty, durable, and gives back what they named.
    fn empty_behind(&self, size: u64) -> Result<()> {
        let _all = self.writing()?.claims.hold_before_others(GuestRange::whole(u64::MAX));
        self.flush()?;
        let first = size.div_ceil(self.geometry.cluster());
        let entries = self.geometry.table_len() / ENTRY;
        if !first.is_multiple_of(entries) {
            self.empty_table_from(first)?;
        }
        for table in self.empty_l1(first.div_ceil(entries))? {
            let Ok(Some(at)) = self.geometry.table(table, self.end().get()) else { continue };
            let piece = Piece::new(at, self.geometry.table_len());
            let mut named = Vec::new();
            each_word(&*self.store, piece, &mut |_, entry| {
                named.push(entry);
                Ok(())
            })?;
            self.retire(&named);
            self.space.retire(at, piece.len);
        }
        self.flush()?;
        self.l2.clear();
        self.writing()?.names_behind_end.store(false, Relaxed);
        Ok(())
    }

    /// Empties the entries of one table from that of cluster number `first` on.
    fn empty_table_from(&self, first: u64) -> Result<()> {
        let from = first.saturating_mul(self.geometry.cluster());
        let Some(at) = GuestRange::new(GuestOffset(from), 1) else { return Ok(()) };
        let table = loop {
            match self.look(at)? {
                Look::Need(need) => self.satisfy(&need)?,
                Look::NoTable(_) => return Ok(()),
                Look::Run { slice, .. } => {
                    let place = self.geometry.locate(GuestOffset(from));
                    break HostOffset(slice.at.get() - (place.l2 - slice.index) * ENTRY);
                }
            }
        };
        let start = self.geometry.locate(GuestOffset(from)).l2;
        let mut slices = Vec::new();
        let piece = Piece::new(table, self.geometry.table_len());
        each_word(&*self.store, piece, &mut |at, _| {
            let number = (at.get() - table.get()) / ENTRY;
            let slice = number / SLICE * SLICE;
            if number >= start && slices.last() != Some(&slice) {
                slices.push(slice);
            }
            Ok(())
        })?;
        for first in slices {
            self.empty_slice(SliceAt::of(table, first.max(start)))?;
        }
        Ok(())
    }

    fn empty_slice(&self, slice: SliceAt) -> Result<()> {
        loop {
            let update = self.l2.update(slice.at, |slots| {
                let mut take = |index| {
                    let old = slots.get(index);
                    slots.set(index, 0);
                    old
                };
                (index_in(slice)..SLICE_LEN / 8).map(&mut take).collect::<Vec<_>>()
            });
            match update {
                Updated::Missing => self.satisfy(&self.need(Level::L2, slice))?,
                Updated::Full => self.relieve()?,
                Updated::Done(old) => {
                    self.retire(&old);
                    return Ok(());
                }
            }
        }
    }
}
