//! `anydisk inspect`.

use std::ffi::OsString;
use std::time::Duration;

use anydisk::inspect::{Inspection, Judgement, Mark, Remark, Rules};
use anydisk::storage::name;
use anydisk::{CheckReport, Reference, one_line};
use clap::Args;

use super::info;
use crate::args::{Form, Part, Reading};
use crate::failure::{Failure, Outcome};
use crate::options;
use crate::output::human::{self, size_and_bytes};
use crate::output::json::{self, Object, Value};
use crate::output::{self, findings};

const EXAMPLES: &str = "\
Examples:
  anydisk inspect upload.img
  anydisk inspect --allow=qcow2,raw --max-size=100G --output=json upload.img
  anydisk inspect -f raw disk.img          (it is said to be raw: refuse it if it looks like more)
  anydisk inspect --member disk1.vmdk box.ova

Exit codes: 0 accept, 1 cannot be read, 2 refuse, 3 doubt

No file but the one given is opened, whatever it names.";

/// Exit codes.
const REFUSED: u8 = 2;
const DOUBTED: u8 = 3;

/// Tells whether to take a stranger's image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// The format that the image is said to have
    #[arg(short, long)]
    format: Option<String>,
    /// Print text or JSON
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// Formats that are taken; all that are recognised if it is not given
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',')]
    allow: Vec<String>,
    /// Take images that need other files, too
    #[arg(long)]
    allow_references: bool,
    /// Largest virtual size
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// Largest ratio of the disk's data to the length of the file
    #[arg(long, value_name = "N")]
    max_ratio: Option<u64>,
    /// Largest number of snapshots
    #[arg(long, value_name = "N")]
    max_snapshots: Option<usize>,
    /// Seconds that looking at the image's tables may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    max_time: u64,
    /// Look at no tables
    #[arg(long)]
    no_check: bool,
    /// The image; with --member the disks of one machine
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

impl Inspect {
    pub(crate) fn run(self) -> Outcome {
        let rules = self.rules()?;
        let format = self.format.as_deref();
        let inspection = self.reading.inspect(&self.part, &self.files, format, &rules)?;
        let name = match (&self.part.member, &self.files[..]) {
            (Some(member), _) => member.clone(),
            (None, files) => files.iter().map(|file| name::of(file)).collect(),
        };
        let text = match self.output {
            Form::Human => text(&name, &inspection),
            Form::Json => json::document(&object(&name, &inspection).into()),
        };
        output::print(&text)?;
        Ok(match inspection.verdict() {
            Judgement::Accept => 0,
            Judgement::Doubt => DOUBTED,
            Judgement::Refuse => REFUSED,
        })
    }

    fn rules(&self) -> Result<Rules, Failure> {
        let registry = anydisk::formats();
        for name in &self.allow {
            registry.by_name(name).map_err(|_| {
                Failure::new(format!("Unknown format '{name}'"))
                    .with_advice(&crate::open::known_formats())
            })?;
        }
        let mut rules = Rules::default().taking(&self.allow);
        rules.references = self.allow_references;
        rules.size = self.max_size.as_deref().map(options::size).transpose()?;
        (rules.inflation, rules.snapshots) = (self.max_ratio, self.max_snapshots);
        rules.time = Duration::from_secs(self.max_time);
        rules.check = !self.no_check;
        rules.threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(rules)
    }
}

