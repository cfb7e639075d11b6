//! The stores of a classic snapshot and of a write cache: any bytes.
#![no_main]

use anydisk_testkit::lvm::{device, linear, text, volume};
use libfuzzer_sys::fuzz_target;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fuzz_target!(|data: &[u8]| {
    let mut extents = data[..data.len().min(128 << 10)].to_vec();
    extents.resize(4 << 16, 7);
    let tie = "type = \"snapshot\" chunk_size = 8 origin = \"o\" cow_store = \"s\"";
    let cache = "type = \"writecache\" origin = \"o\" writecache = \"s\"";
    let volumes = linear("s", 2, "pv0", 0)
        + &linear("o", 2, "pv0", 2)
        + &volume("snapshot0", 2, tie)
        + &volume("w", 2, cache);
    let disk = device(ID, &text(&[ID], 1, &volumes), &extents);
    anydisk_fuzz::explore_container(&anydisk_lvm2::LVM2, disk);
});
