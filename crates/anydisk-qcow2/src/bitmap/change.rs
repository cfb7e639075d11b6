//! Adding, removing, clearing, enabling and merging bitmaps.
//!
//! Each waits for the writes in flight, so that what was written before belongs to the state before
//! and what is written after is recorded. A new directory lies in new clusters; the extension names
//! it when it is durable, and only then the old one is given back.

use std::sync::Arc;

use anydisk_core::{
    BitmapInfo, Bitmaps, Changes, Error, Feature, GuestOffset, HostOffset, NewBitmap, Result,
    Storage, check_limit,
};
use anydisk_storage::name;

use super::bits::Bits;
use super::directory::{Directory, Part, for_each_part, to_bytes};
use super::keeper::{Bitmap, not_found};
use super::read::BitmapChanges;
use super::resize::refuse_empty;
use super::{BitmapEntry, Place};
use crate::alloc::Freed;
use crate::guard::Clusters;
use crate::layout::bitmap::AUTO;
use crate::{NAME, WritableImage, limits};

/// Binary logarithms of the bytes that a bit of a new bitmap stands for, if nothing is said.
const USUAL_GRANULARITY: std::ops::RangeInclusive<u32> = 12..=16;

impl Bitmaps for WritableImage {
    fn list(&self) -> Result<Vec<BitmapInfo>> {
        Ok(self.bitmaps.list())
    }

    fn add(&self, new: &NewBitmap) -> Result<()> {
        let _turn = self.turns.take();
        let mut entry = self.new_entry(new)?;
        // Before anything is taken.
        checked_directory(&[&self.entries()[..], std::slice::from_ref(&entry)].concat())?;
        let _frozen = self.freeze();
        let _round = self.round();
        self.write_round()?;
        let table = self.new_table(&entry)?;
        entry.table = self.space.offset(table.first);
        let mut entries = self.entries();
        entries.push(entry.clone());
        self.replace_directory(&entries, Some(table))?;
        let bitmap = Bitmap::new(entry, self.shared.size());
        self.bitmaps.change(|state| state.bitmaps.push(bitmap));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let _turn = self.turns.take();
        let _frozen = self.freeze();
        let _round = self.round();
        self.write_round()?;
        let mut entries = self.entries();
        let index = self.bitmaps.read().find(name).ok_or_else(|| not_found(name))?;
        let gone = entries.remove(index);
        let held = self.held_by(&gone)?;
        self.replace_directory(&entries, None)?;
        self.bitmaps.change(|state| state.bitmaps.remove(index));
        self.give_back(held);
        self.write_round()
    }

    fn clear(&self, name: &str) -> Result<()> {
        let _turn = self.turns.take();
        let _frozen = self.freeze();
        let _round = self.round();
        self.write_round()?;
        let (index, entry, place) = {
            let state = self.bitmaps.read();
            let index = state.usable(name)?;
            (index, state.bitmaps[index].entry.clone(), state.place_of(index))
        };
        let held = self.held_by(&entry)?;
        let table = self.new_table(&entry)?;
        self.durable_or_back(table)?;
        let at = self.space.offset(table.first);
        // One write inside one sector: the old table, or the new one.
        self.shared.store.write_at(place, &at.get().to_be_bytes())?;
        self.shared.store.flush()?;
        self.bitmaps.change(|state| {
            let old = &mut state.bitmaps[index];
            *old = Bitmap::new(BitmapEntry { table: at, ..entry }, self.shared.size());
        });
        self.give_back(held);
        self.write_round()
    }

    fn set_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        let _turn = self.turns.take();
        let _frozen = self.freeze();
        let _round = self.round();
        self.write_round()?;
        let (index, entry, at) = {
            let state = self.bitmaps.read();
            let index = state.usable(name)?;
            (index, state.bitmaps[index].entry.clone(), state.flags_of(index))
        };
        let flags = if enabled { entry.flags | AUTO } else { entry.flags & !AUTO };
        self.shared.store.write_at(at, &flags.to_be_bytes())?;
        self.shared.store.flush()?;
        let bitmap = Bitmap::new(BitmapEntry { flags, ..entry }, self.shared.size());
        self.bitmaps.change(|state| state.bitmaps[index] = bitmap);
        Ok(())
    }

    fn merge(&self, name: &str, changes: &mut dyn Changes) -> Result<()> {
        let _turn = self.turns.take();
        let (size, other) = (self.shared.size(), changes.size());
        if other > size {
            let why = format!("the disk has {size} bytes, and the changes are of one of {other}");
            return Err(Error::Unusable { what: "bitmap", name: name.to_owned(), why: why.into() });
        }
        self.hold_bits(name)?;
        let merged = self.merge_ranges(name, changes);
        let stored = self.write_back();
        self.bitmaps.change(|state| {
            // Those of a bitmap that does not record are not needed any more.
            let idle = |one: &&mut Bitmap| !one.records() && !one.marked;
            state.bitmaps.iter_mut().filter(idle).for_each(|one| one.bits = None);
        });
        merged.and(stored)
    }

    fn changes(&self, name: &str) -> Result<Box<dyn Changes + '_>> {
        let lease = self.shared.leases.take();
        let state = self.bitmaps.read();
        let bitmap = &state.bitmaps[state.usable(name)?];
        let (entry, bits) = (bitmap.entry.clone(), bitmap.bits.clone());
        Ok(Box::new(BitmapChanges::new(&self.shared, lease, entry, bits)))
    }
}

