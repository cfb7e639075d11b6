//! Zeroes where the descriptor was.

use anydisk_core::{HostOffset, Limits, Result, Storage, StorageExt};

use crate::descriptor::NO_CONTENT_ID;
use crate::layout::SECTOR;
use crate::open::read_header;

/// An extent that is a disk by itself, whose descriptor is all zero.
pub(super) struct LostText {
    pub(super) at: HostOffset,
    sectors: u64,
}

impl LostText {
    pub(super) const WHY: &'static str = "there is nothing where the descriptor was, so nobody knows \
                                          whether there was a disk below; what is here can be salvaged";

    /// What is lost of the file, if that is it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn of(store: &dyn Storage, limits: &Limits) -> Result<Option<Self>> {
        let Ok(header) = read_header(store, limits) else { return Ok(None) };
        let Some((at, len)) = header.descriptor.filter(|_| header.capacity > 0) else {
            return Ok(None);
        };
        let is_lost = at.saturating_add(len).get() <= store.len()? && store.is_zero_at(at, len)?;
        Ok(is_lost.then_some(Self { at, sectors: header.capacity / SECTOR }))
    }

    /// A text that says what the header does. There may have been a disk below, which shows where this
    /// one has nothing: that is as lost as the name.
    pub(super) fn in_its_place(&self) -> Vec<u8> {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={NO_CONTENT_ID:08x}\nparentCID=00000000\n\
             parentFileNameHint=\"(the disk below, if there was one)\"\n\
             createType=\"monolithicSparse\"\nRW {} SPARSE \"lost.vmdk\"\n",
            self.sectors
        )
        .into_bytes()
    }
}
