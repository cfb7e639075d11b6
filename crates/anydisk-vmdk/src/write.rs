//! The writing side: places, commits, zeroes, and what is written back in which order.
//!
//! ```text
//!   first write:  new CID, uncleanShutdown = 1
//!   flush:        data -> flush -> second tables, tables, uncleanShutdown = 0 -> flush
//! ```

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    Attempt, Below, Claims, Committed, DirtySlice, Error, GuestOffset, GuestRange, Handled,
    HostOffset, Image, ImageWrite, Lease, Limits, Placement, Reservation, Reserved, Result, Sealed,
    Storage, Updated, WriteLease, Zeroing,
};

use crate::NAME;
use crate::alloc::Grains;
use crate::content_id::ContentId;
use crate::descriptor::Descriptor;
use crate::extent::{Body, Flat, Packed, Part, Sparse};
use crate::guard::Mirror;
use crate::header::limit;
use crate::image::{Look, Table, VmdkImage, key, unkey};
use crate::layout::{SECTOR, SparseHeader};
use crate::table::{Grain, SLICE, SliceAt, sector_of, vacant};

/// What writing needs beside the image.
#[derive(Debug)]
pub(crate) struct Writer {
    claims: Claims,
    /// One for each part; `None` where a part is no sparse extent that can be written.
    extents: Vec<Option<SparseWriter>>,
    content_id: ContentId,
    /// Another image lies below, whether it was opened or not.
    has_parent: bool,
    /// One write-back runs at a time.
    round: Mutex<()>,
}

#[derive(Debug)]
struct SparseWriter {
    grains: Grains,
    mirror: Mirror,
    /// `uncleanShutdown` is set, by us.
    marked: AtomicBool,
}

impl Writer {
    /// Checks that the image can be written.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where all of it can only be read, and those of [`Mirror::of`].
    pub(crate) fn new(
        image: &VmdkImage,
        descriptor: Descriptor,
        room: Option<u64>,
        is_new: bool,
        limits: &Limits,
    ) -> Result<Self> {
        if !image.files[0].store.is_writable() {
            return Err(read_only("its file was opened for reading"));
        }
        if descriptor.value("changeTrackPath").is_some() {
            return Err(read_only("it has a change tracking file, which would no longer be true"));
        }
        let reserved: Vec<_> = room.map(|room| (descriptor.at(), room)).into_iter().collect();
        let extent = |part: &Part| SparseWriter::of(image, part, &reserved, limits);
        let extents = image.parts.iter().map(extent).collect::<Result<_>>()?;
        check_shared_files(image)?;
        Ok(Self {
            claims: Claims::default(),
            extents,
            has_parent: descriptor.parent.is_some(),
            content_id: ContentId::new(descriptor, room, is_new),
            round: Mutex::default(),
        })
    }

    /// The content ID as it is now.
    pub(crate) fn content_id(&self) -> Option<u32> {
        self.content_id.now()
    }

    fn extent(&self, part: usize) -> Result<&SparseWriter> {
        let extent = self.extents.get(part).and_then(Option::as_ref);
        extent.ok_or_else(|| read_only("this extent can only be read"))
    }
}

impl SparseWriter {
    fn of(
        image: &VmdkImage,
        part: &Part,
        reserved: &[(HostOffset, u64)],
        limits: &Limits,
    ) -> Result<Option<Self>> {
        let Body::Sparse(sparse) = &part.body else { return Ok(None) };
        if !part.writable {
            return Ok(None);
        }
        if sparse.packed != Packed::No {
            return Err(read_only("compressed grains are written in one pass only"));
        }
        limit("size of a grain to be written, in bytes", sparse.geometry.grain(), limits.unit)?;
        let file = &image.files[sparse.file];
        let reserved = if sparse.file == 0 { reserved } else { &[] };
        let mirror =
            Mirror::of(sparse, &*file.store, reserved).map_err(|error| error.within(&file.name))?;
        let end = sparse.end().max(sparse.overhead);
        let grains = Grains::new(sparse.geometry.grain(), end);
        Ok(Some(Self { grains, mirror, marked: AtomicBool::new(false) }))
    }

    /// Sets `uncleanShutdown` before the extent is changed for the first time since a flush.
    fn mark(&self, sparse: &Sparse, store: &dyn Storage) -> Result<()> {
        if !self.marked.load(Relaxed) && !sparse.unclean {
            write_unclean(store, true)?;
            self.marked.store(true, Relaxed);
        }
        Ok(())
    }

