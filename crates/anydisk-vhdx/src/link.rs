//! Changing what a child says of its parent.
//!
//! ```text
//!   another one:  new item of the metadata, where nothing is -> flush -> its place in the table -> flush
//!   none:         zeroes for what showed it -> flush -> entries, file parameters, table of the metadata: through the log
//! ```

use std::mem::offset_of;

use anydisk_core::{
    BackingLink, GuestRange, HostOffset, Image, ImageWrite, Reference, Result, Storage, StorageExt,
};

use crate::child::Child;
use crate::guard::for_each_entry;
use crate::header::{Place, Regions, unsupported};
use crate::image::{Body, VhdxImage, head, read, table_of};
use crate::journal::Journal;
use crate::layout::{HAS_PARENT, LOG_SECTOR, RawItem, RawMetadataTable, TABLE_LEN};
use crate::locator::locator;
use crate::metadata::Items;
use crate::table::{ENTRY, FULL, Slot};
use crate::tables::Look;

/// Bytes that are written at once.
const AT_ONCE: u64 = 1 << 20;

impl BackingLink for VhdxImage {
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        let Some(child) = self.child() else {
            return match backing {
                None => Ok(()),
                Some(_) => Err(unsupported("a disk that was made without a parent over another")),
            };
        };
        let locator = backing.map(locator).transpose()?;
        let _claim = child.claims.hold_before_others(GuestRange::whole(u64::MAX));
        self.flush()?;
        child.state.renew_file(&*child.tables.store)?;
        match locator {
            Some(bytes) => self.name_parent(child, &bytes),
            None => self.give_up_parent(child),
        }
    }

    fn check_emptying(&self) -> Result<()> {
        match self.child() {
            Some(_) => Ok(()),
            None => Err(unsupported("emptying an image without a parent")),
        }
    }

    fn forget_everything(&self) -> Result<()> {
        let Some(child) = self.child() else { return Ok(()) };
        let _claim = child.claims.hold_before_others(GuestRange::whole(u64::MAX));
        child.state.renew(&*child.tables.store)?;
        child.forget_all()
    }
}

impl VhdxImage {
    /// What writes the image, if it has a parent.
    fn child(&self) -> Option<&Child> {
        match &self.body {
            Body::Child(child) if child.tables.has_parent() => Some(child),
            _ => None,
        }
    }

    pub(crate) fn regions(&self, store: &dyn Storage) -> Result<Regions> {
        Regions::parse(&head(store)?, &self.header, store.len()?)
    }

    /// The metadata region, and what its table says.
    pub(crate) fn items(&self, store: &dyn Storage) -> Result<(Place, Items)> {
        let regions = self.regions(store)?;
        let items = Items::parse(&read(store, table_of(regions.metadata))?, regions.metadata)?;
        Ok((regions.metadata, items))
    }

    fn name_parent(&self, child: &Child, locator: &[u8]) -> Result<()> {
        let store = &*child.tables.store;
        let (region, items) = self.items(store)?;
        let Some((place, entry)) =
            free_place(region, &items.all, locator.len()).zip(items.parent_entry())
        else {
            return Err(unsupported("another parent, in metadata without room for its name"));
        };
        store.write_at(region.at.saturating_add(place), locator)?;
        store.flush()?;
        // One sector has both.
        let len = locator.len() as u64;
        let numbers = [place, len].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        store.write_at(entry.saturating_add(16), &numbers.map(u32::to_le_bytes).concat())?;
        Ok(store.flush()?)
    }

    fn give_up_parent(&self, child: &Child) -> Result<()> {
        let (tables, store) = (&child.tables, &*child.tables.store);
        let (region, items) = self.items(store)?;
        let Some(parameters) = items.parameters() else { return Ok(()) };
        let flags = parameters.at.saturating_add(4);
        let mut journal = Journal::default();
        let bitmaps = self.entries_without_parent(child, &mut journal)?;
        forget_locator(store, region, &items, &mut journal)?;
        let mut bytes = [0; 4];
        store.read_exact_at(flags, &mut bytes)?;
        let without = u32::from_le_bytes(bytes) & !HAS_PARENT;
        journal.put(store, flags, &without.to_le_bytes())?;
        journal.check_room(self.header.log, 0)?;
        self.fill_blocks(child)?;
        journal.write_to(store, &child.state, self.header.log)?;
        tables.table.clear();
        tables.give_up_parent();
        bitmaps.into_iter().for_each(|at| child.space.retire(at, AT_ONCE));
        Ok(())
    }