impl WritableImage {
    /// The entry of a new bitmap, without its table.
    fn new_entry(&self, new: &NewBitmap) -> Result<BitmapEntry> {
        let unusable = |why: String| Error::Unusable {
            what: "bitmap",
            name: new.name.clone(),
            why: why.into(),
        };
        if self.shared.header.version < 3 {
            // They came with version 3.
            return Err(Error::Unsupported { format: NAME, feature: Feature::Bitmaps });
        }
        refuse_empty(self.shared.size())?;
        if self.bitmaps.read().find(&new.name).is_some() {
            return Err(Error::Exists { what: "bitmap", name: new.name.clone() });
        }
        let name = name::bytes(&new.name).into_owned();
        if name.is_empty() || name.len() > limits::BITMAP_NAME {
            let most = limits::BITMAP_NAME;
            return Err(unusable(format!("a name has 1 to {most} bytes")));
        }
        let bits = self.granularity_bits(new).ok_or_else(|| {
            unusable("the granularity is a power of two, 512 bytes to 2 GiB".into())
        })?;
        let mut entry = BitmapEntry {
            table: HostOffset::ZERO,
            table_entries: 0,
            flags: if new.enabled { AUTO } else { 0 },
            granularity_bits: bits,
            name,
        };
        let scale = entry.scale(self.shared.size(), self.shared.geometry.cluster_bits());
        let (found, limit) = (scale.bytes(), limits::BITMAP);
        if found > limit {
            let what = "bitmap of this granularity, in bytes".into();
            return Err(Error::Limit { format: NAME, what, found, limit });
        }
        entry.table_entries = u32::try_from(scale.clusters().max(1)).unwrap_or(u32::MAX);
        Ok(entry)
    }

    fn granularity_bits(&self, new: &NewBitmap) -> Option<u32> {
        let (least, most) = USUAL_GRANULARITY.into_inner();
        let usual = 1 << self.shared.geometry.cluster_bits().clamp(least, most);
        let granularity = new.granularity.unwrap_or(usual);
        let bits = granularity.trailing_zeros();
        let fits = granularity.is_power_of_two() && limits::GRANULARITY_BITS.contains(&bits);
        fits.then_some(bits)
    }

    fn entries(&self) -> Vec<BitmapEntry> {
        self.bitmaps.read().bitmaps.iter().map(|bitmap| bitmap.entry.clone()).collect()
    }

    /// An empty table in new clusters.
    pub(super) fn new_table(&self, entry: &BitmapEntry) -> Result<Clusters> {
        let cluster_bits = self.shared.geometry.cluster_bits();
        let count = (u64::from(entry.table_entries) * 8).div_ceil(1 << cluster_bits);
        let clusters = self.take_for_bitmap(count)?;
        let zeroes = vec![0; usize::try_from(count << cluster_bits).unwrap_or(0)];
        let written = self.shared.store.write_at(self.space.offset(clusters.first), &zeroes);
        if let Err(error) = written {
            self.give_back(vec![clusters]);
            return Err(error.into());
        }
        Ok(clusters)
    }

    /// Makes the counts and the content of new clusters durable, or gives them back.
    fn durable_or_back(&self, clusters: Clusters) -> Result<()> {
        self.write_round().inspect_err(|_| self.give_back(vec![clusters]))
    }

