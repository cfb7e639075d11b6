//! Marking bitmaps as in use, and storing them.
//!
//! ```text
//!   mark     flags on the medium: in use            flush    <- now bits may be set
//!   store    bits of the clusters that changed      |
//!            counts of new clusters                 flush    (with guest data and tables)
//!            table entries of new clusters          flush    (with tables)
//!            flags: not in use                      flush
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use anydisk_core::{GuestOffset, GuestRange, HostOffset, Result, Storage, StorageExt};

use super::BitmapEntry;
use super::bits::{Bits, CHUNK};
use super::directory::Part;
use super::keeper::Bitmap;
use super::read::read_part;
use super::resize::keep_bits;
use anydisk_storage::is_zero;

use crate::WritableImage;
use crate::alloc::Freed;
use crate::guard::{Clusters, Metadata};
use crate::layout::bitmap::IN_USE;

/// What one write-back stores of the bitmaps.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    saves: Vec<Save>,
    /// Entries of tables, which name new clusters, and where they belong.
    pub(crate) links: Vec<(HostOffset, u64)>,
    /// The new clusters.
    taken: Vec<Clusters>,
    /// Entries may be on the medium.
    pub(crate) linked: bool,
}

/// One bitmap that was marked.
#[derive(Debug)]
struct Save {
    index: usize,
    entry: BitmapEntry,
    flags_at: HostOffset,
    bits: Arc<Bits>,
    chunks: Vec<u64>,
}

impl WritableImage {
    /// Records that `range` is about to change, marking bitmaps as in use where needed.
    ///
    /// # Errors
    /// Those of marking: then nothing may be changed.
    pub(crate) fn note_change(&self, range: GuestRange) -> Result<()> {
        let range = range.before(GuestOffset(self.shared.size()));
        while !range.is_empty() && !self.bitmaps.note(range) {
            self.mark_bitmaps()?;
        }
        Ok(())
    }

    /// Marks the bitmaps that record as in use, durably. Waits for a write-back.
    pub(crate) fn mark_bitmaps(&self) -> Result<()> {
        let _round = self.round();
        self.mark_those(Bitmap::records)?;
        self.bitmaps.satisfied();
        Ok(())
    }

    /// Marks bitmaps as in use, durably. The caller holds the round.
    pub(super) fn mark_those(&self, which: impl Fn(&Bitmap) -> bool) -> Result<()> {
        let unmarked: Vec<_> = {
            let state = self.bitmaps.read();
            let wanted = |one: &Bitmap| !one.marked && one.bits.is_some() && which(one);
            let found = (0..).zip(&state.bitmaps).filter(|(_, bitmap)| wanted(bitmap));
            found.map(|(index, one)| (index, state.flags_of(index), one.entry.flags)).collect()
        };
        if unmarked.is_empty() {
            return Ok(());
        }
        for (_, at, flags) in &unmarked {
            self.shared.store.write_at(*at, &(flags | IN_USE).to_be_bytes())?;
        }
        self.shared.store.flush()?;
        self.bitmaps.change(|state| {
            unmarked.iter().for_each(|(index, ..)| state.bitmaps[*index].marked = true);
        });
        Ok(())
    }

    /// Writes the bits that changed, and takes clusters for them. Bits that are set from now on
    /// need a mark again. The caller holds the round.
    pub(crate) fn begin_storing(&self) -> Result<Stored> {
        let mut stored = Stored { saves: self.take_marked(), ..Stored::default() };
        for number in 0..stored.saves.len() {
            if let Err(error) = self.store_bits(&mut stored, number) {
                self.put_back_bitmaps(stored);
                return Err(error);
            }
        }
        Ok(stored)
    }

    fn take_marked(&self) -> Vec<Save> {
        let nothing = {
            let state = self.bitmaps.read();
            state.suspended || state.bitmaps.iter().all(|bitmap| !bitmap.marked)
        };
        if nothing {
            return Vec::new();
        }
        self.bitmaps.change(|state| {
            let mut saves = Vec::new();
            for index in 0..state.bitmaps.len() {
                let flags_at = state.flags_of(index);
                let bitmap = &mut state.bitmaps[index];
                if let Some(bits) = bitmap.bits.as_ref().filter(|_| bitmap.marked) {
                    let (bits, entry) = (Arc::clone(bits), bitmap.entry.clone());
                    let chunks = bits.take_changed();
                    saves.push(Save { index, entry, flags_at, bits, chunks });
                    bitmap.marked = false;
                }
            }
            saves
        })
    }

