//! A package: an archive of any bytes, in which headers have the checksums that they need.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut archive = data[..data.len().min(256 << 10)].to_vec();
    for block in archive.chunks_exact_mut(512) {
        // What says that it is ustar is taken for a header.
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    anydisk_fuzz::explore_container(&anydisk_ovf::OVF, archive);
});
