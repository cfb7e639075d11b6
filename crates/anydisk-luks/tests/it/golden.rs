//! All golden images of LUKS: verdict and content.

use anydisk_core::Registry;
use anydisk_luks::LUKS;
use anydisk_testkit::golden_suite;

golden_suite!(
    Registry::new(&[&LUKS]),
    "luks",
    [(
        "luks1-detached",
        "its payload is a second file, which the format is not given: detached.rs"
    )]
);
