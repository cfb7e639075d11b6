//! All golden images of asif: verdict, content, map and check.

use anydisk_asif::ASIF;
use anydisk_core::Registry;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&ASIF])
}

golden_suite!(registry(), "asif", []);
