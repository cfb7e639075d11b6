//! Comparing what a check finds with what is expected, where the format has a check.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckReport, CheckRequest, Error, Feature, Finding, Opener, Registry, Result,
};

use super::{Case, NotYet, cases};
use crate::folder::{FolderResolver, open_file};
use crate::trial::{guarded, prompt, settle};
use crate::unpack::Unpacked;

/// What a format without a check calls what it does not do.
const NO_CHECK: &str = "checking an image";

/// What came out of a check.
struct Checked {
    report: CheckReport,
    /// What was told, notes included.
    findings: Vec<String>,
}

/// Checks all cases of a format, if it has a check; see [`golden_suite!`](crate::golden_suite).
///
/// # Panics
/// With a list of all that went wrong.
pub fn judge_checks(format: &str, registry: &Registry, not_yet: &[NotYet<'_>]) {
    let mut verdicts = Vec::new();
    for case in cases(format) {
        if matches!(case.expect.check.as_str(), "n/a" | "unsupported") {
            continue;
        }
        let unpacked = Arc::new(case.unpack());
        let verdict = {
            let (case, registry, unpacked) = (case.clone(), registry.clone(), unpacked.clone());
            guarded(move || examine(&case, &registry, &unpacked))
        };
        if verdict.as_ref().is_err_and(|error| error == NO_CHECK) {
            return eprintln!("skipped: {format} has no check");
        }
        let untouched = case.check_files(&unpacked);
        let untouched = untouched.map_err(|change| format!("a file was touched: {change}"));
        verdicts.push((case.name, verdict.and(untouched)));
    }
    settle(&format!("checks of golden images of {format}"), &verdicts, not_yet);
}

/// Whether a check of the case comes to the expected verdict.
fn examine(case: &Case, registry: &Registry, unpacked: &Unpacked) -> Result<(), String> {
    let expected = case.expect.check.as_str();
    let checked = match prompt(|| check(case, registry, unpacked))? {
        Err(error) if has_no_check(&error) => return Err(NO_CHECK.into()),
        Err(error) => Err(error.to_string()),
        Ok(checked) => Ok(checked),
    };
    let fits = match (&checked, expected) {
        // It may also be checked, where others give up, but not be found in order.
        (Err(_), "error" | "findings") => true,
        (Err(_), _) => false,
        (Ok(checked), "findings") => !checked.findings.is_empty(),
        (Ok(checked), "error") => matches!(checked.verdict(), "corrupt" | "error"),
        (Ok(checked), _) => checked.verdict() == expected,
    };
    match checked {
        _ if fits => Ok(()),
        Err(error) => Err(format!("the check fails, expected {expected}: {error}")),
        Ok(checked) => {
            let (verdict, findings) = (checked.verdict(), checked.findings.join("\n"));
            Err(format!("the check says {verdict}, expected {expected}: {findings}"))
        }
    }
}

fn check(case: &Case, registry: &Registry, unpacked: &Unpacked) -> Result<Checked> {
    let resolver = FolderResolver::new(unpacked.folder.path());
    let opener = Opener::new(registry, &resolver);
    let file = open_file(&unpacked.path, Access::Read)?;
    let (format, _) = opener.format(&file, Some(&case.format))?;
    let request = CheckRequest::new(opener.request(&file, Access::Read));
    let mut findings = Vec::new();
    let mut note = |found: Finding| {
        findings.push(format!("{} at {}: {}", found.kind, found.at, found.text));
    };
    let report = opener.check(format, &file, &request, &mut note)?;
    Ok(Checked { report, findings })
}

fn has_no_check(error: &Error) -> bool {
    matches!(error.kind(), Error::Unsupported { feature: Feature::Check, .. })
}

impl Checked {
    fn verdict(&self) -> &'static str {
        match &self.report {
            report if report.corruptions > 0 => "corrupt",
            report if report.check_errors > 0 => "error",
            report if report.leaks > 0 => "leaks",
            _ => "clean",
        }
    }
}