    /// Clears it again: all tables are about to be durable. Whoever writes at this moment leaves
    /// tables that are as good as those before; the flag only tells others where to look.
    fn unmark(&self, store: &dyn Storage) -> Result<()> {
        if self.marked.swap(false, Relaxed) {
            write_unclean(store, false).inspect_err(|_| self.marked.store(true, Relaxed))?;
        }
        Ok(())
    }
}

fn write_unclean(store: &dyn Storage, unclean: bool) -> Result<()> {
    let at = HostOffset(std::mem::offset_of!(SparseHeader, uncleanShutdown) as u64);
    Ok(store.write_at(at, &[u8::from(unclean)])?)
}

/// A file of grains belongs to one extent, else two would hand out the same space.
fn check_shared_files(image: &VmdkImage) -> Result<()> {
    let mut users = vec![0_u32; image.files.len()];
    let mut grains = vec![false; image.files.len()];
    for part in image.parts.iter().filter(|part| part.writable) {
        match &part.body {
            Body::Zero => {}
            Body::Flat(flat) => users[flat.file] += 1,
            Body::Sparse(sparse) => {
                users[sparse.file] += 1;
                grains[sparse.file] = true;
            }
        }
    }
    match users.iter().zip(&grains).any(|(users, grains)| *users > 1 && *grains) {
        true => Err(read_only("several extents lie in one sparse file")),
        false => Ok(()),
    }
}

fn read_only(why: &'static str) -> Error {
    Error::ReadOnly { why: why.into() }
}

/// A part that can be written, with the part of the range that lies in it.
struct Target<'a> {
    index: usize,
    part: &'a Part,
    range: GuestRange,
    writer: &'a Writer,
}

