//! A size that could not be changed.

use std::sync::Arc;

use anydisk_core::{Access, Preallocation};
use anydisk_storage::MemoryStorage;

use super::Fixture;
use super::crash::on_medium;
use super::rig::{Rig, assert_same, skipped};
use crate::Operation;
use crate::double::{FaultStorage, Kind};

/// What goes wrong while the size changes.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// This flush fails, though all is written, and those behind it.
    Flush(u64),
    /// The store is full when so many sectors more are written.
    Full(u64),
}

/// Of a change of the size that failed nobody knows whether the next opening finds it. Who goes on with the
/// disk is refused, or what was flushed is there then.
pub fn what_is_flushed_after_a_resize_that_failed_is_there(fixture: &dyn Fixture) {
    let (unit, step) = (fixture.unit(), fixture.granularity());
    let rig = Rig::new(fixture, 4 * unit);
    if rig.disk.top().resizer().is_none() {
        return skipped(fixture, "resizing");
    }
    let mut model = rig.model();
    let fill = Operation::Write { at: 0, len: model.size(), seed: 1 };
    rig.apply(&fill, &mut model).expect("a write to memory");
    let bytes = on_medium(rig);
    let far = if unit > 4096 { 12 } else { 300 };
    for size in [9 * unit + 1, unit, far * unit].map(|size| size.next_multiple_of(step)) {
        let flushes = (0..).map(Trouble::Flush);
        let sectors = (0..).map(|number: u32| Trouble::Full(sectors(number)));
        for troubles in [Box::new(flushes) as Box<dyn Iterator<Item = Trouble>>, Box::new(sectors)]
        {
            let failed = |trouble: &Trouble| fails_and_goes_on(fixture, &bytes, size, *trouble);
            let count = troubles.take(1000).take_while(failed).count();
            assert!(count < 1000, "it never has the size {size}");
        }
    }
}

/// Each of the first hundred, then ever fewer.
fn sectors(number: u32) -> u64 {
    let more = number.saturating_sub(100);
    u64::from(number) + u64::from(more) * u64::from(more)
}

/// False if nothing fails.
fn fails_and_goes_on(fixture: &dyn Fixture, bytes: &[u8], size: u64, trouble: Trouble) -> bool {
    let when = (size, trouble);
    let memory = Arc::new(MemoryStorage::new(bytes.to_vec()));
    let faults = FaultStorage::new(memory.clone());
    let rig = Rig::open(fixture, Arc::new(faults.clone()), Access::ReadWrite, None);
    let rig = rig.expect("it opens");
    match trouble {
        Trouble::Flush(number) => faults.fail_from(Kind::Flush, number),
        Trouble::Full(sectors) => faults.fill_up_after(512 * sectors),
    }
    if rig.disk.resize(size, Preallocation::Off).is_ok() {
        return false;
    }
    faults.heal();
    let now = rig.disk.size();
    let mut model = rig.model();
    let write = Operation::Write { at: 0, len: now, seed: 2 };
    let held = rig.apply(&write, &mut model).and_then(|()| rig.disk.flush()).is_ok();
    let after = MemoryStorage::new(memory.to_vec());
    let again = Rig::open(fixture, Arc::new(after), Access::ReadWrite, None)
        .unwrap_or_else(|error| panic!("{when:?}: opened again: {error}"));
    fixture.check(memory).unwrap_or_else(|damage| panic!("{when:?}: {damage}"));
    if held {
        let found = again.disk.size();
        assert!(found >= now, "{when:?}: {found} bytes, and {now} were written");
        let found = again.read(0, now).expect("it can be read");
        assert_same(&found, &model.read(0, now), 0, &when);
    }
    true
}
