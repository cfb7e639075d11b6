//! Bitmaps of a disk whose size changes.
//!
//! Table and size must fit each other, and are two writes. So all bitmaps are marked as in use,
//! durably, before the size changes, and get tables of the new size and a new directory without the
//! marks behind it: a power failure between the two leaves bitmaps that say that they cannot be
//! trusted. What is new in a disk that grows is not recorded: it is zero. A snapshot of another size
//! is applied in the same way; then all of the disk is recorded.

use std::sync::Arc;

use anydisk_core::{Error, GuestRange, Result, Storage, StorageExt};

use super::BitmapEntry;
use super::bits::Bits;
use super::directory::Part;
use super::read::read_part;
use crate::alloc::bytes_of;
use crate::guard::Clusters;
use crate::layout::bitmap::IN_USE;
use crate::{NAME, WritableImage, limits};

impl WritableImage {
    /// Marks all bitmaps before the disk gets `size` bytes. Whether there are any. The caller has
    /// the turn.
    ///
    /// # Errors
    /// [`Error::Limit`] if one would be too large, [`Error::Unsupported`] if the disk would be empty;
    /// then nothing changed.
    pub(crate) fn suspend_bitmaps(&self, size: u64) -> Result<bool> {
        if self.bitmaps.list().is_empty() {
            return Ok(false);
        }
        refuse_empty(size)?;
        let _frozen = self.freeze();
        let _round = self.round();
        self.write_round()?;
        let usable: Vec<_> = {
            let state = self.bitmaps.read();
            let all = (0..).zip(&state.bitmaps).filter(|(_, one)| !one.is_inconsistent());
            all.map(|(index, one)| (state.flags_of(index), one.entry.clone())).collect()
        };
        for (_, entry) in &usable {
            let (found, limit) = (entry.scale(size, 0).bytes(), limits::BITMAP);
            if found > limit {
                let what = "bitmap of a disk of this size, in bytes".into();
                return Err(Error::Limit { format: NAME, what, found, limit });
            }
        }
        for (at, entry) in &usable {
            self.shared.store.write_at(*at, &(entry.flags | IN_USE).to_be_bytes())?;
        }
        self.shared.store.flush()?;
        let largest = size.max(self.shared.size());
        self.bitmaps.change(|state| {
            state.suspended = true;
            for one in state.bitmaps.iter_mut().filter(|one| one.records()) {
                one.bits = Some(Arc::new(Bits::new(one.entry.scale(largest, 0).bits())));
                one.marked = true;
            }
        });
        Ok(true)
    }

    /// Gives all bitmaps tables for the disk as it is now, and takes the marks away. The caller has
    /// the turn.
    pub(crate) fn resume_bitmaps(&self) -> Result<()> {
        let _frozen = self.freeze();
        let _round = self.round();
        let bitmaps = self.bitmaps.read().bitmaps.clone();
        let (mut entries, mut in_file, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for one in &bitmaps {
            let (entry, old) = match one.is_inconsistent() {
                true => (one.entry.clone(), Vec::new()),
                false => self.resized(&one.entry)?,
            };
            gone.extend(old);
            // What was recorded meanwhile is stored at last, and the mark stays until then.
            let mark = if one.marked { IN_USE } else { 0 };
            in_file.push(BitmapEntry { flags: entry.flags | mark, ..entry.clone() });
            entries.push(entry);
        }
        self.replace_directory(&in_file, None)?;
        self.bitmaps.change(|state| {
            state.suspended = false;
            for (one, entry) in state.bitmaps.iter_mut().zip(entries) {
                one.entry = entry;
            }
        });
        self.give_back(gone);
        self.write_round()
    }

    /// Records that the whole disk may change, before it becomes another state of `size` bytes. The
    /// caller has frozen the image, and not the round; where the size is another one, the bitmaps
    /// are [suspended](Self::suspend_bitmaps).
    pub(crate) fn note_other_state(&self, size: u64) -> Result<()> {
        let all = GuestRange::whole(size.max(self.shared.size()));
        while !all.is_empty() && !self.bitmaps.note(all) {
            self.mark_bitmaps()?;
        }
        Ok(())
    }

    /// A bitmap with a new table of the right size, and the clusters that it does not need any more.
    fn resized(&self, old: &BitmapEntry) -> Result<(BitmapEntry, Vec<Clusters>)> {
        let bits = self.shared.geometry.cluster_bits();
        let scale = old.scale(self.shared.size(), bits);
        let count = scale.clusters().max(1);
        let mut words = vec![0; usize::try_from(count).unwrap_or(0)];
        let mut gone = Vec::new();
        for number in 0..u64::from(old.table_entries) {
            let part = read_part(&*self.shared.store, old, number, bits)?;
            match (words.get_mut(usize::try_from(number).unwrap_or(usize::MAX)), part) {
                (Some(word), part) => *word = part.word(),
                (None, Part::At(at)) => gone.push(Clusters::new(at.get() >> bits, 1)),
                (None, _) => {}
            }
        }
        self.clear_tail(words.last().copied().unwrap_or(0), count - 1, scale.bits())?;
        gone.push(Clusters::touched(old.table.get(), u64::from(old.table_entries) * 8, bits));
        let table_entries = u32::try_from(count).unwrap_or(u32::MAX);
        let mut entry = BitmapEntry { table_entries, ..old.clone() };
        let table = self.new_table(&entry)?;
        entry.table = self.space.offset(table.first);
        self.shared.store.write_at(entry.table, &bytes_of(&words))?;
        Ok((entry, gone))
    }

    /// Clears the bits from number `bits` on in cluster `number` of a bitmap, which nobody trusts
    /// now.
    fn clear_tail(&self, word: u64, number: u64, bits: u64) -> Result<()> {
        let cluster_bits = self.shared.geometry.cluster_bits();
        let Ok(Part::At(at)) = Part::of(word, anydisk_core::HostOffset::ZERO, cluster_bits) else {
            return Ok(());
        };
        let len = usize::try_from(self.shared.geometry.cluster_size()).expect("at most 2 MiB");
        let mut bytes = vec![0; len];
        self.shared.store.read_padded_at(at, &mut bytes)?;
        keep_bits(&mut bytes, number << cluster_bits, bits);
        Ok(self.shared.store.write_at(at, &bytes)?)
    }
}

/// A bitmap without a bit has a table without an entry, which other programs refuse, and the image
/// with it.
pub(super) fn refuse_empty(size: u64) -> Result<()> {
    if size > 0 {
        return Ok(());
    }
    Err(Error::Unsupported { format: NAME, feature: "a bitmap of a disk of 0 bytes".into() })
}

/// Clears the bits from number `bits` of the bitmap on in `bytes`, which begin at byte `first` of it.
pub(super) fn keep_bits(bytes: &mut [u8], first: u64, bits: u64) {
    for (byte, number) in bytes.iter_mut().zip(first..) {
        let kept = bits.saturating_sub(number * 8).min(8);
        *byte &= u8::try_from((1_u16 << kept) - 1).unwrap_or(u8::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_behind_the_end_are_cleared_and_no_others() {
        let mut bytes = [0xff; 4];
        keep_bits(&mut bytes, 10, 93);
        assert_eq!(bytes, [0xff, 0x1f, 0, 0]);
    }
}