/// For people: what it is, then why it is not taken.
fn text(name: &str, inspection: &Inspection) -> String {
    let mut lines = vec![
        format!("{name}: {}", inspection.verdict().word()),
        format!("file format: {} ({})", inspection.format, known_by(inspection)),
    ];
    let size = |label: &str, bytes: u64| format!("{label}: {}", size_and_bytes(bytes));
    lines.extend(inspection.size.map(|bytes| size("virtual size", bytes)));
    lines.push(size("file length", inspection.len));
    lines.extend(inspection.data.map(|bytes| size("data", bytes)));
    lines.extend(inspection.allocated.map(|bytes| format!("disk size: {}", human::size(bytes))));
    lines.extend(inspection.references.iter().map(reference));
    let info = inspection.info.as_ref();
    let features = info.map(info::everything).unwrap_or_default();
    // Formats that tell more tell these with it.
    if let Some(info) = info.filter(|_| features.is_empty()) {
        lines.extend(info.id.map(|id| format!("ID: {id}")));
        lines.extend(info.content_id.map(|id| format!("content ID: {id}")));
    }
    if inspection.snapshots > 0 {
        lines.push(format!("snapshots: {}", inspection.snapshots));
    }
    let mut text: String = lines.iter().map(|line| one_line(line) + "\n").collect();
    if !features.is_empty() {
        text.push_str("Format specific information:\n");
        human::write_object(&mut text, &features, 1);
    }
    text.extend(inspection.remarks.iter().map(line));
    text
}

fn known_by(inspection: &Inspection) -> &'static str {
    use anydisk::inspect::Certainty;
    match inspection.certainty {
        Certainty::Named => "as you say",
        Certainty::Magic => "by its magic",
        Certainty::Likely => "by what it looks like",
        Certainty::Nothing => "nothing tells another",
    }
}

fn reference(reference: &Reference) -> String {
    let format = reference.format.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}: {}{format}", reference.role.name(), reference.display_name())
}

fn line(remark: &Remark) -> String {
    format!("{}: {} [{}]\n", level(remark), one_line(&remark.text), remark.kind)
}

fn level(remark: &Remark) -> &'static str {
    match remark.judgement {
        Judgement::Accept => "note",
        other => other.word(),
    }
}

fn object(name: &str, inspection: &Inspection) -> Object {
    let info = inspection.info.as_ref();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let features = info.map(info::everything).unwrap_or_default();
    Object::default()
        .with("schema-version", 1_u64)
        .with("filename", name)
        .with("verdict", inspection.verdict().word())
        .with("format", inspection.format)
        .with("certainty", inspection.certainty.word())
        .with("also", inspection.marks.iter().map(mark).collect::<Vec<_>>())
        .with("references", inspection.references.iter().map(reference_value).collect::<Vec<_>>())
        .with("file-length", inspection.len)
        .with_any("actual-size", inspection.allocated)
        .with_any("virtual-size", inspection.size)
        .with_any("data-size", inspection.data)
        .with_any("cluster-size", info.and_then(|info| info.cluster_size))
        .with_any("id", info.and_then(|info| Some(info.id?.to_string())))
        .with_any("content-id", info.and_then(|info| Some(info.content_id?.to_string())))
        .with_any("encrypted", info.map(|info| info.encrypted))
        .with_any("dirty-flag", info.map(|info| info.dirty))
        .with("snapshots", count(inspection.snapshots))
        .with("bitmaps", count(inspection.bitmaps))
        .with("features", features)
        .with_any("check", inspection.check.as_ref().map(counts))
        .with("findings", inspection.findings.iter().map(findings::value).collect::<Vec<_>>())
        .with_any("package-findings", in_package(inspection))
        .with("remarks", inspection.remarks.iter().map(remark_value).collect::<Vec<_>>())
}

/// What should be known of the package, if it is a member of one.
fn in_package(inspection: &Inspection) -> Option<Vec<Value>> {
    let list = findings::of_package(&inspection.package);
    (!list.is_empty()).then_some(list)
}

fn mark(mark: &Mark) -> Value {
    Object::default()
        .with("name", mark.name)
        .with("kind", mark.kind.word())
        .with_any("at", mark.at.map(|at| at.get()))
        .into()
}

fn reference_value(reference: &Reference) -> Value {
    Object::default()
        .with("role", reference.role.name())
        .with("name", reference.display_name())
        .with_any("format", reference.format.as_deref())
        .into()
}

fn remark_value(remark: &Remark) -> Value {
    Object::default()
        .with("level", level(remark))
        .with("kind", remark.kind)
        .with("text", remark.text.as_str())
        .into()
}

fn counts(report: &CheckReport) -> Object {
    Object::default()
        .with("corruptions", report.corruptions)
        .with("leaks", report.leaks)
        .with("check-errors", report.check_errors)
}
