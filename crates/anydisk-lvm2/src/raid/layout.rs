//! Where a chunk of an array is: pure arithmetic, one table row for each type.

/// How an array is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Every image is a copy.
    Mirror,
    /// Stripes, nothing else.
    Stripe,
    /// Stripes, each chunk on this many images that follow each other.
    Near(u64),
    /// Stripes with one chunk of parity in a row.
    Parity(Rotation),
    /// Stripes with two chunks of parity in a row.
    Double(Double),
}

/// Where the parity of a row is, and where its first chunk of data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// On the first image in every row.
    First,
    /// On the last image in every row.
    Last,
    /// From the last image on, going left; data is counted from the first image.
    LeftAsymmetric,
    /// The same; data is counted from behind the parity.
    LeftSymmetric,
    /// From the first image on, going right; data is counted from the first image.
    RightAsymmetric,
    /// The same; data is counted from behind the parity.
    RightSymmetric,
}

/// Where the two chunks of parity of a row, P and Q, are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Double {
    /// P goes right from the first image, Q behind it; data counted from the first image.
    ZeroRestart,
    /// P goes left from the last image, Q behind it; data counted from the first image.
    NRestart,
    /// P goes left from the last image, Q before it; data counted from behind P.
    NContinue,
    /// The last image is Q; the others are as with one parity.
    LastQ(Rotation),
}

/// One row of an array: which image holds what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowOf {
    level: Level,
    images: u64,
    row: u64,
}

impl Level {
    /// Whether an array of this kind can have so many images.
    pub(crate) fn fits(self, images: u64) -> bool {
        let copies = if let Self::Near(copies) = self { copies } else { 1 };
        self.data_images(images).is_some() && (1..=images).contains(&copies)
    }

    /// Chunks of data in a row of `images` images.
    pub(crate) fn data_images(self, images: u64) -> Option<u64> {
        let parity = match self {
            Self::Mirror | Self::Stripe | Self::Near(_) => 0,
            Self::Parity(_) => 1,
            Self::Double(_) => 2,
        };
        images.checked_sub(parity).filter(|data| *data > 0)
    }

    /// The number that the superblock has for it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Mirror => 1,
            Self::Stripe => 0,
            Self::Near(_) => 10,
            Self::Parity(_) => 5,
            Self::Double(_) => 6,
        }
    }

    pub(crate) fn row(self, images: u64, row: u64) -> RowOf {
        RowOf { level: self, images, row }
    }
}

impl RowOf {
    /// The image that holds P.
    pub(crate) fn parity(self) -> Option<u64> {
        match self.level {
            Level::Parity(rotation) => Some(rotation.parity(self.images, self.row)),
            Level::Double(double) => Some(double.parity(self.images, self.row)),
            _ => None,
        }
    }

    /// The image that holds Q.
    pub(crate) fn second(self) -> Option<u64> {
        let (n, row) = (self.images, self.row);
        match self.level {
            Level::Double(Double::ZeroRestart) => Some((row % n + 1) % n),
            Level::Double(Double::NRestart) => Some((n - 1 - (row % n + 1) % n + 1) % n),
            Level::Double(Double::NContinue) => Some((n - 1 - row % n + n - 1) % n),
            Level::Double(Double::LastQ(_)) => Some(n - 1),
            _ => None,
        }
    }

    /// The image that holds data chunk `slot` of the row.
    pub(crate) fn data(self, slot: u64) -> u64 {
        let (n, row) = (self.images, self.row);
        match self.level {
            Level::Mirror | Level::Stripe | Level::Near(_) => slot,
            Level::Parity(rotation) => rotation.data(n, row, slot),
            Level::Double(Double::LastQ(rotation)) => rotation.data(n - 1, row, slot),
            Level::Double(Double::NContinue) => (self.first_parity() + 1 + slot) % n,
            Level::Double(Double::ZeroRestart | Double::NRestart) => self.ascending(slot),
        }
    }

    fn first_parity(self) -> u64 {
        self.parity().unwrap_or(0)
    }

    /// The `slot`th image that is neither P nor Q.
    fn ascending(self, slot: u64) -> u64 {
        let skipped = [self.parity(), self.second()];
        let data = (0..self.images).filter(|image| !skipped.contains(&Some(*image)));
        data.into_iter().nth(usize::try_from(slot).unwrap_or(usize::MAX)).unwrap_or(0)
    }

    /// The power of the generator that Q multiplies the data of an image with.
    ///
    /// Where P and Q wander together, every image counts by its place; where Q is the last image,
    /// only those with data count.
    pub(crate) fn power(self, image: u64) -> u64 {
        match self.level {
            Level::Double(Double::LastQ(_)) if image > self.first_parity() => image - 1,
            _ => image,
        }
    }
}

