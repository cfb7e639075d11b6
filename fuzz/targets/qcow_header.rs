//! A whole qcow image: any header before any tables; read, written and repaired.
#![no_main]

use anydisk_qcow::QCOW;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&QCOW, data.to_vec());
    anydisk_fuzz::write_and_read(&QCOW, data.to_vec());
    anydisk_fuzz::check_and_repair(&QCOW, data.to_vec());
});