impl VmdkImage {
    fn target(&self, range: GuestRange) -> Result<Target<'_>> {
        let (index, part, range) = self.part_at(range)?;
        let Some(writer) = &self.writer else {
            return Err(read_only("it was opened for reading"));
        };
        if !part.writable {
            return Err(read_only("an extent is marked read-only, or has no file"));
        }
        Ok(Target { index, part, range, writer })
    }

    /// What must be done before the first byte of a file is changed: once, two small writes. They
    /// are not flushed here; they are durable no later than the data.
    fn begin(&self, target: &Target<'_>, file: usize) -> Result<()> {
        target.writer.content_id.renew(&self.files[0])?;
        self.files[file].used.store(true, Relaxed);
        Ok(())
    }

    fn place_flat<'a>(&'a self, target: &Target<'_>, flat: &Flat) -> Result<Placement<'a>> {
        let (at, rest) = flat.place(target.part.offset_of(target.range))?;
        self.begin(target, flat.file)?;
        let len = target.range.len().min(rest);
        let store = &self.files[flat.file].store;
        Ok(Placement::InPlace { store, at, len, lease: WriteLease::eternal() })
    }

    fn place_sparse<'a>(&'a self, target: &Target<'a>, sparse: &'a Sparse) -> Result<Attempt<'a>> {
        let lease = self.leases.take();
        let (answer, len, slice) = match self.look(target.part, sparse, target.range)? {
            Look::Need(need) => return Ok(Attempt::Need(need)),
            Look::NoTable(_) => return Err(read_only("a grain table is missing")),
            Look::Run { answer, len, slice } => (answer, len, slice),
        };
        self.begin(target, sparse.file)?;
        let extent = target.writer.extent(target.index)?;
        extent.mark(sparse, &*self.files[sparse.file].store)?;
        match answer {
            Grain::Sector(sector) => {
                self.in_place(target, sparse, InPlace { sector, len, slice, lease })
            }
            Grain::Absent | Grain::Zero => self.reserve(target, sparse, extent, slice),
        }
    }

    fn in_place<'a>(
        &'a self,
        target: &Target<'_>,
        sparse: &'a Sparse,
        found: InPlace<'a>,
    ) -> Result<Attempt<'a>> {
        let InPlace { sector, len, slice, lease } = found;
        let within = sparse.geometry.locate(target.part.offset_of(target.range)).within;
        let count = sparse.grains_of(within + len);
        let at = sparse.grain_at(sector, count, slice.entry_at())?.saturating_add(within);
        let store = &self.files[sparse.file].store;
        let lease = WriteLease::new(lease);
        Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
    }

    /// New space for the grains from the start of the range on that have none.
    fn reserve<'a>(
        &'a self,
        target: &Target<'a>,
        sparse: &'a Sparse,
        extent: &SparseWriter,
        slice: SliceAt,
    ) -> Result<Attempt<'a>> {
        let place = sparse.geometry.locate(target.part.offset_of(target.range));
        let wanted = sparse.grains_of(place.within + target.range.len());
        let Some(wanted) = self.vacant(sparse, slice, wanted) else {
            return Ok(Attempt::Need(self.need_table(sparse, slice)));
        };
        if wanted == 0 {
            return Ok(Attempt::Busy); // Someone was faster: the next look shows it.
        }
        let taken = extent.grains.take(wanted, &self.leases)?;
        let units = units(target, sparse, taken.count);
        if !target.writer.claims.try_claim(units) {
            extent.grains.untake(taken);
            return Ok(Attempt::Busy);
        }
        // Nobody else changes these entries from now on. Did somebody since they were looked at?
        if self.vacant(sparse, slice, taken.count) != Some(taken.count) {
            extent.grains.untake(taken);
            target.writer.claims.release(units);
            return Ok(Attempt::Busy);
        }
        let token = target.index as u64;
        let reserved = Reserved { range: units, at: taken.at, zeroed: taken.zeroed, token };
        let store = &self.files[sparse.file].store;
        Ok(Attempt::Placed(Placement::Fresh(Reservation::new(self, store, reserved))))
    }

    /// How many of `wanted` grains from an entry on have no space; `None` if that is not in memory.
    fn vacant(&self, sparse: &Sparse, slice: SliceAt, wanted: u32) -> Option<u32> {
        let end = slice.index.saturating_add(wanted).min(slice.count);
        self.tables.read(key(sparse.file, slice.at), |entries| {
            vacant(|index| sparse.decode(entries.get(index as usize)), slice.index, end)
        })
    }

    /// The part of a reservation, and where its first entry is.
    fn reserved_part(&self, reserved: &Reserved) -> Result<(usize, &Sparse, &SparseWriter)> {
        let target = self.target(reserved.range)?;
        let Body::Sparse(sparse) = &target.part.body else {
            return Err(read_only("this extent reserves nothing"));
        };
        Ok((target.index, sparse, target.writer.extent(target.index)?))
    }

    fn commit_sparse<'a>(&'a self, reserved: &Reserved) -> Result<Committed<'a>> {
        let (part, sparse, _) = self.reserved_part(reserved)?;
        let from_start = self.parts[part].offset_of(reserved.range);
        let place = sparse.geometry.locate(from_start);
        let table = match self.table(sparse, place.table)? {
            Table::Need(need) => return Ok(Committed::Need(need)),
            Table::Absent(_) => return Err(read_only("a grain table is missing")),
            Table::At(table) => table,
        };
        let slice = sparse.geometry.table_slice(table, place.entry);
        let first = sector_of(reserved.at).ok_or_else(|| read_only("its file is full"))?;
        let count = sparse.grains_of(reserved.range.len());
        let step = sparse.grain_sectors();
        // Readers ask for the end after they have read the entry.
        sparse.grow_to(reserved.at.saturating_add(u64::from(count) * sparse.geometry.grain()));
        let update = self.tables.update(key(sparse.file, slice.at), |entries| {
            for index in 0..count {
                let entry = Grain::Sector(first + index * step).encode();
                entries.set((slice.index + index) as usize, entry);
            }
        });
        match update {
            Updated::Missing => Ok(Committed::Need(self.need_table(sparse, slice))),
            Updated::Full => Ok(Committed::Full),
            Updated::Done(()) => {
                self.release(reserved.range);
                Ok(Committed::Done)
            }
        }
    }

    fn release(&self, units: GuestRange) {
        if let Some(writer) = &self.writer {
            writer.claims.release(units);
        }
    }

    /// Makes the start of the range read as zero by its entries, if that can be done.
    fn clear(&self, target: &Target<'_>, sparse: &Sparse, how: Zeroing) -> Result<Handled> {
        let (answer, len) = self.look_now(target.part, sparse, target.range)?;
        let nothing_below = how.below == Below::Nothing && !target.writer.has_parent;
        if answer == Grain::Zero || (answer == Grain::Absent && nothing_below) {
            return Ok(Handled::Done(len));
        }
        let grain = sparse.geometry.grain();
        let within = sparse.geometry.locate(target.part.offset_of(target.range)).within;
        if within != 0 {
            return Ok(Handled::ByData(len.min(grain - within)));
        }
        // The last grain of the extent may be short: its whole is what the extent has of it.
        let reaches_end = target.range.first(len).end() == target.part.range.end();
        let count = if reaches_end { sparse.grains_of(len) } else { whole(len, grain) };
        let to = match (sparse.zeroed, nothing_below) {
            (true, _) => Grain::Zero,
            (false, true) => Grain::Absent,
            (false, false) => return Ok(Handled::ByData(len)),
        };
        let keeps_space = !how.unmap && matches!(answer, Grain::Sector(_));
        if count == 0 || keeps_space {
            return Ok(Handled::ByData(len));
        }
        let units = units(target, sparse, count);
        self.begin(target, sparse.file)?;
        target.writer.claims.claim(units);
        let cleared = self.clear_units(target, sparse, units, to);
        target.writer.claims.release(units);
        cleared.map(|()| Handled::Done(units.len()))
    }

    /// Changes the entries of claimed units, and gives back the grains they named.
    fn clear_units(
        &self,
        target: &Target<'_>,
        sparse: &Sparse,
        units: GuestRange,
        to: Grain,
    ) -> Result<()> {
        let extent = target.writer.extent(target.index)?;
        extent.mark(sparse, &*self.files[sparse.file].store)?;
        let count = sparse.grains_of(units.len());
        loop {
            let slice = match self.look(target.part, sparse, units)? {
                Look::Need(need) => {
                    self.satisfy(&need)?;
                    continue;
                }
                Look::NoTable(_) => return Err(read_only("a grain table is missing")),
                Look::Run { slice, .. } => slice,
            };
            let mut freed = Vec::new();
            let update = self.tables.update(key(sparse.file, slice.at), |entries| {
                for index in slice.index..slice.index + count {
                    let index = index as usize;
                    if let Grain::Sector(sector) = sparse.decode(entries.get(index)) {
                        freed.push(sector);
                    }
                    entries.set(index, to.encode());
                }
            });
            match update {
                Updated::Missing => {}
                Updated::Full => self.relieve()?,
                Updated::Done(()) => {
                    let places = freed.into_iter().map(crate::table::sector_at);
                    places.for_each(|at| extent.grains.retire(at));
                    return Ok(());
                }
            }
        }
    }

    /// The tables' answer for the start of the range, reading them as needed.
    fn look_now(&self, part: &Part, sparse: &Sparse, range: GuestRange) -> Result<(Grain, u64)> {
        loop {
            match self.look(part, sparse, range)? {
                Look::Need(need) => self.satisfy(&need)?,
                Look::NoTable(len) => return Ok((Grain::Absent, len)),
                Look::Run { answer, len, .. } => return Ok((answer, len)),
            }
        }
    }

    /// Zeroes a flat extent by changing its file's space, or says that bytes must be written.
    fn clear_flat(&self, target: &Target<'_>, flat: &Flat, unmap: bool) -> Result<Handled> {
        let (at, rest) = flat.place(target.part.offset_of(target.range))?;
        let len = target.range.len().min(rest);
        let Some(space) = self.files[flat.file].store.space() else {
            return Ok(Handled::ByData(len));
        };
        self.begin(target, flat.file)?;
        match space.zero(at, len, unmap) {
            Ok(()) => Ok(Handled::Done(len)),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(Handled::ByData(len)),
            Err(error) => Err(error.into()),
        }
    }

    fn clear_any(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let (_, part, inside) = self.part_at(range)?;
        if matches!(part.body, Body::Zero) && self.writer.is_some() {
            return Ok(Handled::Done(inside.len()));
        }
        let target = self.target(range)?;
        match &target.part.body {
            Body::Zero => Ok(Handled::Done(target.range.len())),
            Body::Flat(flat) => self.clear_flat(&target, flat, how.unmap),
            Body::Sparse(sparse) => self.clear(&target, sparse, how),
        }
    }

    /// The sparse extents that can be written.
    fn sparse_writers(&self) -> impl Iterator<Item = (&Sparse, &SparseWriter)> {
        let writers = self.writer.iter().flat_map(|writer| &writer.extents);
        self.parts.iter().zip(writers).filter_map(|(part, writer)| match &part.body {
            Body::Sparse(sparse) => Some((sparse, writer.as_ref()?)),
            _ => None,
        })
    }

    fn flush_files(&self) -> Result<()> {
        let mut used = self.files.iter().filter(|file| file.used.load(Relaxed));
        used.try_for_each(|file| Ok(file.store.flush()?))
    }

    /// Data, then the tables that name it, each on the medium before the next.
    fn write_round(&self, pictures: &[DirtySlice]) -> Result<()> {
        for (sparse, writer) in self.sparse_writers() {
            let file = &self.files[sparse.file];
            if file.used.load(Relaxed) {
                writer.grains.cover(&*file.store)?;
            }
        }
        self.flush_files()?;
        let marked = self.sparse_writers().any(|(_, writer)| writer.marked.load(Relaxed));
        if pictures.is_empty() && !marked {
            return Ok(());
        }
        for (sparse, writer) in self.sparse_writers() {
            let store = &*self.files[sparse.file].store;
            write_tables(store, sparse, pictures, |table| writer.mirror.second(table))?;
            write_tables(store, sparse, pictures, Some)?;
            writer.unmark(store)?;
        }
        self.flush_files()
    }

    fn lock_round<'a>(&self, writer: &'a Writer) -> MutexGuard<'a, ()> {
        writer.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A grain that has its place.
