//! A VMDK in one file, checked, repaired and checked again: directories and tables as a stranger has
//! them. What a repair says it can mend is mended.
#![no_main]

use std::sync::Arc;

use anydisk_core::{Access, CheckRequest, Format, Limits, Location, OpenRequest, Repair};
use anydisk_storage::MemoryStorage;
use anydisk_vmdk::VMDK;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let store = Arc::new(MemoryStorage::new(data.to_vec()));
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let check = |repair: Repair| {
        let access = if repair == Repair::Nothing { Access::Read } else { Access::ReadWrite };
        let request = OpenRequest { access, ..OpenRequest::new(store.clone(), &location, &limits) };
        let mut unmended = false;
        let report = VMDK.check(&CheckRequest::new(request).repairing(repair), &mut |finding| {
            let is_space = matches!(finding.kind, "leak" | "unnamed");
            unmended |= finding.remedy.is_some() && !is_space;
        });
        report.map(|_| unmended)
    };
    // Entries are emptied, a cut grain is filled up, copies are appended: each in a run of its own, and what
    // one has proven lets the next one mend more.
    let repaired = || (0..8).all(|_| check(Repair::All).is_ok());
    if check(Repair::Nothing).is_ok() && repaired() {
        let left = check(Repair::Nothing).expect("a repaired image can be checked");
        assert!(!left, "a repair left what it can mend");
    }
});
