//! Changing the virtual size.

use crate::Result;

/// Changes the virtual size.
pub trait Resize {
    /// Makes the disk `size` bytes long; new bytes read as zero, also if there were others there
    /// before a shrink, and whatever lies below. Shrinking drops what lies behind: the caller
    /// guarantees that nothing is read or written there meanwhile.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where this image cannot be so long, so
    /// short, or preallocated in this way; then nothing changed.
    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()>;
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
