//! Qcow images do what every format must do, whatever their clusters.

use std::sync::Arc;

use anydisk_core::{CheckRequest, Format, Limits, Location, OpenRequest, Storage};
use anydisk_qcow::QCOW;
use anydisk_testkit::suite::FormatFixture;

/// What our own check says; leaks are allowed.
fn check(store: Arc<dyn Storage>) -> Result<(), String> {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    let mut said = Vec::new();
    let report = QCOW.check(&request, &mut |finding| said.push(finding.text));
    match report.map_err(|error| error.to_string())? {
        report if report.corruptions + report.check_errors > 0 => Err(said.join("; ")),
        _ => Ok(()),
    }
}

/// Sizes of qcow disks are whole sectors.
fn images(cluster: u64) -> FormatFixture {
    FormatFixture::new(&QCOW, cluster)
        .option("cluster_size", &cluster.to_string())
        .granularity(512)
        .over("raw")
        .checked_by(check)
}

mod clusters_of_4_kib {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(4096));
}

mod clusters_of_512_bytes {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(512));
}

mod clusters_of_16_kib {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(16384));
}
