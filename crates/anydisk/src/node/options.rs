//! The options of nodes, and what they take.

use super::{NameError, Scalar, unclear};

/// What an option takes.
#[derive(Clone, Copy)]
enum Takes {
    Flag,
    Size,
    Text,
    /// One of these; behind them, what is said of anything else.
    OneOf(&'static [&'static str], &'static str),
}

use Takes::{Flag, OneOf, Size, Text};

/// What a flag may be.
const FLAGS: [&str; 8] = ["on", "yes", "true", "y", "off", "no", "false", "n"];

const DISCARDS: Takes = OneOf(&["ignore", "off", "unmap", "on"], "Invalid discard option");

/// Options of qemu that change neither what is read nor whether it is safe: how it caches, which
/// system calls it uses.
const WITHOUT_MEANING: &[(&str, Takes)] = &[
    ("aio", OneOf(&["threads", "native", "io_uring"], "invalid parameter value")),
    ("aio-max-batch", Size),
    ("auto-read-only", Flag),
    ("cache-clean-interval", Size),
    ("cache-size", Size),
    ("cache.no-flush", Flag),
    ("detect-zeroes", OneOf(&["off", "on", "unmap"], "invalid parameter value")),
    ("discard", DISCARDS),
    ("discard-no-unref", Flag),
    ("drop-cache", Flag),
    ("l2-cache-entry-size", Size),
    ("l2-cache-size", Size),
    ("lazy-refcounts", Flag),
    ("locking", OneOf(&["on", "off", "auto"], "invalid parameter value")),
    ("node-name", Text),
    ("pass-discard-other", Flag),
    ("pass-discard-request", Flag),
    ("pass-discard-snapshot", Flag),
    ("refcount-cache-size", Size),
];

/// Options that have one.
const WITH_MEANING: &[(&str, Takes)] =
    &[("cache.direct", Flag), ("force-share", Flag), ("read-only", Flag)];

/// Those of a format.
fn of_format(driver: Option<&str>) -> &'static [(&'static str, Takes)] {
    match driver {
        Some("raw") => &[("offset", Size), ("size", Size)],
        Some("luks") => &[("key-secret", Text)],
        Some("qcow" | "qcow2") => &[("encrypt.format", Text), ("encrypt.key-secret", Text)],
        _ => &[],
    }
}

/// Whether an option changes what is read.
pub(super) fn is_strong(driver: Option<&str>, name: &str) -> bool {
    name != "encrypt.format" && of_format(driver).iter().any(|(own, _)| *own == name)
}

/// Fails for an option that an image of this format does not take, or takes otherwise.
pub(super) fn check(driver: Option<&str>, name: &str, value: &Scalar) -> Result<(), NameError> {
    let mut known = [of_format(driver), WITH_MEANING, WITHOUT_MEANING].into_iter().flatten();
    match known.find(|(known, _)| *known == name) {
        Some((_, takes)) => takes.check(name, value),
        None if name.starts_with("overlap-check") => Ok(()),
        None => Err(unclear(format!(
            "Block format '{}' does not support the option '{name}'",
            driver.unwrap_or("raw")
        ))),
    }
}

impl Takes {
    fn check(self, name: &str, value: &Scalar) -> Result<(), NameError> {
        let text = match value {
            Scalar::Text(text) => text.to_str(),
            _ => None,
        };
        let is_word = |text: &str| FLAGS.contains(&text);
        let is_flag = matches!(value, Scalar::Flag(_)) || text.is_some_and(is_word);
        match self {
            Flag if !is_flag => Err(unclear(format!("Parameter '{name}' expects 'on' or 'off'"))),
            OneOf(words, why) if !text.is_some_and(|text| words.contains(&text)) => {
                Err(unclear(why))
            }
            Size => size(name, value).map(drop),
            _ => Ok(()),
        }
    }
}

/// A number of bytes.
pub(super) fn size(name: &str, value: &Scalar) -> Result<u64, NameError> {
    let number = match value {
        Scalar::Number(number) => Some(*number),
        Scalar::Text(text) => text.to_str().and_then(anydisk_core::parse_size),
        _ => None,
    };
    number.ok_or_else(|| {
        unclear(format!(
            "Parameter '{name}' expects a non-negative number below 2^64\n\
             Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
             and exabytes, respectively."
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_an_option_does_not_take_are_refused_also_where_they_would_change_nothing() {
        let told = |name, value: &str| {
            let value = Scalar::Text(value.into());
            check(Some("qcow2"), name, &value).map_err(|error| error.to_string())
        };
        for (name, value) in
            [("discard", "unmap"), ("l2-cache-size", "1M"), ("read-only", "on"), ("aio", "native")]
        {
            assert_eq!(told(name, value), Ok(()), "{name}");
        }
        assert_eq!(told("discard", "x").unwrap_err(), "Invalid discard option");
        assert!(told("l2-cache-size", "x").unwrap_err().contains("expects a non-negative number"));
        assert!(told("read-only", "x").unwrap_err().contains("expects 'on' or 'off'"));
        assert!(told("offset", "1").unwrap_err().contains("does not support the option"));
    }
}
