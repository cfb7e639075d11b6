//! A store that fails.

use std::sync::Arc;

use anydisk_core::{Access, Error, Result};
use anydisk_storage::MemoryStorage;

use super::Fixture;
use super::rig::{Rig, assert_same, odd_size};
use crate::double::{FaultStorage, Kind};
use crate::{ByteModel, Operation};

/// Each call of a short life fails once, in turn: creation, writing, discarding, flushing, closing.
/// The operation that needed the call says so, the others do what they should, and the image can
/// be used and opened afterwards.
pub fn an_error_of_any_call_surfaces_and_leaves_the_image_usable(fixture: &dyn Fixture) {
    let mut number = 0;
    while live_with_failure_of(fixture, number) {
        number += 1;
        assert!(number < 100_000, "the calls do not end");
    }
    assert!(number > 3, "the life has only {number} calls");
}

fn life(unit: u64, size: u64) -> Vec<Operation> {
    vec![
        Operation::Write { at: unit - 1, len: unit + 2, seed: 1 },
        Operation::Read { at: 0, len: 3 * unit },
        Operation::Flush,
        Operation::Write { at: unit, len: 2, seed: 3 },
        Operation::Zero { at: 2 * unit, len: unit, unmap: true },
        Operation::Discard { at: 0, len: 2 * unit },
        Operation::Flush,
        Operation::Write { at: 0, len: size, seed: 5 },
        Operation::Zero { at: 1, len: unit, unmap: false },
        Operation::Flush,
        Operation::Read { at: 0, len: size },
    ]
}

/// Lives with the failure of one call. False if there was no such call.
fn live_with_failure_of(fixture: &dyn Fixture, number: u64) -> bool {
    let size = odd_size(fixture, 4);
    let memory = Arc::new(MemoryStorage::default());
    let faults = FaultStorage::new(memory.clone());
    faults.fail_call(number);
    let created = Rig::create(fixture, Arc::new(faults.clone()), size, None);
    let mut surfaced = created.is_err();
    if let Ok(rig) = created {
        surfaced |= Survivor { rig, faults: &faults, number }.live(&memory);
    }
    // What only helps may fail in silence: finding holes, zeroing or discarding without bytes.
    let matters = |kind: &Kind| {
        matches!(kind, Kind::Read | Kind::Write | Kind::SetLen | Kind::Flush | Kind::Len)
    };
    let failed = faults.failed_kinds();
    assert!(
        surfaced || !failed.iter().any(matters),
        "call {number}, {failed:?}, failed and nobody was told"
    );
    !failed.is_empty()
}

/// An image on a store that fails once.
struct Survivor<'f> {
    rig: Rig<'f>,
    faults: &'f FaultStorage,
    number: u64,
}

