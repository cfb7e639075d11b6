//! All golden images of cloop: verdict, content, map and check.

use anydisk_cloop::CLOOP;
use anydisk_core::Registry;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&CLOOP])
}

golden_suite!(registry(), "cloop", []);
