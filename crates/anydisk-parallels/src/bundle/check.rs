//! A check of all files of a bundle, one after the other.

use anydisk_core::{
    Access, CheckReport, CheckRequest, Finding, NoReferences, OpenRequest, Repair, Result,
};

use super::descriptor::FileKind;
use super::{read, reference};
use crate::check;
use crate::header::unsupported;

/// Checks the expandable images that the descriptor names.
///
/// # Errors
/// Those of reading the descriptor and of the files, and `Unsupported` for a repair: the files are
/// repaired by themselves.
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    if request.repair != Repair::Nothing {
        return Err(unsupported("repairing a bundle as a whole, instead of its files"));
    }
    let descriptor = read(&request.open)?;
    let mut report = CheckReport::default();
    for file in descriptor.parts.iter().flat_map(|part| &part.files) {
        let located = request.open.part([reference(file)], Access::Read)?;
        if file.kind == FileKind::Plain {
            continue;
        }
        let name = located.location.to_string();
        let open = OpenRequest {
            store: located.store,
            location: &located.location,
            resolver: &NoReferences,
            access: Access::Read,
            ..request.open.clone()
        };
        let mut tell = |mut finding: Finding| {
            finding.text = format!("{name}: {}", finding.text);
            found(finding);
        };
        let mut of_file = CheckRequest::new(open);
        of_file.progress = request.progress;
        let checked = check::check(&of_file, &mut tell).map_err(|error| error.within(&name))?;
        add(&mut report, &checked);
    }
    Ok(report)
}

/// Adds what was found in one file.
fn add(report: &mut CheckReport, of_file: &CheckReport) {
    report.corruptions += of_file.corruptions;
    report.leaks += of_file.leaks;
    report.check_errors += of_file.check_errors;
    let sum = |one: Option<u64>, other: Option<u64>| Some(one.unwrap_or(0) + other.unwrap_or(0));
    report.total_clusters = sum(report.total_clusters, of_file.total_clusters);
    report.allocated_clusters = sum(report.allocated_clusters, of_file.allocated_clusters);
    report.fragmented_clusters = sum(report.fragmented_clusters, of_file.fragmented_clusters);
}
