//! A whole QED image: any header before any tables; read, written and repaired.
#![no_main]

use anydisk_qed::QED;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&QED, data.to_vec());
    anydisk_fuzz::write_and_read(&QED, data.to_vec());
    anydisk_fuzz::check_and_repair(&QED, data.to_vec());
});