impl Rotation {
    fn parity(self, n: u64, row: u64) -> u64 {
        match self {
            Self::First => 0,
            Self::Last => n - 1,
            Self::LeftAsymmetric | Self::LeftSymmetric => n - 1 - row % n,
            Self::RightAsymmetric | Self::RightSymmetric => row % n,
        }
    }

    fn data(self, n: u64, row: u64, slot: u64) -> u64 {
        let parity = self.parity(n, row);
        match self {
            Self::LeftSymmetric | Self::RightSymmetric => (parity + 1 + slot) % n,
            _ if slot < parity => slot,
            _ => slot + 1,
        }
    }
}

impl Double {
    fn parity(self, n: u64, row: u64) -> u64 {
        match self {
            Self::ZeroRestart => row % n,
            Self::NRestart => n - 1 - (row % n + 1) % n,
            Self::NContinue => n - 1 - row % n,
            Self::LastQ(rotation) => rotation.parity(n - 1, row),
        }
    }
}

/// The level that a segment type names.
pub(crate) fn level_of(type_name: &str, copies: u64) -> Option<Level> {
    use Rotation::{LeftAsymmetric, LeftSymmetric, RightAsymmetric, RightSymmetric};
    Some(match type_name {
        "raid0" | "raid0_meta" => Level::Stripe,
        "raid1" => Level::Mirror,
        "raid10" | "raid10_near" => Level::Near(copies),
        "raid4" => Level::Parity(Rotation::First),
        "raid5_n" => Level::Parity(Rotation::Last),
        "raid5" | "raid5_ls" => Level::Parity(LeftSymmetric),
        "raid5_la" => Level::Parity(LeftAsymmetric),
        "raid5_rs" => Level::Parity(RightSymmetric),
        "raid5_ra" => Level::Parity(RightAsymmetric),
        "raid6" | "raid6_zr" => Level::Double(Double::ZeroRestart),
        "raid6_nr" => Level::Double(Double::NRestart),
        "raid6_nc" => Level::Double(Double::NContinue),
        "raid6_n_6" => Level::Double(Double::LastQ(Rotation::Last)),
        "raid6_ls_6" => Level::Double(Double::LastQ(LeftSymmetric)),
        "raid6_la_6" => Level::Double(Double::LastQ(LeftAsymmetric)),
        "raid6_rs_6" => Level::Double(Double::LastQ(RightSymmetric)),
        "raid6_ra_6" => Level::Double(Double::LastQ(RightAsymmetric)),
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All types with parity.
    pub(crate) const PARITIES: [&str; 14] = [
        "raid4",
        "raid5_n",
        "raid5_ls",
        "raid5_la",
        "raid5_rs",
        "raid5_ra",
        "raid6_zr",
        "raid6_nr",
        "raid6_nc",
        "raid6_n_6",
        "raid6_ls_6",
        "raid6_la_6",
        "raid6_rs_6",
        "raid6_ra_6",
    ];

    #[test]
    fn in_every_row_each_image_holds_exactly_one_thing() {
        for name in PARITIES {
            let level = level_of(name, 2).unwrap();
            for (images, row) in (4..9).flat_map(|images| (0..20).map(move |row| (images, row))) {
                let of = level.row(images, row);
                let data = level.data_images(images).unwrap();
                let mut held: Vec<u64> = (0..data).map(|slot| of.data(slot)).collect();
                held.extend(of.parity());
                held.extend(of.second());
                held.sort_unstable();
                assert_eq!(held, (0..images).collect::<Vec<_>>(), "{name}, {images}, row {row}");
            }
        }
    }

    #[test]
    fn the_first_rows_of_four_images_are_those_of_the_kernels_documentation() {
        // Of each row: the image of P, and the images of the data in order.
        let rows = |name: &str| -> Vec<(u64, Vec<u64>)> {
            let level = level_of(name, 2).unwrap();
            let row = |row| {
                let of = level.row(4, row);
                (of.parity().unwrap(), (0..3).map(|slot| of.data(slot)).collect())
            };
            (0..2).map(row).collect()
        };
        assert_eq!(rows("raid5_ls"), [(3, vec![0, 1, 2]), (2, vec![3, 0, 1])]);
        assert_eq!(rows("raid5_la"), [(3, vec![0, 1, 2]), (2, vec![0, 1, 3])]);
        assert_eq!(rows("raid5_rs"), [(0, vec![1, 2, 3]), (1, vec![2, 3, 0])]);
        assert_eq!(rows("raid5_ra"), [(0, vec![1, 2, 3]), (1, vec![0, 2, 3])]);
        assert_eq!(rows("raid4"), [(0, vec![1, 2, 3]), (0, vec![1, 2, 3])]);
    }
}
