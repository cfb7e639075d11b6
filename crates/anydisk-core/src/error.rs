//! One error type for everything above the storage.

use std::borrow::Cow;
use std::fmt;

use anydisk_codec::DecodeError;
use anydisk_storage::HostOffset;

use crate::GuestRange;
use crate::reason::{Expected, Feature, SecretProblem};

/// The result of an operation on an image.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on an image did not happen. The kinds are those a caller acts on differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store below failed, is locked, is read-only, or ended early.
    #[error(transparent)]
    Storage(#[from] anydisk_storage::Error),
    /// The bytes break the format.
    #[error(transparent)]
    Invalid(#[from] Box<Invalid>),
    /// Legal, and not done here: the feature by the name its format gives it.
    #[error("{format}: {feature} is not supported")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// The feature.
        feature: Feature,
    },
    /// Legal, and refused for its size.
    #[error("{format}: {what} is {found}, more than the limit of {limit}")]
    Limit {
        /// Name of the format.
        format: &'static str,
        /// What is too large, with its unit.
        what: Cow<'static, str>,
        /// The number found.
        found: u64,
        /// The limit in force.
        limit: u64,
    },
    /// The range is not on the disk.
    #[error("guest range {range} reaches past the end of the disk at {size:#x}")]
    OutOfRange {
        /// The range asked for.
        range: GuestRange,
        /// Virtual size in bytes.
        size: u64,
    },
    /// The image was opened for reading, or its format can only be read.
    #[error("the image cannot be written: {why}")]
    ReadOnly {
        /// Why.
        why: Cow<'static, str>,
    },
    /// A file named inside the image was not opened, because the caller's policy forbids it.
    #[error("{role} {name:?} is named by the image and was not opened: {why}")]
    Denied {
        /// `backing file`, `extent`, `data file`.
        role: &'static str,
        /// The name as the image gives it.
        name: String,
        /// The rule that forbids it.
        why: Cow<'static, str>,
    },
    /// A name that is no file's: what stands before its first colon says that it is something on the
    /// network, or the like.
    #[error("the protocol {protocol:?} in the name {name:?} is not supported")]
    Protocol {
        /// The word before the colon.
        protocol: String,
        /// The whole name.
        name: String,
    },
    /// The image must be repaired before it can be used this way.
    #[error("{format}: the image needs repair: {why}")]
    NeedsRepair {
        /// Name of the format.
        format: &'static str,
        /// What is wrong.
        why: Cow<'static, str>,
    },
    /// A compressed unit does not decode.
    #[error("compressed data for guest range {range} at {at}: {source}")]
    Decode {
        /// The guest range of the unit.
        range: GuestRange,
        /// Where the stream begins in its store.
        at: HostOffset,
        /// What the decoder said.
        source: DecodeError,
    },
    /// A creation or open option that the format does not have, or a value it does not take.
    #[error("{format}: option {option}={value}: expected {expected}")]
    Option {
        /// Name of the format.
        format: &'static str,
        /// The option.
        option: String,
        /// The value given.
        value: String,
        /// What it takes.
        expected: Expected,
    },
    /// Something inside the image that was asked for by name is not there.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// `snapshot`, `bitmap`, `member`.
        what: &'static str,
        /// The name asked for.
        name: String,
    },
    /// Something of this name is there already.
    #[error("there is a {what} {name:?} already")]
    Exists {
        /// `snapshot`, `bitmap`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Something inside the image is there, and its content or state forbids what was asked.
    #[error("{what} {name:?} cannot be used: {why}")]
    Unusable {
        /// `snapshot`, `bitmap`, `member`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why.
        why: Cow<'static, str>,
    },
    /// The image is encrypted, and no secret or a wrong one was given.
    #[error("{option}: {why}")]
    Secret {
        /// The option that names the secret.
        option: &'static str,
        /// What is wrong with it.
        why: SecretProblem,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// No format of this name is in the registry, or none recognised the bytes.
    #[error("unknown format: {0}")]
    UnknownFormat(String),
    /// A chain of images that comes back to itself.
    #[error("the chain of backing files comes back to {0}")]
    Loop(String),
    /// An error in the file of this name. Added once, by whoever opened the file.
    #[error("{name}: {source}")]
    In {
        /// The file as a person would name it.
        name: String,
        /// The error.
        source: Box<Error>,
    },
}

impl Error {
    /// The refusal to use an image of this format before it is repaired.
    #[must_use]
    pub fn needs_repair(format: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self::NeedsRepair { format, why: why.into() }
    }

    /// This error as that of a store: what was done, with which store, where. An error of a store
    /// below stays what it is.
    pub(crate) fn of_store(
        self,
        what: &'static str,
        name: &str,
        at: HostOffset,
        len: u64,
    ) -> anydisk_storage::Error {
        match self {
            Self::Storage(error) => error,
            other => anydisk_storage::Error::io(what, name, at, len, std::io::Error::other(other)),
        }
    }

    /// Names the file the error is about, unless that was done already.
    #[must_use]
    pub fn within(self, name: &str) -> Self {
        match self {
            Self::In { .. } | Self::Storage(_) => self,
            other => Self::In { name: name.to_owned(), source: Box::new(other) },
        }
    }

    /// The kind of the system error behind it, if there is one (a full disk, a missing file).
    #[must_use]
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        match self.kind() {
            Self::Storage(error) => error.io_kind(),
            _ => None,
        }
    }

    /// The error without the name of its file.
    #[must_use]
    pub fn kind(&self) -> &Self {
        match self {
            Self::In { source, .. } => source.kind(),
            other => other,
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind().unwrap_or(std::io::ErrorKind::Other), error)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(Box::new(invalid))
    }
}