    fn store_bits(&self, stored: &mut Stored, number: usize) -> Result<()> {
        let save = &stored.saves[number];
        let cluster_bits = self.shared.geometry.cluster_bits();
        let scale = save.entry.scale(self.shared.size(), cluster_bits);
        let clusters: BTreeSet<u64> = save
            .chunks
            .iter()
            .flat_map(|chunk| {
                let end = ((chunk + 1) * CHUNK).min(scale.bytes());
                (chunk * CHUNK) >> cluster_bits..end.div_ceil(1 << cluster_bits)
            })
            .collect();
        for cluster in clusters {
            let link = self.store_cluster(save, cluster, &mut stored.taken)?;
            stored.links.extend(link);
        }
        Ok(())
    }

    /// Stores one cluster of bits; the entry of the table for it, if it is new.
    fn store_cluster(
        &self,
        save: &Save,
        number: u64,
        taken: &mut Vec<Clusters>,
    ) -> Result<Option<(HostOffset, u64)>> {
        let (store, cluster_bits) = (&self.shared.store, self.shared.geometry.cluster_bits());
        let part = read_part(&**store, &save.entry, number, cluster_bits)?;
        let first = number << cluster_bits;
        let scale = save.entry.scale(self.shared.size(), cluster_bits);
        let mut bytes =
            vec![0; usize::try_from(self.shared.geometry.cluster_size()).expect("2 MiB")];
        match part {
            Part::Ones => bytes.fill(0xff),
            Part::Zeroes => {}
            Part::At(at) => store.read_padded_at(at, &mut bytes)?,
        }
        let mut changed = save.bits.add_to(first, &mut bytes);
        keep_bits(&mut bytes, first, scale.bits());
        changed &= !(matches!(part, Part::Zeroes) && is_zero(&bytes));
        save.bits.learn(first, &bytes);
        match part {
            _ if !changed => Ok(None),
            Part::Ones => Ok(None),
            Part::At(at) => {
                store.write_at(at, &bytes)?;
                Ok(None)
            }
            Part::Zeroes => {
                let clusters = self.take_for_bitmap(1)?;
                taken.push(clusters);
                let at = self.space.offset(clusters.first);
                store.write_at(at, &bytes)?;
                Ok(Some((save.entry.table_entry(number), at.get())))
            }
        }
    }

    /// Takes clusters in one piece.
    pub(super) fn take_for_bitmap(&self, count: u64) -> Result<Clusters> {
        let clusters = self.space.take_run(count)?;
        for cluster in clusters.first..clusters.end() {
            // One by one, so that each can come free by itself.
            self.space.note(Clusters::new(cluster, 1), Metadata::Bitmap)?;
        }
        Ok(clusters)
    }

    /// Names the new clusters in the tables. Their bits and counts are on the medium.
    pub(crate) fn link_bitmaps(&self, stored: &mut Stored) -> Result<()> {
        stored.linked |= !stored.links.is_empty();
        for (at, word) in &stored.links {
            self.shared.store.write_at(*at, &word.to_be_bytes())?;
        }
        Ok(())
    }

    /// Takes the marks away: all that the bitmaps recorded is on the medium.
    pub(crate) fn finish_storing(&self, stored: &Stored) -> Result<()> {
        if stored.saves.is_empty() {
            return Ok(());
        }
        for save in &stored.saves {
            let flags = save.entry.flags & !IN_USE;
            self.shared.store.write_at(save.flags_at, &flags.to_be_bytes())?;
        }
        Ok(self.shared.store.flush()?)
    }

    /// The bits are not on the medium, and the marks still are.
    pub(crate) fn put_back_bitmaps(&self, stored: Stored) {
        self.bitmaps.change(|state| {
            for save in &stored.saves {
                save.bits.put_back(&save.chunks);
                state.bitmaps[save.index].marked = true;
            }
        });
        if !stored.linked {
            let freed = |clusters| Freed { clusters, discard: false };
            self.space.retire(stored.taken.into_iter().map(freed));
        }
    }
}
