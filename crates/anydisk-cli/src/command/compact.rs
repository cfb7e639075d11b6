//! `anydisk compact`.

use std::ffi::OsString;
use std::ops::ControlFlow;

use anydisk::Compacted;
use anydisk::convert::Watch;
use anydisk::storage::name;
use clap::Args;

use crate::args::{Form, Reading};
use crate::failure::Outcome;
use crate::output;
use crate::output::human::size;
use crate::output::json::{self, Object};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Example:
  anydisk compact disk.qcow2

The disk keeps its content, also if this is interrupted. What a guest has deleted is still content:
let it trim its file systems, or fill them with zeroes, before.";

/// Makes the file of an image as short as what it holds, in place.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compact {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// Print text or JSON
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// Print progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The image
    file: OsString,
    #[command(flatten)]
    reading: Reading,
}

impl Compact {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        let shown = Progress::new(self.progress, self.quiet)?;
        let progress = |done: u64, all: u64| shown.progress(done, all) == ControlFlow::Continue(());
        let done = self.reading.compact(&self.file, self.format.as_deref(), &progress)?;
        shown.finish();
        drop(shown);
        match self.output {
            Form::Json => output::print(&self.json(&done))?,
            Form::Human if self.quiet => {}
            Form::Human => output::print(&text(&done))?,
        }
        Ok(0)
    }

    fn json(&self, done: &Compacted) -> String {
        let object = Object::default()
            .with("filename", &*name::of(&self.file))
            .with("format", done.format)
            .with("length-before", done.before)
            .with("length-after", done.after);
        json::document(&object.into())
    }
}

fn text(done: &Compacted) -> String {
    let saved = done.before.saturating_sub(done.after);
    format!("Image compacted: {} shorter, {} now.\n", size(saved), size(done.after))
}
