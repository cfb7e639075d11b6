//! Redo logs of ESX and seSparse extents: any header, directory and table behind the magic.
#![no_main]

use anydisk_vmdk::VMDK;
use libfuzzer_sys::fuzz_target;

const MAGICS: [&[u8]; 2] = [b"COWD", b"\xBE\xBA\xFE\xCA\0\0\0\0"];

fuzz_target!(|data: &[u8]| {
    for magic in MAGICS {
        let mut bytes = data.to_vec();
        if let Some(start) = bytes.get_mut(..magic.len()) {
            start.copy_from_slice(magic);
            anydisk_fuzz::explore(&VMDK, bytes);
        }
    }
});
