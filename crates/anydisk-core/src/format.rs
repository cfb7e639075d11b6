//! What a format crate offers: recognise, open, create; and the list of formats a caller uses.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;

use anydisk_storage::{HostOffset, Storage};

use crate::image::read_only;
use crate::{
    Access, BitmapInfo, CheckReport, CheckRequest, Companions, Error, Expected, Feature, Finding,
    GuestRange, Id, Image, Limits, Location, NoCompanions, NoReferences, NoSecrets, OnlyNames,
    PassphraseChange, Reference, Resolver, Result, Role, Secrets, Sink,
};

/// A disk image format.
pub trait Format: Send + Sync + Debug {
    /// The name, as `-f` takes it.
    fn name(&self) -> &'static str;

    /// Other names that `-f` takes.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the bytes look like this format. Pure: no I/O.
    fn probe(&self, sample: &Sample<'_>) -> Verdict;

    /// The number that tells this image from every other one, if the format keeps one and the sample
    /// holds it. Pure: no I/O. By it an image is found that another names by number alone.
    fn identify(&self, sample: &Sample<'_>) -> Option<Id> {
        let _ = sample;
        None
    }

    /// Opens one image. Files it is made of come through the request's resolver; the image below
    /// is only named in the answer.
    fn open(&self, request: OpenRequest<'_>) -> Result<Opened>;

    /// The files that the image names: what it is made of, then what lies below it. None of them is
    /// opened, whatever the request's resolver would do.
    ///
    /// The default opens the image with empty files in their places. A format that does not open so
    /// (because of what it expects of an extent) reads its names without.
    ///
    /// # Errors
    /// What keeps the names from being read.
    fn references(&self, request: &OpenRequest<'_>) -> Result<Vec<Reference>> {
        let names = OnlyNames::default();
        let request = OpenRequest { access: Access::Read, resolver: &names, ..request.clone() };
        let opened = self.open(request);
        let mut found = names.into_names();
        match opened {
            Ok(opened) => found.extend(opened.backing),
            // What an empty file could not be: at least its name is known.
            Err(_) if !found.is_empty() => {}
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// The options that creation takes; empty if this format is only read.
    fn create_options(&self) -> &'static [OptionSpec] {
        &[]
    }

    /// Makes a new, empty image in the request's store, which is empty, and returns it open for
    /// writing. What it needs on the medium is there after the image's first flush.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format cannot be written in place.
    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        let _ = request;
        Err(Error::Unsupported { format: self.name(), feature: "creating an image".into() })
    }

    /// Whether a new image reads as zero, as it does in nearly all formats; else as noise, until it
    /// is written (an encrypted container, which has no tables).
    fn starts_as_zero(&self) -> bool {
        true
    }

    /// A writer for one pass over `out`, or `None` if this format with these options is written
    /// in place.
    fn sink(
        &self,
        request: &SinkRequest<'_>,
        out: Box<dyn Write + Send>,
    ) -> Result<Option<Box<dyn Sink>>> {
        let (_, _) = (request, out);
        Ok(None)
    }

    /// The options that [`amend`](Self::amend) takes; empty if there are none.
    fn amend_options(&self) -> &'static [OptionSpec] {
        &[]
    }

    /// Changes options of an image that exists. Durable when it returns; after an error, or a power
    /// failure on the way, the image is as it was or as it was to be.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format cannot; [`Error::Option`] for what this image cannot
    /// become.
    fn amend(&self, request: AmendRequest<'_>) -> Result<()> {
        let _ = request;
        Err(Error::Unsupported { format: self.name(), feature: Feature::Amend })
    }

    /// Adds or removes passphrases of an encrypted image that nobody has open for writing. Its data
    /// stays as it is. Durable when it returns; after a power failure each passphrase opens the
    /// image or does not, as before or as wanted. Key material of a removed one is overwritten.
    /// `force`: also where no passphrase is left, after which nobody can read the data any more.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format or this image cannot; [`Error::Secret`] for a
    /// passphrase that opens nothing; [`Error::Unusable`] for key slots that cannot be so, and the
    /// last one without `force`: then nothing changed.
    fn change_passphrases(
        &self,
        request: &OpenRequest<'_>,
        change: &PassphraseChange,
        force: bool,
    ) -> Result<()> {
        let (_, _, _) = (request, change, force);
        Err(Error::Unsupported { format: self.name(), feature: "changing passphrases".into() })
    }

    /// Whether a check can [read the data](CheckRequest::data) too.
    fn checks_data(&self) -> bool {
        false
    }

    /// Checks an image, which need not be one that opens, and repairs it if asked to. Each finding
    /// is told to `found` as soon as it is known; memory does not grow with their number.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format has no check; what keeps the image from being
    /// checked at all; [`Error::Cancelled`].
    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        let (_, _) = (request, found);
        Err(Error::Unsupported { format: self.name(), feature: Feature::Check })
    }

