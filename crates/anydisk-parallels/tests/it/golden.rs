//! All golden images of Parallels: verdict, content and map.

use anydisk_core::Registry;
use anydisk_parallels::PARALLELS;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;

golden_suite!(Registry::new(&[&PARALLELS, &RAW]), "parallels", [
    ("bundle-snapshot", "the map expected is that of one file; the content is that of the chain"),
], checks: [
    ("dirty", "a mark that is still there is counted as qemu-img counts it"),
]);