    /// Entries as they are without a parent: blocks that are here in part become whole ones, and there
    /// are no bitmaps. Returns where those were.
    fn entries_without_parent(
        &self,
        child: &Child,
        journal: &mut Journal,
    ) -> Result<Vec<HostOffset>> {
        let (shape, store) = (&child.tables.shape, &*child.tables.store);
        let mut bitmaps = Vec::new();
        let mut sector = u64::MAX;
        for_each_entry(shape, store, |number, entry| {
            let slot = shape.slot(number);
            let new = match slot {
                Slot::Block(_) if shape.is_partial(slot, entry) => entry & !7 | FULL,
                Slot::Bitmap(_) if entry & 7 == FULL => 0,
                _ => return Ok(()),
            };
            if new == 0 {
                bitmaps.push(HostOffset(entry & !(AT_ONCE - 1)));
            }
            let at = shape.table.saturating_add(number * ENTRY);
            if at.get() / LOG_SECTOR != sector {
                sector = at.get() / LOG_SECTOR;
                // This sector, that of the file parameters, and three of the metadata's table.
                journal.check_room(self.header.log, 5)?;
            }
            journal.put(store, at, &new.to_le_bytes())
        })?;
        Ok(bitmaps)
    }

    /// Makes zeroes of the sectors of blocks that show the parent. Nobody sees them yet.
    fn fill_blocks(&self, child: &Child) -> Result<()> {
        let store = &*child.tables.store;
        let mut rest = GuestRange::whole(self.size());
        while !rest.is_empty() {
            let len = match child.tables.look(rest)? {
                Look::Need(need) => {
                    self.satisfy(&need)?;
                    0
                }
                Look::Unset { at, len } => {
                    let len = len.min(AT_ONCE);
                    store.write_zeroes_at(at, len)?;
                    len
                }
                Look::Absent { len } | Look::Zero { len } | Look::Here { len, .. } => len,
            };
            rest = rest.skip(len);
        }
        Ok(store.flush()?)
    }
}

/// Takes the parent's locator out of the metadata's table; the last entry comes into its place. A
/// locator that nobody needs keeps QEMU from opening the disk.
fn forget_locator(
    store: &dyn Storage,
    region: Place,
    items: &Items,
    journal: &mut Journal,
) -> Result<()> {
    let Some(entry) = items.parent_entry() else { return Ok(()) };
    let mut item = [0; size_of::<RawItem>()];
    let last = region.at.saturating_add((items.count * item.len()) as u64);
    store.read_exact_at(last, &mut item)?;
    journal.put(store, entry, &item)?;
    journal.put(store, last, &[0; size_of::<RawItem>()])?;
    let count = u16::try_from(items.count.saturating_sub(1)).unwrap_or_default();
    let count_at = offset_of!(RawMetadataTable, EntryCount) as u64;
    journal.put(store, region.at.saturating_add(count_at), &count.to_le_bytes())
}

/// A place in the metadata region for an item of `len` bytes, from its start.
fn free_place(region: Place, items: &[Place], len: usize) -> Option<u64> {
    let base = region.at.get();
    let mut places: Vec<(u64, u64)> =
        items.iter().map(|place| (place.at.get() - base, place.len)).collect();
    places.sort_unstable();
    let mut at = TABLE_LEN as u64;
    for (start, count) in places {
        if start >= at + len as u64 {
            break;
        }
        at = at.max((start + count).next_multiple_of(8));
    }
    (at + len as u64 <= region.len).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIB;

    #[test]
    fn a_new_item_lies_behind_the_table_on_no_other_item() {
        let region = Place { at: HostOffset(3 * MIB), len: MIB };
        let items = |all: &[(u64, u64)]| -> Vec<Place> {
            let place = |(at, len): &(u64, u64)| Place { at: HostOffset(3 * MIB + at), len: *len };
            all.iter().map(place).collect()
        };
        let first = 64 << 10;
        assert_eq!(free_place(region, &items(&[]), 10), Some(first));
        assert_eq!(free_place(region, &items(&[(first, 8)]), 10), Some(first + 8));
        assert_eq!(free_place(region, &items(&[(first + 64, 8), (first, 1)]), 50), Some(first + 8));
        assert_eq!(
            free_place(region, &items(&[(first + 64, 9), (first, 1)]), 60),
            Some(first + 80)
        );
        assert_eq!(free_place(region, &items(&[(first, MIB - first)]), 1), None);
    }
}
