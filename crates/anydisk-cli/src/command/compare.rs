//! `anydisk compare`.

use std::ffi::OsString;

use anydisk::convert::{self, Comparison, Settings, Strictness};
use anydisk::{Disk, GuestOffset, GuestRange};
use clap::Args;

use crate::args::{Cache, Form, Part, Reading};
use crate::extents::{Entries, Entry};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::json::{self, Object, Value};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  anydisk compare disk.vmdk disk.qcow2
  anydisk compare -f raw -F qcow2 disk.img disk.qcow2

Exit codes: 0 the same, 1 different, 2 cannot open, 3 a map cannot be read, 4 data cannot be read";

/// Exit codes; 1 is also for arguments that make no sense.
const CANNOT_OPEN: u8 = 2;
const DIFFERENT: u8 = 1;
const NO_MAP: u8 = 3;
const NO_DATA: u8 = 4;

/// qemu-img names the sector that differs, not the byte.
const SECTOR: u64 = 512;

/// Compares two disks.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compare {
    /// The format of the first disk, instead of looking at its bytes
    #[arg(short = 'f', long)]
    a_format: Option<String>,
    /// The format of the second disk
    #[arg(short = 'F', long)]
    b_format: Option<String>,
    /// How the host caches the files
    #[arg(short = 'T', long, value_enum, default_value = "writeback")]
    cache: Cache,
    /// Print progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Print text or JSON
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// Sizes and allocation must agree too
    #[arg(short, long)]
    strict: bool,
    /// The first disk, and the second; with --member all but the last are the disks of one machine,
    /// and what lies in them is compared to the last
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

impl Compare {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        if self.part.member.is_none() && self.files.len() > 2 {
            return Err(few_names());
        }
        let [first, second] = self.open().map_err(|failure| failure.with_code(CANNOT_OPEN))?;
        // What is said stands on the line of the progress, as qemu-img has it.
        let (found, _progress) = self.compared(&first, &second)?;
        let (text, code) = verdict(found, first.size(), second.size());
        match self.output {
            Form::Json => output::print(&json(found, [first.size(), second.size()]))?,
            Form::Human if self.quiet => {}
            Form::Human => output::print(&text)?,
        }
        Ok(code)
    }

    /// What was found, and the progress.
    fn compared(&self, first: &Disk, second: &Disk) -> Result<(Comparison, Progress), Failure> {
        let progress = Progress::new(self.progress, self.quiet)?;
        if self.strict && first.size() != second.size() {
            return Ok((Comparison::SizeDiffers, progress));
        }
        let settings = Settings::default();
        let found = convert::compare(first, second, Strictness::Content, &settings, &progress)
            .map_err(Failure::from_compare)?;
        if self.strict
            && let Some(at) = status_differs(first, second)?
            && !matches!(found, Comparison::ContentDiffers(content) if content.get() < at)
        {
            return Ok((Comparison::AllocationDiffers(GuestOffset(at)), progress));
        }
        if matches!(found, Comparison::Identical { .. }) {
            progress.finish();
        }
        Ok((found, progress))
    }

    fn open(&self) -> Result<[Disk; 2], Failure> {
        let direct = self.cache.is_direct();
        let Some((second, first)) = self.files.split_last() else {
            return Err(few_names());
        };
        Ok([
            self.reading.part(&self.part, first, self.a_format.as_deref(), direct)?,
            self.reading.disk(second, self.b_format.as_deref(), direct)?,
        ])
    }
}

fn few_names() -> Failure {
    Failure::new("Expecting two image file names").with_advice(&output::where_help_is())
}

impl Failure {
    fn from_compare(error: convert::Error) -> Self {
        let code = match &error {
            convert::Error::Cancelled => return error.into(),
            convert::Error::Read { source, .. } => match source.kind() {
                anydisk::Error::Invalid(_)
                | anydisk::Error::Limit { .. }
                | anydisk::Error::Unsupported { .. } => NO_MAP,
                _ => NO_DATA,
            },
            _ => NO_DATA,
        };
        Self::from(error).with_code(code)
    }
}

/// Where two disks of one size are first stored differently, as qemu-img sees it: what is there,
/// what is zero, what is packed, what has a place in a file.
fn status_differs(first: &Disk, second: &Disk) -> Result<Option<u64>, Failure> {
    let status = |entry: &Entry| {
        (entry.present, entry.zero, entry.data, entry.compressed, entry.offset.is_some())
    };
    let entries = |disk| Entries::new(disk, GuestRange::whole(first.size()));
    let (mut one, mut other) = (entries(first), entries(second));
    let next = |entries: &mut Entries<'_>| entries.next().transpose().map_err(no_map);
    let (mut a, mut b) = (next(&mut one)?, next(&mut other)?);
    while let (Some(left), Some(right)) = (&a, &b) {
        if status(left) != status(right) {
            return Ok(Some(left.start.max(right.start)));
        }
        let (left, right) = (left.end(), right.end());
        if left <= right {
            a = next(&mut one)?;
        }
        if right <= left {
            b = next(&mut other)?;
        }
    }
    Ok(None)
}

fn no_map(error: anydisk::Error) -> Failure {
    Failure::from(error).with_code(NO_MAP)
}

fn json(found: Comparison, sizes: [u64; 2]) -> String {
    let (differs, at) = match found {
        Comparison::Identical { .. } => (None, None),
        Comparison::ContentDiffers(at) => (Some("content"), Some(at.get())),
        Comparison::SizeDiffers => (Some("size"), None),
        Comparison::AllocationDiffers(at) => (Some("allocation"), Some(at.get())),
        _ => (Some("content"), None),
    };
    let object = Object::default()
        .with("identical", differs.is_none())
        .with("sizes", sizes.map(Value::from).to_vec())
        .with_any("differs", differs)
        .with_any("offset", at);
    json::document(&object.into())
}

/// What is said, and the exit code.
fn verdict(found: Comparison, first: u64, second: u64) -> (String, u8) {
    const SIZES: &str = "Warning: Image size mismatch!\n";
    match found {
        Comparison::Identical { sizes_differ } => {
            let warning = if sizes_differ { SIZES } else { "" };
            (format!("{warning}Images are identical.\n"), 0)
        }
        Comparison::ContentDiffers(at) => {
            // The warning comes when the end of the shorter disk has been passed.
            let warning = if at.get() >= first.min(second) { SIZES } else { "" };
            let sector = at.get() / SECTOR * SECTOR;
            (format!("{warning}Content mismatch at offset {sector}!\n"), DIFFERENT)
        }
        Comparison::SizeDiffers => ("Strict mode: Image size mismatch!\n".into(), DIFFERENT),
        Comparison::AllocationDiffers(at) => {
            let at = at.get();
            (format!("Strict mode: Offset {at} block status mismatch!\n"), DIFFERENT)
        }
        _ => ("The images differ.\n".into(), DIFFERENT),
    }
}
