//! A partition table: the first sectors of a disk of any bytes, under good checksums where a GPT
//! would have them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut disk = data[..data.len().min(64 << 10)].to_vec();
    disk.resize(disk.len().max(4096).next_multiple_of(512), 0);
    seal(&mut disk);
    anydisk_fuzz::explore_container(&anydisk_partition::PARTITIONS, disk);
});

/// Puts the right checksums into the header in sector 1.
fn seal(disk: &mut [u8]) {
    let number = |disk: &[u8], at: usize| {
        let bytes = disk[512 + at..].first_chunk().copied().unwrap_or_default();
        u32::from_le_bytes(bytes) as usize
    };
    let (lba, count, size) = (number(disk, 72), number(disk, 80), number(disk, 84));
    let start = lba.saturating_mul(512);
    let end = start.saturating_add(count.saturating_mul(size));
    if let Some(entries) = disk.get(start..end) {
        let sum = anydisk_testkit::digest::crc32(entries);
        disk[512 + 88..512 + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let len = number(disk, 12).min(512);
    disk[528..532].fill(0);
    let sum = anydisk_testkit::digest::crc32(&disk[512..512 + len]);
    disk[528..532].copy_from_slice(&sum.to_le_bytes());
}
