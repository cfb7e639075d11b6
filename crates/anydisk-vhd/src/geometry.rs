//! Cylinders, heads and sectors of a track. Pure.

use crate::layout::RawFooter;

/// The geometry that a footer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cylinders: u16,
    pub(crate) heads: u8,
    pub(crate) sectors_per_track: u8,
}

impl Geometry {
    /// The largest there is: it stands for all disks that are larger, too.
    pub(crate) const LARGEST: Self =
        Self { cylinders: u16::MAX, heads: 16, sectors_per_track: 255 };

    pub(crate) fn of(raw: &RawFooter) -> Self {
        let cylinders = raw.cylinders.get();
        Self { cylinders, heads: raw.heads, sectors_per_track: raw.sectors }
    }

    /// Sectors of the disk that it describes.
    pub(crate) fn sectors(self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors_per_track)
    }

    pub(crate) fn is_largest(self) -> bool {
        self == Self::LARGEST
    }
}