struct InPlace<'a> {
    sector: u32,
    len: u64,
    slice: SliceAt,
    lease: Lease<'a>,
}

/// Writes the pictures of an extent's tables to where `place` says that they go.
fn write_tables(
    store: &dyn Storage,
    sparse: &Sparse,
    pictures: &[DirtySlice],
    place: impl Fn(HostOffset) -> Option<HostOffset>,
) -> Result<()> {
    // A table to be written is never longer than a slice.
    let count = sparse.geometry.entries().min(SLICE) as usize;
    for picture in pictures {
        let (file, table) = unkey(picture.at);
        let Some(at) = place(table).filter(|_| file == sparse.file) else { continue };
        let entries = picture.entries.iter().take(count);
        let entry = |entry: &u64| u32::try_from(*entry).unwrap_or_default().to_le_bytes();
        let bytes: Vec<u8> = entries.flat_map(entry).collect();
        store.write_at(at, &bytes)?;
    }
    Ok(())
}

/// Whole grains in `len` bytes.
fn whole(len: u64, grain: u64) -> u32 {
    u32::try_from(len / grain).unwrap_or(SLICE)
}

/// `count` grains from the one that holds the start of the range, cut at the end of the part.
fn units(target: &Target<'_>, sparse: &Sparse, count: u32) -> GuestRange {
    let part = target.part.range;
    let from_start = target.part.offset_of(target.range);
    let within = sparse.geometry.locate(from_start).within;
    let start = GuestOffset(part.start().get() + from_start - within);
    let len = u64::from(count) * sparse.geometry.grain();
    GuestRange::between(start, GuestOffset(start.get().saturating_add(len))).before(part.end())
}

