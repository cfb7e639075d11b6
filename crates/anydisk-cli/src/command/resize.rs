//! `anydisk resize`.

use std::ffi::{OsStr, OsString};

use anydisk::storage::{self, LockMode, OpenOptions};
use anydisk::{Disk, Error, Feature, FilesBeside, Preallocation, parse_size};
use clap::Args;

use crate::args::{Reading, Telling};
use crate::failure::{Failure, Outcome};
use crate::{options, output};

const EXAMPLES: &str = "\
Examples:
  anydisk resize disk.qcow2 20G
  anydisk resize disk.qcow2 +5G
  anydisk resize --shrink disk.qcow2 -- -1G";

/// Changes the virtual size of an image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Resize {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// How much space new parts are given at once: off, metadata, falloc or full
    #[arg(long, default_value = "off")]
    preallocation: String,
    /// Allow the image to become smaller; what lies behind the new end is lost
    #[arg(long)]
    shrink: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// The image
    file: OsString,
    /// The new size; with + or -, the difference from the old one
    #[arg(allow_hyphen_values = true)]
    size: String,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

impl Resize {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        let preallocation = Preallocation::of_word(&self.preallocation).ok_or_else(|| {
            Failure::new(format!("Invalid preallocation mode '{}'", self.preallocation))
        })?;
        let change = Change::parse(&self.size).ok_or_else(|| {
            Failure::new(options::no_size("size", self.size.trim_start_matches(['+', '-'])))
        })?;
        let disk = self.reading.disk_to_write(&self.file, self.format.as_deref(), false)?;
        let size = change.of(disk.size()).filter(|size| *size > 0 && i64::try_from(*size).is_ok());
        let size = size.ok_or_else(|| Failure::new("New image size must be positive"))?;
        let grows = size >= disk.size();
        if size <= disk.size() && preallocation != Preallocation::Off {
            return Err(Failure::new("Preallocation can only be used for growing images"));
        }
        if !grows && !self.shrink {
            output::error("Use the --shrink option to perform a shrink operation.");
            output::warn(
                "Shrinking an image will delete all data beyond the shrunken image's end. Before \
                 performing such an operation, make sure there is no important data there.",
            );
            return Ok(1);
        }
        let node = self.reading.node(&self.file, self.format.as_deref())?;
        let beside = FilesBeside::new(node.path(), OpenOptions::new().lock(LockMode::Writer));
        resize(&self.file, &disk, size, preallocation, &beside)?;
        drop(disk);
        if !self.quiet && self.telling.is_text() {
            output::print("Image resized.\n")?;
        }
        self.telling.tell(&self.reading, &self.file, self.format.as_deref())
    }
}

fn resize(
    file: &OsStr,
    disk: &Disk,
    size: u64,
    how: Preallocation,
    beside: &FilesBeside,
) -> Result<(), Failure> {
    disk.resize_with(size, how, beside).map_err(|error| match error.kind() {
        Error::Unsupported { feature: Feature::Resize, .. } => {
            Failure::new("Image format driver does not support resize")
        }
        Error::Storage(storage::Error::Unsupported { .. }) => Failure::from(error),
        _ => Failure::from(error).about(file),
    })?;
    Ok(disk.flush()?)
}

/// A size, or a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    To(u64),
    Up(u64),
    Down(u64),
}

impl Change {
    fn parse(text: &str) -> Option<Self> {
        let (kind, digits): (fn(u64) -> Self, &str) = match text.split_at_checked(1) {
            Some(("+", rest)) => (Self::Up, rest),
            Some(("-", rest)) => (Self::Down, rest),
            _ => (Self::To, text),
        };
        parse_size(digits).map(kind)
    }

    fn of(self, old: u64) -> Option<u64> {
        match self {
            Self::To(size) => Some(size),
            Self::Up(more) => old.checked_add(more),
            Self::Down(less) => old.checked_sub(less),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_makes_a_size_a_difference() {
        assert_eq!(Change::parse("1k"), Some(Change::To(1024)));
        assert_eq!(Change::parse("+1k"), Some(Change::Up(1024)));
        assert_eq!(Change::parse("-1k"), Some(Change::Down(1024)));
        assert_eq!(Change::parse("x"), None);
        assert_eq!(Change::Down(5).of(4), None);
    }
}
