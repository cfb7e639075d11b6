//! A whole qcow2 image, checked, repaired, and checked again.
#![no_main]

use std::sync::Arc;

use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Format, GuestOffset, Limits, Location, OpenRequest,
    Repair, Result, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

/// Sectors whose content is compared.
const SECTORS: u64 = 64;

fn check(store: &Arc<dyn Storage>, repair: Repair) -> Result<CheckReport> {
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
    open.access = Access::ReadWrite;
    QCOW2.check(&CheckRequest::new(open).repairing(repair), &mut |found| {
        assert!(!found.text.is_empty());
    })
}

/// What sectors spread over the disk hold, where they can be read.
fn contents(store: &Arc<dyn Storage>) -> Option<Vec<Option<[u8; 512]>>> {
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let opened = QCOW2.open(OpenRequest::new(Arc::clone(store), &location, &limits)).ok()?;
    let disk = Disk::new(opened.image);
    let step = (disk.size() / SECTORS / 512).max(1) * 512;
    let sector = |at: u64| {
        let mut bytes = [0; 512];
        disk.read(GuestOffset(at), &mut bytes).ok().map(|()| bytes)
    };
    Some(
        (0..disk.size() / 512 * 512).step_by(step.try_into().ok()?).take(128).map(sector).collect(),
    )
}

fuzz_target!(|data: &[u8]| {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(data.to_vec()));
    let Ok(found) = check(&store, Repair::Nothing) else { return };
    let before = contents(&store);
    let Ok(repaired) = check(&store, Repair::All) else { return };
    let again = check(&store, Repair::Nothing).expect("it could be checked before");
    let counts = |report: &CheckReport| (report.corruptions, report.leaks, report.check_errors);
    assert_eq!(counts(&again), counts(&repaired));
    assert!(again.is_clean() || !found.is_clean());
    if let (Some(before), Some(after)) = (before, contents(&store)) {
        let kept = before.iter().zip(&after).all(|(old, new)| old.is_none() || old == new);
        assert!(kept && before.len() == after.len(), "a repair changed what the disk holds");
    }
});
