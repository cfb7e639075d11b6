//! All golden images of qcow: verdict, content and map.

use anydisk_core::Registry;
use anydisk_qcow::QCOW;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&QCOW, &RAW])
}

golden_suite!(registry(), "qcow", []);
