//! A whole Apple disk image, and a check of it.
#![no_main]

use anydisk_dmg::DMG;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&DMG, data.to_vec());
    anydisk_fuzz::check(&DMG, data.to_vec());
});
