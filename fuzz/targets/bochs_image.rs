//! A whole Bochs image, and a check of it.
#![no_main]

use anydisk_bochs::BOCHS;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&BOCHS, data.to_vec());
    anydisk_fuzz::check(&BOCHS, data.to_vec());
});
