//! All golden images of Parallels: verdict, content and map.

use anydisk_core::Registry;
use anydisk_parallels::PARALLELS;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;

golden_suite!(
    Registry::new(&[&PARALLELS, &RAW]),
    "parallels",
    [("bundle-snapshot", "bundles are not read yet"),]
);
