//! Creation options: `-o name=value,...`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anydisk::convert::NewImage;
use anydisk::storage::name;
use anydisk::{Format, OptionKind, Options, parse_number, parse_size};

use crate::failure::Failure;
use crate::naming::{Key, Keys, Naming};
use crate::option_help::{self, HINTS, hint_of};

/// What `-o` lists say, apart.
#[derive(Debug)]
pub(crate) struct Given {
    /// `size`, in bytes.
    pub(crate) size: Option<u64>,
    /// `backing_file`.
    pub(crate) backing_file: Option<OsString>,
    /// `backing_fmt`.
    pub(crate) backing_format: Option<String>,
    /// What is the format's own.
    pub(crate) options: Options,
    /// What is said of the file, and changes nothing: names and values, in the order of their list.
    hints: BTreeMap<usize, (&'static str, String)>,
}

/// Whether the lists ask for help.
///
/// # Errors
/// For what is no list.
pub(crate) fn asks_for_help(lists: &[OsString]) -> Result<bool, Failure> {
    if let Some(list) = lists.iter().find(|list| !is_list(list.as_bytes())) {
        return Err(Failure::new(format!("Invalid option list: {}", name::of(list))));
    }
    Ok(lists.iter().flat_map(|list| split(list)).any(|item| item == "help" || item == "?"))
}

/// Whether there is something in a list, and no comma at its ends that separates nothing.
fn is_list(list: &[u8]) -> bool {
    let commas = |bytes: &mut dyn Iterator<Item = &u8>| bytes.take_while(|b| **b == b',').count();
    let (first, last) = (commas(&mut list.iter()), commas(&mut list.iter().rev()));
    !list.is_empty() && first % 2 == 0 && last % 2 == 0
}

impl Given {
    /// Reads the lists, for images of `format`.
    pub(crate) fn parse(lists: &[OsString], format: &dyn Format) -> Result<Self, Failure> {
        let options = Options::of(format);
        let mut given = Self {
            size: None,
            backing_file: None,
            backing_format: None,
            options,
            hints: BTreeMap::new(),
        };
        for item in lists.iter().flat_map(|list| split(list)) {
            given.set(&item, format)?;
        }
        Ok(given)
    }

    fn set(&mut self, item: &OsStr, format: &dyn Format) -> Result<(), Failure> {
        let (name, value) = setting(item.as_bytes());
        let text = |part| text_of(part, item);
        let takes = |option| format.create_options().iter().any(|spec| spec.name == option);
        match text(name)? {
            "size" => self.size = Some(size_option("size", text(value)?)?),
            "backing_file" if takes("backing_file") => {
                self.backing_file = Some(OsStr::from_bytes(value).to_owned())
            }
            "backing_fmt" if takes("backing_fmt") => {
                self.backing_format = Some(text(value)?.to_owned())
            }
            name => match hint_of(format, name) {
                Some(place) => self.hint(place, text(value)?)?,
                None => self.options.set(name, text(value)?)?,
            },
        }
        Ok(())
    }

    /// Notes what qemu-img would tell a file system.
    fn hint(&mut self, place: usize, value: &str) -> Result<(), Failure> {
        let (name, kind) = HINTS[place];
        let value = match (kind, value) {
            (OptionKind::Size, text) => size_option(name, text)?.to_string(),
            (OptionKind::Word(words), word) if words.contains(&word) => value.to_owned(),
            (OptionKind::Word(_), "metadata") => {
                return Err(Failure::new("Unsupported preallocation mode: metadata"));
            }
            (OptionKind::Word(words), word) => {
                return Err(Failure::new(format!("invalid parameter value: {word}"))
                    .with_advice(&format!("{name} takes one of {}", words.join(", "))));
            }
            (_, "on" | "off") => value.to_owned(),
            _ => return Err(Failure::new(format!("Parameter '{name}' expects 'on' or 'off'"))),
        };
        self.hints.insert(place, (name, value));
        Ok(())
    }
}

impl Given {
    /// The new image of `format` that these options ask for: of `size` bytes, unless they say another
    /// size.
    pub(crate) fn image<'a>(
        &'a self,
        format: &'a dyn Format,
        size: u64,
        keys: &'a Keys,
    ) -> NewImage<'a> {
        let size = self.size.unwrap_or(size);
        NewImage { secrets: keys, ..NewImage::new(format, &self.options, size) }
    }

    /// Fails if the new image is to lie over another one, which it does not here.
    pub(crate) fn refuse_backing(&self) -> Result<(), Failure> {
        if self.backing_file.is_none() && self.backing_format.is_none() {
            return Ok(());
        }
        Err(Failure::new("A backing file is not supported here")
            .with_advice("The copy holds all of the disk; put it over another image with: rebase"))
    }

    /// Without what is said of an encryption that is not asked for: it takes no space.
    pub(crate) fn without_idle_encryption(mut self, format: &dyn Format) -> Result<Self, Failure> {
        if self.options.is_set("encrypt.format") || self.options.encryption().is_ok() {
            return Ok(self);
        }
        let mut options = Options::of(format);
        let others = self.options.given().filter(|(option, _)| !option.starts_with("encrypt."));
        others.into_iter().try_for_each(|(option, value)| options.set(option, value))?;
        self.options = options;
        Ok(self)
    }

    /// Fails if the options name secrets that there are not.
    pub(crate) fn check_secrets(&self, naming: &Naming) -> Result<(), Failure> {
        let objects = naming.objects()?;
        let mut named = self.options.given().filter(|(option, _)| option.ends_with("-secret"));
        named.try_for_each(|(_, id)| objects.secret(OsStr::new(id)).map(drop).map_err(Failure::new))
    }

    /// The secrets that the options name, for the image that is made.
    pub(crate) fn keys(&self, naming: &Naming) -> Result<Keys, Failure> {
        let objects = naming.objects()?;
        self.options.encryption()?;
        let mut keys = Keys::default();
        for (option, id) in self.options.given().filter(|(option, _)| option.ends_with("-secret")) {
            let secret = objects.secret(OsStr::new(id)).map_err(Failure::new)?.clone();
            keys.given.push(Key { option: option.to_owned(), location: None, secret });
        }
        Ok(keys)
    }
}

