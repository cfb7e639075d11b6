//! A whole cloop image, and a check of it.
#![no_main]

use anydisk_cloop::CLOOP;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&CLOOP, data.to_vec());
    anydisk_fuzz::check(&CLOOP, data.to_vec());
});
