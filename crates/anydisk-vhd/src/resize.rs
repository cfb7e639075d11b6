//! Changing the virtual size.
//!
//! A fixed disk has its only footer at its end, and there is always one at the end of the file:
//!
//! ```text
//!   longer:   footer with the old size, at the new end -> flush -> zeroes up to it -> flush -> size
//!   shorter:  size, in the footer where it is -> flush -> footer at the new end -> flush -> cut
//! ```
//!
//! A dynamic disk:
//!
//! ```text
//!   longer:   entries of the new blocks -> flush -> zeroes behind the old end -> flush -> size
//!   shorter:  zeroes behind the new end -> flush -> size -> flush -> entries behind it, their blocks
//! ```
//!
//! Where the table has no room, a longer one is written behind the blocks, and the first sector of the
//! header names it: qemu puts its next block behind both.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Acquire, Release};

use anydisk_core::{
    GuestOffset, GuestRange, HostOffset, Image, ImageWrite, NewSize, Preallocation, Resize, Result,
    Storage, StorageExt, WantedRun, give_space,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::blocks::Blocks;
use crate::create::CREATOR;
use crate::footer::{FOOTER_LEN, checksum, limit, unsupported};
use crate::geometry::Geometry;
use crate::guard::read_only;
use crate::header::HEADER_LEN;
use crate::image::{Body, Fixed, VhdImage};
use crate::layout::{ABSENT, ENTRY, RawFooter, RawHeader, SECTOR};
use crate::limits;
use crate::table::Shape;
use crate::write::Writer;

/// Bytes that are written at once.
const AT_ONCE: u64 = 1 << 20;

impl Resize for VhdImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        limit("size of the disk in bytes", new.size, limits::DISK)?;
        let size = new.size.next_multiple_of(SECTOR);
        if size == self.size() {
            return Ok(());
        }
        let (blocks, writer) = match (&self.body, self.blocks()) {
            (Body::Fixed(fixed), _) => return fixed.resize(size, new.preallocation),
            (_, Some(parts)) => parts,
            (_, None) => return Err(read_only("it was opened for reading")),
        };
        if blocks.has_bitmaps() {
            return Err(unsupported("resizing a disk over another one"));
        }
        let shape = blocks.shape();
        limit("number of blocks", size.div_ceil(shape.block), limits::ENTRIES)?;
        match size < shape.size {
            true => self.shrink(blocks, writer, size, new),
            false => self.grow(blocks, writer, size, new),
        }
    }
}

/// Says in a footer that the disk has so many bytes. They count whoever made it: a geometry would
/// count where Virtual PC or qemu did.
fn put_size(raw: &mut RawFooter, size: u64) {
    let geometry = Geometry::for_sectors(size / SECTOR);
    raw.creator_application = CREATOR;
    raw.current_size = size.into();
    raw.cylinders = geometry.cylinders.into();
    raw.heads = geometry.heads;
    raw.sectors = geometry.sectors_per_track;
    raw.checksum = checksum(raw.as_bytes(), std::mem::offset_of!(RawFooter, checksum)).into();
}

impl Fixed {
    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.doubt.check()?;
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (store, old) = (&*self.store, self.size.load(Acquire));
        let (mut raw, mut at) = *end;
        if size > at.get() {
            at = put(store, &raw, HostOffset(size)).inspect_err(|_| self.cut_behind(at))?;
            *end = (raw, at);
        }
        if size > old {
            // The footer that was there, and what a crash left before it.
            fill(store, old, size, preallocation)?;
        }
        put_size(&mut raw, size);
        self.doubt.during(|| {
            put(store, &raw, at)?;
            *end = (raw, at);
            self.size.store(size, Release);
            if at.get() > size {
                at = put(store, &raw, HostOffset(size))?;
                *end = (raw, at);
            }
            store.set_len(size + FOOTER_LEN as u64)?;
            Ok(store.flush()?)
        })
    }

    /// Lets the file end with the footer at `at` again.
    fn cut_behind(&self, at: HostOffset) {
        let cut = || Ok(self.store.set_len(at.saturating_add(FOOTER_LEN as u64).get())?);
        // Told is what made it necessary; where it fails, nothing is written any more.
        let _ = self.doubt.during(cut);
    }
}

