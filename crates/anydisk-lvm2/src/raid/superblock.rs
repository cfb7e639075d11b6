//! The superblocks of an array: which images may be believed, and how far.

use anydisk_core::{Error, HostOffset, Invalid, Result, Value};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::NAME;
use crate::layout::SECTOR;
use crate::raid::layout::Level;

/// The first bytes of a superblock of dm-raid.
const MAGIC: [u8; 4] = *b"DmRd";

/// Bytes of a superblock that are looked at.
pub(crate) const LEN: usize = size_of::<RaidSuperblock>();

/// A superblock at the start of an `rmeta` volume. It has no checksum.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RaidSuperblock {
    magic: [u8; 4],
    /// Bit 0: the fields from `flags` on are valid.
    compat_features: U32,
    num_devices: U32,
    array_position: U32,
    events: U64,
    failed_devices: U64,
    disk_recovery_offset: U64,
    array_resync_offset: U64,
    level: U32,
    layout: U32,
    stripe_sectors: U32,
    /// Bit 0: a reshape is under way.
    flags: U32,
    reshape_position: U64,
    new_level: U32,
    new_layout: U32,
    new_stripe_sectors: U32,
    delta_disks: U32,
    array_sectors: U64,
    data_offset: U64,
    new_data_offset: U64,
    sectors: U64,
    extended_failed_devices: [U64; 3],
    incompat_features: U32,
}

const _: () = assert!(size_of::<RaidSuperblock>() == 148);

/// What is believed of the images of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Of each image, how many bytes from its start are good: 0 for one that is stale or gone.
    pub(crate) good: Vec<u64>,
    /// Bytes from the start that all copies and the parity agree for.
    pub(crate) in_sync: u64,
}

impl Trust {
    /// An array without superblocks, all of whose images are there or not.
    pub(crate) fn in_all(present: impl Iterator<Item = bool>) -> Self {
        let good = present.map(|there| if there { u64::MAX } else { 0 }).collect();
        Self { good, in_sync: u64::MAX }
    }

    /// What the superblocks say. `None` for an image that is gone; images without a superblock, in
    /// an array that has some, were never filled.
    ///
    /// # Errors
    /// [`Error::Unsupported`] while the array is being reshaped, [`Invalid`] for superblocks of
    /// other arrays.
    pub(crate) fn from_superblocks(blocks: &[Option<[u8; LEN]>], level: Level) -> Result<Self> {
        let parsed: Vec<_> = blocks.iter().map(|block| block.as_ref().and_then(parse)).collect();
        for (position, block) in parsed.iter().enumerate() {
            if let Some(block) = block {
                check(block, position, blocks.len(), level)?;
            }
        }
        let Some(newest) = parsed.iter().flatten().map(|block| block.events.get()).max() else {
            // No superblock was written yet: the array is new, its images count as they are.
            return Ok(Self::in_all(blocks.iter().map(Option::is_some)));
        };
        let current = |block: &RaidSuperblock| block.events.get().saturating_add(1) >= newest;
        let leaders = || parsed.iter().flatten().filter(|block| block.events.get() == newest);
        let good = parsed.iter().enumerate().map(|(position, block)| match block {
            Some(block) if current(block) && !leaders().any(|b| b.has_failed(position)) => {
                bytes(block.disk_recovery_offset.get())
            }
            _ => 0,
        });
        let in_sync = leaders().map(|block| bytes(block.array_resync_offset.get())).min();
        Ok(Self { good: good.collect(), in_sync: in_sync.unwrap_or(u64::MAX) })
    }
}

fn parse(bytes: &[u8; LEN]) -> Option<RaidSuperblock> {
    let block = RaidSuperblock::read_from_bytes(bytes).ok()?;
    (block.magic == MAGIC).then_some(block)
}

impl RaidSuperblock {
    /// Whether this one says that the image at `position` has failed.
    fn has_failed(&self, position: usize) -> bool {
        let word = match position / 64 {
            0 => Some(&self.failed_devices),
            more if self.compat_features.get() & 1 == 1 => {
                self.extended_failed_devices.get(more - 1)
            }
            _ => None,
        };
        word.is_some_and(|word| word.get() >> (position % 64) & 1 == 1)
    }
}

/// Sectors as bytes; all ones: everything.
fn bytes(sectors: u64) -> u64 {
    sectors.saturating_mul(SECTOR)
}

