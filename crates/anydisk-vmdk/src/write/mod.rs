//! The writing side: places, commits, zeroes, and what is written back in which order.
//!
//! ```text
//!   first write:  new CID, uncleanShutdown = 1
//!   flush:        data, next free sector -> flush -> second tables, tables -> flush (if a table is new)
//!                 -> directories -> flush -> uncleanShutdown = 0
//! ```

mod backing;
mod flush;
mod place;
mod resize;
mod table;
mod zero;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anydisk_core::{
    Attempt, Below, Claims, Committed, Doubt, Error, GuestOffset, GuestRange, Handled, HostOffset,
    ImageWrite, Lease, Limits, Reserved, Result, RunSpace, Storage, TakenRun, WantedRun, Zeroing,
};

use crate::NAME;
use crate::content_id::ContentId;
use crate::descriptor::Descriptor;
use crate::descriptor_file::DescriptorFile;
use crate::extent::{Body, Packed, Part, Sparse};
use crate::guard::Mirror;
use crate::header::limit;
use crate::image::{VmdkImage, key};
use crate::layout::SECTOR;
use crate::limits;
use crate::table::SliceAt;

/// What writing needs beside the image.
#[derive(Debug)]
pub(crate) struct Writer {
    claims: Claims,
    content_id: ContentId,
    pub(crate) descriptor: DescriptorFile,
    /// Another image lies below, whether it was opened or not.
    has_parent: AtomicBool,
    /// One write-back runs at a time.
    round: Mutex<()>,
    /// One change of the size runs at a time.
    resizing: Mutex<()>,
    /// One of them failed half-way.
    doubt: Doubt,
    /// What a new extent may be.
    limits: Limits,
}

/// What writing needs in a file of grains.
#[derive(Debug)]
pub(crate) struct SparseWriter {
    /// Bytes of a grain.
    grain: u64,
    space: RunSpace,
    mirror: Mirror,
    /// `uncleanShutdown` is set, by us.
    marked: AtomicBool,
    /// One table is added at a time.
    adding: Mutex<()>,
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
        if image.parts.iter().all(|part| !part.writable) {
            return Err(read_only(match image.parts.get(0) {
                Some(part) if !descriptor.extents.is_empty() => why_not(part),
                _ => "it is an extent without the descriptor that names it",
            }));
        }
        if descriptor.value("changeTrackPath").is_some() {
            return Err(read_only("it has a change tracking file, which would no longer be true"));
        }
        let reserved: Vec<_> = room.map(|room| (descriptor.at(), room)).into_iter().collect();
        for part in image.parts.iter().filter(|part| part.writable) {
            if let Body::Sparse(sparse) = &part.body {
                let writer = SparseWriter::of(image, sparse, &reserved, is_new, limits)?;
                sparse.writer.set(writer.into()).expect("the image is just being opened");
            }
        }
        check_shared_files(image)?;
        Ok(Self {
            claims: Claims::default(),
            has_parent: descriptor.parent.is_some().into(),
            content_id: ContentId::new(is_new),
            descriptor: DescriptorFile::new(descriptor, room),
            round: Mutex::default(),
            resizing: Mutex::default(),
            doubt: Doubt::default(),
            limits: limits.clone(),
        })
    }
}

impl SparseWriter {
    fn of(
        image: &VmdkImage,
        sparse: &Sparse,
        reserved: &[(HostOffset, u64)],
        is_new: bool,
        limits: &Limits,
    ) -> Result<Self> {
        if sparse.packed != Packed::No {
            return Err(read_only("compressed grains are written in one pass only"));
        }
        limit("size of a grain to be written, in bytes", sparse.geometry().grain(), limits.unit)?;
        let file = &image.files[sparse.file];
        if sparse.damaged {
            let why = "its first grain directory is not in the file";
            return Err(Error::needs_repair(NAME, why).within(&file.name));
        }
        if !sparse.misled.is_empty() {
            let why = "its first grain directory names one place for several tables";
            return Err(Error::needs_repair(NAME, why).within(&file.name));
        }
        let reserved = if sparse.file == 0 { reserved } else { &[] };
        let mirror = Mirror::of(sparse, &*file.store, reserved, is_new)
            .map_err(|error| error.within(&file.name))?;
        let grain = sparse.geometry().grain();
        // The file may end inside its last grain, and should not end so when others follow.
        let end = sparse.end().max(sparse.overhead).get().next_multiple_of(grain);
        let space = RunSpace::new(HostOffset(end));
        let (marked, adding) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { grain, space, mirror, marked, adding })
    }

    /// A lease on the grains.
    pub(crate) fn lease(&self) -> Lease<'_> {
        self.space.leases().take()
    }

    /// Takes up to `count` grains in a row, at least one.
    ///
    /// # Errors
    /// [`Error::Limit`] if 32-bit sector numbers cannot name the place.
    fn take(&self, count: u32) -> Result<TakenRun> {
        let wanted = WantedRun { len: self.grain, most: count.into(), align: self.grain };
        self.checked(self.space.take(wanted))
    }

    /// Takes space for a table of `len` bytes.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn take_table(&self, len: u64) -> Result<TakenRun> {
        let len = len.next_multiple_of(self.grain);
        self.checked(self.space.take(WantedRun { len, most: 1, align: self.grain }))
    }

    /// Takes new space of at least `len` bytes, which reads as zero.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn take_zeroed(&self, len: u64) -> Result<TakenRun> {
        self.checked(self.space.take_zeroed(len.next_multiple_of(self.grain), self.grain))
    }

    fn checked(&self, taken: TakenRun) -> Result<TakenRun> {
        let end = taken.end().get();
        limit("size of an extent's file in bytes", end, limits::FILE)
            .inspect_err(|_| self.space.untake(taken))?;
        Ok(taken)
    }

    /// Sets `uncleanShutdown` before the extent is changed for the first time since a flush.
    fn mark(&self, sparse: &Sparse, store: &dyn Storage) -> Result<()> {
        if !self.marked.load(Relaxed) && !sparse.unclean {
            sparse.tell_unclean(store, true)?;
            self.marked.store(true, Relaxed);
        }
        Ok(())
    }

    /// Clears it again: all tables are durable. Whoever writes at this moment leaves
    /// tables that are as good as those before; the flag only tells others where to look.
    fn unmark(&self, sparse: &Sparse, store: &dyn Storage) -> Result<()> {
        if self.marked.swap(false, Relaxed) {
            sparse.tell_unclean(store, false).inspect_err(|_| self.marked.store(true, Relaxed))?;
        }
        Ok(())
    }
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

