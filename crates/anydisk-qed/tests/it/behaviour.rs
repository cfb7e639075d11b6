//! QED images do what every format must do, whatever their clusters and tables.

use std::sync::Arc;

use anydisk_core::{CheckRequest, Format, Limits, Location, OpenRequest, Storage};
use anydisk_qed::QED;
use anydisk_testkit::suite::FormatFixture;

/// What our own check says; leaks are allowed.
fn check(store: Arc<dyn Storage>) -> Result<(), String> {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    let mut said = Vec::new();
    let report = QED.check(&request, &mut |finding| said.push(finding.text));
    match report.map_err(|error| error.to_string())? {
        report if report.corruptions + report.check_errors > 0 => Err(said.join("; ")),
        _ => Ok(()),
    }
}

/// Sizes of QED disks are whole sectors.
fn images(cluster: u64, table: u64) -> FormatFixture {
    FormatFixture::new(&QED, cluster)
        .option("cluster_size", &cluster.to_string())
        .option("table_size", &table.to_string())
        .granularity(512)
        .over("raw")
        .checked_by(check)
}

mod clusters_of_4_kib {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(4096, 2));
}

mod clusters_of_16_kib_and_large_tables {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(16384, 16));
}

mod resized {
    anydisk_testkit::behaviour_tests! {
        super::images(4096, 2);
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
    }
}
