//! From what was seen to remarks. Pure.

use anydisk_core::{Error, ImageInfo, Reference, Role, Severity};

use super::look::{Known, Seen};
use super::{Certainty, Inspection, Judgement, Mark, MarkKind, Remark, Rules};
use crate::MemberFinding;

use Judgement::{Accept, Doubt, Refuse};

/// A larger disk is doubted if no rule says how large one may be: 64 TiB.
const LARGE: u64 = 64 << 40;

/// Data that is so many times as long as the file, and longer than [`BIG_DATA`], is doubted if no
/// rule speaks of it.
const INFLATION: u64 = 100;
const BIG_DATA: u64 = 1 << 30;

/// More snapshots are doubted if no rule says how many there may be.
const SNAPSHOTS: usize = 256;

/// Raw: the format that nothing tells.
const RAW: &str = "raw";

/// All that is to be said, the worst first.
pub(super) fn judge(
    inspection: &Inspection,
    known: &Known,
    seen: &Seen,
    rules: &Rules,
) -> Vec<Remark> {
    let mut remarks = Remarks::default();
    remarks.on_format(known, rules);
    remarks.on_marks(known);
    remarks.on_references(inspection, rules);
    for error in &seen.trouble {
        remarks.add(Refuse, kind_of(error), error.to_string());
    }
    if seen.walk_cut {
        remarks.add(Doubt, "map", "walking its map was given up because it took too long");
    }
    for warning in &seen.warnings {
        remarks.add(Accept, "warning", warning.clone());
    }
    remarks.on_sizes(inspection, rules);
    if let Some(info) = &inspection.info {
        remarks.on_info(info);
    }
    remarks.on_check(seen);
    if seen.loose > 0 {
        let text = format!(
            "the file ends inside its last unit, where {} bytes of data should be: they read as zero, \
             and no known writer leaves them out",
            seen.loose
        );
        remarks.add(Doubt, "cut-off", text);
    }
    let mut remarks = remarks.0;
    remarks.sort_by_key(|remark| std::cmp::Reverse(remark.judgement));
    remarks
}

#[derive(Default)]
struct Remarks(Vec<Remark>);

impl Remarks {
    fn add(&mut self, judgement: Judgement, kind: &'static str, text: impl Into<String>) {
        self.0.push(Remark { judgement, kind, text: text.into() });
    }

    fn on_format(&mut self, known: &Known, rules: &Rules) {
        let name = known.format.name();
        let is_name = |taken: &String| name == taken || known.format.aliases().contains(&&**taken);
        let is_taken = rules.formats.iter().any(is_name);
        if !rules.formats.is_empty() && !is_taken {
            let taken = rules.formats.join(", ");
            self.add(Refuse, "format-not-taken", format!("it is {name}; taken are {taken}"));
        }
        match (known.certainty, known.told) {
            (Certainty::Named, Some(told)) if told != name => {
                let text = format!("it is said to be {name}, and its bytes say {told}");
                self.add(Refuse, "format-mismatch", text);
            }
            (Certainty::Nothing, _) if !is_taken && known.is_unmarked() => {
                let text = "no format recognises it, so it may be anything; say so if it is raw";
                self.add(Doubt, "format-unknown", text);
            }
            _ => {}
        }
    }

    fn on_marks(&mut self, known: &Known) {
        let (name, told) = (known.format.name(), known.told);
        for mark in known.others.iter().filter(|mark| Some(mark.name) != told) {
            let of = format!("{}{}", mark.name, place(mark));
            let as_well = format!("it could be taken for {of} as well");
            match mark.kind {
                MarkKind::Image
                    if known.certainty == Certainty::Nothing
                        && crate::formats().by_name(mark.name).is_ok() =>
                {
                    let name = mark.name;
                    let text = format!("it could be a raw disk, or {of}: say which with -f {name}");
                    self.add(Refuse, "two-formats", text);
                }
                MarkKind::Image if known.certainty == Certainty::Nothing => {
                    self.add(Refuse, "unsupported", format!("it is {of}, which is not read here"));
                }
                MarkKind::Package if name == RAW => {
                    self.add(Doubt, "package", format!("it is {of}, to be unpacked first"));
                }
                MarkKind::Image | MarkKind::Package => self.add(Refuse, "two-formats", as_well),
                // The first bytes of the file are the format's: whoever finds a disk there has
                // been led to it.
                MarkKind::Content if known.at_head && name != RAW => {
                    self.add(Doubt, "two-formats", as_well);
                }
                MarkKind::Content => {
                    self.add(Accept, "content", format!("the disk begins as {of} does"));
                }
            }
        }
    }