impl Survivor<'_> {
    /// Plays the life. True if an operation failed.
    fn live(self, memory: &Arc<MemoryStorage>) -> bool {
        let mut model = self.rig.model();
        let mut surfaced = false;
        let mut flush_failed = false;
        for operation in life(self.rig.fixture.unit(), self.rig.disk.size()) {
            if let Err(error) = self.rig.apply(&operation, &mut model) {
                surfaced = true;
                self.is_told(&operation, &error);
                flush_failed |= operation == Operation::Flush;
                self.take_part(&operation, &mut model);
            }
            surfaced |= self.holds(&model, &operation);
        }
        self.end(&model, memory, flush_failed, &mut surfaced);
        surfaced
    }

    /// Compares the whole disk with the model. True if the failure hit the comparison, which was
    /// then told and is made again.
    fn holds(&self, model: &ByteModel, operation: &Operation) -> bool {
        let (failed, when) = (self.faults.failed(), (self.number, operation));
        match self.rig.contents() {
            Ok(found) => {
                assert_same(&found, &model.contents(), 0, &when);
                false
            }
            Err(error) => {
                assert!(self.faults.failed() > failed, "{when:?}: {error}");
                self.rig.assert_holds(model, &when);
                true
            }
        }
    }

    /// The error is that of the store, not one that the image made of it.
    fn is_told(&self, operation: &Operation, error: &Error) {
        let number = self.number;
        let storage = matches!(error.kind(), Error::Storage(anydisk_storage::Error::Io(_)));
        assert!(storage, "call {number} failed and {operation:?} says {error}");
    }

    /// An operation that failed may have been done in part: each byte is old or new.
    fn take_part(&self, operation: &Operation, model: &mut ByteModel) {
        let Some((at, len)) = operation.range() else { return };
        let mut done = model.clone();
        done.apply(operation);
        if matches!(operation, Operation::Discard { .. }) {
            done.zero(at, len);
        }
        let (old, new) = (model.read(at, len), done.read(at, len));
        let found = self.rig.read(at, len).expect("it can be read after the failure");
        let wrong = (0..found.len()).find(|&i| found[i] != old[i] && found[i] != new[i]);
        assert_eq!(wrong, None, "{}: {operation:?} left other bytes", self.number);
        model.write(at, &found);
    }

    /// Flushes, closes, and opens again on a store that works.
    fn end(
        self,
        model: &ByteModel,
        memory: &Arc<MemoryStorage>,
        flush_failed: bool,
        surfaced: &mut bool,
    ) {
        let Self { rig, number, .. } = self;
        let mut flushed = rig.disk.flush();
        if flushed.is_err() && !flush_failed {
            *surfaced = true;
            flushed = rig.disk.flush();
        }
        let fixture = rig.fixture;
        drop(rig);
        let rig = Rig::open(fixture, memory.clone(), Access::ReadWrite, None)
            .unwrap_or_else(|error| panic!("after the failure of call {number}: {error}"));
        // After a flush that failed an image may refuse every further one, and then it promises
        // nothing but that it opens.
        match flushed {
            Ok(()) => rig.assert_holds(model, &(number, "opened again")),
            Err(_) => drop(rig.contents().expect("it can be read")),
        }
    }
}

/// On a full store writes fail as such, what is there stays, and with room again all goes on.
pub fn a_full_store_refuses_writes_and_keeps_what_is_there(fixture: &dyn Fixture) {
    let (size, unit) = (odd_size(fixture, 8), fixture.unit());
    for room in [0, 1, unit / 2, unit, unit + 1, 3 * unit] {
        let memory = Arc::new(MemoryStorage::default());
        let faults = FaultStorage::new(memory);
        let rig = Rig::create(fixture, Arc::new(faults.clone()), size, None);
        let rig = rig.expect("there is room at first");
        let mut model = rig.model();
        let apply = |operation: Operation, model: &mut ByteModel| -> Result<()> {
            let result = rig.apply(&operation, model);
            rig.assert_holds(model, &(room, operation));
            result
        };
        apply(Operation::Write { at: 0, len: 2 * unit, seed: 1 }, &mut model).expect("room");
        apply(Operation::Flush, &mut model).expect("there is room");
        faults.fill_up_after(room);
        fill(&rig, &mut model, room);
        faults.heal();
        apply(Operation::Write { at: 0, len: size, seed: 7 }, &mut model).expect("room again");
        let rig = rig.reopen().expect("it opens again");
        rig.assert_holds(&model, &(room, "opened again"));
    }
}

/// Writes unit after unit and flushes until the store is full.
fn fill(rig: &Rig<'_>, model: &mut ByteModel, room: u64) {
    let unit = rig.fixture.unit();
    let full = (2..8).find_map(|number| {
        let at = number * unit;
        let write = Operation::Write { at, len: unit, seed: 3 };
        let error = rig.apply(&write, model).and_then(|()| rig.disk.flush()).err()?;
        // The unit may have been written in part, and what it holds now is what it shall keep.
        model.write(at, &rig.read(at, unit).expect("it can be read"));
        Some(error)
    });
    let error = full.unwrap_or_else(|| panic!("{room} bytes were room for six units"));
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull), "{error}");
    rig.assert_holds(model, &(room, "full"));
}
