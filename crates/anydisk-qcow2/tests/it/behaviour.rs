//! Qcow2 images do what every format must do, whatever their clusters, entries and refcounts.

use anydisk_qcow2::QCOW2;
use anydisk_testkit::suite::FormatFixture;

/// Sizes of qcow2 disks are whole sectors.
fn images(cluster: u64) -> FormatFixture {
    FormatFixture::new(&QCOW2, cluster)
        .option("cluster_size", &cluster.to_string())
        .granularity(512)
        .over("qcow2")
}

mod clusters_of_64_kib {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(65536));
}

mod clusters_of_512_bytes {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(512));
}

mod version_2 {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(4096).option("compat", "0.10"));
}

mod subclusters {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(16384).option("extended_l2", "on"));
}

mod refcounts_of_1_bit {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(4096).option("refcount_bits", "1"));
}

mod refcounts_of_64_bits {
    use super::*;
    anydisk_testkit::behaviour_suite!(images(1024).option("refcount_bits", "64"));
}

mod resized {
    anydisk_testkit::behaviour_tests! {
        super::images(4096);
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
    }
}
