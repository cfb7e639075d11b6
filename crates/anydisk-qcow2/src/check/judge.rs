//! What an L2 entry names, and what is wrong with it. Pure.

use anydisk_core::HostOffset;

use super::trouble::{Trouble, Troubles};
use crate::entry::L2Entry;
use crate::layout::entry::{COPIED, OFFSET, ZERO};
use crate::table::ALLOCATED;
use crate::{Geometry, Header};

/// Reserved bits of an L1 entry.
pub(super) const L1_RESERVED: u64 = !(COPIED | OFFSET);
/// Reserved bits of an entry that is not compressed, bit 0 apart.
const L2_RESERVED: u64 = 0x3F00_0000_0000_01FE;

/// The rules for entries of one image.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    geometry: Geometry,
    data_file: bool,
}

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Nothing in the file.
    Nothing,
    /// A cluster of its own: data, or space kept for it.
    Cluster(u64),
    /// The same in the external data file.
    Elsewhere(u64),
    /// A stream.
    Stream { at: u64, len: u64 },
}

impl Rules {
    pub(super) fn new(header: &Header) -> Self {
        Self { geometry: Geometry::new(header), data_file: header.has_data_file() }
    }

    /// What an entry names, and what is wrong with it. `guest`: the part of the disk it maps, if
    /// that is known.
    #[inline]
    pub(super) fn judge(&self, entry: L2Entry, guest: Option<u64>) -> (Named, Troubles) {
        let aligned = entry.word & (self.geometry.cluster_size() - 1) & OFFSET == 0;
        let plain = entry.word & !(COPIED | OFFSET) == 0 && entry.word & OFFSET != 0;
        if aligned && plain && !self.geometry.is_extended() && !self.data_file {
            return (Named::Cluster(entry.word & OFFSET), Troubles::default());
        }
        if entry.is_compressed() { self.compressed(entry) } else { self.standard(entry, guest) }
    }

    /// Whether an entry that names a cluster reads as zeroes all the same.
    pub(super) fn is_zero(&self, entry: L2Entry) -> bool {
        match self.geometry.is_extended() {
            true => entry.bitmap & ALLOCATED == 0,
            false => entry.word & ZERO != 0,
        }
    }

    /// Bytes of the cluster up to the end of what is stored, of an entry that names one.
    pub(super) fn stored(&self, entry: L2Entry) -> u64 {
        let cluster = self.geometry.cluster_size();
        match self.geometry.is_extended() {
            true => {
                let allocated = u32::try_from(entry.bitmap & ALLOCATED).unwrap_or(u32::MAX);
                u64::from(u32::BITS - allocated.leading_zeros()) * (cluster / 32)
            }
            false => cluster,
        }
    }

    fn compressed(&self, entry: L2Entry) -> (Named, Troubles) {
        let mut troubles = Troubles::default();
        if self.data_file {
            troubles.add(Trouble::CompressedInDataFile);
            return (Named::Nothing, troubles);
        }
        troubles.add_if(entry.is_copied(), Trouble::CompressedCopied);
        if entry.bitmap != 0 {
            troubles.add(Trouble::CompressedBitmap);
            return (Named::Nothing, troubles);
        }
        match self.geometry.compressed(entry) {
            Ok(stream) => (Named::Stream { at: stream.at.get(), len: stream.len }, troubles),
            Err(_) => {
                troubles.add(Trouble::StreamOutOfReach);
                (Named::Nothing, troubles)
            }
        }
    }

    fn standard(&self, entry: L2Entry, guest: Option<u64>) -> (Named, Troubles) {
        let mut troubles = Troubles::default();
        let extended = self.geometry.is_extended();
        let (host, allocated) = (entry.word & OFFSET, entry.bitmap & ALLOCATED);
        let zero = !extended && entry.word & ZERO != 0;
        let reserved = entry.word & L2_RESERVED != 0 || extended && entry.word & ZERO != 0;
        troubles.add_if(reserved, Trouble::ReservedBits);
        troubles.add_if(zero && self.geometry.is_version_2(), Trouble::ZeroFlag);
        troubles.add_if(allocated & entry.bitmap >> 32 != 0, Trouble::SubclusterBoth);
        // In a data file, COPIED tells a cluster at 0 from none.
        let at_zero = self.data_file && entry.is_copied() && !zero;
        if host == 0 && !at_zero {
            troubles.add_if(allocated != 0, Trouble::SubclusterNoHost);
            return (Named::Nothing, troubles);
        }
        if !HostOffset(host).is_aligned(self.geometry.cluster_size()) {
            let holds_data = if extended { allocated != 0 } else { !zero };
            let trouble = if holds_data { Trouble::DataUnaligned } else { Trouble::ZeroUnaligned };
            troubles.add(trouble);
        }
        if !self.data_file {
            return (Named::Cluster(host), troubles);
        }
        troubles.add_if(guest.is_some_and(|guest| guest != host), Trouble::DataFileMismatch);
        (Named::Elsewhere(host), troubles)
    }
}
