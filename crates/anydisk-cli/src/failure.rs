//! Why a command ended early, in qemu-img's words where it has some.

use std::ffi::OsStr;
use std::io;

use anydisk::storage::{self, name};
use anydisk::{Expected, Feature, OptionKind, SecretProblem};

use crate::interrupt::INTERRUPTED;
use crate::options;

/// What is printed after the program's name, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The process ends with this.
    pub(crate) code: u8,
    /// For people, with what to do next where there is something to do; empty if everything was
    /// said.
    pub(crate) text: String,
    /// It is about a file that was to be made, or what it was to be.
    is_at_creation: bool,
}

/// What a command returns: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure with the usual exit code.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into(), is_at_creation: false }
    }

    /// The same about a file that was to be made.
    fn at_creation(mut self) -> Self {
        self.is_at_creation = true;
        self
    }

    /// The same with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The same with the name of the file, unless the text has it.
    pub(crate) fn about(mut self, file: &OsStr) -> Self {
        let name = name::of(file);
        if !self.text.starts_with(&*name) && !self.text.contains(&format!("'{name}'")) {
            self.text = format!("{name}: {}", self.text);
        }
        self
    }

    /// The same with the name of the file before all.
    pub(crate) fn in_file(mut self, file: &OsStr) -> Self {
        let before = format!("{}: ", name::of(file));
        let text = self.text.strip_prefix(&before).unwrap_or(&self.text);
        self.text = format!("{before}{text}");
        self
    }

    /// The same as `qemu-img convert` says it of an image that could not be made at `target`.
    pub(crate) fn in_creation(self, target: &OsStr, format: &str) -> Self {
        self.in_making(target, &format!("converting {format}"))
    }

    /// The same as `qemu-img dd` says it.
    pub(crate) fn in_output(self, target: &OsStr) -> Self {
        self.in_making(target, "creating output image")
    }

    fn in_making(mut self, target: &OsStr, what: &str) -> Self {
        if self.is_at_creation {
            self = self.cause_of_open(target);
            let (target, text) = (name::of(target), &self.text);
            self.text = format!("{target}: error while {what}: {text}");
        }
        self
    }

    /// The same with a line behind the first one.
    pub(crate) fn after_first_line(mut self, line: &str) -> Self {
        let (first, rest) = self.text.split_once('\n').unwrap_or((&self.text, ""));
        self.text = format!("{first}\n{line}\n{rest}").trim_end().to_owned();
        self
    }

    /// The same with a line about what to do next.
    pub(crate) fn with_advice(mut self, advice: &str) -> Self {
        self.text = format!("{}\n{advice}", self.text);
        self
    }
}

impl From<anydisk::Error> for Failure {
    fn from(error: anydisk::Error) -> Self {
        Self::from_ref(&error)
    }
}

