//! Raw images do what every format must do.

use anydisk_raw::RAW;
use anydisk_testkit::suite::FormatFixture;

anydisk_testkit::behaviour_suite!(FormatFixture::new(&RAW, 4096));
