//! What changed: ranges that differ from an earlier state, whoever keeps account of them.

use std::fmt::Debug;

use crate::{GuestOffset, GuestRange, Result};

/// The ranges of a disk that may have changed since some state of it.
///
/// A range that is told may be unchanged; one that is not told is the same, byte for byte.
pub trait Changes: Send + Debug {
    /// Virtual size in bytes of the disk that is spoken of.
    fn size(&self) -> u64;

    /// The first changed range that ends behind `from`, cut to begin there; `None` behind the last.
    fn next(&mut self, from: GuestOffset) -> Result<Option<GuestRange>>;
}

/// The dirty bitmaps kept inside one image, each of which records where the disk was written since
/// it was begun or cleared.
///
/// While a bitmap is [enabled](BitmapInfo::enabled), the image's own writes are recorded in it.
pub trait Bitmaps: Sync {
    /// All bitmaps, in the order of the image's directory.
    fn list(&self) -> Result<Vec<BitmapInfo>>;

    /// Begins a bitmap, empty.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) if there is one of this name.
    fn add(&self, new: &NewBitmap) -> Result<()>;

    /// Forgets a bitmap, also one that is [inconsistent](BitmapInfo::inconsistent).
    fn remove(&self, name: &str) -> Result<()>;

    /// Forgets what a bitmap has recorded.
    fn clear(&self, name: &str) -> Result<()>;

    /// Whether writes are recorded from now on.
    fn set_enabled(&self, name: &str, enabled: bool) -> Result<()>;

    /// Adds `changes` to what a bitmap has recorded. Those of a disk that was shorter say nothing of
    /// the rest.
    ///
    /// # Errors
    /// [`Error::Unusable`](crate::Error::Unusable) for changes of a longer disk, which is another one.
    fn merge(&self, name: &str, changes: &mut dyn Changes) -> Result<()>;

    /// What a bitmap has recorded, as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Unusable`](crate::Error::Unusable) for
    /// one that is inconsistent.
    fn changes(&self, name: &str) -> Result<Box<dyn Changes + '_>>;
}

/// What is known of a bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapInfo {
    /// Its name, as [text](anydisk_storage::name).
    pub name: String,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// Writes are recorded in it.
    pub enabled: bool,
    /// It was in use when its last writer ended without storing it, so it cannot be trusted.
    pub inconsistent: bool,
}

/// What a new bitmap is to be.
#[derive(Clone, Debug)]
pub struct NewBitmap {
    /// Its name.
    pub name: String,
    /// Bytes of the disk that one bit stands for, a power of two; `None`: the format's usual one.
    pub granularity: Option<u64>,
    /// Whether writes are recorded in it from the start.
    pub enabled: bool,
}
