//! A whole qcow2 image, opened and read.
#![no_main]

use anydisk_qcow2::QCOW2;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| anydisk_fuzz::explore(&QCOW2, data.to_vec()));
