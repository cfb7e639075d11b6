//! `anydisk map`.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anydisk::storage::name;
use anydisk::{Disk, GuestOffset, GuestRange};
use clap::Args;

use crate::args::{Form, Part, Reading};
use crate::extents::{Entries, Entry};
use crate::failure::{Failure, Outcome};
use crate::picture::Picture;
use crate::svg::Drawing;
use crate::{options, output, stream};

const EXAMPLES: &str = "\
Examples:
  anydisk map disk.qcow2
  anydisk map --output=json --start-offset=1G --max-length=64M disk.qcow2
  anydisk map --picture disk.qcow2
  anydisk map --svg disk.svg disk.qcow2";

/// Shows which parts of a disk hold data.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Map {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value = "human")]
    output: Form,
    /// Draw the disk instead
    #[arg(long, conflicts_with = "output")]
    picture: bool,
    /// Draw the disk into this file (- is standard output), as an SVG: what is where, of which
    /// image, and how it lies in the file
    #[arg(long, value_name = "SVG", conflicts_with_all = ["output", "picture"])]
    svg: Option<PathBuf>,
    /// Where to begin
    #[arg(short, long, default_value = "0")]
    start_offset: String,
    /// How much to show; all if it is not given
    #[arg(short = 'l', long)]
    max_length: Option<String>,
    /// The image; with --member the disks of one machine
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

impl Map {
    pub(crate) fn run(self) -> Outcome {
        let start = options::number_of_bytes(&self.start_offset, "start offset")?;
        let length = self.max_length.as_deref();
        let length = length.map(|text| options::number_of_bytes(text, "max length")).transpose()?;
        let disk = self.reading.part(&self.part, &self.files, self.format.as_deref(), false)?;
        let range = part(&disk, start, length.unwrap_or(u64::MAX));
        if self.picture {
            return picture(&disk, range);
        }
        if let Some(path) = &self.svg {
            return drawing(&disk, range, path);
        }
        let mut out = BufWriter::new(io::stdout().lock());
        let written = match self.output {
            Form::Human => write_human(&mut out, Entries::new(&disk, range)),
            Form::Json => write_json(&mut out, Entries::new(&disk, range), start),
        };
        out.flush()?; // What was found before an error is shown.
        written.map(|()| 0)
    }
}

fn part(disk: &Disk, start: u64, length: u64) -> GuestRange {
    let end = start.saturating_add(length).min(disk.size());
    GuestRange::between(GuestOffset(start.min(end)), GuestOffset(end))
}

fn write_human(out: &mut impl Write, entries: Entries<'_>) -> Result<(), Failure> {
    writeln!(out, "{:<16}{:<16}{:<16}File", "Offset", "Length", "Mapped to")?;
    for entry in entries {
        let entry = entry?;
        if !entry.data {
            continue;
        }
        let Some(offset) = entry.offset else {
            let why = "File contains external, encrypted or compressed clusters.";
            let advice =
                "What has no place in one file is shown by --output=json and by --picture.";
            return Err(Failure::new(why).with_advice(advice));
        };
        if entry.zero {
            continue;
        }
        for number in [entry.start, entry.length, offset] {
            write!(out, "{:<16}", hex(number))?;
        }
        out.write_all(&name::bytes(&entry.file.unwrap_or_default()))?;
        writeln!(out)?;
    }
    Ok(())
}

/// As C's `%#x`: zero has no prefix.
fn hex(number: u64) -> String {
    if number == 0 { "0".into() } else { format!("{number:#x}") }
}

fn write_json(out: &mut impl Write, entries: Entries<'_>, start: u64) -> Result<(), Failure> {
    write!(out, "[")?;
    let mut separator = "";
    for entry in entries {
        write!(out, "{separator}{}", json(&entry?))?;
        separator = ",\n";
    }
    if separator.is_empty() {
        // Nothing was asked about: qemu-img prints the entry that it begins with.
        write!(out, "{}", json(&Entry { start, ..Entry::default() }))?;
    }
    writeln!(out, "]")?;
    Ok(())
}

fn json(entry: &Entry) -> String {
    let Entry { start, length, depth, present, zero, data, compressed, .. } = entry;
    let offset = entry.offset.map(|at| format!(", \"offset\": {at}")).unwrap_or_default();
    format!(
        "{{ \"start\": {start}, \"length\": {length}, \"depth\": {depth}, \
         \"present\": {present}, \"zero\": {zero}, \"data\": {data}, \
         \"compressed\": {compressed}{offset}}}"
    )
}

fn picture(disk: &Disk, range: GuestRange) -> Outcome {
    let mut picture = Picture::for_terminal(range.start().get(), range.len());
    for entry in Entries::new(disk, range) {
        picture.add(&entry?);
    }
    output::print(&picture.text())?;
    Ok(0)
}

fn drawing(disk: &Disk, range: GuestRange, path: &Path) -> Outcome {
    let mut drawing = Drawing::new(disk, range);
    for entry in Entries::new(disk, range) {
        drawing.add(&entry?);
    }
    if stream::is_meant(path.as_os_str()) {
        output::print(&drawing.text())?;
        return Ok(0);
    }
    output::write_file(path, drawing.text().as_bytes())?;
    Ok(0)
}
