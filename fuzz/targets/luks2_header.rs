//! The JSON of LUKS2: any text, under a good checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

const SIZE: usize = 16 << 10;

fn copy(at: usize, magic: &[u8; 6], json: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    bytes[..6].copy_from_slice(magic);
    bytes[7] = 2;
    bytes[8..16].copy_from_slice(&(SIZE as u64).to_be_bytes());
    bytes[72..78].copy_from_slice(b"sha256");
    bytes[256..264].copy_from_slice(&(at as u64).to_be_bytes());
    bytes[4096..4096 + json.len()].copy_from_slice(json);
    let sum = Sha256::digest(&bytes);
    bytes[448..480].copy_from_slice(&sum);
    bytes
}

fuzz_target!(|data: &[u8]| {
    let json = &data[..data.len().min(SIZE - 4097)];
    let mut file = copy(0, b"LUKS\xba\xbe", json);
    file.extend(copy(SIZE, b"SKUL\xba\xbe", json));
    file.resize(256 << 10, 0x5A);
    anydisk_fuzz::explore_luks(file);
});
