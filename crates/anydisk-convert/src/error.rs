//! What can stop a job on whole disks.

use anydisk_core::GuestRange;

/// The result of a job.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading, at this guest offset of the source.
    #[error("reading at {at:#x}: {source}")]
    Read {
        /// Guest offset in the source.
        at: u64,
        /// What the source said.
        source: anydisk_core::Error,
    },
    /// Writing, at this guest offset of the target.
    #[error("writing at {at:#x}: {source}")]
    Write {
        /// Guest offset in the target.
        at: u64,
        /// What the target said.
        source: anydisk_core::Error,
    },
    /// Creating, flushing or publishing the target.
    #[error(transparent)]
    Target(#[from] anydisk_core::Error),
    /// The target is smaller than the source.
    #[error("the source has {source_size} bytes, the target only {target_size}")]
    TargetTooSmall {
        /// Virtual size of the source in bytes.
        source_size: u64,
        /// Virtual size of the target in bytes.
        target_size: u64,
    },
    /// The watcher asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Another worker met the error that is reported.
    #[error("stopped by an error elsewhere")]
    Stopped,
}

impl Error {
    /// Of reading the start of `range` of the source.
    pub(crate) fn reading(range: GuestRange) -> impl Fn(anydisk_core::Error) -> Self + Copy {
        move |source| Self::Read { at: range.start().get(), source }
    }

    /// Of writing the start of `range` of the target.
    pub(crate) fn writing(range: GuestRange) -> impl Fn(anydisk_core::Error) -> Self + Copy {
        move |source| Self::Write { at: range.start().get(), source }
    }
}

impl From<anydisk_storage::Error> for Error {
    fn from(error: anydisk_storage::Error) -> Self {
        Self::Target(error.into())
    }
}
