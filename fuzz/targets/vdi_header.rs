//! The header of a VDI: any 472 bytes before a map of any numbers, and blocks.
#![no_main]

use anydisk_vdi::VDI;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (header, map) = data.split_at(data.len().min(472));
    let mut file = header.to_vec();
    file.resize(512, 0);
    // The signature is given, so that the rest is looked at.
    file[64..68].copy_from_slice(&[0x7F, 0x10, 0xDA, 0xBE]);
    file.extend_from_slice(map);
    file.resize(file.len().next_multiple_of(512).max(64 << 10), 0);
    anydisk_fuzz::explore(&VDI, file);
});
