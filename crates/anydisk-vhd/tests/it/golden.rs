//! All golden images of VHD: verdict, content and map.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;
use anydisk_vhd::VHD;

golden_suite!(Registry::new(&[&VHD, &RAW]), "vhd", [], checks: [
    ("hostile-parent-paths", "whether a parent may be opened is found when the chain is"),
]);
