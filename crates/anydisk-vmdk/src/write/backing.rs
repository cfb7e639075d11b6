//! Naming another image below.

use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{BackingLink, GuestRange, Image, Reference, Result};

use super::read_only;
use crate::create::parent_of;
use crate::descriptor::NO_CONTENT_ID;
use crate::extent::{Body, Part};
use crate::header::unsupported;
use crate::image::VmdkImage;

impl BackingLink for VmdkImage {
    /// The content ID of the image that the reference names becomes `parentCID`. Where it is not
    /// known, that says so, and nobody compares it.
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        let Some(writer) = &self.writer else {
            return Err(read_only("it was opened for reading"));
        };
        let parent = backing.map(parent_of).transpose()?;
        let parent = parent.map(|(id, name)| (id.unwrap_or(NO_CONTENT_ID), name));
        // From here on zeroes must hide what may lie below, whichever of the two that is.
        writer.has_parent.fetch_or(parent.is_some(), Relaxed);
        writer.descriptor.change(&self.files[0], |descriptor| descriptor.set_parent(parent))?;
        self.files[0].store.flush()?;
        writer.has_parent.store(parent.is_some(), Relaxed);
        Ok(())
    }

    /// Where all extents are sparse.
    fn check_emptying(&self) -> Result<()> {
        let is_sparse = |part: &Part| part.writable && matches!(part.body, Body::Sparse(_));
        match self.parts.iter().all(is_sparse) {
            true => Ok(()),
            false => Err(unsupported("emptying an image with extents that are not sparse")),
        }
    }

    fn forget_everything(&self) -> Result<()> {
        let mut rest = GuestRange::whole(self.size());
        while !rest.is_empty() {
            rest = rest.skip(self.forget_grains(rest)?);
        }
        self.write_back()?;
        self.give_back()
    }
}
