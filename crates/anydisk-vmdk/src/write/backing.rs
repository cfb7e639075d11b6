//! Naming another image below.

use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{BackingLink, Reference, Result};

use super::read_only;
use crate::create::parent_of;
use crate::image::VmdkImage;

impl BackingLink for VmdkImage {
    /// The reference must know the content ID of the image it names, which becomes `parentCID`.
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        let Some(writer) = &self.writer else {
            return Err(read_only("it was opened for reading"));
        };
        let parent = backing.map(parent_of).transpose()?;
        // From here on zeroes must hide what may lie below, whichever of the two that is.
        writer.has_parent.fetch_or(parent.is_some(), Relaxed);
        writer.descriptor.change(&self.files[0], |descriptor| {
            descriptor.set_parent(parent);
            Ok(())
        })?;
        self.files[0].store.flush()?;
        writer.has_parent.store(parent.is_some(), Relaxed);
        Ok(())
    }
}
