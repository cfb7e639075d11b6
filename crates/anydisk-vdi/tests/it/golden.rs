//! All golden images of VDI: verdict, content and map.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;
use anydisk_vdi::VDI;

fn registry() -> Registry {
    Registry::new(&[&VDI, &RAW])
}

golden_suite!(registry(), "vdi", [], checks: [
    ("hostile-parent-modified", "whether a parent fits is found when the chain is opened"),
]);
