//! All golden images of simg: verdict, content, map and check.

use anydisk_core::Registry;
use anydisk_simg::SIMG;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&SIMG])
}

golden_suite!(
    registry(),
    "simg",
    [("hostile-crc-wrong", "reading looks at no checksum, a check does")]
);