/// Writes a footer: durable.
fn put(store: &dyn Storage, raw: &RawFooter, at: HostOffset) -> Result<HostOffset> {
    store.write_at(at, raw.as_bytes())?;
    store.flush()?;
    Ok(at)
}

/// Makes a part of the file zero, and gives it space if it is to have some: durable.
fn fill(store: &dyn Storage, from: u64, to: u64, preallocation: Preallocation) -> Result<()> {
    let (at, len) = (HostOffset(from), to - from);
    let is_done = match (preallocation, store.space()) {
        (Preallocation::Full, _) | (_, None) => false,
        (_, Some(space)) => match space.zero(at, len, true) {
            Ok(()) => true,
            Err(anydisk_storage::Error::Unsupported { .. }) => false,
            Err(error) => return Err(error.into()),
        },
    };
    if !is_done {
        store.write_zeroes_at(at, len)?;
    }
    if let (Preallocation::Falloc, Some(space)) = (preallocation, store.space()) {
        space.allocate(at, len)?;
    }
    Ok(store.flush()?)
}

impl VhdImage {
    fn grow(&self, blocks: &Blocks, writer: &Writer, size: u64, new: &NewSize<'_>) -> Result<()> {
        let old = blocks.shape();
        self.make_room(blocks, writer, size)?;
        let grown = self
            .fill_new(blocks, old.size, size, new.preallocation, new)
            .and_then(|()| writer.switch_footer(&*blocks.store, |footer| put_size(footer, size)));
        if grown.is_err() {
            // The footer still tells the old size, so the disk keeps it. The table may stay where it
            // is: it says the same.
            blocks.reshape(Shape { size: old.size, ..blocks.shape() });
        }
        grown
    }

    /// Makes the table long enough for `size` bytes, and the disk in memory that long.
    fn make_room(&self, blocks: &Blocks, writer: &Writer, size: u64) -> Result<()> {
        let _claim = writer.claims.hold_before_others(GuestRange::whole(u64::MAX));
        self.flush()?;
        let old = blocks.shape();
        let needed = size.div_ceil(old.block);
        let shape = match needed > old.entries {
            true => self.move_table(blocks, writer, needed)?,
            false => {
                // Entries that the disk did not need may say anything.
                write_absent(&*blocks.store, &old, old.size.div_ceil(old.block), needed)?;
                blocks.store.flush()?;
                old
            }
        };
        blocks.table.clear();
        blocks.reshape(Shape { size, ..shape });
        Ok(())
    }

    /// Writes a longer table behind the blocks, and names that. The old one's place is used again when
    /// the image is opened the next time.
    fn move_table(&self, blocks: &Blocks, writer: &Writer, entries: u64) -> Result<Shape> {
        let (store, old) = (&*blocks.store, blocks.shape());
        let at = writer.header_at();
        if !at.get().is_multiple_of(SECTOR) {
            return Err(unsupported("a longer table, with a header across two sectors"));
        }
        writer.secure_copy(store)?;
        // It ends where qemu, which makes the next block of zeroes there, sees it end.
        let len = (entries * ENTRY).next_multiple_of(SECTOR);
        let taken = writer.space.take(WantedRun { len, most: 1, align: writer.align });
        let shape = Shape { table: taken.at, entries, ..old };
        let mut done = 0;
        while done < old.entries * ENTRY {
            let count = (old.entries * ENTRY - done).min(AT_ONCE);
            let mut bytes = vec![0; usize::try_from(count).expect("1 MiB at most")];
            store.read_exact_at(old.table.saturating_add(done), &mut bytes)?;
            store.write_at(taken.at.saturating_add(done), &bytes)?;
            done += count;
        }
        write_absent(store, &shape, old.size.div_ceil(old.block), len / ENTRY)?;
        writer.write_footer(store)?;
        store.flush()?;
        let mut bytes = [0; HEADER_LEN];
        store.read_exact_at(at, &mut bytes)?;
        let mut raw = RawHeader::read_from_bytes(&bytes).expect("it is as long");
        raw.table_offset = taken.at.get().into();
        raw.max_table_entries = u32::try_from(entries).unwrap_or(u32::MAX).into();
        let place = std::mem::offset_of!(RawHeader, checksum);
        raw.checksum = checksum(raw.as_bytes(), place).into();
        let (first, _) = raw.as_bytes().split_first_chunk::<512>().expect("it has two sectors");
        writer.doubt.during(|| {
            store.write_at(at, first)?;
            Ok(store.flush()?)
        })?;
        Ok(shape)
    }

