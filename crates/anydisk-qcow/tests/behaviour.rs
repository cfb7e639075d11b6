//! Qcow images do what every format must do, whatever their clusters.

use anydisk_qcow::QCOW;
use anydisk_testkit::suite::FormatFixture;

/// Sizes of qcow disks are whole sectors.
fn images(cluster: u64) -> FormatFixture {
    FormatFixture::new(&QCOW, cluster)
        .option("cluster_size", &cluster.to_string())
        .granularity(512)
        .over("raw")
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
