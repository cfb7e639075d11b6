//! `anydisk check`.

use std::ffi::OsString;
use std::fmt::Write;
use std::ops::ControlFlow;

use anydisk::convert::Watch;
use anydisk::storage::name;
use anydisk::{CheckReport, Checked, Checking, Error, Feature, Finding, Repair, Severity};
use clap::{Args, ValueEnum};

use crate::args::{Cache, Form, Part, Reading};
use crate::failure::{Failure, Outcome, without_numbers};
use crate::interrupt::INTERRUPTED;
use crate::output::json::{Object, Value, document};
use crate::output::{self, Few, findings};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  anydisk check disk.qcow2
  anydisk check --data disk.qcow2          (unpacks all that is compressed)
  anydisk check -r all --dry-run disk.qcow2
  anydisk check -r all disk.qcow2          (keep a copy of what you cannot lose)

Exit codes (of a dry run: those of the repair): 0 in order, 1 cannot be checked, 2 damaged, 3 space is lost, 63 the format has no check";

/// Exit codes.
const CANNOT: u8 = 1;
const DAMAGED: u8 = 2;
const LEAKS: u8 = 3;
const NO_CHECK: u8 = 63;

/// Checks an image, and repairs it if asked to.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// Print text or JSON; what was found goes to standard error, and is in the JSON
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// Repair lost space only, or all that can be repaired
    #[arg(short, long, value_enum, conflicts_with = "member")]
    repair: Option<What>,
    /// Tell what the repair would do and come to, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Read the data too, and unpack what is compressed
    #[arg(long)]
    data: bool,
    /// How the host caches the file
    #[arg(short = 'T', long, value_enum, default_value = "writeback")]
    cache: Cache,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The image; with --member the disks of one machine
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

/// What is repaired.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Space that nothing names.
    Leaks,
    /// All that can be repaired without harm.
    All,
}

impl Check {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        if self.dry_run && self.repair.is_none() {
            return Err(Failure::new("A dry run is that of a repair: say which with --repair"));
        }
        let shown = Progress::new(false, self.quiet)?;
        let progress = |done: u64, all: u64| shown.progress(done, all) == ControlFlow::Continue(());
        let mut how = Checking::default();
        how.repair = match self.repair {
            None => Repair::Nothing,
            Some(What::Leaks) => Repair::Leaks,
            Some(What::All) => Repair::All,
        };
        (how.data, how.dry_run) = (self.data, self.dry_run);
        how.threads = std::thread::available_parallelism().map_or(1, usize::from);
        how.progress = Some(&progress);
        let done = if self.dry_run { "would be repaired" } else { "repaired" };
        let mut kept = Kept::default();
        let lines = Few::new(output::note);
        let mut tell = |finding: Finding| {
            // What is no error is not told to those who want to read of errors only.
            if !self.quiet || finding.severity != Severity::Note {
                lines.tell(|| line(&finding, done));
            }
            kept.add(&finding);
        };
        let checked = self.check(&how, &mut tell);
        drop(lines);
        drop(shown);
        let checked = checked?;
        let text = match self.output {
            Form::Human => human(&checked.report, self.dry_run),
            Form::Json => json(&checked, &self.name(), kept),
        };
        if !self.quiet {
            output::print(&text)?;
        }
        Ok(code(&checked.report))
    }

    fn check(
        &self,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked, Failure> {
        let format = self.format.as_deref();
        match (&self.part.member, &self.files[..]) {
            (None, [file]) => self.reading.check(file, format, self.cache.is_direct(), how, found),
            (None, _) => {
                Err(Failure::new("Expecting one image file name")
                    .with_advice(&output::where_help_is()))
            }
            (Some(_), files) => self.reading.check_member(&self.part, files, format, how, found),
        }
    }

    /// What was checked, for people and scripts.
    fn name(&self) -> String {
        let files = self.files.iter().map(|file| name::of(file));
        self.part.member.clone().unwrap_or_else(|| files.collect())
    }
}

impl Failure {
    /// Why an image was not checked.
    pub(crate) fn from_check(error: Error) -> Self {
        match error.kind() {
            Error::Unsupported { feature: Feature::Check, .. } => {
                Self::new("This image format does not support checks").with_code(NO_CHECK)
            }
            Error::Cancelled => Self::new("cancelled").with_code(INTERRUPTED),
            _ => Self::from(error),
        }
    }
}

fn code(report: &CheckReport) -> u8 {
    match report {
        report if report.corruptions > 0 => DAMAGED,
        report if report.check_errors > 0 => CANNOT,
        report if report.leaks > 0 => LEAKS,
        _ => 0,
    }
}

