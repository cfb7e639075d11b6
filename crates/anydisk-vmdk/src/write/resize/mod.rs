//! Changing the virtual size.
//!
//! ```text
//!   grow:    longer file, or new directories and tables; new extents -> flush
//!            -> zeroes behind the old end -> flush -> header, descriptor -> flush
//!   shrink:  zeroes behind the new end -> flush -> descriptor, header -> flush
//!            -> what lies behind is given back
//! ```
//!
//! The size is what the descriptor says, where it has a file of its own, and what the header says,
//! where it lies in the only extent. A header that says more than its descriptor does no harm.

mod extents;
mod flat;
mod sparse;

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{
    Claim, Error, GuestOffset, GuestRange, HostOffset, Image, NewSize, Preallocation, Reference,
    Resize, Result, Role,
};

use super::{Writer, read_only};
use crate::descriptor::{Descriptor, ExtentLine};
use crate::extent::{Body, Part, Sparse};
use crate::header::{limit, unsupported};
use crate::image::VmdkImage;
use crate::layout::SECTOR;
use crate::limits;

/// What the extents of a disk become.
struct Plan {
    /// Number of the part that is the last one, or the last before those that are added.
    last: usize,
    /// Its bytes.
    len: u64,
    /// Bytes of the extents that are added.
    added: Vec<u64>,
    /// The disk gets longer.
    grows: bool,
}

impl Plan {
    /// What becomes of the extents when the disk has `size` bytes. `split`: none that is added, and
    /// none that grows, has more.
    fn of(image: &VmdkImage, size: u64, split: Option<u64>) -> Result<Self> {
        let reaches = |part: &&Part| !part.is_empty() && part.range().end().get() >= size;
        let last = match image.parts.iter().position(|part| reaches(&part)) {
            Some(part) => part,
            None => image.last_part().ok_or_else(|| unsupported("a disk without extents"))?,
        };
        let range = image.parts[last].range();
        let wanted = size.saturating_sub(range.start().get());
        let len = match split {
            Some(split) if wanted > range.len() => wanted.min(split.max(range.len())),
            _ => wanted,
        };
        let mut rest = wanted - len;
        let mut added = Vec::new();
        while let Some(split) = split.filter(|_| rest > 0) {
            limit("number of extents", added.len() as u64, limits::FILES)?;
            added.push(split.min(rest));
            rest -= split.min(rest);
        }
        Ok(Self { last, len, added, grows: size > image.size() })
    }
}

impl Resize for VmdkImage {
    /// Changes the last extent; a split disk gets more extents, or loses those behind its end.
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let writer = self.writer.as_ref().ok_or_else(|| read_only("it was opened for reading"))?;
        let _resizing = writer.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        limit("size of the disk in bytes", new.size, limits::DISK)?;
        if new.size == 0 || !new.size.is_multiple_of(SECTOR) {
            return Err(unsupported("a size that is 0 or no multiple of 512 bytes"));
        }
        if let Some(last) = self.last_part() {
            self.check_growing(&self.parts[last])?;
        }
        let plan = Plan::of(self, new.size, self.split_len(writer))?;
        match new.size.cmp(&self.size()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => self.shrink(writer, &plan, new),
            std::cmp::Ordering::Greater => self.grow(writer, &plan, new),
        }
    }
}

impl VmdkImage {
    /// Bytes of the extents of a split disk. An extent that holds the descriptor is the only one,
    /// whatever that says.
    fn split_len(&self, writer: &Writer) -> Option<u64> {
        let last = self.last_part().map(|last| &self.parts[last].body);
        match last {
            Some(Body::Sparse(sparse)) if self.is_embedded(sparse) => None,
            _ => writer.descriptor.read(extents::split_len),
        }
    }

    /// The number of the last part that is on the disk.
    fn last_part(&self) -> Option<usize> {
        let live = self.parts.iter().enumerate().filter(|(_, part)| !part.is_empty());
        live.last().map(|(number, _)| number)
    }

