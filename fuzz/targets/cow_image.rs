//! A whole cow image: any header before any bitmap; read, written and repaired. The first byte chooses one of the versions, so
//! that the magic need not be found.
#![no_main]

use anydisk_cow::COW;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let start: &[u8] = match choice % 5 {
        0 => &[],
        1 => b"OOOM\0\0\0\x01",
        2 => b"MOOO\x01\0\0\0",
        3 => b"OOOM\0\0\0\x02",
        _ => b"OOOM\0\0\0\x03",
    };
    let mut file = [start, rest].concat();
    // Long enough for any header.
    file.resize(file.len().max(8 << 10), 0);
    anydisk_fuzz::explore(&COW, file.clone());
    anydisk_fuzz::write_and_read(&COW, file.clone());
    anydisk_fuzz::check_and_repair(&COW, file);
});
