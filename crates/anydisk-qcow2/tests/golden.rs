//! All golden images of qcow2: verdict, content and map.

use anydisk_core::Registry;
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&QCOW2, &RAW])
}

golden_suite!(
    registry(),
    "qcow2",
    [
        ("bitmap-dir-size-max", "bitmaps are not looked at; the data reads"),
        ("bitmap-dir-size-short", "bitmaps are not looked at; the data reads"),
        ("bitmap-dir-unaligned", "bitmaps are not looked at; the data reads"),
        ("bitmap-entry-reserved", "bitmaps are not looked at; the data reads"),
        ("bitmap-entry-unaligned", "bitmaps are not looked at; the data reads"),
        ("bitmap-ext-reserved", "bitmaps are not looked at; the data reads"),
        ("bitmap-extra-compatible", "bitmaps are not looked at; the data reads"),
        ("bitmap-extra-data", "bitmaps are not looked at; the data reads"),
        ("bitmap-granularity-32", "bitmaps are not looked at; the data reads"),
        ("bitmap-granularity-8", "bitmaps are not looked at; the data reads"),
        ("bitmap-name-dup", "bitmaps are not looked at; the data reads"),
        ("bitmap-nb-0", "bitmaps are not looked at; the data reads"),
        ("bitmap-nb-65536", "bitmaps are not looked at; the data reads"),
        ("bitmap-nb-mismatch", "bitmaps are not looked at; the data reads"),
        ("bitmap-reserved-flags", "bitmaps are not looked at; the data reads"),
        ("bitmap-table-size-0", "bitmaps are not looked at; the data reads"),
        ("bitmap-table-size-max", "bitmaps are not looked at; the data reads"),
        ("bitmap-table-unaligned", "bitmaps are not looked at; the data reads"),
        ("bitmap-type-2", "bitmaps are not looked at; the data reads"),
    ]
);
