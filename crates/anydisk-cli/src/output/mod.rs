//! What is printed.

pub(crate) mod findings;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod snapshots;

use std::io::{self, Write};

/// The name of the program as it was called, as qemu-img puts it before errors.
pub(crate) fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&path).file_name();
    name.map_or_else(|| "anydisk".into(), |name| name.to_string_lossy().into_owned())
}

/// Where help is, for the command that was called.
pub(crate) fn where_help_is() -> String {
    let command = std::env::args_os().nth(1).unwrap_or_default();
    format!("Try '{} {} --help' for more info", program(), command.display())
}

/// Prints text on standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints an error. If even that fails, there is nobody to tell.
pub(crate) fn error(text: &str) {
    let _ = writeln!(io::stderr(), "{}: {text}", program());
}

/// Prints a line about the image on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a warning of one line.
pub(crate) fn warn(text: &str) {
    error(&format!("warning: {text}"));
}
