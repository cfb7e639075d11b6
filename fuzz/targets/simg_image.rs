//! A whole Android sparse image, and a check of it.
#![no_main]

use anydisk_simg::SIMG;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&SIMG, data.to_vec());
    anydisk_fuzz::check(&SIMG, data.to_vec());
});
