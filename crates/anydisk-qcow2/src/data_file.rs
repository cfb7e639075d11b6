//! The external data file (qcow2, "External data file").
//!
//! Each guest cluster lies in it where the guest has it, so space is neither sought nor counted;
//! the tables still say what is data, what is zero and what shows the image below. A **raw** data
//! file is the disk by itself: all of it is mapped, and zeroes are written into it. An encrypted one
//! is that in the eyes of whoever has the key: sectors are numbered by their place in it.

use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{
    Error, GuestRange, Handled, HostOffset, Image, OpenRequest, Reference, Reserved, Result, Role,
    Source,
};

use crate::crypt::Crypt;
use crate::image::Stores;
use crate::reserve::Purpose;
use crate::{Header, NAME, WritableImage};

/// The stores of the image that is to be opened: its data file comes through the resolver.
///
/// # Errors
/// What the resolver says; [`Error::Unsupported`] if the image names no data file and needs one.
pub(crate) fn stores(request: &OpenRequest<'_>) -> Result<Stores> {
    let stores = Stores::of_one(request.store.clone());
    let header = Header::read(&*stores.image, request.limits)?;
    let crypt = Some(Crypt::of(&header, &stores, request)?);
    let stores = Stores { crypt, ..stores };
    if !header.has_data_file() {
        return Ok(stores);
    }
    let Some(name) = header.data_file() else {
        let feature = "an external data file without a name in the image".into();
        return Err(Error::Unsupported { format: NAME, feature });
    };
    let mut reference = Reference::new(Role::DataFile, name);
    reference.format = Some("raw".into());
    let found = request.part([reference.clone()], request.access)?;
    refuse_the_image_itself(&reference, &stores, &*found.store)?;
    Ok(Stores { data: Some(found.store), ..stores })
}

/// Data that is written over the image's own tables is lost, and the tables with it.
fn refuse_the_image_itself(
    reference: &Reference,
    stores: &Stores,
    data: &dyn anydisk_core::Storage,
) -> Result<()> {
    match (stores.image.identity(), data.identity()) {
        (Some(image), Some(data)) if image == data => {
            Err(reference.denied("it is the image itself"))
        }
        _ => Ok(()),
    }
}

impl WritableImage {
    /// The place of units that have none: where the guest has them.
    pub(crate) fn place_in_data_file(&self, units: GuestRange, purpose: Purpose) -> Reserved {
        let at = units.start().get();
        // Whoever comes first to the space behind everything written finds it zero.
        let virgin = self.virgin_data.fetch_max(units.end().get(), Relaxed);
        let zeroed = at >= virgin && !self.is_encrypted();
        Reserved { range: units, at: HostOffset(at), zeroed, token: purpose.token() }
    }

    /// Zeroes in a raw data file, where the file itself can make them.
    pub(crate) fn zero_raw_data(&self, range: GuestRange, unmap: bool) -> Result<Handled> {
        let extent = self.map(range)?;
        let part = range.first(extent.len);
        self.note_change(part)?;
        if let Source::Data { store, at, .. } = extent.source
            && let Some(space) = store.space()
            && space.zero(at, part.len(), unmap).is_ok()
        {
            return Ok(Handled::Done(part.len()));
        }
        Ok(Handled::ByData(part.len()))
    }

    /// Makes the data file as long as a disk that grows. What a raw one has behind the old end
    /// would become the disk's.
    pub(crate) fn grow_data_file(&self, old: u64, new: u64) -> Result<()> {
        if !self.shared.geometry.has_data_file() {
            return Ok(());
        }
        let data = &self.shared.data;
        let len = data.len()?;
        if len > old && self.shared.header.has_raw_data_file() {
            data.set_len(old)?;
        }
        if len < new || self.shared.header.has_raw_data_file() {
            data.set_len(new)?;
        }
        Ok(())
    }

    /// Cuts the data file behind the end of a disk that has shrunk.
    pub(crate) fn cut_data_file(&self, size: u64) -> Result<()> {
        if self.shared.geometry.has_data_file() && self.shared.data.len()? > size {
            self.shared.data.set_len(size)?;
        }
        Ok(())
    }

    /// Gives the space of units that no table names any more back to the file system. They read as
    /// zero then, so a power failure that brings the old tables back shows no other bytes. In an
    /// encrypted file they would read as noise.
    pub(crate) fn punch_data_file(&self, units: GuestRange) {
        if self.shared.geometry.has_data_file()
            && !self.is_encrypted()
            && let Some(space) = self.shared.data.space()
        {
            // Only the host's space is at stake: not every file system can.
            let _ = space.zero(HostOffset(units.start().get()), units.len(), true);
        }
    }
}
