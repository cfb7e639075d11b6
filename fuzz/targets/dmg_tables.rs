//! Tables of an Apple disk image without the rest of it: a property list, a resource fork, or one table
//! as it is, before a trailer that is good.
#![no_main]

use anydisk_core::{HostOffset, Limits};
use anydisk_dmg::{ChunkMap, DMG, Frame, Table};
use libfuzzer_sys::fuzz_target;

/// Sectors of the disk.
const SECTORS: u64 = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((kind, tables)) = data.split_first() else { return };
    match kind % 3 {
        0 => anydisk_fuzz::explore(&DMG, image(tables, 216)),
        1 => anydisk_fuzz::explore(&DMG, image(tables, 40)),
        _ => table(tables),
    }
});

/// An image with its tables at the place whose offset and length stand at `field` of the trailer.
fn image(tables: &[u8], field: usize) -> Vec<u8> {
    let mut trailer = [0; 512];
    trailer[..12].copy_from_slice(b"koly\0\0\0\x04\0\0\x02\0");
    trailer[field + 8..field + 16].copy_from_slice(&(tables.len() as u64).to_be_bytes());
    trailer[492..500].copy_from_slice(&SECTORS.to_be_bytes());
    [tables, &trailer].concat()
}

fn table(bytes: &[u8]) {
    let limits = Limits::strict();
    let frame = Frame {
        data_fork: HostOffset(0),
        file_len: 1 << 20,
        sectors: Some(SECTORS),
        limits: &limits,
    };
    let Ok(table) = Table::parse(bytes, HostOffset(0), &frame) else { return };
    assert!(table.chunks.iter().all(|chunk| chunk.count > 0));
    let _ = ChunkMap::of(&[table]);
}
