//! The metadata of a thin pool: blocks of any bytes, under good checksums.
#![no_main]

use anydisk_core::{Container, ContainerRequest, GuestOffset, Limits, Located, Location};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::lvm::{block_checksum, device, linear, text, volume};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fuzz_target!(|data: &[u8]| {
    let mut extents = data[..data.len().min(64 << 10)].to_vec();
    extents.resize(64 << 10, 0);
    for (number, block) in extents.chunks_exact_mut(4096).enumerate() {
        block[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        if number == 0 {
            block[32..40].copy_from_slice(&27_022_010_u64.to_le_bytes());
            block[336..340].copy_from_slice(&128_u32.to_le_bytes());
        }
        let sum = block_checksum(&block[4..], if number == 0 { 160_774 } else { 121_107 });
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }
    extents.resize(5 << 16, 7);
    let pool = "type = \"thin-pool\" metadata = \"m\" pool = \"d\" chunk_size = 128";
    let thin = |device| format!("type = \"thin\" thin_pool = \"p\" device_id = {device}");
    let volumes = linear("m", 1, "pv0", 0)
        + &linear("d", 4, "pv0", 1)
        + &volume("p", 4, pool)
        + &volume("t", 64, &thin(1))
        + &volume("u", 64, &thin(2));
    let disk = device(ID, &text(&[ID], 1, &volumes), &extents);
    anydisk_fuzz::explore_container(&anydisk_lvm2::LVM2, disk.clone());
    let stores = [Located {
        store: Arc::new(MemoryStorage::new(disk)),
        location: Location::Other("input".into()),
    }];
    let limits = Limits::strict();
    let groups = anydisk_lvm2::LVM2.open(ContainerRequest { stores: &stores, limits: &limits });
    let groups = groups.expect("the text is good");
    let Ok(mut changes) = groups.changes("vg/t", "vg/u") else { return };
    let mut at = GuestOffset::ZERO;
    while let Ok(Some(range)) = changes.next(at) {
        assert!(range.start() >= at && !range.is_empty() && range.end().get() <= 64 << 16);
        at = range.end();
    }
});