    /// Bytes that a new image would take for the given data ranges (rising, not overlapping).
    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        let _ = request;
        Err(Error::Unsupported { format: self.name(), feature: "measuring".into() })
    }

    /// Bytes that these bitmaps would take besides in a new image with these options; `None`: it holds
    /// none.
    fn measure_bitmaps(&self, request: &MeasureRequest<'_>, bitmaps: &[BitmapInfo]) -> Option<u64> {
        let (_, _) = (request, bitmaps);
        None
    }
}

/// What [`Format::open`] is given. Resolver and limits are always there.
#[derive(Clone, Debug)]
pub struct OpenRequest<'a> {
    /// The bytes of the image.
    pub store: Arc<dyn Storage>,
    /// Where they were found.
    pub location: &'a Location,
    /// Reading, or writing too.
    pub access: Access,
    /// Opens the other files the image is made of.
    pub resolver: &'a dyn Resolver,
    /// What it may cost.
    pub limits: &'a Limits,
    /// Gives passphrases.
    pub secrets: &'a dyn Secrets,
}

impl<'a> OpenRequest<'a> {
    /// Opens `store` for reading, by itself: no other files, no secrets.
    #[must_use]
    pub fn new(store: Arc<dyn Storage>, location: &'a Location, limits: &'a Limits) -> Self {
        let (resolver, secrets) = (&NoReferences, &NoSecrets);
        Self { store, location, access: Access::Read, resolver, limits, secrets }
    }
}

impl OpenRequest<'_> {
    /// Whether the image is to be written.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if it is, and the store cannot be.
    pub fn is_writable(&self) -> Result<bool> {
        match self.access {
            Access::Read => Ok(false),
            Access::ReadWrite if self.store.is_writable() => Ok(true),
            Access::ReadWrite => Err(read_only("its file was opened for reading")),
        }
    }
}

/// An open image and the reference to the one below.
#[derive(Debug)]
pub struct Opened {
    /// The image.
    pub image: Arc<dyn Image>,
    /// What lies below, as the image names it. Whether to follow it is the caller's decision.
    pub backing: Option<Reference>,
    /// What a person should know of the image, though it opened (bitmaps that are not valid, a table
    /// that was read from its second copy): whole sentences without the name of the file.
    pub warnings: Vec<String>,
}

impl Opened {
    /// An image over what `backing` names, and nothing to say of it.
    #[must_use]
    pub fn new(image: Arc<dyn Image>, backing: Option<Reference>) -> Self {
        Self { image, backing, warnings: Vec::new() }
    }
}

/// The beginning, the end and the length of an unknown file.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The first bytes: 64 KiB, or all if the file is shorter.
    pub head: &'a [u8],
    /// The last bytes: 4 KiB, or all if the file is shorter.
    pub tail: &'a [u8],
    /// Length of the file in bytes.
    pub len: u64,
}

/// What a format thinks of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Not this format.
    No,
    /// Anything fits (raw).
    Anything,
    /// It looks like it (text that begins like a descriptor).
    Likely,
    /// Its magic is there.
    Magic,
}

/// What a new image is to be.
#[derive(Clone, Debug)]
pub struct CreateRequest<'a> {
    /// An empty store, open for writing.
    pub store: Arc<dyn Storage>,
    /// Where it will be found.
    pub location: &'a Location,
    /// Virtual size in bytes.
    pub size: u64,
    /// Creation options, already checked against [`Format::create_options`].
    pub options: &'a Options,
    /// The image below, written into the new image as it stands here.
    pub backing: Option<&'a Reference>,
    /// What the open image may cost.
    pub limits: &'a Limits,
    /// Gives passphrases.
    pub secrets: &'a dyn Secrets,
    /// Makes the other files of an image that is made of several.
    pub companions: &'a dyn Companions,
}

