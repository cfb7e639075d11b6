//! A long write that is cut off.

use std::sync::Arc;

use anydisk_core::{Disk, GuestOffset};
use anydisk_storage::Storage;

use crate::double::{FaultStorage, Kind};

const MIB: u64 = 1 << 20;

/// MiB that are written: more than a crash may leave without a name where nothing is named yet.
const WRITTEN: u64 = 24;

/// Calls that are made to fail, one after the other, until none is left.
const MOST: u64 = 400;

/// Power, or the process, may go at any moment of a first long write that nobody flushes until all is
/// written. `open` opens a new image in the store it is given, `examine` what was left there, told how
/// much was written before.
///
/// # Panics
/// If all is never written.
pub fn kill_first_write(
    make: impl Fn() -> Arc<dyn Storage>,
    open: impl Fn(Arc<dyn Storage>) -> Disk,
    from: u64,
    examine: impl Fn(Arc<dyn Storage>, &str),
) {
    let data = vec![7; 1 << 20];
    for number in 0..MOST {
        let store = make();
        let faults = FaultStorage::new(Arc::clone(&store));
        // Of the write that fails the first half is done.
        faults.fail_from(Kind::Write, number);
        let disk = open(Arc::new(faults));
        let mut written = 0;
        while written < WRITTEN && disk.write(GuestOffset(from + written * MIB), &data).is_ok() {
            written += 1;
        }
        let is_whole = disk.flush().is_ok() && written == WRITTEN;
        drop(disk);
        examine(store, &format!("killed at write {number}, of {written} MiB"));
        if is_whole {
            return;
        }
    }
    panic!("it was never written as a whole");
}