impl Sparse {
    /// What writing needs.
    fn writer(&self) -> Result<&SparseWriter> {
        let writer = self.writer.get().map(|writer| &**writer);
        writer.ok_or_else(|| read_only("this extent can only be read"))
    }
}

/// Why a part cannot be written.
fn why_not(part: &Part) -> &'static str {
    match &part.body {
        Body::Zero => "an extent of zeroes, or one without access, has no file",
        Body::Sparse(sparse) if !sparse.has_sector_entries() => {
            "of a seSparse extent, the bitmap, the back map and the journal beside its tables are not known"
        }
        Body::Flat(_) | Body::Sparse(_) => "an extent is marked read-only",
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
        writer.doubt.check()?;
        if !part.writable {
            return Err(read_only(why_not(part)));
        }
        Ok(Target { index, part, range, writer })
    }

    /// What must be done before the first byte of a file is changed: once, two small writes. They
    /// are not flushed here; they are durable no later than the data.
    fn begin(&self, target: &Target<'_>, file: usize) -> Result<()> {
        let Writer { content_id, descriptor, .. } = target.writer;
        content_id.renew(descriptor, &self.files[0])?;
        self.files[file].used.store(true, Relaxed);
        Ok(())
    }

    /// A slice of a table is about to be changed.
    fn forget_unwritten(&self, sparse: &Sparse, slice: SliceAt) {
        self.unwritten.forget(key(sparse.file, slice.at), slice.len());
    }

    fn release(&self, units: GuestRange) {
        if let Some(writer) = &self.writer {
            writer.claims.release(units);
        }
    }
}

/// `count` grains from the one that holds the start of the range, cut at the end of the part.
fn units(target: &Target<'_>, sparse: &Sparse, count: u32) -> GuestRange {
    let part = target.part.range();
    let from_start = target.part.offset_of(target.range);
    let within = sparse.geometry().locate(from_start).within;
    let start = GuestOffset(part.start().get() + from_start - within);
    let len = u64::from(count) * sparse.geometry().grain();
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
        .map_err(|error| self.in_file_of(target.part, error))
    }

    fn try_place_encoded(&self, _: GuestRange, _: usize) -> Result<Attempt<'_>> {
        let feature = "compressed data in an image that is written in place";
        Err(Error::Unsupported { format: NAME, feature: feature.into() })
    }

    fn frozen_part(&self, range: GuestRange) -> Option<(GuestRange, &'static str)> {
        let mut rest = range;
        while !rest.is_empty() {
            let (_, part, inside) = self.part_at(rest).ok()?;
            if !part.writable {
                return Some((inside, why_not(part)));
            }
            rest = rest.skip(inside.len());
        }
        None
    }

    fn claims(&self) -> Option<&Claims> {
        self.writer.as_ref().map(|writer| &writer.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        self.commit_sparse(reserved)
    }

    fn abandon(&self, reserved: &Reserved) {
        if let Ok((_, _, extent)) = self.reserved_part(reserved) {
            let len = reserved.range.len().next_multiple_of(extent.grain);
            extent.space.give_back(reserved.at, len);
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
        self.writer.iter().try_for_each(|writer| writer.doubt.check())?;
        self.write_back()
    }

    fn unit(&self) -> u64 {
        self.grain().unwrap_or(SECTOR)
    }
}
