//! Any bytes, inspected as a stranger's image: nothing is opened, and it ends soon.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use anydisk::inspect::{Judgement, Rules};
use anydisk::{Located, Location, OpenDisk};
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let store = Arc::new(MemoryStorage::new(data.to_vec()));
    let file = Located { store, location: Location::Other("input".into()) };
    let mut rules = Rules::default();
    rules.time = Duration::from_secs(1);
    let inspection = OpenDisk::untrusted().inspect_located(&file, &rules).expect("memory");
    assert!(inspection.findings.len() <= rules.findings);
    // What needs other files, or does not open, is not taken.
    if !inspection.references.is_empty() || inspection.size.is_none() {
        assert_eq!(inspection.verdict(), Judgement::Refuse);
    }
});
