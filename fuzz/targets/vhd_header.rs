//! Footer and header of a VHD with checksums that are right, before a table of any numbers.
#![no_main]

use anydisk_vhd::VHD;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (head, table) = data.split_at(data.len().min(1536));
    let mut file = head.to_vec();
    file.resize(1536, 0);
    // The cookies are given, so that the rest is looked at.
    file[..8].copy_from_slice(b"conectix");
    file[512..520].copy_from_slice(b"cxsparse");
    sum(&mut file[..512], 64);
    sum(&mut file[512..], 36);
    file.extend_from_slice(table);
    file.resize(file.len().next_multiple_of(512).max(64 << 10), 0);
    file.extend_from_within(..512);
    anydisk_fuzz::explore(&VHD, file);
});

/// Puts the sum of all bytes at `at`.
fn sum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = !bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}
