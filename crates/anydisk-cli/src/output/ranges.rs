//! Ranges of a disk, printed as they are found.

use std::io::{self, BufWriter, StdoutLock, Write};

use anydisk::GuestRange;

use super::human::size;
use crate::args::Form;
use crate::failure::Failure;

/// A table of ranges, or a list of them as JSON, on standard output.
pub(crate) struct Ranges {
    out: BufWriter<StdoutLock<'static>>,
    form: Form,
    /// Bytes in all so far.
    sum: u64,
    failed: Option<io::Error>,
}

impl Ranges {
    pub(crate) fn begin(form: Form) -> io::Result<Self> {
        let mut out = BufWriter::new(io::stdout().lock());
        match form {
            Form::Human => writeln!(out, "{:<16}Length", "Offset"),
            Form::Json => write!(out, "["),
        }?;
        Ok(Self { out, form, sum: 0, failed: None })
    }

    pub(crate) fn row(&mut self, range: GuestRange) {
        let (start, length) = (range.start().get(), range.len());
        let separator = if self.sum == 0 { "" } else { ",\n" };
        let written = match self.form {
            Form::Human => writeln!(self.out, "{start:<#16x}{length:#x}"),
            Form::Json => {
                write!(self.out, "{separator}{{ \"start\": {start}, \"length\": {length}}}")
            }
        };
        self.sum += length;
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }

    /// Ends it; `what` is said of all of them.
    pub(crate) fn end(mut self, what: &str) -> Result<(), Failure> {
        match self.form {
            Form::Human => writeln!(self.out, "{} {what}.", size(self.sum)),
            Form::Json => writeln!(self.out, "]"),
        }?;
        self.out.flush()?;
        self.failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
