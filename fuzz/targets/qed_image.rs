//! A whole QED image: any header before any tables.
#![no_main]

use anydisk_qed::QED;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| anydisk_fuzz::explore(&QED, data.to_vec()));
