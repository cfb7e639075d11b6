//! A whole qcow image: any header before any tables.
#![no_main]

use anydisk_qcow::QCOW;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| anydisk_fuzz::explore(&QCOW, data.to_vec()));
