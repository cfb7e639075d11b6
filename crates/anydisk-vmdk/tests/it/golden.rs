//! All golden images of VMDK: verdict, content and map.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;
use anydisk_vmdk::VMDK;

fn registry() -> Registry {
    Registry::new(&[&VMDK, &RAW])
}

golden_suite!(registry(), "vmdk", []);
