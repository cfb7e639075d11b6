//! All golden images of bochs: verdict, content, map and check.

use anydisk_bochs::BOCHS;
use anydisk_core::Registry;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&BOCHS])
}

golden_suite!(registry(), "bochs", []);
