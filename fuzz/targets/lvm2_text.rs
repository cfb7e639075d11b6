//! The text of a volume group: any text, under a good checksum, over a disk of numbered extents.
#![no_main]

use libfuzzer_sys::fuzz_target;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(&data[..data.len().min(64 << 10)]);
    let extents: Vec<u8> = (0..16_u8).flat_map(|number| [number; 4096]).collect();
    let disk = anydisk_testkit::lvm::device(ID, &text, &extents);
    anydisk_fuzz::explore_container(&anydisk_lvm2::LVM2, disk);
});
