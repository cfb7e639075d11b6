//! What every format that writes must do.

use anydisk_parallels::PARALLELS;
use anydisk_testkit::suite::FormatFixture;

use crate::common::damage;

/// Images with small clusters, which make the suite fast.
fn small() -> FormatFixture {
    FormatFixture::new(&PARALLELS, 4096)
        .option("cluster_size", "4k")
        .granularity(512)
        .checked_by(|store| damage(&*store))
}

mod small_clusters {
    anydisk_testkit::behaviour_suite!(super::small());
}

mod old_images_with_clusters_of_three_sectors {
    anydisk_testkit::behaviour_suite!(crate::common::ByHand::OLD);
}

mod resized {
    anydisk_testkit::behaviour_tests! {
        super::small();
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
    }
}
