//! All golden images of VHD: verdict, content and map.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::golden_suite;
use anydisk_vhd::VHD;

golden_suite!(Registry::new(&[&VHD, &RAW]), "vhd", []);
