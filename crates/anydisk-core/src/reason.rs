//! Parts of errors that a caller acts on differently.

use std::borrow::Cow;
use std::fmt;

use crate::OptionKind;

/// What a format, or an image, is without.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Changing options of an image that exists.
    Amend,
    /// Checking an image.
    Check,
    /// Writing compressed data.
    Compress,
    /// Keeping dirty bitmaps.
    Bitmaps,
    /// Changing the virtual size.
    Resize,
    /// Snapshots inside the image.
    Snapshots,
    /// A feature by the name its format gives it.
    Other(Cow<'static, str>),
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amend => "amending an image",
            Self::Check => "checking an image",
            Self::Compress => "compressed writing",
            Self::Bitmaps => "keeping dirty bitmaps",
            Self::Resize => "changing the size",
            Self::Snapshots => "internal snapshots",
            Self::Other(name) => name,
        })
    }
}

impl From<&'static str> for Feature {
    fn from(name: &'static str) -> Self {
        Self::Other(name.into())
    }
}

impl From<String> for Feature {
    fn from(name: String) -> Self {
        Self::Other(name.into())
    }
}

impl From<Cow<'static, str>> for Feature {
    fn from(name: Cow<'static, str>) -> Self {
        Self::Other(name)
    }
}

/// What an option takes, where it was given something else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// There is no such option: these there are.
    Name(Vec<&'static str>),
    /// A value of this kind.
    Kind(OptionKind),
    /// A value of the kind that is right, but this one.
    Value(Cow<'static, str>),
    /// A value at all: other options mean nothing without this one.
    Given,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(names) => write!(f, "one of the options {}", names.join(", ")),
            Self::Kind(OptionKind::Flag) => f.write_str("on or off"),
            Self::Kind(OptionKind::Number) => f.write_str("a number"),
            Self::Kind(OptionKind::Size) => {
                f.write_str("a size in bytes, or with a suffix k, M, G, T, P or E")
            }
            Self::Kind(OptionKind::Word(words)) => write!(f, "one of {}", words.join(", ")),
            Self::Kind(OptionKind::Text) => f.write_str("text"),
            Self::Value(expected) => f.write_str(expected),
            Self::Given => f.write_str("to be given with the options that need it"),
        }
    }
}

/// What is wrong with a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretProblem {
    /// There is none: what is needed.
    Missing(&'static str),
    /// There is none of this [name](crate::SecretRequest::id).
    Unknown(String),
    /// It does not open the image.
    Wrong(Cow<'static, str>),
}

impl fmt::Display for SecretProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what} is needed"),
            Self::Unknown(id) => write!(f, "there is no secret of the name {id}"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}
