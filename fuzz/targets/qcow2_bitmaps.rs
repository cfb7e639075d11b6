//! The bitmap directory: any bytes give bitmaps or an error; and any directory below a good header
//! gives ranges that rise and lie on the disk, or errors.
#![no_main]

use std::sync::Arc;

use anydisk_core::{GuestOffset, HostOffset, Image, Limits};
use anydisk_qcow2::{Compression, Extension, Header, Qcow2Image, read_bitmap_directory};
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

const CLUSTER: usize = 4096;
const SIZE: u64 = 1 << 20;
/// Ranges that one bitmap is asked for.
const RANGES: usize = 1000;

fuzz_target!(|data: &[u8]| {
    let _ = read_bitmap_directory(data, HostOffset(0), 3, 12);
    let Some((count, directory)) = data.split_first() else { return };
    let Some(file) = file(u32::from(count % 4), directory) else { return };
    let store = Arc::new(MemoryStorage::new(file));
    let Ok(image) = Qcow2Image::open(store, &Limits::strict()) else { return };
    let Some(bitmaps) = image.bitmaps() else { return };
    for bitmap in bitmaps.list().expect("a list in memory") {
        let Ok(mut changes) = bitmaps.changes(&bitmap.name) else { continue };
        let mut from = GuestOffset(0);
        for _ in 0..RANGES {
            let Ok(Some(range)) = changes.next(from) else { break };
            assert!(range.start() >= from && !range.is_empty() && range.end().get() <= SIZE);
            from = range.end();
        }
    }
});

/// header | refcount table | L1 table | directory, and tables and bits wherever it says.
fn file(count: u32, directory: &[u8]) -> Option<Vec<u8>> {
    let place = [
        &count.to_be_bytes()[..],
        &[0; 4],
        &(directory.len() as u64).to_be_bytes(),
        &(3 * CLUSTER as u64).to_be_bytes(),
    ];
    let header = Header {
        version: 3,
        cluster_bits: 12,
        size: SIZE,
        crypt_method: 0,
        l1_size: 1,
        l1_table_offset: HostOffset(2 * CLUSTER as u64),
        refcount_table_offset: HostOffset(CLUSTER as u64),
        refcount_table_clusters: 1,
        nb_snapshots: 0,
        snapshots_offset: HostOffset(0),
        incompatible_features: 0,
        compatible_features: 0,
        autoclear_features: 1,
        refcount_order: 4,
        compression: Compression::Deflate,
        unknown_fields: Vec::new(),
        extensions: vec![Extension { kind: 0x2385_2875, data: place.concat() }],
        backing_file: None,
    };
    let mut file = header.to_bytes().ok()?;
    file.resize(3 * CLUSTER, 0);
    file.extend_from_slice(directory);
    Some(file)
}