/// A size on the command line.
pub(crate) fn size(text: &str) -> Result<u64, Failure> {
    number_of_bytes(text, "image size")
}

/// qemu-img's words for a size among options that is none.
pub(crate) fn no_size(name: &str, value: &str) -> String {
    if is_number(value) {
        return format!("Value '{value}' is out of range for parameter '{name}'");
    }
    format!(
        "Parameter '{name}' expects a non-negative number below 2^64\n\
         Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
         and exabytes, respectively."
    )
}

fn size_option(name: &str, text: &str) -> Result<u64, Failure> {
    parse_size(text).ok_or_else(|| Failure::new(no_size(name, text)))
}

/// A number of bytes on the command line; `what` it is of, for a refusal.
pub(crate) fn number_of_bytes(text: &str, what: &str) -> Result<u64, Failure> {
    match parse_size(text) {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ if is_number(text) => Err(Failure::new(format!(
            "Invalid {what} specified. Must be between 0 and {}.",
            i64::MAX
        ))),
        _ => Err(Failure::new(format!("Invalid {what} specified: '{text}'."))
            .with_advice("Give bytes, or a number with a suffix k, M, G, T, P or E.")),
    }
}

/// A number of bytes on the command line that lies in a range; `what` it is of, for a refusal.
pub(crate) fn bytes_in(
    text: &str,
    what: &str,
    allowed: RangeInclusive<u64>,
) -> Result<u64, Failure> {
    match parse_size(text) {
        None if !is_number(text) => number_of_bytes(text, what),
        number => in_range(number, what, &allowed),
    }
}

/// How many of something, on the command line: a number without a suffix, which lies in a range.
pub(crate) fn count_in(
    text: &str,
    what: &str,
    allowed: RangeInclusive<u64>,
) -> Result<u64, Failure> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    match parse_number(text) {
        // Neither too small nor too large for a number.
        None if digits.is_empty() || !is_number => {
            Err(Failure::new(format!("Invalid {what} specified: '{text}'.")))
        }
        number => in_range(number, what, &allowed),
    }
}

fn in_range(
    number: Option<u64>,
    what: &str,
    allowed: &RangeInclusive<u64>,
) -> Result<u64, Failure> {
    let (least, most) = (allowed.start(), allowed.end());
    number.filter(|number| allowed.contains(number)).ok_or_else(|| {
        Failure::new(format!("Invalid {what} specified. Must be between {least} and {most}."))
    })
}

/// Whether it is a number, if one that is too small or too large.
fn is_number(text: &str) -> bool {
    let text = text.trim_ascii_start();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let is_decimal = digits.len() < unsigned.len()
        && (digits.is_empty() || digits.len() == 1 && "bBkKmMgGtTpPeE".contains(digits));
    is_decimal || parse_size(unsigned).is_some()
}

/// Bytes in a second; 0 if there is no bound.
pub(crate) fn rate(text: Option<&str>) -> Result<u64, Failure> {
    text.map_or(Ok(0), |text| number_of_bytes(text, "rate limit"))
}

/// The items of a list. A comma inside a value is written twice.
pub(crate) fn split(list: &OsStr) -> Vec<OsString> {
    let mut items = vec![Vec::new()];
    let mut bytes = list.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            items.push(Vec::new());
        } else if let Some(item) = items.last_mut() {
            item.push(byte);
        }
    }
    items.into_iter().filter(|item| !item.is_empty()).map(OsString::from_vec).collect()
}

/// The items of a list as names and values, whatever bytes the values are.
pub(crate) fn named_values(list: &OsStr) -> Vec<(String, OsString)> {
    split(list).into_iter().map(|item| named_value(item.as_bytes())).collect()
}

