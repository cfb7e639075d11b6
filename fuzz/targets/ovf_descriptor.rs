//! The descriptor of a package: any text, without files beside it.
#![no_main]

use std::sync::Arc;

use anydisk_core::{Limits, Located, Location};
use anydisk_ovf::Package;
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let store = Arc::new(MemoryStorage::new(data[..data.len().min(64 << 10)].to_vec()));
    let descriptor = Located { store, location: Location::Other("a.ovf".into()) };
    let _ = Package::open_folder(&descriptor, &[], &Limits::strict());
});
