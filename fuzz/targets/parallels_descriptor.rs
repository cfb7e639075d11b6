//! The descriptor of a bundle: any text, with an empty file for each name in it.
#![no_main]

use std::sync::Arc;

use anydisk_core::{Format, Limits, Location, OnlyNames, OpenRequest};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The root is given, so that the rest is looked at.
    let mut text = b"<Parallels_disk_image>".to_vec();
    text.extend(data.strip_prefix(b"<Parallels_disk_image>").unwrap_or(data));
    let store = Arc::new(MemoryStorage::new(text));
    let (location, limits) = (Location::Other("DiskDescriptor.xml".into()), Limits::strict());
    let names = OnlyNames::default();
    let request = OpenRequest { resolver: &names, ..OpenRequest::new(store, &location, &limits) };
    let _ = PARALLELS.open(request.clone());
    let _ = PARALLELS.references(&request);
});
