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
    /// The path names something that is not used as a store, or not in this way.
    #[error("{store}: is {found}, expected {expected}")]
    WrongKind {
        /// The path.
        store: Box<str>,
        /// What it names: `a FIFO`, `a directory`, ...
        found: &'static str,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The name was not followed, because it leads where it may not.
    #[error("{store}: not opened: {reason}")]
    Denied {
        /// The path that was asked for.
        store: Box<str>,
        /// Why it is not followed.
        reason: &'static str,
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

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind().unwrap_or(io::ErrorKind::Other), error)
    }
}

/// An error of the operating system, with what was being done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{store}: {}: {source}", self.action())]
pub struct IoError {
    /// `read`, `write`, `flush`, `open`, ...
    pub operation: &'static str,
    /// The store, as a person would name it: for a file, its path.
    pub store: Box<str>,
    /// Where.
    pub at: HostOffset,
    /// How many bytes; 0 when the operation concerns the store as a whole.
    pub len: u64,
    /// The cause.
    pub source: io::Error,
}

impl IoError {
    /// `cannot read 512 bytes at 0x200`, or `cannot open` where there is no range.
    fn action(&self) -> String {
        let Self { operation, at, len, .. } = self;
        match len {
            0 => format!("cannot {operation}"),
            _ => format!("cannot {operation} {len} bytes at {at}"),
        }
    }
}

impl Error {
    /// Wraps an error of the operating system that concerns a range.
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

    /// Wraps an error of the operating system that concerns the store as a whole.
    #[cold]
    pub fn whole(
        operation: &'static str,
        store: impl Into<Box<str>>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::io(operation, store, HostOffset::ZERO, 0, source.into())
    }

    /// The kind of the underlying system error, if there is one.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(io) => Some(io.source.kind()),
            _ => None,
        }
    }

    /// A second line for a person, in the words that qemu uses.
    ///
    /// `Is another process using the image [path]?` after a lock was refused.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Locked { store, .. } => {
                Some(format!("Is another process using the image [{store}]?"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_range_names_store_place_and_cause() {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Error::io("read", "disk.raw", HostOffset(0x200), 512, cause);
        assert_eq!(
            error.to_string(),
            "disk.raw: cannot read 512 bytes at 0x200: permission denied"
        );
    }

    #[test]
    fn an_error_of_the_whole_store_names_no_place() {
        let error = Error::whole("open", "disk.raw", io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), "disk.raw: cannot open: entity not found");
    }

    #[test]
    fn a_refused_lock_has_the_hint_that_qemu_prints() {
        let error =
            Error::Locked { store: "disk.raw".into(), what: "Failed to get \"write\" lock".into() };
        assert_eq!(error.to_string(), "disk.raw: Failed to get \"write\" lock");
        assert_eq!(error.hint().as_deref(), Some("Is another process using the image [disk.raw]?"));
    }
}