    /// Only what has a file for itself gets longer or shorter.
    fn check_growing(&self, part: &Part) -> Result<()> {
        let Some(file) = part.file().filter(|_| part.writable) else {
            return Err(unsupported("another size where the last extent cannot be written"));
        };
        let others = self.parts.iter().filter(|part| !part.is_empty() && part.file() == Some(file));
        match others.count() {
            1 => Ok(()),
            _ => Err(unsupported("another size where the last extent shares its file with others")),
        }
    }

    /// Nobody places, commits or clears anything meanwhile.
    fn hold_still<'a>(&self, writer: &'a Writer) -> Claim<'a> {
        writer.claims.hold_before_others(GuestRange::whole(u64::MAX))
    }

    fn grow(&self, writer: &Writer, plan: &Plan, new: &NewSize<'_>) -> Result<()> {
        let part = &self.parts[plan.last];
        self.check_growing(part)?;
        let (old, old_len) = (self.size(), part.range().len());
        let mut made = Vec::new();
        let ready = self.grow_last(writer, plan, new.preallocation).and_then(|()| {
            self.add_extents(writer, &plan.added, new, &mut made)?;
            self.fill(part, old_len, old, new)?;
            self.write_back()
        });
        // From here on the descriptor may name the new files, also after an error.
        let is_ready = ready.is_ok();
        let grown = ready.and_then(|()| self.tell_grown(writer, plan, &made));
        if grown.is_err() {
            self.cut(plan.last, old_len);
        }
        if !is_ready {
            for (_, name) in made {
                // What went wrong first is what matters.
                let _ = new.companions.remove(&Reference::new(Role::Extent, name));
            }
        }
        grown
    }

    /// Makes the last extent `len` bytes long, in its file and in memory.
    fn grow_last(&self, writer: &Writer, plan: &Plan, how: Preallocation) -> Result<()> {
        let (part, len) = (&self.parts[plan.last], plan.len);
        let old = part.range().len();
        match &part.body {
            Body::Zero => return Err(unsupported("growing an extent of zeroes")),
            Body::Flat(flat) => {
                let store = &*self.files[flat.file].store;
                self.files[flat.file].used.store(true, Relaxed);
                if len > old {
                    flat::grow(flat, store, (old, len), how)?;
                }
                flat.set_end(HostOffset(store.len()?));
            }
            Body::Sparse(sparse) => {
                if how != Preallocation::Off {
                    return Err(unsupported("preallocation of sparse extents"));
                }
                let store = &*self.files[sparse.file].store;
                sparse::check_len(sparse, len)?;
                sparse::check_header(sparse, store)?;
                let _still = self.hold_still(writer);
                self.files[sparse.file].used.store(true, Relaxed);
                self.clear_behind(part, sparse, old)?;
                self.write_back()?;
                self.add_tables(sparse, len)?;
            }
        }
        self.cut(plan.last, len);
        Ok(())
    }

    /// Makes what is new read as zero: the rest of the grain with the old end, and what would show of
    /// a longer disk below.
    fn fill(&self, part: &Part, old_len: u64, old: u64, new: &NewSize<'_>) -> Result<()> {
        let unit = match &part.body {
            Body::Sparse(sparse) => sparse.geometry().grain(),
            _ => SECTOR,
        };
        let unit_end = part.range().start().get() + old_len.next_multiple_of(unit);
        let end = unit_end.max(new.below).min(new.size);
        match end > old {
            true => (new.zero)(GuestRange::between(GuestOffset(old), GuestOffset(end))),
            false => Ok(()),
        }
    }

    /// Writes the new size into header and descriptor.
    fn tell_grown(&self, writer: &Writer, plan: &Plan, made: &[(u64, Vec<u8>)]) -> Result<()> {
        if let Body::Sparse(sparse) = &self.parts[plan.last].body
            && !self.is_embedded(sparse)
        {
            let store = &*self.files[sparse.file].store;
            writer.doubt.during(|| sparse::tell_capacity(sparse, store, plan.len))?;
        }
        self.tell(writer, plan, made)
    }

    /// Whether the extent holds the descriptor.
    fn is_embedded(&self, sparse: &Sparse) -> bool {
        sparse.file == 0
    }

    /// Writes the extents into the descriptor, durably, with a new content ID; and where that lies
    /// in the extent, the size into the header.
    fn tell(&self, writer: &Writer, plan: &Plan, made: &[(u64, Vec<u8>)]) -> Result<()> {
        let file = &self.files[0];
        writer.content_id.renew(&writer.descriptor, file)?;
        file.store.flush()?;
        let before = self.parts.iter().take(plan.last);
        let number = before.filter(|part| !part.is_empty()).count();
        let how = |descriptor: &mut Descriptor| {
            descriptor.set_end(number, plan.len, made);
            Ok(())
        };
        writer.doubt.during(|| match &self.parts[plan.last].body {
            Body::Sparse(sparse) if self.is_embedded(sparse) => {
                let grain = sparse.geometry().grain();
                writer.descriptor.change_with_capacity(file, grain, (plan.len, plan.grows), how)
            }
            _ => {
                writer.descriptor.change(file, how)?;
                Ok(file.store.flush()?)
            }
        })
    }

    fn shrink(&self, writer: &Writer, plan: &Plan, new: &NewSize<'_>) -> Result<()> {
        let part = &self.parts[plan.last];
        let lines = || writer.descriptor.read(|descriptor| descriptor.extents.clone());
        let before = lines();
        if let Body::Sparse(sparse) = &part.body
            && part.writable
        {
            sparse::check_header(sparse, &*self.files[sparse.file].store)?;
            let unit_end = plan.len.next_multiple_of(sparse.geometry().grain());
            let end = part.range().start().get() + unit_end.min(part.range().len());
            if end > new.size {
                (new.zero)(GuestRange::between(GuestOffset(new.size), GuestOffset(end)))?;
            }
        }
        let still = self.hold_still(writer);
        self.write_back()?;
        writer.doubt.during(|| {
            self.tell(writer, plan, &[])?;
            self.give_back_behind(part, plan.len)
        })?;
        self.cut(plan.last, plan.len);
        drop(still);
        remove_files(&before, &lines(), new)
    }

    /// Gives back what a part has behind its first `len` bytes: the disk ends there by now.
    fn give_back_behind(&self, part: &Part, len: u64) -> Result<()> {
        match &part.body {
            Body::Flat(flat) if part.writable => {
                if self.check_growing(part).is_err() {
                    return Ok(()); // Other extents are in its file.
                }
                flat::shrink(flat, &*self.files[flat.file].store, len)
            }
            Body::Sparse(sparse) if part.writable => {
                let store = &*self.files[sparse.file].store;
                self.clear_behind(part, sparse, len)?;
                if !self.is_embedded(sparse) {
                    sparse::tell_capacity(sparse, store, len)?;
                }
                self.write_back()
            }
            _ => Ok(()),
        }
    }

    /// In memory, the disk ends with the first `len` bytes of part number `last`.
    fn cut(&self, last: usize, len: u64) {
        let part = &self.parts[last];
        let end = GuestOffset(part.range().start().get() + len);
        self.parts.iter().skip(last + 1).for_each(|part| part.cut_off(end));
        part.set_len(len);
        if let Body::Sparse(sparse) = &part.body
            && part.writable
        {
            sparse.set_capacity(len);
        }
    }
}

/// Removes the files that no extent is in any more.
fn remove_files(before: &[ExtentLine], after: &[ExtentLine], new: &NewSize<'_>) -> Result<()> {
    let is_kept = |line: &ExtentLine| after.iter().any(|kept| kept.name == line.name);
    let has_file = |line: &ExtentLine| !line.name.is_empty() && !line.is_device;
    for line in before.iter().filter(|line| has_file(line) && !is_kept(line)) {
        match new.companions.remove(&Reference::new(Role::Extent, line.name.clone())) {
            // A file that nobody may remove stays; nothing names it.
            Ok(()) | Err(Error::Denied { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
