//! Resizing, where the last extent is flat: its file grows or shrinks, and the descriptor tells.

use anydisk_core::{
    Error, HostOffset, NewSize, Preallocation, Resize, Result, Storage, StorageExt,
};

use super::Writer;
use crate::NAME;
use crate::extent::{Body, Flat, Part};
use crate::header::{limit, unsupported};
use crate::image::VmdkImage;
use crate::layout::SECTOR;
use crate::limits;

impl VmdkImage {
    /// The last extent, if it can be made longer and shorter: flat, and alone in its file.
    pub(crate) fn growing_part(&self) -> Option<(&Writer, &Part, &Flat)> {
        let (writer, part) = (self.writer.as_ref()?, self.parts.last()?);
        let Body::Flat(flat) = &part.body else { return None };
        let is_other =
            |other: &Part| matches!(&other.body, Body::Flat(other) if other.file == flat.file);
        let alone = self.parts.iter().filter(|part| is_other(part)).count() == 1;
        (part.writable && alone && flat.file != 0).then_some((writer, part, flat))
    }

    /// Writes the new length into the descriptor, durably, with a new content ID.
    fn tell_len(&self, writer: &Writer, len: u64) -> Result<()> {
        let last = self.parts.len() - 1;
        writer.content_id.renew(&writer.descriptor, &self.files[0])?;
        writer.descriptor.change(&self.files[0], |descriptor| {
            descriptor.set_extent_len(last, len);
            Ok(())
        })?;
        Ok(self.files[0].store.flush()?)
    }
}

impl Resize for VmdkImage {
    /// Changes the last extent. It must be flat, and at least a sector of it is kept.
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let NewSize { size, preallocation, .. } = *new;
        let Some((writer, part, flat)) = self.growing_part() else {
            return Err(unsupported("resizing an image whose last extent is not flat"));
        };
        limit("size of the disk in bytes", size, limits::DISK)?;
        let start = part.range().start().get();
        let Some(len) = size.checked_sub(start).filter(|len| *len > 0) else {
            return Err(unsupported("cutting whole extents off"));
        };
        if !size.is_multiple_of(SECTOR) {
            return Err(unsupported("a size that is no multiple of 512 bytes"));
        }
        let old = part.range().len();
        let store = &*self.files[flat.file].store;
        let end = flat.at.saturating_add(len);
        if len > old {
            grow(store, flat.at.saturating_add(old), end, preallocation)?;
            store.flush()?;
            self.tell_len(writer, len)?;
            flat.set_end(HostOffset(store.len()?));
            part.set_len(len);
            return Ok(());
        }
        self.tell_len(writer, len)?;
        part.set_len(len);
        match store.set_len(end.get()) {
            Ok(()) => flat.set_end(end),
            // A device keeps its length.
            Err(anydisk_storage::Error::Unsupported { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(store.flush()?)
    }
}

/// Makes the file reach from `old` to `end`, and read as zero there, whatever it held.
fn grow(store: &dyn Storage, old: HostOffset, end: HostOffset, how: Preallocation) -> Result<()> {
    let file = HostOffset(store.len()?);
    let stale = file.min(end).checked_since(old).unwrap_or(0);
    if stale > 0 {
        store.write_zeroes_at(old, stale)?;
    }
    if file < end {
        store.set_len(end.get())?;
    }
    let len = end.checked_since(old).unwrap_or(0);
    match how {
        Preallocation::Off | Preallocation::Metadata => Ok(()),
        Preallocation::Falloc => match store.space() {
            Some(space) => Ok(space.allocate(old, len)?),
            None => {
                let feature = "preallocation=falloc on this store".into();
                Err(Error::Unsupported { format: NAME, feature })
            }
        },
        Preallocation::Full => Ok(store.write_zeroes_at(old, len)?),
    }
}
