//! Changing the virtual size.
//!
//! ```text
//!   grow:    entries of the new blocks -> flush -> zeroes behind the old end -> flush -> size
//!   shrink:  zeroes behind the new end -> flush -> size -> flush -> entries behind it, their blocks
//! ```
//!
//! Where the region of the table is too short, a longer copy of it is written behind the blocks, and
//! both region tables name it, at once through the log.

use std::mem::offset_of;

use anydisk_core::{
    GuestOffset, GuestRange, HostOffset, Image, ImageWrite, NewSize, Preallocation, Resize, Result,
    StorageExt, TableShape, give_space,
};
use zerocopy::IntoBytes;

use crate::guard::for_entries;
use crate::header::{limit, region_tables, unsupported};
use crate::image::{Body, VhdxImage, head};
use crate::journal::Journal;
use crate::layout::{MIB, REGION_TABLES, RawRegion, RawRegionTable, guid};
use crate::limits;
use crate::state::seal;
use crate::table::{ENTRY, FULL, ZERO, entries_for};
use crate::write::Writer;

/// Entries that are written at once.
const AT_ONCE: u64 = 128 << 10;

/// Bytes that a write leaves whole or does not make, whatever happens.
const SECTOR: u64 = 512;

impl Resize for VhdxImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let Body::Written(writer) = &self.body else {
            return Err(unsupported("resizing a disk over another one"));
        };
        limit("size of the disk in bytes", new.size, limits::DISK)?;
        let size = new.size.next_multiple_of(self.metadata.sector);
        limit("number of blocks", self.entries_of(size), limits::ENTRIES)?;
        writer.state.renew(&**writer.table.store())?;
        match size.cmp(&self.size()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => self.shrink(writer, size, new),
            std::cmp::Ordering::Greater => self.grow(writer, size, new),
        }
    }
}

impl VhdxImage {
    fn entries_of(&self, size: u64) -> u64 {
        entries_for(size, self.metadata.block, self.metadata.sector)
    }

    fn grow(&self, writer: &Writer, size: u64, new: &NewSize<'_>) -> Result<()> {
        let old = writer.table.shape();
        self.make_room(writer, size)?;
        let grown =
            self.fill_new(writer, old.size, size, new).and_then(|()| self.put_size(writer, size));
        if grown.is_err() {
            // The file still tells the old size, so the disk keeps it.
            let now = writer.table.shape();
            writer.table.reshape(TableShape { size: old.size, entries: old.entries, ..now });
        }
        grown
    }

    /// Makes the table long enough for `size` bytes, and the disk in memory that long.
    fn make_room(&self, writer: &Writer, size: u64) -> Result<()> {
        let still = writer.table.hold_still()?;
        self.flush()?;
        let old = writer.table.shape();
        let entries = self.entries_of(size);
        let store = &**writer.table.store();
        let region = self.regions(store)?.table;
        let table = match entries * ENTRY > region.len {
            true => self.move_table(writer, entries)?,
            false => {
                self.write_new(writer, old.table, old.entries, entries)?;
                store.flush()?;
                old.table
            }
        };
        // What the slices behind the old end held was never looked at.
        writer.table.forget(&still, old.entries..entries);
        writer.table.reshape(TableShape { table, size, entries, ..old });
        Ok(())
    }

    /// Writes entries of blocks that are zero, from number `from` up to `to` of a table.
    fn write_new(&self, writer: &Writer, table: HostOffset, from: u64, to: u64) -> Result<()> {
        let chunk = crate::table::chunk_entries(self.metadata.block, self.metadata.sector);
        let entry = |number: u64| if number % chunk == chunk - 1 { 0 } else { ZERO };
        let mut done = from;
        while done < to {
            let count = (to - done).min(AT_ONCE);
            let bytes: Vec<u8> =
                (done..done + count).flat_map(|number| entry(number).to_le_bytes()).collect();
            writer.table.store().write_at(table.saturating_add(done * ENTRY), &bytes)?;
            done += count;
        }
        Ok(())
    }

    /// Copies the table to a longer region, and names that. The old one is used again when the image
    /// is opened the next time.
    fn move_table(&self, writer: &Writer, entries: u64) -> Result<HostOffset> {
        let (store, old) = (&**writer.table.store(), writer.table.shape());
        let len = (entries * ENTRY).next_multiple_of(MIB);
        let taken = writer.table.space().take_run(len, MIB);
        if !taken.zeroed {
            store.write_zeroes_at(taken.at, len)?;
        }
        let mut done = 0;
        while done < old.entries {
            let count = (old.entries - done).min(AT_ONCE);
            let mut bytes = vec![0; usize::try_from(count * ENTRY).expect("1 MiB at most")];
            store.read_exact_at(old.table.saturating_add(done * ENTRY), &mut bytes)?;
            store.write_at(taken.at.saturating_add(done * ENTRY), &bytes)?;
            done += count;
        }
        self.write_new(writer, taken.at, old.entries, entries)?;
        // It is all there before it is named.
        self.flush()?;
        let mut journal = Journal::default();
        let head = head(store)?;
        for (table, at) in region_tables(&head).into_iter().zip(REGION_TABLES) {
            if let Some(changed) = table.and_then(|bytes| with_table_at(bytes, taken.at, len)) {
                journal.put(store, HostOffset(at), &changed)?;
            }
        }
        journal.write_to(store, &writer.state, self.header.log)?;
        Ok(taken.at)
    }

