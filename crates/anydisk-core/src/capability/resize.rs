//! Changing the virtual size.

use std::fmt;

use anydisk_storage::StorageExt;

use crate::{Companions, GuestOffset, GuestRange, ImageWrite, Placement, Result};

/// Changes the virtual size. Asked for through [`Disk::resize`](crate::Disk::resize), which knows
/// what lies below.
pub trait Resize {
    /// Makes the disk [`NewSize::size`] bytes long; new bytes read as zero, also if there were
    /// others there before a shrink, and whatever lies below. Shrinking drops what lies behind: the
    /// caller guarantees that nothing is read or written there meanwhile.
    ///
    /// What is new by whole units is the format's own matter. The rest of the unit in which the old
    /// end lies may hold old bytes of the host, be shared, packed, or show the layer below: when
    /// the disk has grown in memory, and before it has on the medium, the format has it
    /// [zeroed](NewSize::zero). It does the same for the rest of the last unit before it shrinks.
    ///
    /// Durable after the next flush at the latest. After a power failure the size is the old or
    /// the new one.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where this image cannot be so long, so
    /// short, or preallocated in this way; then nothing changed.
    fn resize(&self, new: &NewSize<'_>) -> Result<()>;
}

/// What a disk is to become.
#[derive(Clone, Copy)]
pub struct NewSize<'a> {
    /// Its virtual size in bytes.
    pub size: u64,
    /// How much space new parts are given at once.
    pub preallocation: Preallocation,
    /// Bytes of the disk below, which must not show in what is new; 0 if nothing lies there.
    pub below: u64,
    /// Makes a range zero, as a write would: it places, fills and commits. Holds no lock that the
    /// caller holds, and must be called with none that placing takes.
    pub zero: &'a dyn Fn(GuestRange) -> Result<()>,
    /// Makes and removes files of an image that is made of several.
    pub companions: &'a dyn Companions,
}

impl fmt::Debug for NewSize<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSize")
            .field("size", &self.size)
            .field("preallocation", &self.preallocation)
            .field("below", &self.below)
            .field("companions", &self.companions)
            .finish_non_exhaustive()
    }
}

/// How much space new parts of a disk are given at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// None.
    #[default]
    Off,
    /// Places in the file, which may stay sparse.
    Metadata,
    /// Blocks of the file system, unwritten.
    Falloc,
    /// Written zeroes.
    Full,
}

impl Preallocation {
    /// The words for it, as options take them.
    pub const WORDS: &'static [&'static str] = &["off", "metadata", "falloc", "full"];

    /// The way that a word means.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "off" => Some(Self::Off),
            "metadata" => Some(Self::Metadata),
            "falloc" => Some(Self::Falloc),
            "full" => Some(Self::Full),
            _ => None,
        }
    }
}

/// Gives every unit of `range` that has no place in the image one of zeroes, in whole units and as
/// `how` says. `unit` tells the unit that a byte of the disk lies in.
///
/// # Errors
/// Those of placing, of the store and of committing.
pub fn give_space(
    image: &dyn ImageWrite,
    mut range: GuestRange,
    how: Preallocation,
    unit: impl Fn(GuestOffset) -> GuestRange,
) -> Result<()> {
    while !range.is_empty() {
        let part = range.before(unit(range.start()).end());
        if let Placement::Fresh(reservation) = image.place(part)? {
            let (at, len) = (reservation.at(), reservation.range().len());
            let store = reservation.store();
            match (how, store.space()) {
                (Preallocation::Falloc, Some(space)) if reservation.is_zeroed() => {
                    space.allocate(at, len)?;
                }
                (Preallocation::Metadata, _) if reservation.is_zeroed() => {}
                _ => store.write_zeroes_at(at, len)?,
            }
            reservation.commit()?;
        }
        range = range.skip(part.len());
    }
    Ok(())
}
