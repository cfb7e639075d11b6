//! Cow images do what every format must do.

use std::sync::Arc;

use anydisk_core::{CheckRequest, Format, Limits, Location, OpenRequest, Storage};
use anydisk_cow::COW;
use anydisk_testkit::suite::FormatFixture;

/// What our own check says; leaks are allowed.
fn check(store: Arc<dyn Storage>) -> Result<(), String> {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    let mut said = Vec::new();
    let report = COW.check(&request, &mut |finding| said.push(finding.text));
    match report.map_err(|error| error.to_string())? {
        report if report.corruptions + report.check_errors > 0 => Err(said.join("; ")),
        _ => Ok(()),
    }
}

anydisk_testkit::behaviour_suite!(
    FormatFixture::new(&COW, 512).granularity(512).over("raw").checked_by(check)
);