impl<'a> CreateRequest<'a> {
    /// A new image of `size` bytes in `store`, with nothing below, no other files and no secrets.
    #[must_use]
    pub fn new(
        store: Arc<dyn Storage>,
        location: &'a Location,
        size: u64,
        options: &'a Options,
        limits: &'a Limits,
    ) -> Self {
        let (secrets, companions) = (&NoSecrets, &NoCompanions);
        Self { store, location, size, options, backing: None, limits, secrets, companions }
    }

    /// The image below: that of the request, else what the options `backing_file` and
    /// `backing_fmt` name.
    #[must_use]
    pub fn below(&self) -> Option<Reference> {
        self.backing.cloned().or_else(|| {
            let name = self.options.text("backing_file").filter(|name| !name.is_empty())?;
            let mut reference = Reference::new(Role::Backing, name);
            reference.format = self.options.text("backing_fmt").map(str::to_owned);
            Some(reference)
        })
    }
}

/// What [`Format::amend`] is given.
#[derive(Clone, Debug)]
pub struct AmendRequest<'a> {
    /// The image, to be opened for writing.
    pub open: OpenRequest<'a>,
    /// What to change, checked against [`Format::amend_options`].
    pub options: &'a Options,
    /// Also what may make data unreadable for ever (the last key of an encrypted image).
    pub force: bool,
}

/// What a stream is to be.
#[derive(Clone, Debug)]
pub struct SinkRequest<'a> {
    /// Virtual size in bytes.
    pub size: u64,
    /// Creation options.
    pub options: &'a Options,
    /// Where it will be found; its name may be written into it.
    pub location: &'a Location,
}

/// What [`Format::measure`] is given.
#[derive(Debug)]
pub struct MeasureRequest<'a> {
    /// Virtual size in bytes.
    pub size: u64,
    /// Creation options.
    pub options: &'a Options,
    /// The ranges that hold data, rising and not overlapping.
    pub data: &'a [GuestRange],
}

/// Sizes in bytes of an image that does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// For the data there is now.
    pub required: u64,
    /// With every unit allocated.
    pub fully_allocated: u64,
}

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

/// A size as people type it, and as qemu reads it: digits, optionally a fraction, and a suffix `b`,
/// `k`, `M`, `G`, `T`, `P` or `E` (powers of 1024, either case); or `0x` and hexadecimal digits. Blanks
/// and a `+` may stand before it. `None` for anything else, a fraction of a byte too.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = unsigned(text);
    if let Some(digits) = hexadecimal(text) {
        return whole_number(digits, 16);
    }
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, suffix) if suffix.is_ascii_alphabetic() => (&text[..at], shift_of(suffix)?),
        _ => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = match whole {
        "" if !fraction.is_empty() => 0,
        _ => whole_number(whole, 10)?,
    };
    let whole = u128::from(whole) << shift;
    u64::try_from(whole + fraction_of(fraction, shift)?).ok()
}

/// What the digits behind a point are of `1 << shift` bytes, rounded.
fn fraction_of(digits: &str, shift: u32) -> Option<u128> {
    /// More make no difference.
    const MOST: usize = 18;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.get(..MOST).unwrap_or(digits).trim_end_matches('0');
    let Some(number) = (!digits.is_empty()).then(|| whole_number(digits, 10)) else {
        return Some(0);
    };
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let doubled = (u128::from(number?) << shift) * 2;
    (shift > 0).then_some((doubled + scale) / (2 * scale))
}

/// A number as C reads it: decimal, hexadecimal behind `0x`, octal behind `0`; blanks and a `+` may
/// stand before it. `None` for anything else.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    let text = unsigned(text);
    match (hexadecimal(text), text.strip_prefix('0')) {
        (Some(digits), _) => whole_number(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => whole_number(digits, 8),
        (None, _) => whole_number(text, 10),
    }
}

/// What stands behind blanks and a sign.
fn unsigned(text: &str) -> &str {
    let text = text.trim_ascii_start();
    text.strip_prefix('+').unwrap_or(text)
}

fn hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// Digits alone: the standard library takes signs too.
fn whole_number(digits: &str, radix: u32) -> Option<u64> {
    let is_plain = digits.chars().all(|digit| digit.is_digit(radix));
    is_plain.then(|| u64::from_str_radix(digits, radix).ok())?
}