/// The name and the value of an item.
pub(crate) fn named_value(item: &[u8]) -> (String, OsString) {
    let (name, value) = setting(item);
    (String::from_utf8_lossy(name).into_owned(), OsStr::from_bytes(value).to_owned())
}

/// The name and the value of an item. A bare name is a flag that is on; with `no` before it, it is
/// off.
fn setting(item: &[u8]) -> (&[u8], &[u8]) {
    match (name_and_value(item), item.strip_prefix(b"no")) {
        ((name, Some(value)), _) => (name, value),
        ((_, None), Some(name)) => (name, b"off"),
        ((name, None), None) => (name, b"on"),
    }
}

/// What stands before and behind the first `=`, if there is one.
pub(crate) fn name_and_value(item: &[u8]) -> (&[u8], Option<&[u8]>) {
    match item.iter().position(|byte| *byte == b'=') {
        Some(at) => (&item[..at], Some(&item[at + 1..])),
        None => (item, None),
    }
}

/// A part of an item as text.
fn text_of<'a>(part: &'a [u8], item: &OsStr) -> Result<&'a str, Failure> {
    str::from_utf8(part).map_err(|_| Failure::new(format!("the option {item:?} is not UTF-8")))
}

/// The items of the lists as names and values.
pub(crate) fn pairs(lists: &[OsString]) -> Result<Vec<(String, String)>, Failure> {
    let text = |part: &[u8], item: &OsStr| text_of(part, item).map(str::to_owned);
    let pair = |item: OsString| {
        let (name, value) = setting(item.as_bytes());
        Ok((text(name, &item)?, text(value, &item)?))
    };
    lists.iter().flat_map(|list| split(list)).map(pair).collect()
}

/// The line that tells what is made: every option that is given or has a default, in the order in
/// which the format declares them; the size first, if it does not say where.
pub(crate) fn formatting(file: &str, format: &dyn Format, given: &Given, size: u64) -> String {
    let specs = format.create_options();
    let says_where = specs.iter().any(|spec| spec.name == "size");
    let size_first = (!says_where).then_some(("size", OptionKind::Size));
    let names = specs.iter().map(|spec| (spec.name, spec.kind));
    let (of_files, own): (Vec<_>, Vec<_>) =
        names.partition(|(name, _)| option_help::is_of_files(format.name(), name));
    let word = |(name, kind)| given.word(name, kind, size);
    let own: String = size_first.into_iter().chain(own).filter_map(word).collect();
    let mut hints = given.hints.values().map(|(name, value)| format!(" {name}={value}"));
    // In the order in which qemu's driver of files has them.
    let first: String = hints.by_ref().take(usize::from(given.hints.contains_key(&0))).collect();
    let of_files: String = of_files.into_iter().filter_map(word).collect();
    let last: String = hints.collect();
    format!("Formatting '{file}', fmt={}{own}{first}{of_files}{last}\n", format.name())
}

impl Given {
    /// An option as it is told, if there is something to tell.
    fn word(&self, name: &str, kind: OptionKind, size: u64) -> Option<String> {
        let value = match name {
            "size" => size.to_string(),
            "backing_file" => doubled(&name::of(self.backing_file.as_ref()?)),
            "backing_fmt" => self.backing_format.clone()?,
            _ => printed(name, kind, &self.options)?,
        };
        Some(format!(" {name}={value}"))
    }
}

/// Commas inside values are doubled.
fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

fn printed(name: &str, kind: OptionKind, options: &Options) -> Option<String> {
    let number = || options.number(name).map(|number| number.to_string());
    match kind {
        OptionKind::Size | OptionKind::Number => number(),
        _ => options.text(name).map(doubled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_comma_belongs_to_the_value() {
        let items = |list: &str| split(OsStr::new(list));
        assert_eq!(items("a=1,b=2"), ["a=1", "b=2"]);
        assert_eq!(items("a=x,,y,b"), ["a=x,y", "b"]);
        assert_eq!(items(""), [""; 0]);
    }

    #[test]
    fn a_bare_name_is_a_flag_that_is_on_or_with_no_before_it_off() {
        let pair = |item: &str| named_value(item.as_bytes());
        assert_eq!(pair("a"), ("a".into(), "on".into()));
        assert_eq!(pair("noa"), ("a".into(), "off".into()));
        assert_eq!(pair("noa=x=y"), ("noa".into(), "x=y".into()));
    }

    #[test]
    fn the_size_and_the_backing_file_are_not_the_formats_own() {
        let registry = anydisk::formats();
        let raw = registry.by_name("qcow2").unwrap();
        let lists = ["size=1k,backing_file=a,,b".into(), "backing_fmt=raw".into()];
        let given = Given::parse(&lists, raw).unwrap();
        assert_eq!((given.size, given.backing_file), (Some(1024), Some("a,b".into())));
        assert_eq!(given.backing_format.as_deref(), Some("raw"));
    }
}
