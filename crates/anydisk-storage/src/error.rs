//! What can go wrong below the formats.

use std::io;

use crate::HostOffset;

/// The result of a storage operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A storage operation that did not happen, or not wholly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; `source()` says why.
    #[error(transparent)]
    Io(Box<IoError>),
    /// A read or write reaches past the end of a store that cannot answer there.
    #[error("{store}: {len} bytes at {at} reach past the end of the store at {end:#x}")]
    OutOfRange {
        /// The store, as a person would name it.
        store: Box<str>,
        /// Where the access began.
        at: HostOffset,
        /// How many bytes it wanted.
        len: u64,
        /// Length of the store in bytes.
        end: u64,
    },
    /// The store was opened for reading only.
    #[error("{store}: the store is read-only")]
    ReadOnly {
        /// The store, as a person would name it.
        store: Box<str>,
    },
    /// Another process holds a lock that forbids this use.
    #[error("{store}: {what}")]
    Locked {
        /// The store, as a person would name it.
        store: Box<str>,
        /// Which lock, in qemu's words (`Failed to get "write" lock`).
        what: Box<str>,
    },
    /// The store cannot do this at all.
    #[error("{store}: {what} is not supported by this store")]
    Unsupported {
        /// The store, as a person would name it.
        store: Box<str>,
        /// The operation.
        what: &'static str,
    },
}

/// An error of the operating system, with what was being done.
#[derive(Debug, thiserror::Error)]
#[error("{store}: cannot {operation} {len} bytes at {at}: {source}")]
pub struct IoError {
    /// `read`, `write`, `flush`, `open`, ...
    pub operation: &'static str,
    /// The store, as a person would name it: for a file, its path.
    pub store: Box<str>,
    /// Where.
    pub at: HostOffset,
    /// How many bytes.
    pub len: u64,
    /// The cause.
    pub source: io::Error,
}

impl Error {
    /// Wraps an error of the operating system.
    #[cold]
    pub fn io(
        operation: &'static str,
        store: impl Into<Box<str>>,
        at: HostOffset,
        len: u64,
        source: io::Error,
    ) -> Self {
        Self::Io(Box::new(IoError { operation, store: store.into(), at, len, source }))
    }

    /// The kind of the underlying system error, if there is one.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(io) => Some(io.source.kind()),
            _ => None,
        }
    }
}
