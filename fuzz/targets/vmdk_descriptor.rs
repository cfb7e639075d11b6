//! A VMDK descriptor in a file of its own. Each file it names is there, and holds zeroes.
#![no_main]

use std::sync::Arc;

use anydisk_core::{Access, Located, Location, Reference, Resolver, Result};
use anydisk_storage::MemoryStorage;
use anydisk_vmdk::VMDK;
use libfuzzer_sys::fuzz_target;

/// Has every file.
#[derive(Debug)]
struct Zeroes;

impl Resolver for Zeroes {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        let location = Location::Other(reference.display_name());
        Ok(Located { store: Arc::new(MemoryStorage::new(vec![0; 64 << 10])), location })
    }
}

fuzz_target!(|data: &[u8]| anydisk_fuzz::explore_with(&VMDK, data.to_vec(), &Zeroes));
