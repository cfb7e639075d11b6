//! What is printed. Names that are no text are printed as they are, byte for byte, except in JSON.

pub(crate) mod findings;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod ranges;
pub(crate) mod snapshots;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anydisk::storage::{HostOffset, OpenOptions, PendingFile, Storage, name};

use crate::failure::Failure;

/// The name of the program as it was called, as qemu-img puts it before errors.
pub(crate) fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name();
    name.map_or_else(|| "anydisk".into(), |name| name::of(name).into_owned())
}

/// Whether the program stands in qemu-img's place: then it prints what qemu-img prints.
pub(crate) fn is_qemu_img() -> bool {
    program() == "qemu-img"
}

/// The name of the command among the arguments, the first of which is the program.
pub(crate) fn command_of(arguments: impl IntoIterator<Item = OsString>) -> Option<OsString> {
    let mut arguments = arguments.into_iter().skip(1);
    loop {
        let argument = arguments.next()?;
        match argument.as_encoded_bytes() {
            b"--" => {}
            b"-T" | b"--trace" => drop(arguments.next()),
            [b'-', b'T', ..] => {}
            other if other.starts_with(b"--trace=") => {}
            _ => return Some(argument),
        }
    }
}

/// Where help is, for the command that was called.
pub(crate) fn where_help_is() -> String {
    let command = command_of(std::env::args_os()).unwrap_or_default();
    format!("Try '{} {} --help' for more info", program(), name::of(&command))
}

/// Prints text on standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(&name::bytes(text)).and_then(|()| out.flush());
    printed.map_err(Failure::of_output)
}

/// Writes a file, which gets its name when it is whole.
pub(crate) fn write_file(path: &Path, text: &[u8]) -> Result<(), Failure> {
    let written = PendingFile::create(path, &OpenOptions::new()).and_then(|pending| {
        pending.storage().write_at(HostOffset::ZERO, text)?;
        pending.publish(true)
    });
    written.map_err(|error| Failure::from(anydisk::Error::from(error)).about(path.as_os_str()))
}

/// Prints an error.
pub(crate) fn error(text: &str) {
    note(&format!("{}: {text}", program()));
}

/// Prints a line about the image on standard error. If even that fails, there is nobody to tell.
pub(crate) fn note(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(&name::bytes(text)).and_then(|()| err.write_all(b"\n"));
}

/// Lines of one kind on standard error, of which an image can cause as many as it has units: the
/// first of them, and when that is all, how many more there were.
#[derive(Debug)]
pub(crate) struct Few {
    print: fn(&str),
    wanted: AtomicU64,
}

impl Few {
    const MOST: u64 = 1000;

    pub(crate) fn new(print: fn(&str)) -> Self {
        Self { print, wanted: AtomicU64::new(0) }
    }

    /// Prints a line, or counts it.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if self.wanted.fetch_add(1, Relaxed) < Self::MOST {
            (self.print)(&line());
        }
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        match self.wanted.load(Relaxed).saturating_sub(Self::MOST) {
            0 => {}
            more => (self.print)(&format!("and {more} more like these")),
        }
    }
}

/// Prints a warning of one line.
pub(crate) fn warn(text: &str) {
    error(&format!("warning: {text}"));
}
