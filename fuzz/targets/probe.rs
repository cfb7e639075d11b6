//! Recognising any bytes; what is recognised is opened.
#![no_main]

use anydisk_core::Sample;
use anydisk_fuzz::{explore, formats};
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let head = &data[..data.len().min(64 << 10)];
    let tail = &data[data.len().saturating_sub(4 << 10)..];
    let sample = Sample { head, tail, len: data.len() as u64 };
    let registry = formats();
    let (format, chosen) = registry.probe(&sample).expect("anything is raw");
    let store = MemoryStorage::new(data.to_vec());
    let (stored, stored_chosen) = registry.probe_store(&store).expect("anything is raw");
    assert_eq!((format.name(), chosen), (stored.name(), stored_chosen));
    explore(format, data.to_vec());
});