    /// Makes what is new read as zero, and gives it space if it is to have some.
    fn fill_new(
        &self,
        blocks: &Blocks,
        old: u64,
        size: u64,
        how: Preallocation,
        new: &NewSize<'_>,
    ) -> Result<()> {
        // The rest of the block with the old end. The others are absent.
        let end = old.next_multiple_of(blocks.shape().block).min(size);
        if end > old {
            (new.zero)(GuestRange::between(GuestOffset(old), GuestOffset(end)))?;
        }
        if how != Preallocation::Off {
            let range = GuestRange::between(GuestOffset(old), GuestOffset(size));
            give_space(self, range, how, |at| blocks.shape().block_at(at))?;
        }
        self.flush()
    }

    fn shrink(&self, blocks: &Blocks, writer: &Writer, size: u64, new: &NewSize<'_>) -> Result<()> {
        let old = blocks.shape();
        let unit_end = size.next_multiple_of(old.block).min(old.size);
        if unit_end > size {
            (new.zero)(GuestRange::between(GuestOffset(size), GuestOffset(unit_end)))?;
        }
        let _claim = writer.claims.hold_before_others(GuestRange::whole(u64::MAX));
        self.flush()?;
        let behind = size.div_ceil(old.block)..old.size.div_ceil(old.block);
        let freed = blocks_of(&*blocks.store, &old, behind.clone())?;
        writer.switch_footer(&*blocks.store, |footer| put_size(footer, size))?;
        blocks.reshape(Shape { size, ..old });
        // Now that the disk ends before them, nothing shows when these entries say nothing.
        write_absent(&*blocks.store, &old, behind.start, behind.end)?;
        blocks.store.flush()?;
        blocks.table.clear();
        for (block, at) in behind.zip(freed) {
            if let Some(at) = at {
                writer.forget_block(&old, block, at);
            }
        }
        // What was freed comes back, and the file is cut.
        self.flush()
    }
}

/// Where these blocks are, those that are there.
fn blocks_of(
    store: &dyn Storage,
    shape: &Shape,
    numbers: std::ops::Range<u64>,
) -> Result<Vec<Option<HostOffset>>> {
    let len = usize::try_from((numbers.end - numbers.start) * ENTRY).unwrap_or_default();
    let mut bytes = vec![0; len];
    store.read_exact_at(shape.table.saturating_add(numbers.start * ENTRY), &mut bytes)?;
    let entries = bytes.as_chunks().0.iter().map(|entry| u32::from_be_bytes(*entry));
    let place = |entry| (entry != ABSENT).then(|| HostOffset(u64::from(entry) * SECTOR));
    Ok(entries.map(place).collect())
}

/// Writes entries of blocks that are absent, from number `from` up to `to` of a table.
fn write_absent(store: &dyn Storage, shape: &Shape, from: u64, to: u64) -> Result<()> {
    let mut done = from * ENTRY;
    while done < to * ENTRY {
        let count = (to * ENTRY - done).min(AT_ONCE);
        let bytes = vec![0xFF; usize::try_from(count).expect("1 MiB at most")];
        store.write_at(shape.table.saturating_add(done), &bytes)?;
        done += count;
    }
    Ok(())
}
