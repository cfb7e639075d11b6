//! Creation options: `-o name=value,...`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anydisk::storage::name;
use anydisk::{Format, OptionKind, OptionSpec, Options, parse_size};

use crate::failure::Failure;
use crate::naming::{Key, Keys, Naming};

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
}

/// Whether the lists ask for help.
pub(crate) fn asks_for_help(lists: &[OsString]) -> bool {
    lists.iter().flat_map(|list| split(list)).any(|item| item == "help" || item == "?")
}

impl Given {
    /// Reads the lists, for images of `format`.
    pub(crate) fn parse(lists: &[OsString], format: &dyn Format) -> Result<Self, Failure> {
        let options = Options::of(format);
        let mut given = Self { size: None, backing_file: None, backing_format: None, options };
        for item in lists.iter().flat_map(|list| split(list)) {
            given.set(&item)?;
        }
        Ok(given)
    }

    fn set(&mut self, item: &OsStr) -> Result<(), Failure> {
        let bytes = item.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        // A bare name is a flag that is on.
        let (name, value) =
            equals.map_or((bytes, &b"on"[..]), |at| (&bytes[..at], &bytes[at + 1..]));
        let text = |bytes| {
            str::from_utf8(bytes)
                .map_err(|_| Failure::new(format!("the option {item:?} is not UTF-8")))
        };
        match text(name)? {
            "size" => self.size = Some(size_option(text(value)?)?),
            "backing_file" => self.backing_file = Some(OsStr::from_bytes(value).to_owned()),
            "backing_fmt" => self.backing_format = Some(text(value)?.to_owned()),
            name => self.options.set(name, text(value)?)?,
        }
        Ok(())
    }
}

impl Given {
    /// The secrets that the options name, for the image that is made.
    pub(crate) fn keys(&self, naming: &Naming) -> Result<Keys, Failure> {
        let objects = naming.objects()?;
        let mut keys = Keys::default();
        for (option, id) in self.options.given().filter(|(option, _)| option.ends_with("-secret")) {
            let secret = objects.secret(OsStr::new(id)).map_err(Failure::new)?.clone();
            keys.0.push(Key { option: option.to_owned(), location: None, secret });
        }
        Ok(keys)
    }
}

/// A size on the command line.
pub(crate) fn size(text: &str) -> Result<u64, Failure> {
    number_of_bytes(text, "image size")
}

/// qemu-img's words for a size among options that is none.
pub(crate) const NO_SIZE: &str = "Parameter 'size' expects a non-negative number below 2^64\n\
Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
and exabytes, respectively.";

fn size_option(text: &str) -> Result<u64, Failure> {
    parse_size(text).ok_or_else(|| Failure::new(NO_SIZE))
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

/// Whether it is a whole number, if one that is too small or too large.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let digits =
        digits.strip_suffix(|last: char| "bBkKmMgGtTpPeE".contains(last)).unwrap_or(digits);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
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

/// The items of a list as names and values, whatever bytes the values are; a bare name is a flag
/// that is on.
pub(crate) fn named_values(list: &OsStr) -> Vec<(String, OsString)> {
    split(list).into_iter().map(|item| named_value(item.as_bytes())).collect()
}

/// The name and the value of an item.
pub(crate) fn named_value(item: &[u8]) -> (String, OsString) {
    let equals = item.iter().position(|byte| *byte == b'=');
    let (name, value) = equals.map_or((item, &b"on"[..]), |at| (&item[..at], &item[at + 1..]));
    (String::from_utf8_lossy(name).into_owned(), OsStr::from_bytes(value).to_owned())
}

/// The items of the lists as names and values; a bare name is a flag that is on.
pub(crate) fn pairs(lists: &[OsString]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |item: OsString| {
        let refused = |item: OsString| Failure::new(format!("the option {item:?} is not UTF-8"));
        let text = item.into_string().map_err(refused)?;
        let (name, value) = text.split_once('=').unwrap_or((&text, "on"));
        Ok((name.to_owned(), value.to_owned()))
    };
    lists.iter().flat_map(|list| split(list)).map(pair).collect()
}

/// What `-o help` prints.
pub(crate) fn help(format: &dyn Format) -> String {
    let size = line("size", "size", "Virtual disk size");
    let specs: Vec<_> =
        format.create_options().iter().filter(|spec| spec.name != "size").copied().collect();
    let lines = lines(&specs, [size]);
    format!("Supported {} options:\n{lines}", format.name())
}

/// What `amend -o help` prints.
pub(crate) fn amend_help(format: &dyn Format) -> String {
    let options = lines(format.amend_options(), []);
    format!("Amend options for '{}':\n{options}", format.name())
}

fn lines(specs: &[OptionSpec], more: impl IntoIterator<Item = String>) -> String {
    let lines = specs.iter().map(|spec| line(spec.name, kind(spec.kind), spec.help));
    let mut lines: Vec<String> = lines.chain(more).collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

fn line(name: &str, kind: &str, help: &str) -> String {
    format!("  {:<22} - {help}\n", format!("{name}=<{kind}>"))
}

fn kind(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Flag => "bool (on/off)",
        OptionKind::Number => "num",
        OptionKind::Size => "size",
        _ => "str",
    }
}

/// The line that tells what is made: every option that is given or has a default, in the order in
/// which the format declares them; the size first, if it does not say where.
pub(crate) fn formatting(file: &str, format: &dyn Format, given: &Given, size: u64) -> String {
    let specs = format.create_options();
    let says_where = specs.iter().any(|spec| spec.name == "size");
    let size_first = (!says_where).then_some(("size", OptionKind::Size));
    let names = specs.iter().map(|spec| (spec.name, spec.kind));
    let words = size_first.into_iter().chain(names);
    let words: String = words.filter_map(|(name, kind)| given.word(name, kind, size)).collect();
    format!("Formatting '{file}', fmt={}{words}\n", format.name())
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
    fn the_size_and_the_backing_file_are_not_the_formats_own() {
        let registry = anydisk::formats();
        let raw = registry.by_name("raw").unwrap();
        let lists = ["size=1k,backing_file=a,,b".into(), "backing_fmt=raw".into()];
        let given = Given::parse(&lists, raw).unwrap();
        assert_eq!((given.size, given.backing_file), (Some(1024), Some("a,b".into())));
        assert_eq!(given.backing_format.as_deref(), Some("raw"));
    }
}