impl ImageWrite for VmdkImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        let target = self.target(range)?;
        match &target.part.body {
            Body::Zero => Err(read_only("an extent of zeroes has no file")),
            Body::Flat(flat) => Ok(Attempt::Placed(self.place_flat(&target, flat)?)),
            Body::Sparse(sparse) => self.place_sparse(&target, sparse),
        }
    }

    fn try_place_encoded(&self, _: GuestRange, _: usize) -> Result<Attempt<'_>> {
        let feature = "compressed data in an image that is written in place";
        Err(Error::Unsupported { format: NAME, feature: feature.into() })
    }

    fn claims(&self) -> Option<&Claims> {
        self.writer.as_ref().map(|writer| &writer.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        self.commit_sparse(reserved)
    }

    fn abandon(&self, reserved: &Reserved) {
        if let Ok((_, _, extent)) = self.reserved_part(reserved) {
            extent.grains.give_back(reserved.at, reserved.range.len());
        }
        self.release(reserved.range);
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.clear_any(range, how)
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.clear_any(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let _round = self.lock_round(writer);
        let sealed: Vec<Sealed<HostOffset>> =
            self.sparse_writers().map(|(_, writer)| writer.grains.seal()).collect();
        let pictures = self.tables.dirty();
        let result = self.write_round(&pictures);
        for ((_, writer), sealed) in self.sparse_writers().zip(sealed) {
            writer.grains.settle(sealed, result.is_ok(), &self.leases);
        }
        result?;
        pictures.iter().for_each(|picture| self.tables.settle(picture));
        Ok(())
    }

    fn unit(&self) -> u64 {
        self.grain().unwrap_or(SECTOR)
    }
}
