//! All golden images of VHDX: verdict, content and map.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;
use anydisk_vhdx::VHDX;

golden_suite!(Registry::new(&[&VHDX, &RAW]), "vhdx", []);
