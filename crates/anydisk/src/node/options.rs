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
    /// The name of a node.
    Name,
}

use Takes::{Flag, Name, OneOf, Size, Text};

/// What a flag may be.
const FLAGS: [&str; 8] = ["on", "yes", "true", "y", "off", "no", "false", "n"];

const DISCARDS: Takes = OneOf(&["ignore", "off", "unmap", "on"], "Invalid discard option");

/// Options of qemu that change neither what is read nor whether it is safe: how it caches, which
/// system calls it uses.
const WITHOUT_MEANING: &[(&str, Takes)] = &[
    ("aio", OneOf(&["threads", "native", "io_uring"], "invalid parameter value: {}")),
    ("aio-max-batch", Size),
    ("auto-read-only", Flag),
    ("cache-clean-interval", Size),
    ("cache-size", Size),
    ("cache.no-flush", Flag),
    ("detect-zeroes", OneOf(&["off", "on", "unmap"], "invalid parameter value: {}")),
    ("discard", DISCARDS),
    ("discard-no-unref", Flag),
    ("drop-cache", Flag),
    ("l2-cache-entry-size", Size),
    ("l2-cache-size", Size),
    ("lazy-refcounts", Flag),
    ("locking", OneOf(&["on", "off", "auto"], "invalid parameter value: {}")),
    ("node-name", Name),
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
        Some("dmg" | "luks") => &[("key-secret", Text)],
        Some("null-co" | "null-aio") => {
            &[("latency-ns", Size), ("read-zeroes", Flag), ("size", Size)]
        }
        // The others would be sizes that the image does not tell of itself.
        Some("vpc") => &[(
            "force_size_calc",
            OneOf(&["auto"], "force_size_calc={} is not supported here: expected auto"),
        )],
        Some("qcow" | "qcow2") => &[("encrypt.format", Text), ("encrypt.key-secret", Text)],
        _ => &[],
    }
}

/// Whether an option changes what is read.
pub(super) fn is_strong(driver: Option<&str>, name: &str) -> bool {
    !["encrypt.format", "latency-ns"].contains(&name)
        && of_format(driver).iter().any(|(own, _)| *own == name)
}

/// Fails for an option that an image of this format does not take, or takes otherwise.
pub(super) fn check(driver: Option<&str>, name: &str, value: &Scalar) -> Result<(), NameError> {
    let mut known = [of_format(driver), WITH_MEANING, WITHOUT_MEANING].into_iter().flatten();
    match known.find(|(known, _)| *known == name) {
        Some((_, takes)) => takes.check(name, value),
        None if driver == Some("qcow2") && name.starts_with("overlap-check") => {
            OVERLAPS.check(name, value)
        }
        None => Err(unclear(match driver {
            Some(driver) if super::FILES.contains(&driver) || super::is_null(driver) => {
                format!("Block protocol '{driver}' doesn't support the option '{name}'")
            }
            _ => {
                let format = driver.unwrap_or("raw");
                format!("Block format '{format}' does not support the option '{name}'")
            }
        })),
    }
}

/// What qcow2's `overlap-check` and its parts take.
const OVERLAPS: Takes = OneOf(
    &["none", "constant", "cached", "all", "on", "off"],
    "Unsupported value '{}' for qcow2 option 'overlap-check'. Allowed are any of the following: none, \
     constant, cached, all",
);

/// Whether a text names a node: a letter, then letters, digits, and `-._`.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
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
            OneOf(words, why)
                if !(text.is_some_and(|text| words.contains(&text))
                    || is_flag_of(words, value)) =>
            {
                Err(unclear(why.replace("{}", text.unwrap_or_default())))
            }
            Name if !text.is_some_and(is_name) => {
                Err(unclear(format!("Invalid node-name: '{}'", text.unwrap_or_default())))
            }
            Size => size(name, value).map(drop),
            _ => Ok(()),
        }
    }
}

/// Whether a flag of JSON stands for one of these words.
fn is_flag_of(words: &[&str], value: &Scalar) -> bool {
    matches!(value, Scalar::Flag(_)) && words.contains(&"on") && words.contains(&"off")
}

/// A number of bytes.
pub(super) fn size(name: &str, value: &Scalar) -> Result<u64, NameError> {
    let number = match value {
        Scalar::Number(number) => Some(*number),
        Scalar::Text(text) => text.to_str().and_then(anydisk_core::parse_size),
        _ => None,
    };
    let is_negative = |text: &str| {
        let digits = text.strip_prefix('-').map(|digits| digits.bytes());
        digits
            .is_some_and(|mut digits| digits.len() > 0 && digits.all(|byte| byte.is_ascii_digit()))
    };
    number.ok_or_else(|| match value {
        Scalar::Text(text) if text.to_str().is_some_and(is_negative) => {
            let text = text.display();
            unclear(format!("Value '{text}' is out of range for parameter '{name}'"))
        }
        _ => unclear(format!(
            "Parameter '{name}' expects a non-negative number below 2^64\n\
             Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
             and exabytes, respectively."
        )),
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
        assert_eq!(told("aio", "x").unwrap_err(), "invalid parameter value: x");
        assert_eq!(told("node-name", "1a").unwrap_err(), "Invalid node-name: '1a'");
        assert!(told("overlap-check", "x").unwrap_err().contains("Unsupported value 'x'"));
        assert_eq!(told("overlap-check.template", "cached"), Ok(()));
        assert!(told("l2-cache-size", "x").unwrap_err().contains("expects a non-negative number"));
        assert!(told("read-only", "x").unwrap_err().contains("expects 'on' or 'off'"));
        assert!(told("offset", "1").unwrap_err().contains("does not support the option"));
    }
}
