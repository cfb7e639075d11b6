//! What is refused.

use std::sync::Arc;

use anydisk_core::{Access, Error, GuestOffset};

use super::Fixture;
use super::rig::{Rig, noise, odd_size, range};
use crate::double::{Kind, RecordingStorage};

/// Reading, writing, mapping, zeroing and discarding past the end is refused as what it is.
pub fn a_range_that_is_not_on_the_disk_is_refused_and_nothing_changes(fixture: &dyn Fixture) {
    let rig = Rig::new(fixture, odd_size(fixture, 2));
    let size = rig.disk.size();
    rig.write(0, &noise(1, size));
    let before = rig.contents().expect("a read from memory");
    for at in [size - 1, size, size + 1, u64::MAX - 1, u64::MAX] {
        let mut two = [1; 2];
        refused(rig.disk.read(GuestOffset(at), &mut two));
        refused(rig.disk.write(GuestOffset(at), &two));
        if at < u64::MAX - 1 {
            refused(rig.disk.map(range(at, 2)).map(drop));
            refused(rig.disk.zero(range(at, 2), true));
            refused(rig.disk.discard(range(at, 2)));
        }
    }
    assert!(rig.contents().expect("a read from memory") == before, "bytes changed");
}

fn refused(result: anydisk_core::Result<()>) {
    let error = result.expect_err("the range reaches past the end");
    assert!(matches!(error.kind(), Error::OutOfRange { .. }), "{error}");
}

/// An image that was opened for reading is not changed, not even a flag in its header.
pub fn an_image_opened_for_reading_refuses_to_change_and_writes_nothing(fixture: &dyn Fixture) {
    let rig = Rig::new(fixture, odd_size(fixture, 2));
    let size = rig.disk.size();
    rig.write(0, &noise(1, size));
    rig.disk.flush().expect("a flush in memory");
    let Rig { store, disk, .. } = rig;
    drop(disk);
    let recording = RecordingStorage::new(store);
    let rig = Rig::open(fixture, Arc::new(recording.clone()), Access::Read, None);
    let rig = rig.expect("it opens for reading");
    assert!(!rig.disk.is_writable());
    read_only(rig.disk.write(GuestOffset(0), &[1]));
    read_only(rig.disk.zero(range(0, 1), true));
    read_only(rig.disk.discard(range(0, 1)));
    assert!(rig.disk.top().resizer().is_none(), "its size can be changed");
    rig.contents().expect("it can be read");
    rig.disk.flush().expect("there is nothing to flush");
    drop(rig);
    let changes: Vec<_> = recording.take().into_iter().filter(|call| changes(call.kind)).collect();
    assert!(changes.is_empty(), "the store was changed: {changes:?}");
}

fn read_only(result: anydisk_core::Result<()>) {
    let error = result.expect_err("it was opened for reading");
    assert!(matches!(error.kind(), Error::ReadOnly { .. }), "{error}");
}

fn changes(kind: Kind) -> bool {
    !matches!(kind, Kind::Len | Kind::Read | Kind::Holes | Kind::Flush)
}

/// Empty ranges are fine up to the end of the disk, and change nothing.
pub fn nothing_at_all_may_be_read_and_written_everywhere(fixture: &dyn Fixture) {
    let rig = Rig::new(fixture, odd_size(fixture, 2));
    let size = rig.disk.size();
    rig.write(0, &noise(1, size));
    let before = rig.contents().expect("a read from memory");
    for at in [0, 1, fixture.unit(), size] {
        rig.disk.read(GuestOffset(at), &mut []).expect("nothing can be read");
        rig.disk.write(GuestOffset(at), &[]).expect("nothing can be written");
        rig.disk.zero(range(at, 0), true).expect("nothing can be zeroed");
        rig.disk.discard(range(at, 0)).expect("nothing can be discarded");
    }
    assert!(rig.contents().expect("a read from memory") == before, "bytes changed");
}
