//! All golden images of qcow2: verdict, content and map.

use anydisk_core::Registry;
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&QCOW2, &RAW])
}

golden_suite!(registry(), "qcow2", []);
