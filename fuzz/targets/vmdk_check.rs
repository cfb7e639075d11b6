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
        let mut entangled = false;
        let mut unmended = false;
        let report = VMDK.check(&CheckRequest::new(request).repairing(repair), &mut |finding| {
            // Or the size is in doubt, and entries behind it are kept.
            entangled |= matches!(finding.kind, "metadata-overlap" | "extent-size");
            unmended |= matches!(finding.kind, "table-entry" | "directory-entry" | "copies-differ");
        });
        report.map(|_| unmended && !entangled)
    };
    // What is copied is so by a run that finds no entry that could name the copy.
    let repaired = || check(Repair::All).is_ok() && check(Repair::All).is_ok();
    if check(Repair::Nothing).is_ok() && repaired() {
        let left = check(Repair::Nothing).expect("a repaired image can be checked");
        assert!(!left, "a repair left what it can mend");
    }
});