    /// All clusters of a bitmap.
    fn held_by(&self, entry: &BitmapEntry) -> Result<Vec<Clusters>> {
        let bits = self.shared.geometry.cluster_bits();
        let table = u64::from(entry.table_entries) * 8;
        let mut held = vec![Clusters::touched(entry.table.get(), table, bits)];
        for_each_part(&*self.shared.store, entry, bits, |part| {
            if let Part::At(at) = part {
                held.push(Clusters::new(at.get() >> bits, 1));
            }
            Ok(())
        })?;
        Ok(held)
    }

    pub(super) fn give_back(&self, held: Vec<Clusters>) {
        let freed = |clusters| Freed { clusters, discard: false };
        self.space.retire(held.into_iter().map(freed));
    }

    /// Puts a directory of these entries in the place of the old one. `with`: new clusters that are
    /// given back if that fails before anything can name them.
    pub(super) fn replace_directory(
        &self,
        entries: &[BitmapEntry],
        with: Option<Clusters>,
    ) -> Result<()> {
        let new = match self.write_directory(entries) {
            Ok(written) => written,
            Err(error) => {
                self.give_back(with.into_iter().collect());
                return Err(error);
            }
        };
        self.name_directory(new)?;
        let old = self.bitmaps.change(|state| std::mem::replace(&mut state.place, new));
        let bits = self.shared.geometry.cluster_bits();
        let old = old.map(|old| Clusters::touched(old.at.get(), old.len, bits));
        self.give_back(old.into_iter().collect());
        Ok(())
    }

    /// Writes a directory into new clusters, durably. Nothing names it yet.
    fn write_directory(&self, entries: &[BitmapEntry]) -> Result<Option<Place>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let bytes = checked_directory(entries)?;
        let (len, count) = (bytes.len() as u64, entries.len() as u64);
        let cluster_bits = self.shared.geometry.cluster_bits();
        let clusters = self.take_for_bitmap(len.div_ceil(1 << cluster_bits))?;
        let at = self.space.offset(clusters.first);
        if let Err(error) = self.shared.store.write_at(at, &bytes) {
            self.give_back(vec![clusters]);
            return Err(error.into());
        }
        self.durable_or_back(clusters)?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Some(Place { count, at, len }))
    }

    /// Names the directory in the header, or says that there is none.
    fn name_directory(&self, place: Option<Place>) -> Result<()> {
        self.live.set_bitmaps(place.map(Place::to_extension))
    }

    /// Sees to it that a bitmap has bits in memory and is marked.
    fn hold_bits(&self, name: &str) -> Result<()> {
        let _round = self.round();
        let size = self.shared.size();
        let index = self.bitmaps.change(|state| {
            let index = state.usable(name)?;
            let bitmap = &mut state.bitmaps[index];
            let count = bitmap.entry.scale(size, 0).bits();
            bitmap.bits.get_or_insert_with(|| Arc::new(Bits::new(count)));
            Ok::<_, Error>(index)
        })?;
        let name = self.bitmaps.read().bitmaps[index].entry.name.clone();
        self.mark_those(|bitmap| bitmap.entry.name == name)
    }

    fn merge_ranges(&self, name: &str, changes: &mut dyn Changes) -> Result<()> {
        let (mut from, end) = (GuestOffset(0), GuestOffset(self.shared.size()));
        while let Some(range) = changes.next(from)? {
            from = range.end();
            let range = range.before(end);
            while !range.is_empty() && !self.bitmaps.note_in(name, range)? {
                self.hold_bits(name)?;
            }
        }
        Ok(())
    }

    /// Notes what the bitmaps of `directory` hold, when the image is opened.
    pub(crate) fn guard_bitmaps(&self, directory: &Directory) -> Result<()> {
        let bits = self.shared.geometry.cluster_bits();
        let note = |clusters: Clusters| {
            let each = clusters.first..clusters.end();
            each.into_iter().try_for_each(|cluster| {
                self.space.note(Clusters::new(cluster, 1), crate::guard::Metadata::Bitmap)
            })
        };
        if let Some(place) = directory.place {
            note(Clusters::touched(place.at.get(), place.len, bits))?;
        }
        for entry in &directory.entries {
            self.held_by(entry)?.into_iter().try_for_each(note)?;
        }
        Ok(())
    }
}

/// The bytes of a directory, if there may be so many.
fn checked_directory(entries: &[BitmapEntry]) -> Result<Vec<u8>> {
    let bytes = to_bytes(entries);
    check_limit(NAME, "bitmap directory, in bytes", bytes.len() as u64, limits::BITMAP_DIRECTORY)?;
    check_limit(NAME, "number of bitmaps", entries.len() as u64, limits::BITMAPS.into())?;
    Ok(bytes)
}
