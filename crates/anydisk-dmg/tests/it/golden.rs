//! All golden images of DMG: verdict, content, map and check.

use anydisk_core::Registry;
use anydisk_dmg::DMG;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&DMG])
}

golden_suite!(registry(), "dmg", []);
