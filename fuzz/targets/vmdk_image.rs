//! A whole VMDK in one file: opened and read, and opened for writing and written, and repaired.
#![no_main]

use anydisk_vmdk::VMDK;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&VMDK, data.to_vec());
    anydisk_fuzz::write_and_read(&VMDK, data.to_vec());
    // Where two sets of tables differ, a repair decides which of them is read.
    let _ = anydisk_fuzz::repair(&VMDK, data.to_vec());
});
