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

    /// The geometry for a disk of so many sectors, by the specification's "CHS Calculation". It may
    /// hold fewer.
    pub(crate) fn for_sectors(sectors: u64) -> Self {
        let sectors = sectors.min(Self::LARGEST.sectors());
        let (per_track, heads, tracks) = match sectors {
            large if large >= 65535 * 16 * 63 => (255, 16, large / 255),
            small => Self::for_small(small),
        };
        Self {
            cylinders: u16::try_from(tracks / heads).unwrap_or(u16::MAX),
            heads: u8::try_from(heads).unwrap_or(u8::MAX),
            sectors_per_track: u8::try_from(per_track).unwrap_or(u8::MAX),
        }
    }

    /// Sectors of a track, heads, and tracks.
    fn for_small(sectors: u64) -> (u64, u64, u64) {
        let mut found = (17, (sectors / 17).div_ceil(1024).max(4), sectors / 17);
        let too_many = |(_, heads, tracks): (u64, u64, u64)| tracks >= heads * 1024;
        if too_many(found) || found.1 > 16 {
            found = (31, 16, sectors / 31);
        }
        if too_many(found) {
            found = (63, 16, sectors / 63);
        }
        found
    }

    /// The smallest geometry that holds so many sectors, if there is one.
    pub(crate) fn holding(sectors: u64) -> Option<Self> {
        let most = Self::LARGEST.sectors();
        (sectors..=most).map(Self::for_sectors).find(|found| found.sectors() >= sectors)
    }

    pub(crate) fn is_largest(self) -> bool {
        self == Self::LARGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_the_specification() {
        let chs = |mebibytes: u64| {
            let found = Geometry::for_sectors(mebibytes << 11);
            (found.cylinders, found.heads, found.sectors_per_track)
        };
        assert_eq!(chs(1), (30, 4, 17));
        assert_eq!(chs(10), (301, 4, 17));
        assert_eq!(chs(1 << 10), (2080, 16, 63));
        assert_eq!(chs(200 << 10), (65535, 16, 255));
    }

    #[test]
    fn a_geometry_that_holds_a_disk_is_found_by_its_first_larger_disk() {
        for (size, expected) in [(5 << 20, 5_257_216), (1 << 30, 1_073_995_776), (1, 34_816)] {
            let found = Geometry::holding(u64::div_ceil(size, 512)).expect("small enough");
            assert_eq!(found.sectors() * 512, expected, "{size}");
        }
        let large = Geometry::holding((127 << 30) / 512).expect("small enough");
        assert_eq!(large.sectors() * 512, 136_365_219_840);
        assert_eq!(Geometry::holding(Geometry::LARGEST.sectors() + 1), None);
    }
}