/// A value in a file that its format does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{format}: {field} at {at} is {found}, expected {expected}")]
pub struct Invalid {
    /// Name of the format.
    pub format: &'static str,
    /// The field, by the specification's name.
    pub field: Cow<'static, str>,
    /// Where the field is.
    pub at: HostOffset,
    /// What it holds.
    pub found: Value,
    /// What it should hold.
    pub expected: Cow<'static, str>,
}

/// A value found in a file, shown the way a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// A count or a size, shown in decimal.
    Number(u64),
    /// An offset, a mask or a magic, shown in hexadecimal.
    Hex(u64),
    /// Bytes or text, shown quoted and escaped, cut after 64 bytes.
    Text(Vec<u8>),
    /// Nothing: the file ends before the field.
    Missing,
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<HostOffset> for Value {
    fn from(at: HostOffset) -> Self {
        Self::Hex(at.get())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Text(bytes[..bytes.len().min(64)].to_vec())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Hex(number) => write!(f, "{number:#x}"),
            Self::Text(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Missing => write!(f, "missing"),
        }
    }
}

/// Refuses what is legal and too large; `what` with its unit.
///
/// # Errors
/// [`Error::Limit`] if `found` is more than `limit`.
pub fn check_limit(
    format: &'static str,
    what: impl Into<Cow<'static, str>>,
    found: u64,
    limit: u64,
) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::Limit { format, what: what.into(), found, limit })
}

/// A number that was held against its limit, for a field of 32 bits; the largest one for any other.
#[must_use]
pub fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// An [`Invalid`] for a field of a layout struct: name and place come from the struct itself.
///
/// `invalid_field!("qcow2", HeaderV2, cluster_bits, found, "9 to 21")`; the place is the field's
/// offset in the struct, plus `base: HostOffset` where the struct is not at the start of the file:
/// `invalid_field!("qcow2", base => Entry, l1_size, found, "...")`.
#[macro_export]
macro_rules! invalid_field {
    ($format:expr, $base:expr => $layout:ty, $field:ident, $found:expr, $($expected:tt)+) => {
        $crate::Invalid {
            format: $format,
            field: stringify!($field).trim_start_matches("r#").into(),
            at: $base.saturating_add(::core::mem::offset_of!($layout, $field) as u64),
            found: $crate::Value::from($found),
            expected: format!($($expected)+).into(),
        }
    };
    ($format:expr, $layout:ty, $field:ident, $found:expr, $($expected:tt)+) => {
        $crate::invalid_field!($format, $crate::HostOffset::ZERO => $layout, $field, $found, $($expected)+)
    };
}
