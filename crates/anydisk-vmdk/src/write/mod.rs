//! The writing side: places, commits, zeroes, and what is written back in which order.
//!
//! ```text
//!   first write:  new CID, uncleanShutdown = 1
//!   flush:        data, next free sector -> flush -> second tables, tables -> flush (if a table is new)
//!                 -> directories, uncleanShutdown = 0 -> flush
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
    Attempt, Below, Claims, Committed, Error, GuestOffset, GuestRange, Handled, HostOffset,
    ImageWrite, Limits, Reserved, Result, Storage, Zeroing,
};

use crate::NAME;
use crate::alloc::Grains;
use crate::content_id::ContentId;
use crate::descriptor::Descriptor;
use crate::descriptor_file::DescriptorFile;
use crate::extent::{Body, Packed, Part, Sparse};
use crate::guard::Mirror;
use crate::header::limit;
use crate::image::{VmdkImage, key};
use crate::layout::SECTOR;
use crate::table::SliceAt;

/// What writing needs beside the image.
#[derive(Debug)]
pub(crate) struct Writer {
    claims: Claims,
    /// One for each part; `None` where a part is no sparse extent that can be written.
    extents: Vec<Option<SparseWriter>>,
    content_id: ContentId,
    pub(crate) descriptor: DescriptorFile,
    /// Another image lies below, whether it was opened or not.
    has_parent: AtomicBool,
    /// One write-back runs at a time.
    round: Mutex<()>,
}

#[derive(Debug)]
struct SparseWriter {
    grains: Grains,
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
            return Err(read_only("none of its extents can be written"));
        }
        if descriptor.value("changeTrackPath").is_some() {
            return Err(read_only("it has a change tracking file, which would no longer be true"));
        }
        let reserved: Vec<_> = room.map(|room| (descriptor.at(), room)).into_iter().collect();
        let extent = |part: &Part| SparseWriter::of(image, part, &reserved, is_new, limits);
        let extents = image.parts.iter().map(extent).collect::<Result<_>>()?;
        check_shared_files(image)?;
        Ok(Self {
            claims: Claims::default(),
            extents,
            has_parent: descriptor.parent.is_some().into(),
            content_id: ContentId::new(is_new),
            descriptor: DescriptorFile::new(descriptor, room),
            round: Mutex::default(),
        })
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
        is_new: bool,
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
        if sparse.damaged {
            let why = "its first grain directory is not in the file";
            let error = Error::NeedsRepair { format: NAME, why: why.into() };
            return Err(error.within(&file.name));
        }
        let reserved = if sparse.file == 0 { reserved } else { &[] };
        let mirror = Mirror::of(sparse, &*file.store, reserved, is_new)
            .map_err(|error| error.within(&file.name))?;
        let end = sparse.end().max(sparse.overhead);
        let grains = Grains::new(sparse.geometry.grain(), end);
        let (marked, adding) = (AtomicBool::new(false), Mutex::default());
        Ok(Some(Self { grains, mirror, marked, adding }))
    }

    /// Sets `uncleanShutdown` before the extent is changed for the first time since a flush.
    fn mark(&self, sparse: &Sparse, store: &dyn Storage) -> Result<()> {
        if !self.marked.load(Relaxed) && !sparse.unclean {
            write_unclean(sparse, store, true)?;
            self.marked.store(true, Relaxed);
        }
        Ok(())
    }

    /// Clears it again: all tables are about to be durable. Whoever writes at this moment leaves
    /// tables that are as good as those before; the flag only tells others where to look.
    fn unmark(&self, sparse: &Sparse, store: &dyn Storage) -> Result<()> {
        if self.marked.swap(false, Relaxed) {
            write_unclean(sparse, store, false)
                .inspect_err(|_| self.marked.store(true, Relaxed))?;
        }
        Ok(())
    }
}

fn write_unclean(sparse: &Sparse, store: &dyn Storage, unclean: bool) -> Result<()> {
    Ok(store.write_at(sparse.unclean_at, &[u8::from(unclean)])?)
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
        self.write_back()
    }

    fn unit(&self) -> u64 {
        self.grain().unwrap_or(SECTOR)
    }
}
