//! `anydisk measure`.

use std::ffi::OsString;

use anydisk::{
    BitmapInfo, Detail, DetailValue, Disk, GuestOffset, GuestRange, MeasureRequest,
    Result as CoreResult,
};
use clap::Args;

use super::{create, snapshot};
use crate::args::{Form, Part, Reading, any_name};
use crate::extents::Entries;
use crate::failure::{Failure, Outcome};
use crate::options::{self, Given};
use crate::output::json::{self, Object};
use crate::{option_help, output};

const EXAMPLES: &str = "\
Examples:
  anydisk measure -O qcow2 disk.raw
  anydisk measure -O qcow2 -o cluster_size=2M --size 100G";

/// The format that holds bitmaps; a copy from one such image to the other brings them along.
const QCOW2: &str = "qcow2";

/// One whose bitmaps a copy brings along too.
const PARALLELS: &str = "parallels";

/// Tells how large an image would become.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Measure {
    /// What to print
    #[arg(long, value_enum, default_value = "human")]
    output: Form,
    /// The format of the image that would be made
    #[arg(short = 'O', long, default_value = "raw")]
    target_format: String,
    /// Options of that format, name=value,...; `help` lists them
    #[arg(short = 'o', long)]
    options: Vec<OsString>,
    /// Of an empty disk of this size
    #[arg(short, long)]
    size: Option<String>,
    /// The format of the image there is, instead of looking at its bytes
    #[arg(short, long)]
    format: Option<String>,
    /// The image whose content would be copied
    #[arg(required_unless_present_any = ["size", "options"], value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
    /// Of this snapshot of the image
    #[arg(short = 'l', long, value_name = "SNAPSHOT", value_parser = any_name())]
    snapshot: Option<String>,
}

/// What would be copied.
#[derive(Default)]
struct Content {
    size: u64,
    data: Vec<GuestRange>,
    /// Of an image that can have them.
    bitmaps: Option<Vec<BitmapInfo>>,
}

impl Measure {
    pub(crate) fn run(self) -> Outcome {
        self.reading.naming.objects()?;
        let registry = anydisk::formats();
        let format = registry
            .by_name(&self.target_format)
            .map_err(|_| create::unknown(&self.target_format))?;
        if options::asks_for_help(&self.options)? {
            output::print(&option_help::creation(format, false))?;
            return Ok(0);
        }
        let given = Given::parse(&self.options, format).map_err(|failure| {
            let line = format!("Invalid options for file format '{}'", format.name());
            failure.after_first_line(&format!("{}: {line}", output::program()))
        })?;
        let given = given.without_idle_encryption(format)?;
        given.check_secrets(&self.reading.naming)?;
        let content = self.content()?;
        let request =
            MeasureRequest { size: content.size, options: &given.options, data: &content.data };
        let measure = format.measure(&request)?;
        let bitmaps = content.bitmaps.as_deref();
        let bitmaps = bitmaps.and_then(|bitmaps| format.measure_bitmaps(&request, bitmaps));
        output::print(&text(measure, bitmaps, self.output))?;
        Ok(0)
    }

    fn content(&self) -> Result<Content, Failure> {
        let wanted = self.size.as_deref().map(options::size).transpose()?;
        match (&self.size, &self.files[..]) {
            (Some(_), [_, ..]) => {
                Err(Failure::new("--size N cannot be used together with a filename."))
            }
            (None, [_, _, ..]) if self.part.member.is_none() => {
                Err(Failure::new("At most one filename argument is allowed."))
            }
            (None, files @ [_, ..]) => {
                let format = self.format.as_deref();
                let disk = self.reading.part(&self.part, files, format, false)?;
                // Snapshots have none of their own.
                let bitmaps = bitmaps_of(&disk)?;
                let disk = snapshot::disk_at(disk, self.snapshot.as_deref())?;
                Ok(Content { size: disk.size(), data: data(&disk)?, bitmaps })
            }
            (Some(_), [])
                if self.format.is_some()
                    || self.snapshot.is_some()
                    || self.reading.naming.image_opts =>
            {
                let why = "--image-opts, -f, and -l require a filename argument.";
                Err(Failure::new(why))
            }
            (Some(_), []) => Ok(Content { size: wanted.unwrap_or_default(), ..Content::default() }),
            (None, []) => Err(Failure::new("Either --size N or one filename must be specified.")),
        }
    }
}

/// The bitmaps of an image that can have them: to qcow2 they came with version 3.
fn bitmaps_of(disk: &Disk) -> CoreResult<Option<Vec<BitmapInfo>>> {
    let new = Detail { name: "compat", value: DetailValue::Text("1.1".into()) };
    let info = disk.top().info();
    let can_have = info.format == PARALLELS || info.format == QCOW2 && info.details.contains(&new);
    if !can_have {
        return Ok(None);
    }
    disk.top().bitmaps().map_or(Ok(Vec::new()), |bitmaps| bitmaps.list()).map(Some)
}

/// The ranges of a disk that hold data, as `map` shows them.
fn data(disk: &Disk) -> CoreResult<Vec<GuestRange>> {
    let mut data: Vec<GuestRange> = Vec::new();
    for entry in Entries::new(disk, GuestRange::whole(disk.size())) {
        let entry = entry?;
        if entry.zero || !entry.data {
            continue;
        }
        let run = GuestRange::between(GuestOffset(entry.start), GuestOffset(entry.end()));
        match data.last_mut().filter(|last| last.end() == run.start()) {
            Some(last) => *last = GuestRange::between(last.start(), run.end()),
            None => data.push(run),
        }
    }
    Ok(data)
}

fn text(measure: anydisk::Measure, bitmaps: Option<u64>, form: Form) -> String {
    let anydisk::Measure { required, fully_allocated } = measure;
    match form {
        Form::Json => {
            let object = Object::default()
                .with("required", required)
                .with("fully-allocated", fully_allocated)
                .with_any("bitmaps", bitmaps);
            json::document(&object.into())
        }
        Form::Human => {
            let line = |size| format!("bitmaps size: {size}\n");
            let bitmaps = bitmaps.map(line).unwrap_or_default();
            format!("required size: {required}\nfully allocated size: {fully_allocated}\n{bitmaps}")
        }
    }
}