impl Failure {
    fn from_ref(error: &anydisk::Error) -> Self {
        match error.kind() {
            anydisk::Error::Option { format, option, value, expected } => {
                let failure = Self::new(option_text(format, option, value, expected));
                // What is no option, or not of its kind, is known before anything is made.
                let is_value = matches!(
                    expected,
                    Expected::Value(_) | Expected::Given | Expected::Kind(OptionKind::Word(_))
                );
                if is_value { failure.at_creation() } else { failure }
            }
            anydisk::Error::Unsupported { feature: Feature::Compress, .. } => {
                Self::new("Compression not supported for this file format").with_advice(
                    "Packed are qcow2 and qcow, and VMDK: -O vmdk -o subformat=streamOptimized",
                )
            }
            anydisk::Error::Unsupported { format, feature: Feature::Bitmaps } => no_bitmaps(format),
            anydisk::Error::Protocol { protocol, .. } => {
                Self::new(format!("Unknown protocol '{protocol}'"))
            }
            anydisk::Error::Secret { option, why: SecretProblem::Missing(_) } => Self::new(
                format!("Parameter '{option}' is required for cipher"),
            )
            .with_advice(&format!(
                "Name a passphrase: --object secret,id=NAME,file=FILE, and {option}=NAME by \
                         --image-opts, or by -o for a new image."
            ))
            .at_creation(),
            anydisk::Error::Secret { why: SecretProblem::Unknown(id), .. } => {
                Self::new(no_secret(id))
                    .with_advice(&format!("Say what it is: --object secret,id={id},file=FILE"))
            }
            anydisk::Error::Secret { .. } => Self::new(
                "Invalid password, cannot unlock any keyslot",
            )
            .with_advice("All bytes of a secret's file count, a line break at its end as well."),
            anydisk::Error::Storage(cause) => Self::from_storage(cause),
            anydisk::Error::NeedsRepair { .. } => {
                Self::new(error.to_string()).with_advice("Repair it with: anydisk check -r all")
            }
            anydisk::Error::UnknownFormat(why) if why.ends_with(RAW_BY_NAME) => {
                let why = why.trim_end_matches(RAW_BY_NAME);
                Self::new(format!("unknown format: {why}"))
                    .with_advice("If it is a raw disk, say so: -f raw")
            }
            kind => {
                let failure = Self::new(without_numbers(&error.to_string()));
                match advice(kind) {
                    Some(line) => failure.with_advice(line),
                    None => failure,
                }
            }
        }
    }
}

/// What the library advises.
const RAW_BY_NAME: &str = "; name the format raw to take it for a raw disk";

/// qemu-img's words for an option, where it has some.
fn option_text(format: &str, option: &str, value: &str, expected: &Expected) -> String {
    match expected {
        Expected::Kind(OptionKind::Flag) => format!("Parameter '{option}' expects 'on' or 'off'"),
        Expected::Kind(OptionKind::Number) => format!("Parameter '{option}' expects a number"),
        Expected::Kind(OptionKind::Size) => options::no_size(option, value),
        Expected::Given => format!("Parameter '{option}' is missing"),
        Expected::Name(_) => format!("Invalid parameter '{option}'\n{format} takes {expected}"),
        _ => format!("{format}: option {option}={value}: expected {expected}"),
    }
}

/// qemu-img's words for a secret that is not among the objects.
pub(crate) fn no_secret(id: &str) -> String {
    format!("No secret with id '{id}'")
}

/// qemu-img's words for an image that keeps no bitmaps.
pub(crate) fn no_bitmaps(format: &str) -> Failure {
    Failure::new(format!("Format driver '{format}' does not support bitmaps"))
        .with_advice("Bitmaps are kept in qcow2 images of version 3.")
}

/// What can be done about it, where that is not in the error.
fn advice(error: &anydisk::Error) -> Option<&'static str> {
    match error {
        anydisk::Error::NotFound { what: "member", .. } => {
            Some("What there is, tells: anydisk members FILE...")
        }
        anydisk::Error::Loop(_) => {
            Some("Name another image below with: anydisk rebase -u -b NAME -F FORMAT FILE")
        }
        _ => None,
    }
}

impl Failure {
    /// Why the image called `name` could not be opened.
    pub(crate) fn from_open(error: &anydisk::Error, name: &OsStr) -> Self {
        let name = name::of(name);
        if let anydisk::Error::Storage(cause @ storage::Error::Locked { .. }) = error.kind() {
            return Self::from_storage(cause);
        }
        let text = Self::from_ref(error).text;
        let text = text.strip_prefix(&format!("{name}: ")).unwrap_or(&text);
        Self::new(format!("Could not open '{name}': {text}"))
    }

    /// The same about an image that was called `name`, and not by the path of its file.
    pub(crate) fn of_image(mut self, path: &OsStr, name: &OsStr) -> Self {
        let before = |name: &OsStr| format!("Could not open '{}': ", name::of(name));
        if let Some(cause) = self.text.strip_prefix(&before(path)) {
            self.text = before(name) + cause;
        }
        self
    }

