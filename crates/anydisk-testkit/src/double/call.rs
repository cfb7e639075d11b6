//! What is asked of a store, as data.

use std::fmt;

use anydisk_storage::HostOffset;

/// An operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Asking for the length.
    Len,
    /// Reading, also into several buffers.
    Read,
    /// Writing, also from several buffers.
    Write,
    /// Changing the length.
    SetLen,
    /// Flushing.
    Flush,
    /// Asking for holes, or for the space in use.
    Holes,
    /// Zeroing without bytes.
    Zero,
    /// Discarding.
    Discard,
    /// Reserving space.
    Allocate,
}

impl Kind {
    /// The word that errors use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Len => "measure",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetLen => "set the length",
            Self::Flush => "flush",
            Self::Holes => "find holes",
            Self::Zero => "zero",
            Self::Discard => "discard",
            Self::Allocate => "allocate",
        }
    }
}

/// One call of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which operation.
    pub kind: Kind,
    /// Where; 0 where the store as a whole is meant.
    pub at: HostOffset,
    /// How many bytes; for [`Kind::SetLen`] the new length.
    pub len: u64,
}

impl Call {
    /// Whether the call names a byte of `at..at + len`.
    #[must_use]
    pub const fn touches(&self, at: HostOffset, len: u64) -> bool {
        self.at.get() < at.saturating_add(len).get()
            && at.get() < self.at.saturating_add(self.len).get()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, at, len } = self;
        match kind {
            Kind::Len | Kind::Flush => f.write_str(kind.word()),
            Kind::SetLen => write!(f, "{} to {len:#x}", kind.word()),
            _ => write!(f, "{} {len:#x} at {at}", kind.word()),
        }
    }
}
