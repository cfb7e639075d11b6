//! A physical volume: labels, lists of areas and metadata areas of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore_container(&anydisk_lvm2::LVM2, data.to_vec());
});