fn check(block: &RaidSuperblock, position: usize, images: usize, level: Level) -> Result<()> {
    let unsupported =
        |feature: &'static str| Err(Error::Unsupported { format: NAME, feature: feature.into() });
    if block.compat_features.get() & 1 == 1 {
        if block.flags.get() & 1 == 1 {
            return unsupported("an array that is being reshaped");
        }
        if block.data_offset.get() != 0 || block.new_data_offset.get() != 0 {
            return unsupported("an array whose data does not begin with its images");
        }
        if block.incompat_features.get() != 0 {
            return unsupported("an incompatible feature of an array's superblock");
        }
    }
    field("array_position", block.array_position.get().into(), position as u64, position)?;
    field("num_devices", block.num_devices.get().into(), images as u64, position)?;
    field("level", block.level.get().into(), level.number().into(), position)
}

fn field(field: &'static str, found: u64, expected: u64, position: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let expected = format!("{expected}, as the text says of image {position}").into();
    let (field, at, found) = (field.into(), HostOffset::ZERO, Value::Number(found));
    Err(Invalid { format: NAME, field, at, found, expected }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    /// The superblocks of a mirror of three, with these events and recovery offsets in sectors.
    fn blocks(events: [u64; 3], recovered: [u64; 3], failed: u64) -> Vec<Option<[u8; LEN]>> {
        let block = |position: usize| {
            let mut block = RaidSuperblock::new_zeroed();
            block.magic = MAGIC;
            block.compat_features = 1.into();
            block.num_devices = 3.into();
            block.array_position = u32::try_from(position).unwrap().into();
            block.events = events[position].into();
            block.disk_recovery_offset = recovered[position].into();
            block.array_resync_offset = u64::MAX.into();
            block.level = 1.into();
            if events[position] == *events.iter().max().unwrap() {
                block.failed_devices = failed.into();
            }
            let mut bytes = [0; LEN];
            block.write_to(&mut bytes).unwrap();
            Some(bytes)
        };
        (0..3).map(block).collect()
    }

    fn good(blocks: &[Option<[u8; LEN]>]) -> Vec<u64> {
        Trust::from_superblocks(blocks, Level::Mirror).unwrap().good
    }

    const ALL: u64 = u64::MAX;

    #[test]
    fn an_image_that_fell_behind_or_that_the_newest_call_failed_is_stale() {
        assert_eq!(good(&blocks([9, 9, 9], [ALL; 3], 0)), [ALL; 3]);
        assert_eq!(good(&blocks([9, 8, 9], [ALL; 3], 0)), [ALL; 3]);
        assert_eq!(good(&blocks([9, 7, 9], [ALL; 3], 0)), [ALL, 0, ALL]);
        assert_eq!(good(&blocks([9, 9, 9], [ALL; 3], 0b001)), [0, ALL, ALL]);
    }

    #[test]
    fn an_image_that_is_being_filled_is_good_as_far_as_that_got() {
        assert_eq!(good(&blocks([9, 9, 9], [ALL, 2, ALL], 0)), [ALL, 1024, ALL]);
    }

    #[test]
    fn without_any_superblock_the_array_is_new_and_with_some_the_others_were_never_filled() {
        assert_eq!(good(&[Some([0; LEN]), None, Some([0; LEN])]), [ALL, 0, ALL]);
        let mut some = blocks([9, 9, 9], [ALL; 3], 0);
        some[2] = Some([0; LEN]);
        assert_eq!(good(&some), [ALL, ALL, 0]);
    }

    #[test]
    fn a_superblock_of_another_place_is_refused_and_a_reshape_by_name() {
        let mut swapped = blocks([9, 9, 9], [ALL; 3], 0);
        swapped.swap(0, 1);
        let error = Trust::from_superblocks(&swapped, Level::Mirror).unwrap_err().to_string();
        assert!(error.contains("array_position at 0x0 is 1, expected 0"), "{error}");
        let mut reshaped = blocks([9, 9, 9], [ALL; 3], 0);
        reshaped[1].as_mut().unwrap()[60] = 1;
        let error = Trust::from_superblocks(&reshaped, Level::Mirror).unwrap_err().to_string();
        assert!(error.contains("being reshaped"), "{error}");
    }
}
