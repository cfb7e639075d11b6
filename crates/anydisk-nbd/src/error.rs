//! Why a connection ended early.

use std::io;

/// Why a connection ended before the client took its leave.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection broke.
    #[error("the connection: {0}")]
    Connection(#[from] io::Error),
    /// The client said what the protocol does not allow.
    #[error("the client: {0}")]
    Protocol(Box<str>),
    /// What was written could not be made durable after the client went.
    #[error(transparent)]
    Disk(#[from] anydisk_core::Error),
}

/// The result of serving.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn protocol(what: impl Into<Box<str>>) -> Error {
    Error::Protocol(what.into())
}