    /// The same without qemu-img's words for which image could not be opened.
    pub(crate) fn cause_of_open(mut self, name: &OsStr) -> Self {
        let before = format!("Could not open '{}': ", name::of(name));
        if let Some(cause) = self.text.strip_prefix(&before) {
            self.text = cause.to_owned();
        }
        self
    }

    fn from_storage(error: &storage::Error) -> Self {
        let text = match error {
            storage::Error::Io(io) if io.operation == "open" || io.operation == "create" => {
                format!("Could not {} '{}': {}", io.operation, io.store, io.source)
            }
            storage::Error::Locked { store, what } => format!("Could not open '{store}': {what}"),
            storage::Error::WrongKind { store, found, expected } => {
                return Self::of_kind(store, found, expected);
            }
            storage::Error::Unsupported { what: "resizing", .. } => {
                "Image format driver does not support resize".to_owned()
            }
            _ => error.to_string(),
        };
        let mut failure = Self::new(without_numbers(&text));
        failure.is_at_creation = match error {
            storage::Error::Io(io) => io.operation == "create",
            error => matches!(error, storage::Error::Locked { .. }),
        };
        match error.hint() {
            Some(hint) => failure.with_advice(&hint),
            None => failure,
        }
    }
}

impl Failure {
    /// What is no file, or no device, or cannot be replaced by a new file.
    fn of_kind(store: &str, found: &str, expected: &str) -> Self {
        let is_to_be_made = expected.contains("which a new one can replace");
        let text = match (is_to_be_made, found) {
            (false, _) => format!("'file' driver requires '{store}' to be a regular file"),
            (true, "a directory") => format!("Could not create '{store}': Is a directory"),
            (true, _) => "Cannot grow device files".to_owned(),
        };
        let failure = Self::new(text).with_advice(&format!("It is {found}, expected {expected}."));
        if is_to_be_made { failure.at_creation() } else { failure }
    }
}

/// The text without the numbers that the standard library puts behind the system's words.
pub(crate) fn without_numbers(text: &str) -> String {
    match text.split_once(" (os error ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => text.to_owned(),
    }
}

impl From<anydisk::convert::Error> for Failure {
    fn from(error: anydisk::convert::Error) -> Self {
        use anydisk::convert::Error;
        match error {
            Error::Target(error) => error.into(),
            Error::Read { source, .. } | Error::Write { source, .. }
                if matches!(source.kind(), anydisk::Error::Secret { .. }) =>
            {
                source.into()
            }
            Error::TargetTooSmall { .. } => Self::new("output file is smaller than input file")
                .with_advice(&error.to_string())
                .with_advice("Make it larger first: anydisk resize FILE SIZE"),
            Error::Cancelled => Self::new("cancelled").with_code(INTERRUPTED),
            Error::Read { .. } => Self::new(without_numbers(&error.to_string()))
                .with_advice("What can be read of it copies: anydisk salvage"),
            other => Self::new(without_numbers(&other.to_string())),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(without_numbers(&error.to_string()))
    }
}

impl Failure {
    /// Why text could not be printed; nothing is said to whoever has seen enough of it.
    pub(crate) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(""),
            _ => Self::from(error).about(OsStr::new("standard output")),
        }
    }

    /// Why an image could not be written to standard output: to whoever stops reading, the rest of it
    /// is lost.
    pub(crate) fn of_stream(self, kind: Option<io::ErrorKind>) -> Self {
        match kind {
            Some(io::ErrorKind::BrokenPipe) => {
                Self::new("standard output: closed by its reader before the image was whole")
                    .with_advice("Look what the program behind the pipe says.")
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_come_without_their_number() {
        let failure = Failure::from(io::Error::from_raw_os_error(2));
        assert_eq!(failure.text, "No such file or directory");
        assert_eq!(without_numbers("a (os error 28): b"), "a: b");
        assert_eq!(without_numbers("a (b)"), "a (b)");
    }
}
