//! What a repair may not do, whenever power fails during it: show data of one place in another.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Disk, Format, GuestOffset, Limits, Location, OpenRequest, Repair, Storage,
};
use anydisk_storage::MemoryStorage;

use crate::double::CrashStorage;

/// States of the medium that are looked at.
const STATES: usize = 80;

/// Repairs `damaged`, an image of one file, and looks at its disk in units of `unit` bytes, in the end and
/// in the states that a power failure during the repair may leave: what could be read is the same, and what
/// could not be read is zero or still refused. Returns how many corruptions are left.
///
/// # Panics
/// If it is not so, or if the image does not open.
pub fn shows_nothing_elsewhere(format: &dyn Format, damaged: &[u8], unit: u64) -> u64 {
    let before = units(format, Arc::new(MemoryStorage::new(damaged.to_vec())), unit);
    let before = before.expect("the damaged image opens for reading");
    assert!(before.iter().any(Option::is_some), "nothing of the disk can be read");
    let crash = CrashStorage::over(damaged.to_vec());
    let left = repair(format, Arc::new(crash.clone()));
    for state in crash.torn_states(STATES, 1) {
        let store = state.storage();
        compare(&before, units(format, store.clone(), unit), &format!("{state}"));
        // What the next repair makes of it.
        repair(format, store.clone());
        compare(&before, units(format, store, unit), &format!("repaired {state}"));
    }
    repair(format, Arc::new(crash.clone()));
    compare(&before, units(format, Arc::new(crash), unit), "repaired twice");
    left
}

type Units = Vec<Option<Vec<u8>>>;

/// Where the image opens at all, each unit is as it was, or was not to be read and is zero.
fn compare(before: &Units, after: Option<Units>, state: &str) {
    let Some(after) = after else { return };
    for (number, pair) in before.iter().zip(&after).enumerate() {
        match pair {
            (Some(old), new) => {
                assert!(new.as_ref() == Some(old), "unit {number} is lost: {state}")
            }
            (None, Some(new)) => {
                assert!(
                    new.iter().all(|byte| *byte == 0),
                    "unit {number} shows something: {state}"
                );
            }
            (None, None) => {}
        }
    }
}

fn units(format: &dyn Format, store: Arc<dyn Storage>, unit: u64) -> Option<Units> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let disk = Disk::new(format.open(OpenRequest::new(store, &here, &limits)).ok()?.image);
    let read = |number: u64| {
        let at = number * unit;
        let mut bytes = vec![0; usize::try_from(unit.min(disk.size() - at)).expect("small")];
        disk.read(GuestOffset(at), &mut bytes).ok().map(|()| bytes)
    };
    Some((0..disk.size().div_ceil(unit)).map(read).collect())
}

fn repair(format: &dyn Format, store: Arc<dyn Storage>) -> u64 {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut open = OpenRequest::new(store, &here, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(Repair::All);
    let report = format.check(&request, &mut |_| {});
    report.expect("it can be checked").corruptions
}
