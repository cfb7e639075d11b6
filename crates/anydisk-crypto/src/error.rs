//! What can go wrong between a passphrase and a decrypted sector.

use std::borrow::Cow;
use std::fmt;

use anydisk_storage::HostOffset;

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a volume was not opened, made or changed. The kinds are those a caller acts on differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store below failed or ended early.
    #[error(transparent)]
    Storage(#[from] anydisk_storage::Error),
    /// A field of the header breaks the format.
    #[error(transparent)]
    Invalid(Box<Invalid>),
    /// Legal, and not done here: the feature by the name its format gives it.
    #[error("{0} is not supported")]
    Unsupported(Cow<'static, str>),
    /// Legal, and refused for the memory or the time it would take.
    #[error("{what} is {found}, more than the limit of {limit}")]
    Limit {
        /// What is too large, with its unit.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The limit in force.
        limit: u64,
    },
    /// The passphrase, or the key it was turned into, opens nothing here.
    #[error("invalid password, cannot unlock any key slot")]
    WrongPassphrase,
    /// A request that cannot be fulfilled on this volume: no free key slot, the last one to be
    /// removed, a key of a length that the cipher does not take.
    #[error("{0}")]
    Refused(Cow<'static, str>),
    /// The system gave no random bytes.
    #[error("the system has no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// A value in a header that its format does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} at {at} is {found}, expected {expected}")]
pub struct Invalid {
    /// The field, by the specification's name.
    pub field: Cow<'static, str>,
    /// Where the field is.
    pub at: HostOffset,
    /// What it holds.
    pub found: Found,
    /// What it should hold.
    pub expected: Cow<'static, str>,
}

/// A value found in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// A count or a size, shown in decimal.
    Number(u64),
    /// An offset or a magic, shown in hexadecimal.
    Hex(u64),
    /// Bytes or text, shown quoted and escaped, cut after 64 bytes.
    Text(Vec<u8>),
    /// Nothing: the store ends before the field, or the field is not there.
    Missing,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Hex(number) => write!(f, "{number:#x}"),
            Self::Text(bytes) => {
                write!(f, "\"{}\"", bytes[..bytes.len().min(64)].escape_ascii())
            }
            Self::Missing => write!(f, "missing"),
        }
    }
}

impl From<u64> for Found {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Found {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<&[u8]> for Found {
    fn from(bytes: &[u8]) -> Self {
        Self::Text(bytes.to_vec())
    }
}

impl From<&str> for Found {
    fn from(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}

impl Error {
    /// A field that breaks the format.
    pub(crate) fn invalid(
        field: impl Into<Cow<'static, str>>,
        at: HostOffset,
        found: impl Into<Found>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (field, found, expected) = (field.into(), found.into(), expected.into());
        Self::Invalid(Box::new(Invalid { field, at, found, expected }))
    }

    pub(crate) fn unsupported(feature: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported(feature.into())
    }

    pub(crate) fn refused(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(why.into())
    }
}
