//! A VHDX made of a header, a region table and the rest, with checksums that are right, read,
//! written, and repaired.
#![no_main]

use anydisk_fuzz::{check_and_repair, explore, write_and_read};
use anydisk_vhdx::VHDX;
use libfuzzer_sys::fuzz_target;

const MIB: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let (header, data) = data.split_at(data.len().min(80));
    let (regions, data) = data.split_at(data.len().min(112));
    let mut file = vec![0; 6 * MIB];
    file[..8].copy_from_slice(b"vhdxfile");
    put(&mut file, 64 << 10, header);
    put(&mut file, 192 << 10, regions);
    // The rest is cut into pieces for log, table, metadata table and items.
    let piece = data.len().div_ceil(4).max(1);
    let places = [MIB, 2 * MIB, 3 * MIB, 3 * MIB + (64 << 10)];
    data.chunks(piece).zip(places).for_each(|(part, at)| put(&mut file, at, part));
    seal(&mut file[64 << 10..][..4096], b"head");
    seal(&mut file[192 << 10..][..64 << 10], b"regi");
    explore(&VHDX, file.clone());
    write_and_read(&VHDX, file.clone());
    check_and_repair(&VHDX, file);
});

fn put(file: &mut [u8], at: usize, part: &[u8]) {
    let len = part.len().min(64 << 10);
    file[at..at + len].copy_from_slice(&part[..len]);
}

/// Signature and checksum of a structure.
fn seal(bytes: &mut [u8], signature: &[u8; 4]) {
    bytes[..4].copy_from_slice(signature);
    bytes[4..8].fill(0);
    let sum = !anydisk_testkit::digest::crc(bytes, u32::MAX, 0x82F6_3B78);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}
