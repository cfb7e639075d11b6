//! A whole ASIF image, and a check of it.
#![no_main]

use anydisk_asif::ASIF;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&ASIF, data.to_vec());
    anydisk_fuzz::check(&ASIF, data.to_vec());
});
