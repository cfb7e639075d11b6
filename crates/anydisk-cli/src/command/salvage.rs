//! `anydisk salvage`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anydisk::convert::{Lost, Salvaged, salvage_to_file};
use anydisk::storage::name;
use anydisk::{Chosen, Disk, one_line};
use clap::Args;

use super::create;
use crate::args::{Form, Part, Reading};
use crate::failure::{Failure, Outcome};
use crate::options::{self, Given};
use crate::output::Few;
use crate::output::human::size;
use crate::output::json::{self, Object, Value};
use crate::progress::Progress;
use crate::{naming, option_help, output};

const EXAMPLES: &str = "\
Examples:
  anydisk salvage broken.qcow2 saved.raw
  anydisk salvage -O qcow2 --output=json broken.vmdk saved.qcow2

What is lost reads as zero: also what is in an image below, a data file or an extent that is
missing. Exit codes: 0 nothing is lost, 1 no copy was made, 3 something is lost";

/// Something is lost.
const LOST: u8 = 3;

/// Copies what can be read of a damaged image, and tells what is lost.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Salvage {
    /// The format of the image, instead of looking at its bytes
    #[arg(short, long)]
    format: Option<String>,
    /// The format of the copy
    #[arg(short = 'O', long, default_value = "raw")]
    target_format: String,
    /// Options of that format, name=value,...; `help` lists them
    #[arg(short = 'o', long)]
    options: Vec<OsString>,
    /// Print text or JSON
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// Print progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The image (with --member the disks of one machine), and the copy
    #[arg(required_unless_present = "options", value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

impl Salvage {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        let registry = anydisk::formats();
        let format = registry
            .by_name(&self.target_format)
            .map_err(|_| create::unknown(&self.target_format))?;
        if options::asks_for_help(&self.options)? {
            output::print(&option_help::creation(format, false))?;
            return Ok(0);
        }
        let Some((target, sources @ [_, ..])) = self.files.split_last() else {
            return Err(Failure::new("Expecting the name of an image and that of its copy"));
        };
        let given = Given::parse(&self.options, format)?;
        given.refuse_backing()?;
        let keys = given.keys(&self.reading.naming)?;
        let disk =
            self.reading.to_salvage().part(&self.part, sources, self.format.as_deref(), false)?;
        warn_of_guesses(&disk);
        let image = given.image(format, disk.size(), &keys);
        let lines = (self.output == Form::Human).then(|| Few::new(output::note));
        let mut account = Account { lines, ..Account::default() };
        let progress = Progress::new(self.progress, self.quiet)?;
        let target = naming::new_file(target)?;
        let path = Path::new(&target);
        let told = salvage_to_file(&disk, path, &image, &mut |lost| account.add(lost), &progress)?;
        progress.finish();
        drop(progress);
        drop(account.lines.take());
        match self.output {
            Form::Json => output::print(&account.json(&sources[0], &target, &told))?,
            Form::Human if self.quiet => {}
            Form::Human => output::print(&summary(&told))?,
        }
        Ok(if told.lost > 0 { LOST } else { 0 })
    }
}

/// Says which images below are read as raw though nobody said so: what is left of another format reads so
/// too.
fn warn_of_guesses(disk: &Disk) {
    for layer in disk.layers().iter().skip(1).filter(|layer| layer.chosen == Chosen::Guessed) {
        output::warn(&format!(
            "{}, an image below, is in no known format and is read as raw; if it was another one, \
             what it held is lost",
            layer.location
        ));
    }
}

/// What was lost.
#[derive(Default)]
struct Account {
    /// Each loss is told as soon as it is known.
    lines: Option<Few>,
    list: Vec<Value>,
    /// So many more there were.
    omitted: u64,
}

impl Account {
    /// A disk can lose as many parts as it has units, and a script reads a few.
    const MOST: usize = 10_000;

    fn add(&mut self, lost: Lost) {
        let (start, length) = (lost.range.start().get(), lost.range.len());
        if let Some(lines) = &self.lines {
            let why = || one_line(&lost.why.to_string());
            lines.tell(|| format!("Lost {} at {start:#x}: {}", size(length), why()));
        } else if self.list.len() == Self::MOST {
            self.omitted += 1;
        } else {
            let object = Object::default()
                .with("start", start)
                .with("length", length)
                .with("why", lost.why.to_string());
            self.list.push(object.into());
        }
    }

    fn json(self, source: &OsStr, target: &OsStr, told: &Salvaged) -> String {
        let object = Object::default()
            .with("filename", &*name::of(source))
            .with("target", &*name::of(target))
            .with("virtual-size", told.size)
            .with("data-size", told.data)
            .with("zero-size", told.zero)
            .with("lost-size", told.lost)
            .with("lost", self.list)
            .with_any("lost-omitted", Some(self.omitted).filter(|count| *count > 0));
        json::document(&object.into())
    }
}

fn summary(told: &Salvaged) -> String {
    let Salvaged { size: all, data, zero, lost, .. } = *told;
    format!(
        "Of {} disk, {} of data were read, {} are zero, {} are lost.\n",
        size(all),
        size(data),
        size(zero),
        size(lost)
    )
}
