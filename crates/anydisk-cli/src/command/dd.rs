//! `anydisk dd`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use anydisk::convert::{NewImage, Settings, Sources, copy_to_file};
use anydisk::node::is_null;
use anydisk::storage::{HostOffset, Window, name};
use anydisk::{Disk, Limits, Located, Location, OpenDisk, Options};
use clap::Args;

use super::{convert, create};
use crate::args::{Part, Reading, Telling, refuse};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::{naming, open, options, output, stream};

const EXAMPLES: &str = "\
Examples:
  anydisk dd if=disk.qcow2 of=first.raw bs=1M count=16
  anydisk dd -O qcow2 if=disk.raw of=rest.qcow2 bs=1M skip=16
  anydisk dd --member vg0/root if=a.vmdk if=b.vmdk of=first.raw bs=1M count=16

As with dd, `count` blocks are copied, from behind the `skip` blocks. Zeroes are not written.";

/// Copies a part of a disk into a new image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dd {
    /// The format of the source, instead of looking at its bytes
    #[arg(short, long)]
    format: Option<String>,
    /// The format of the new image
    #[arg(short = 'O', long, default_value = "raw")]
    output_format: String,
    /// if=FILE... of=FILE [bs=SIZE] [count=BLOCKS] [skip=BLOCKS]
    #[arg(value_name = "OPERAND")]
    operands: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

/// Largest block, as in qemu-img.
const MAX_BLOCK: u64 = i32::MAX as u64;

/// What the operands say.
struct Operands {
    /// Several are the disks of one machine; without a member of theirs the last one counts.
    inputs: Vec<OsString>,
    output: Option<OsString>,
    block: u64,
    count: Option<u64>,
    skip: u64,
}

impl Dd {
    pub(crate) fn run(self) -> Outcome {
        let operands = Operands::parse(&self.operands)?;
        let (Some((input, others)), Some(output)) =
            (operands.inputs.split_last(), &operands.output)
        else {
            return Err(Failure::new("Must specify both input and output files"));
        };
        let registry = anydisk::formats();
        let format = registry.by_name(&self.output_format).map_err(|_| {
            match is_null(&self.output_format) {
                true => create::unknown(&self.output_format),
                false => Failure::new("Unknown file format").with_advice(&open::known_formats()),
            }
        })?;
        let inputs = match self.part.member {
            Some(_) => &operands.inputs[..],
            None => &operands.inputs[others.len()..],
        };
        let disk = self.reading.part(&self.part, inputs, self.format.as_deref(), false)?;
        let part =
            operands.part(input, disk.unpadded_but_for_last_unit(), &self.reading.limits())?;
        let given = Options::of(format);
        let image = NewImage::new(format, &given, part.size());
        if stream::is_meant(output) {
            let (sources, settings) = (Sources::one(&part), Settings::default());
            refuse(&[(
                "--output=json with the image on standard output",
                !self.telling.is_text(),
            )])?;
            return convert::pour(&sources, &image, stream::output()?, &settings, false);
        }
        let progress = Progress::new(false, false)?;
        let target = naming::new_file(output)?;
        let sources = Sources::one(&part);
        copy_to_file(&sources, Path::new(&target), &image, &Settings::default(), &progress)
            .map_err(|error| Failure::from(error).in_output(&target))?;
        drop((progress, part));
        self.telling.tell(&self.reading.of_files(), &target, Some(format.name()))
    }
}

impl Operands {
    fn parse(operands: &[OsString]) -> Result<Self, Failure> {
        let mut parsed =
            Self { inputs: Vec::new(), output: None, block: 512, count: None, skip: 0 };
        operands.iter().try_for_each(|operand| parsed.set(operand))?;
        Ok(parsed)
    }

    fn set(&mut self, operand: &OsStr) -> Result<(), Failure> {
        let (name, value) = options::name_and_value(operand.as_bytes());
        // A name without a value is nothing that dd knows.
        let name = if value.is_some() { name } else { b"" };
        let value = OsStr::from_bytes(value.unwrap_or_default());
        let number = |what| options::number_of_bytes(&name::of(value), what);
        match name {
            b"if" => self.inputs.push(value.to_owned()),
            b"of" => self.output = Some(value.to_owned()),
            b"bs" => self.block = options::bytes_in(&name::of(value), "bs", 1..=MAX_BLOCK)?,
            b"count" => self.count = Some(number("count")?),
            b"skip" => self.skip = number("skip")?,
            _ => {
                let name = name::shown(options::name_and_value(operand.as_bytes()).0);
                return Err(Failure::new(format!("unrecognized operand {name}")));
            }
        }
        Ok(())
    }

    /// The part of the disk that is meant, as a disk.
    fn part(&self, name: &OsStr, disk: Disk, limits: &Limits) -> Result<Disk, Failure> {
        let size = disk.size();
        let start = self.skip.checked_mul(self.block).filter(|start| *start <= size);
        let start = start.unwrap_or_else(|| {
            output::error(&format!("{}: cannot skip to specified offset", name::of(name)));
            size
        });
        let all = size - start;
        let len = self.count.map_or(all, |count| count.saturating_mul(self.block).min(all));
        let window = Window::new(Arc::new(disk), HostOffset(start), len);
        let store = Arc::new(window.map_err(anydisk::Error::from)?);
        let location = Location::Other(name::of(name).into_owned());
        let options = OpenDisk::new().format("raw").limits(limits.clone());
        Ok(options.located(Located { store, location })?)
    }
}
