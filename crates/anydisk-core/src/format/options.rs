//! The options of a format: told once, checked once.

use std::collections::BTreeMap;

use super::Format;
use super::number::{parse_number, parse_size};
use crate::{Error, Expected, Result};

/// One option of a format: the one place from which parsing, help and documentation come.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// What it does, for people.
    pub help: &'static str,
    /// What it takes.
    pub kind: OptionKind,
    /// The value if it is not given; `None`: no value.
    pub default: Option<&'static str>,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionKind {
    /// `on` or `off`.
    Flag,
    /// A number.
    Number,
    /// A number of bytes, with an optional suffix `k`, `M`, `G`, `T`, `P`, `E`.
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

/// Options given by name, checked against the specs of a format.
#[derive(Clone, Debug, Default)]
pub struct Options {
    format: &'static str,
    specs: &'static [OptionSpec],
    values: BTreeMap<&'static str, String>,
}

impl Options {
    /// No option given: the defaults of `format`.
    #[must_use]
    pub fn of(format: &dyn Format) -> Self {
        Self { format: format.name(), specs: format.create_options(), values: BTreeMap::new() }
    }

    /// No option given, of those that `format` can amend.
    #[must_use]
    pub fn to_amend(format: &dyn Format) -> Self {
        Self { specs: format.amend_options(), ..Self::of(format) }
    }

    /// Gives an option.
    ///
    /// # Errors
    /// [`Error::Option`] if the format has no such option or it does not take this value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let refuse = |expected| Error::Option {
            format: self.format,
            option: name.to_owned(),
            value: value.to_owned(),
            expected,
        };
        let Some(spec) = self.specs.iter().find(|spec| spec.name == name) else {
            let names = self.specs.iter().map(|spec| spec.name).collect();
            return Err(refuse(Expected::Name(names)));
        };
        let fits = match spec.kind {
            OptionKind::Flag => flag(value).is_some(),
            OptionKind::Number => parse_number(value).is_some(),
            OptionKind::Size => parse_size(value).is_some(),
            OptionKind::Word(words) => words.contains(&value),
            OptionKind::Text => true,
        };
        if !fits {
            return Err(refuse(Expected::Kind(spec.kind)));
        }
        self.values.insert(spec.name, value.to_owned());
        Ok(())
    }

    /// The value given, else the default; `None` if there is neither.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let default = || self.specs.iter().find(|spec| spec.name == name)?.default;
        self.values.get(name).map(String::as_str).or_else(default)
    }

    /// Whether a flag is on. False if there is no such option.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).and_then(flag).unwrap_or(false)
    }

    /// A number or a number of bytes.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let kind = self.specs.iter().find(|spec| spec.name == name)?.kind;
        self.text(name).and_then(if kind == OptionKind::Number { parse_number } else { parse_size })
    }

    /// The encryption that is asked for: `encrypt.format`, or `aes` by the older `encryption=on`.
    ///
    /// # Errors
    /// [`Error::Option`] for both at once, and for other options of an encryption where there is none:
    /// whoever names a passphrase must not get an image that is open to all.
    pub fn encryption(&self) -> Result<Option<&str>> {
        const FORMAT: &str = "encrypt.format";
        let older = self.flag("encryption").then_some("aes");
        match (self.text(FORMAT), older) {
            (Some(_), Some(_)) => Err(self.refuse(FORMAT, "no encryption=on beside it")),
            (None, None) if self.values.keys().any(|name| name.starts_with("encrypt.")) => {
                Err(Error::Option {
                    format: self.format,
                    option: FORMAT.to_owned(),
                    value: String::new(),
                    expected: Expected::Given,
                })
            }
            (format, older) => Ok(format.or(older)),
        }
    }

    /// The options that were given, and their values, by name.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(name, value)| (*name, &**value))
    }

    /// Whether the option was given, whatever its default.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The refusal of a value that the specs alone could not refuse.
    #[must_use]
    pub fn refuse(&self, name: &str, expected: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::Option {
            format: self.format,
            option: name.to_owned(),
            value: self.text(name).unwrap_or_default().to_owned(),
            expected: Expected::Value(expected.into()),
        }
    }
}

/// A flag as people type it.
fn flag(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}
