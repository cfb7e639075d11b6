//! A whole VMDK in one file, opened and read.
#![no_main]

use anydisk_vmdk::VMDK;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| anydisk_fuzz::explore(&VMDK, data.to_vec()));
