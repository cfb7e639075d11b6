//! What can go wrong between a passphrase and a decrypted sector.

use std::borrow::Cow;

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no key or no cipher. The kinds are those a caller acts on differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// A request that cannot be fulfilled: a key of a length that the cipher does not take.
    #[error("{0}")]
    Refused(Cow<'static, str>),
    /// The system gave no random bytes.
    #[error("the system has no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

impl Error {
    pub(crate) fn unsupported(feature: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported(feature.into())
    }

    pub(crate) fn refused(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(why.into())
    }
}
