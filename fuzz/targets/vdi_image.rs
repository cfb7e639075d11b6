//! A whole VDI, opened and read, and opened for writing and written.
#![no_main]

use anydisk_vdi::VDI;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&VDI, data.to_vec());
    anydisk_fuzz::write_and_read(&VDI, data.to_vec());
});