    fn on_references(&mut self, inspection: &Inspection, rules: &Rules) {
        let judgement = if rules.references { Accept } else { Refuse };
        for reference in &inspection.references {
            let (role, name) = (reference.role.name(), reference.display_name());
            let text = format!("it needs the {role} {name:?}, which was not opened");
            self.add(judgement, "reference", text);
        }
        if rules.references && !is_one_file(&inspection.references) {
            let text = "it is made of several files, and was not looked into without them";
            self.add(Doubt, "several-files", text);
        }
    }

    fn on_sizes(&mut self, inspection: &Inspection, rules: &Rules) {
        let size = inspection.size.unwrap_or(0);
        match rules.size {
            Some(most) if size > most => {
                self.add(Refuse, "size", format!("the disk has {size} bytes, more than {most}"));
            }
            None if size > LARGE => {
                let text = format!("the disk has {size} bytes, more than hosts can store");
                self.add(Doubt, "size", text);
            }
            _ => {}
        }
        self.on_inflation(inspection, rules);
        let count = inspection.snapshots;
        match rules.snapshots {
            Some(most) if count > most => {
                let text = format!("it has {count} snapshots, more than {most}");
                self.add(Refuse, "snapshots", text);
            }
            None if count > SNAPSHOTS => {
                self.add(Doubt, "snapshots", format!("it has {count} snapshots"));
            }
            _ if count > 0 => {
                let text = format!("snapshots, which hold what the disk does not show: {count}");
                self.add(Accept, "snapshots", text);
            }
            _ => {}
        }
    }

    fn on_inflation(&mut self, inspection: &Inspection, rules: &Rules) {
        let Some(data) = inspection.data else { return };
        let judgement = match rules.inflation {
            Some(most) if data > inspection.len.saturating_mul(most) => Refuse,
            None if data > BIG_DATA && data > inspection.len.saturating_mul(INFLATION) => Doubt,
            _ => return,
        };
        let text = format!("{} bytes of file hold {data} bytes of data", inspection.len);
        self.add(judgement, "inflation", text);
    }

    fn on_info(&mut self, info: &ImageInfo) {
        if info.encrypted {
            self.add(Accept, "encrypted", "what it holds is encrypted");
        }
        if info.dirty {
            self.add(Accept, "dirty", "it was not closed cleanly");
        }
    }

    fn on_check(&mut self, seen: &Seen) {
        match &seen.check {
            Some(Ok(report)) => {
                // What could not be read may lie in the files that were not opened.
                let alone = seen.references.is_empty();
                let damage = report.corruptions + if alone { report.check_errors } else { 0 };
                if damage > 0 {
                    let first = seen.findings.iter().find(|one| one.severity > Severity::Leak);
                    let first = first.map(|one| format!(", the first at {}: {}", one.at, one.text));
                    let text = format!("errors found: {damage}{}", first.unwrap_or_default());
                    self.add(Refuse, "damage", text);
                }
                if report.leaks > 0 {
                    let text = format!("units of the file that hold nothing: {}", report.leaks);
                    self.add(Accept, "leaks", text);
                }
            }
            Some(Err(Error::Cancelled)) => {
                self.add(Doubt, "check", "the check was given up because it took too long");
            }
            // A format without a check says so; what keeps the image from opening was told.
            Some(Err(Error::Unsupported { .. })) | None => {}
            Some(Err(_)) if !seen.trouble.is_empty() => {}
            Some(Err(error)) => self.add(Refuse, kind_of(error), error.to_string()),
        }
    }
}

/// What is found of a package. That a manifest leaves out a disk is no accident: it vouches for the
/// others.
pub(super) fn package_remark(finding: &MemberFinding) -> Remark {
    let judgement = if finding.kind == "not-in-manifest" { Doubt } else { Accept };
    Remark { judgement, kind: "unverified", text: format!("{}: {}", finding.path, finding.text) }
}

/// Whether all of the image is in its own file.
pub(super) fn is_one_file(references: &[Reference]) -> bool {
    references.iter().all(|reference| reference.role == Role::Backing)
}

fn place(mark: &Mark) -> String {
    mark.at.map(|at| format!(" (its mark is at {at})")).unwrap_or_default()
}

/// The word for an error that keeps an image from being used.
fn kind_of(error: &Error) -> &'static str {
    match error.kind() {
        Error::Invalid(_) => "invalid",
        Error::Unsupported { .. } => "unsupported",
        Error::Limit { .. } => "limit",
        Error::NeedsRepair { .. } => "damage",
        _ => "unreadable",
    }
}