/// A finding for people; `done`: what is said of one that was repaired.
fn line(finding: &Finding, done: &str) -> String {
    let how_bad = match finding.severity {
        Severity::Note => "note",
        Severity::Leak => "Leaked",
        _ => "ERROR",
    };
    let Finding { kind, at, text, .. } = finding;
    let text = without_numbers(text);
    // What is leaked is space; the kind says no more.
    let kind = if *kind == "leak" { "space" } else { *kind };
    let mut line = format!("{how_bad} {kind} at {at}: {text}");
    let told = match finding.guest {
        Some(guest) => write!(line, "; disk {guest}"),
        None => Ok(()),
    };
    let told = told.and_then(|()| match finding.repaired {
        true => write!(line, " ({done})"),
        false => Ok(()),
    });
    told.expect("a string takes any text");
    line
}

/// What qemu-img prints.
fn human(report: &CheckReport, dry_run: bool) -> String {
    let mut out = String::new();
    let CheckReport { corruptions, leaks, check_errors, .. } = *report;
    if report.corruptions_fixed + report.leaks_fixed > 0 {
        let (fixed, lost) = (report.corruptions_fixed, report.leaks_fixed);
        let done = if dry_run { "and would be" } else { "and" };
        out += &format!("The following inconsistencies were found {done} repaired:\n\n");
        out += &format!("    {lost} leaked clusters\n    {fixed} corruptions\n\n");
        out += if dry_run { "Afterwards:\n" } else { "Double checking the fixed image now...\n" };
    }
    if report.is_clean() {
        out += "No errors were found on the image.\n";
    }
    if corruptions > 0 {
        out += &format!("\n{corruptions} errors were found on the image.\n");
        out += "Data may be corrupted, or further writes to the image may corrupt it.\n";
    }
    if leaks > 0 {
        out += &format!("\n{leaks} leaked clusters were found on the image.\n");
        out += "This means waste of disk space, but no harm to data.\n";
    }
    if check_errors > 0 {
        out += &format!("\n{check_errors} internal errors have occurred during the check.\n");
    }
    out + &clusters(report)
}

fn clusters(report: &CheckReport) -> String {
    let mut out = String::new();
    let number = |count: Option<u64>| count.unwrap_or(0);
    let (total, allocated) = (number(report.total_clusters), number(report.allocated_clusters));
    if total > 0 && allocated > 0 {
        let share = |part: u64, whole: u64| percent(part, whole);
        out += &format!(
            "{allocated}/{total} = {}% allocated, {}% fragmented, {}% compressed clusters\n",
            share(allocated, total),
            share(number(report.fragmented_clusters), allocated),
            share(number(report.compressed_clusters), allocated),
        );
    }
    match report.image_end.map_or(0, |end| end.get()) {
        0 => out,
        end => out + &format!("Image end offset: {end}\n"),
    }
}

/// With two digits behind the point, as C's `%0.2f`.
fn percent(part: u64, whole: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let share = part as f64 * 100.0 / whole as f64;
    format!("{share:.2}")
}

/// Findings that are printed as JSON when all is done.
#[derive(Default)]
struct Kept {
    list: Vec<Value>,
    /// So many more there were.
    omitted: u64,
}

impl Kept {
    /// An image can have as many findings as units, and a script reads a few.
    const MOST: usize = 1000;

    fn add(&mut self, finding: &Finding) {
        match self.list.len() < Self::MOST {
            true => self.list.push(findings::value(finding)),
            false => self.omitted += 1,
        }
    }
}

/// As qemu-img prints it; with what was found, if anything was, which it does not have.
fn json(checked: &Checked, file: &str, kept: Kept) -> String {
    let report = &checked.report;
    let some = |count: u64| Some(count).filter(|count| *count > 0);
    let counted = |count: Option<u64>| count.and_then(some);
    let object = Object::default()
        .with("filename", file)
        .with("format", checked.format)
        .with("check-errors", report.check_errors)
        .with_any("image-end-offset", counted(report.image_end.map(|end| end.get())))
        .with_any("corruptions", some(report.corruptions))
        .with_any("leaks", some(report.leaks))
        .with_any("corruptions-fixed", some(report.corruptions_fixed))
        .with_any("leaks-fixed", some(report.leaks_fixed))
        .with_any("total-clusters", counted(report.total_clusters))
        .with_any("allocated-clusters", counted(report.allocated_clusters))
        .with_any("fragmented-clusters", counted(report.fragmented_clusters))
        .with_any("compressed-clusters", counted(report.compressed_clusters))
        .with_any("findings", (!kept.list.is_empty()).then_some(kept.list))
        .with_any("findings-omitted", some(kept.omitted));
    document(&Value::Object(object))
}