fn shift_of(suffix: char) -> Option<u32> {
    let step = "bkmgtpe".find(suffix.to_ascii_lowercase())?;
    u32::try_from(step * 10).ok()
}

/// The formats a caller wants: a plain list, passed by value, no global state.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    formats: Vec<&'static dyn Format>,
}

/// How a format was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The caller, or the image above, named it.
    Named,
    /// Its magic is in the file.
    Recognised,
    /// Nothing else fits: the file may be anything.
    Guessed,
}

impl Registry {
    /// A list of formats. On equal verdicts the first wins.
    #[must_use]
    pub fn new(formats: &[&'static dyn Format]) -> Self {
        Self { formats: formats.to_vec() }
    }

    /// All formats, in order.
    pub fn formats(&self) -> impl Iterator<Item = &'static dyn Format> + '_ {
        self.formats.iter().copied()
    }

    /// The format of this name.
    pub fn by_name(&self, name: &str) -> Result<&'static dyn Format> {
        self.formats()
            .find(|format| format.name() == name || format.aliases().contains(&name))
            .ok_or_else(|| Error::UnknownFormat(name.to_owned()))
    }

    /// The format that recognises the bytes best, and how sure that is.
    pub fn probe(&self, sample: &Sample<'_>) -> Option<(&'static dyn Format, Chosen)> {
        let mut best: Option<(&'static dyn Format, Verdict)> = None;
        for format in self.formats() {
            let verdict = format.probe(sample);
            if verdict > best.map_or(Verdict::No, |(_, verdict)| verdict) {
                best = Some((format, verdict));
            }
        }
        let (format, verdict) = best?;
        let guessed = verdict == Verdict::Anything;
        Some((format, if guessed { Chosen::Guessed } else { Chosen::Recognised }))
    }

    /// As [`probe`](Self::probe), reading the sample from `store`.
    pub fn probe_store(&self, store: &dyn Storage) -> Result<(&'static dyn Format, Chosen)> {
        Sample::of_store(store, |sample| self.probe(sample))?
            .ok_or_else(|| Error::UnknownFormat(store.name().to_owned()))
    }

    /// The number by which the image in `store` is known, if a format here knows one; `format`
    /// names the only one asked.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] for a name that is not in the list, and those of reading.
    pub fn identify_store(&self, store: &dyn Storage, format: Option<&str>) -> Result<Option<Id>> {
        let asked = match format {
            Some(name) => vec![self.by_name(name)?],
            None => self.formats.clone(),
        };
        Sample::of_store(store, |sample| asked.iter().find_map(|format| format.identify(sample)))
    }
}

impl Sample<'_> {
    /// Reads the beginning and the end of a store, and has them looked at.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of_store<R>(store: &dyn Storage, look: impl FnOnce(&Sample<'_>) -> R) -> Result<R> {
        let len = store.len()?;
        let mut head = vec![0; usize::try_from(len.min(64 << 10)).unwrap_or(64 << 10)];
        let count = store.read_at(HostOffset::ZERO, &mut head)?;
        head.truncate(count);
        let mut tail = vec![0; usize::try_from(len.min(4 << 10)).unwrap_or(4 << 10)];
        let count = store.read_at(HostOffset(len - tail.len() as u64), &mut tail)?;
        tail.truncate(count);
        Ok(look(&Sample { head: &head, tail: &tail, len }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_type_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("64k", 65536),
            ("1.5G", 3 << 29),
            ("7E", 7 << 60),
            (".5M", 1 << 19),
            ("1.k", 1024),
            ("1.0", 1),
            ("0.3k", 307),
            ("0.7k", 717),
            ("1.99999999999999999999k", 2048),
            (" +1M", 1 << 20),
            ("010", 10),
            ("0x1b", 27),
            ("0XfF", 255),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "", "k", "-1", "1x", "1kk", "16E", "1.2.3", "٣", ".", ".k", "1.5", "1.5b", "1M ",
            "+-1", "++1", "0x", "0x1k", "0x+1", "1e3", "+ 1", "1.+5k",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, number) in [("0", 0), ("16", 16), ("0x10", 16), ("020", 16), (" +7", 7)] {
            assert_eq!(parse_number(text), Some(number), "{text}");
        }
        for text in ["", "1k", "1.0", "09", "-1", "0x"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }
}
