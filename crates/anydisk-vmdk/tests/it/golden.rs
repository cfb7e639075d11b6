//! All golden images of VMDK: verdict, content and map.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;
use anydisk_vmdk::VMDK;

fn registry() -> Registry {
    Registry::new(&[&VMDK, &RAW])
}

golden_suite!(
    registry(),
    "vmdk",
    [],
    checks: [(
        "monolithicSparse-zeroed-grain",
        "qemu looks for no leaks; the grain that was lost when it was zeroed is one"
    )]
);
