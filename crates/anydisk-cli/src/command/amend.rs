//! `anydisk amend`.

use std::ffi::OsString;

use clap::Args;

use super::create;
use crate::args::{Cache, Reading, Telling};
use crate::failure::{Failure, Outcome};
use crate::options::{asks_for_help, pairs};
use crate::progress::Progress;
use crate::{option_help, output};

const EXAMPLES: &str = "\
Examples:
  anydisk amend -o compat=1.1 old.qcow2
  anydisk amend -o refcount_bits=8,lazy_refcounts=on disk.qcow2
  anydisk amend -f qcow2 -o help";

/// Changes options of an image that exists.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Amend {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// What to change: NAME=VALUE,... or help
    #[arg(short, long, required = true)]
    options: Vec<OsString>,
    /// How the host caches the file
    #[arg(short = 't', long, value_enum, default_value = "writeback")]
    cache: Cache,
    /// Print progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Also what makes data unreadable for ever
    #[arg(long)]
    force: bool,
    /// The image
    #[arg(required_unless_present = "format")]
    file: Option<OsString>,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

impl Amend {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        if asks_for_help(&self.options)? {
            return self.help();
        }
        let Some(file) = &self.file else {
            return Err(Failure::new("Expecting one image file name"));
        };
        let progress = Progress::new(self.progress, self.quiet)?;
        let given = pairs(&self.options)?;
        let direct = self.cache.is_direct();
        self.reading.amend(file, self.format.as_deref(), direct, &given, self.force)?;
        progress.finish();
        drop(progress);
        self.telling.tell(&self.reading, file, self.format.as_deref())
    }
}

impl Amend {
    /// What can be changed: of the format that is named, or that the image has.
    fn help(&self) -> Outcome {
        let name = match (&self.format, &self.file) {
            (Some(format), _) => format.clone(),
            (None, Some(file)) => self.reading.top(file, None)?.image.info().format.to_owned(),
            (None, None) => return Err(Failure::new("Expecting one image file name")),
        };
        let registry = anydisk::formats();
        let format = registry.by_name(&name).map_err(|_| create::unknown(&name))?;
        if format.amend_options().is_empty() {
            return Err(cannot(&name));
        }
        output::print(&option_help::amending(format))?;
        Ok(0)
    }
}

fn cannot(format: &str) -> Failure {
    Failure::new(format!("Format driver '{format}' does not support option amendment"))
}
