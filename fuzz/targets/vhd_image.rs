//! A whole VHD, opened and read, and opened for writing and written, and
//! repaired.
#![no_main]

use anydisk_vhd::VHD;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&VHD, data.to_vec());
    anydisk_fuzz::write_and_read(&VHD, data.to_vec());
    anydisk_fuzz::check_and_repair(&VHD, data.to_vec());
});
