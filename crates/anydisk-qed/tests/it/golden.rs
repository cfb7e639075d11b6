//! All golden images of QED: verdict, content and map.

use anydisk_core::Registry;
use anydisk_qed::QED;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;

fn registry() -> Registry {
    Registry::new(&[&QED, &RAW])
}

golden_suite!(
    registry(),
    "qed",
    [],
    checks: [("header-size-0", "a header that says it has no cluster has one all the same: it is no leak")]
);
