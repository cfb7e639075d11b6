//! Cow images do what every format must do.

use anydisk_cow::COW;
use anydisk_testkit::suite::FormatFixture;

anydisk_testkit::behaviour_suite!(FormatFixture::new(&COW, 512).granularity(512).over("raw"));