    /// Makes what is new read as zero, and gives it space if it is to have some.
    fn fill_new(&self, writer: &Writer, old: u64, size: u64, new: &NewSize<'_>) -> Result<()> {
        let unit_end = old.next_multiple_of(self.metadata.block);
        // The rest of the block with the old end. The others say that they are zero.
        let end = unit_end.min(size);
        if end > old {
            (new.zero)(GuestRange::between(GuestOffset(old), GuestOffset(end)))?;
        }
        let preallocation = match (self.metadata.is_fixed, new.preallocation) {
            (true, Preallocation::Off) => Preallocation::Metadata,
            (_, other) => other,
        };
        if preallocation != Preallocation::Off {
            let range = GuestRange::between(GuestOffset(old), GuestOffset(size));
            give_space(self, range, preallocation, |at| writer.table.unit_at(at))?;
        }
        self.flush()
    }

    fn shrink(&self, writer: &Writer, size: u64, new: &NewSize<'_>) -> Result<()> {
        let unit_end = size.next_multiple_of(self.metadata.block).min(self.size());
        if unit_end > size {
            (new.zero)(GuestRange::between(GuestOffset(size), GuestOffset(unit_end)))?;
        }
        let still = writer.table.hold_still()?;
        self.flush()?;
        let (old, entries) = (writer.table.shape(), self.entries_of(size));
        let freed = self.blocks_behind(writer, &old, entries)?;
        self.put_size(writer, size)?;
        writer.table.reshape(TableShape { size, entries, ..old });
        // Now that the disk ends before them, nothing shows when these entries say nothing.
        self.write_new(writer, old.table, entries, old.entries)?;
        writer.table.store().flush()?;
        writer.table.forget(&still, entries..old.entries);
        still.drain()?;
        writer.table.retire(freed);
        writer.table.write_back(|_| Ok(()))?;
        // Else they look like blocks of a table that was lost.
        writer.table.space().punch_freed(&**writer.table.store())?;
        self.flush()
    }

    /// The places of the blocks that entries from number `from` on name.
    fn blocks_behind(
        &self,
        writer: &Writer,
        old: &TableShape,
        from: u64,
    ) -> Result<Vec<HostOffset>> {
        let mut blocks = Vec::new();
        let range = from..old.entries;
        for_entries(old.table, range, &**writer.table.store(), |_, entry| {
            if entry & 7 == FULL {
                blocks.push(HostOffset(entry & !(MIB - 1)));
            }
            Ok(())
        })?;
        Ok(blocks)
    }

    /// Writes the size to the metadata: durable.
    fn put_size(&self, writer: &Writer, size: u64) -> Result<()> {
        let store = &**writer.table.store();
        let (_, items) = self.items(store)?;
        let Some(place) = items.disk_size() else { return Ok(()) };
        if place.at.get() % SECTOR + place.len <= SECTOR {
            return writer.state.doubt.during(|| {
                store.write_at(place.at, &size.to_le_bytes())?;
                Ok(store.flush()?)
            });
        }
        // A power failure may separate its bytes.
        let mut journal = Journal::default();
        journal.put(store, place.at, &size.to_le_bytes())?;
        journal.write_to(store, &writer.state, self.header.log)
    }
}

/// A region table that says that the block allocation table is elsewhere; `None` if it names none.
fn with_table_at(table: &[u8], at: HostOffset, len: u64) -> Option<Vec<u8>> {
    let mut bytes = table.to_vec();
    let entries = bytes.get_mut(size_of::<RawRegionTable>()..)?;
    let size = size_of::<RawRegion>();
    let entry = entries.chunks_exact_mut(size).find(|entry| entry.starts_with(&guid::BAT))?;
    let old = <RawRegion as zerocopy::FromBytes>::read_from_bytes(entry).ok()?;
    let new =
        RawRegion { FileOffset: at.get().into(), Length: u32::try_from(len).ok()?.into(), ..old };
    entry.copy_from_slice(new.as_bytes());
    seal(&mut bytes, offset_of!(RawRegionTable, Checksum));
    Some(bytes)
}
