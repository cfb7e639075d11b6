//! Power failures.

use std::sync::Arc;

use anydisk_core::{Access, Preallocation, Storage};

use super::Fixture;
use super::rig::{Rig, noise, odd_size, skipped};
use crate::double::{CrashState, CrashStorage};
use crate::{Aim, ByteModel, Operation, Random};

/// All subsets of up to twelve changes.
const ALL_OF_TWELVE: usize = 1 << 12;

/// States of a longer stretch that are looked at.
const SOME: usize = 200;

/// Every so many states the image is also written, as its owner would go on doing.
const WRITTEN: usize = 7;

/// A history on a store that may lose power, and what the disk held after each operation.
struct Lived<'f> {
    fixture: &'f dyn Fixture,
    crash: CrashStorage,
    base: Option<Vec<u8>>,
    operations: Vec<Operation>,
    /// Before the first operation, after it, after the second, ...
    contents: Vec<Vec<u8>>,
}

impl<'f> Lived<'f> {
    /// Plays the operations on a new image that is safely on the medium.
    fn through(fixture: &'f dyn Fixture, base: Option<Vec<u8>>, operations: &[Operation]) -> Self {
        let rig = new_image(fixture, base);
        let base = rig.base.clone();
        let crash = on_media(fixture, on_medium(rig));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let rig = Rig::open(fixture, store, Access::ReadWrite, base.clone());
        let rig = rig.expect("it opens again");
        let mut model = rig.model();
        let mut contents = vec![model.contents()];
        for operation in operations {
            rig.apply(operation, &mut model).expect("an operation in memory");
            rig.assert_holds(&model, operation);
            contents.push(model.contents());
            crash.mark();
        }
        Self { fixture, crash, base, operations: operations.to_vec(), contents }
    }

    fn check(&self, states: impl Iterator<Item = CrashState>) {
        let mut count = 0;
        for state in states {
            self.check_state(&state, count % WRITTEN == 0);
            count += 1;
        }
        assert!(count > 1, "there was nothing to lose");
    }

    fn check_state(&self, state: &CrashState, write: bool) {
        let store: Arc<dyn Storage> = state.storage();
        let context = |what: &str| format!("{what}\n{:#?}\n{state}", self.operations);
        let open = |store| Rig::open(self.fixture, store, Access::ReadWrite, self.base.clone());
        let rig = open(store).unwrap_or_else(|e| panic!("{}", context(&format!("open: {e}"))));
        let found = rig.contents();
        let found = found.unwrap_or_else(|e| panic!("{}", context(&format!("read: {e}"))));
        if let Err(what) = self.allows(state.marks(), &found) {
            panic!("{}", context(&what));
        }
        if write {
            self.still_works(rig, found).unwrap_or_else(|what| panic!("{}", context(&what)));
        }
        let damage = self.fixture.check(state.storage());
        damage.unwrap_or_else(|damage| panic!("{}", context(&damage)));
    }

    /// Whether each byte is one that the disk held at the last flush that was acknowledged or at
    /// any moment since.
    fn allows(&self, done: usize, found: &[u8]) -> Result<(), String> {
        let flush = self.operations[..done].iter().rposition(|op| *op == Operation::Flush);
        let first = flush.map_or(0, |index| index + 1);
        // The operation that was being done when the power went may have been done in part.
        let last = (done + 1).min(self.operations.len());
        let since = &self.contents[first..=last];
        if since.iter().any(|contents| contents == found) {
            return Ok(());
        }
        let wrong = (0..found.len()).find(|&at| {
            let was = || since.iter().map(move |contents| contents[at]);
            !was().any(|byte| byte == found[at]) && !self.discarded(first, last, at, found[at])
        });
        match wrong {
            None => Ok(()),
            Some(at) => Err(format!(
                "after {done} operations the byte at {at:#x} is {:#x}, not one of {:x?}",
                found[at],
                since.iter().map(|contents| contents[at]).collect::<Vec<_>>()
            )),
        }
    }

    /// Whether the byte is zero because it was discarded since. What a discard left at the time is
    /// not what it may leave in the end.
    fn discarded(&self, first: usize, last: usize, at: usize, byte: u8) -> bool {
        let at = at as u64;
        let discards = |operation: &Operation| match operation {
            Operation::Discard { at: start, len } => (*start..*start + *len).contains(&at),
            _ => false,
        };
        byte == 0 && self.operations[first.min(last)..last].iter().any(discards)
    }

    /// Whether the image that the crash left can be used as if nothing had happened.
    fn still_works(&self, rig: Rig<'_>, found: Vec<u8>) -> Result<(), String> {
        let mut model = ByteModel::of(&found, rig.disk.size());
        let unit = self.fixture.unit();
        let operations = [
            Operation::Write { at: unit - 1, len: unit + 2, seed: 77 },
            Operation::Discard { at: 0, len: unit },
            Operation::Flush,
            Operation::Write { at: 0, len: model.size(), seed: 79 },
        ];
        for operation in operations {
            rig.apply(&operation, &mut model).map_err(|e| format!("then {operation:?}: {e}"))?;
            rig.assert_holds(&model, &("after the crash", operation));
        }
        let rig = rig.reopen().map_err(|error| format!("then opened again: {error}"))?;
        rig.assert_holds(&model, &"after the crash, written and opened again");
        Ok(())
    }
}

fn new_image(fixture: &dyn Fixture, base: Option<Vec<u8>>) -> Rig<'_> {
    Rig::over(fixture, odd_size(fixture, 6), base)
}

/// Of several media each is flushed by itself, so there are as many stretches more: fewer states of
/// each do.
fn states(fixture: &dyn Fixture, of_one: usize) -> usize {
    if fixture.medium().is_some() { of_one / 8 } else { of_one }
}

/// A store with these bytes that may lose power, of one medium or of several.
pub(super) fn on_media(fixture: &dyn Fixture, bytes: Vec<u8>) -> CrashStorage {
    let crash = CrashStorage::over(bytes);
    match fixture.medium() {
        Some(len) => crash.with_media(len),
        None => crash,
    }
}

/// Flushes and closes the image, and gives its bytes.
pub(super) fn on_medium(rig: Rig<'_>) -> Vec<u8> {
    rig.disk.flush().expect("a flush in memory");
    let Rig { store, disk, .. } = rig;
    drop(disk);
    let len = store.len().expect("memory has a length");
    let mut bytes = vec![0; usize::try_from(len).expect("it fits in memory")];
    store.read_at(anydisk_core::HostOffset::ZERO, &mut bytes).expect("a read from memory");
    bytes
}

/// An image whose first flush was acknowledged opens and reads as zero; before that it may be
/// anything, but nothing panics.
pub fn an_image_whose_creation_was_flushed_opens_after_any_crash(fixture: &dyn Fixture) {
    let crash = on_media(fixture, Vec::new());
    let size = odd_size(fixture, 4);
    let rig = Rig::create(fixture, Arc::new(crash.clone()), size, None).expect("it can be made");
    rig.disk.flush().expect("a flush in memory");
    crash.mark();
    let zeroes = ByteModel::new(size);
    for state in crash.states(ALL_OF_TWELVE, 1) {
        let opened = Rig::open(fixture, state.storage(), Access::ReadWrite, None);
        if state.marks() > 0 {
            let rig = opened.unwrap_or_else(|error| panic!("{error}\n{state}"));
            rig.assert_holds(&zeroes, &state);
        }
    }
}

/// Small histories, chosen for what goes wrong: fresh space, space used again, metadata of one
/// operation without that of the other.
pub fn after_any_crash_of_a_small_history_what_was_flushed_is_there(fixture: &dyn Fixture) {
    for operations in small_histories(fixture.unit()) {
        let lived = Lived::through(fixture, None, &operations);
        lived.check(lived.crash.states(states(fixture, ALL_OF_TWELVE), 1));
    }
}

fn small_histories(unit: u64) -> Vec<Vec<Operation>> {
    use Operation::{Discard, Flush, Write, Zero};
    let write = |units: u64, seed| Write { at: units * unit, len: unit, seed };
    let zero = |units: u64| Zero { at: units * unit, len: unit, unmap: true };
    let discard = |units: u64| Discard { at: units * unit, len: unit };
    vec![
        vec![write(1, 1), Flush],
        vec![Write { at: unit - 1, len: 2, seed: 1 }, Flush],
        vec![write(1, 1), Flush, write(1, 3), Flush],
        // The space of unit 1 may be given to unit 2 only when nothing names it any more.
        vec![write(1, 1), Flush, discard(1), write(2, 3), Flush],
        vec![write(1, 1), Flush, discard(1), Flush, write(2, 3), Flush, write(3, 5), Flush],
        vec![write(1, 1), Flush, zero(1), write(2, 3), Flush, write(1, 5), Flush],
        vec![write(0, 1), write(1, 3), Flush, discard(0), zero(1), Flush, discard(0)],
        vec![zero(1), Flush, Write { at: unit + 1, len: 1, seed: 1 }, Flush, discard(1)],
    ]
}

/// Random histories of a few operations.
pub fn after_any_crash_of_a_random_history_what_was_flushed_is_there(fixture: &dyn Fixture) {
    for seed in 0..12 {
        let lived = Lived::through(fixture, None, &random_history(fixture, seed));
        lived.check(lived.crash.states(states(fixture, SOME), seed));
    }
}

/// The same, each write being cut anywhere between sectors.
pub fn after_any_crash_with_torn_writes_what_was_flushed_is_there(fixture: &dyn Fixture) {
    for seed in 20..30 {
        let lived = Lived::through(fixture, None, &random_history(fixture, seed));
        lived.check(lived.crash.torn_states(states(fixture, SOME), seed));
    }
}

/// A power failure while the size changes leaves the old size or the new one, with all that is on
/// both; and what a smaller size cut off never comes back.
pub fn after_any_crash_of_a_resize_the_disk_has_the_old_size_or_the_new_one(fixture: &dyn Fixture) {
    let (unit, step) = (fixture.unit(), fixture.granularity());
    if new_image(fixture, None).disk.top().resizer().is_none() {
        return skipped(fixture, "resizing");
    }
    if !fixture.maps_zeroes() {
        // Where the length of the file is the size, what is new is noise until it is flushed.
        return skipped(fixture, "size beside the length of its file");
    }
    let count = if unit > 4096 { SOME / 8 } else { SOME };
    let sizes = |sizes: [u64; 3]| sizes.map(|size| size.next_multiple_of(step));
    for (seed, sizes) in [
        (1, sizes([unit + unit / 2, 9 * unit + 1, 3 * unit])),
        (2, sizes([40 * unit, 41 * unit + unit / 2, unit])),
    ] {
        let resized = Resized::through(fixture, &sizes);
        resized.crash.torn_states(count, seed).for_each(|state| resized.check_state(&state));
    }
}

/// A full disk that was given one size after another, each flushed.
struct Resized<'f> {
    fixture: &'f dyn Fixture,
    crash: CrashStorage,
    /// What the disk held before the first, after it, after the second, ...
    contents: Vec<Vec<u8>>,
}

impl<'f> Resized<'f> {
    fn through(fixture: &'f dyn Fixture, sizes: &[u64]) -> Self {
        let rig = Rig::new(fixture, 4 * fixture.unit());
        let mut model = rig.model();
        let fill = Operation::Write { at: 0, len: model.size(), seed: 1 };
        rig.apply(&fill, &mut model).expect("a write to memory");
        let crash = on_media(fixture, on_medium(rig));
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let rig = Rig::open(fixture, store, Access::ReadWrite, None).expect("it opens again");
        let mut contents = vec![model.contents()];
        for size in sizes {
            rig.disk.resize(*size, Preallocation::Off).expect("a resize in memory");
            rig.disk.flush().expect("a flush in memory");
            crash.mark();
            model.resize(*size);
            rig.assert_holds(&model, size);
            contents.push(model.contents());
        }
        Self { fixture, crash, contents }
    }

    fn check_state(&self, state: &CrashState) {
        let rig = Rig::open(self.fixture, state.storage(), Access::ReadWrite, None);
        let rig = rig.unwrap_or_else(|error| panic!("open: {error}\n{state}"));
        let found = rig.contents().unwrap_or_else(|error| panic!("read: {error}\n{state}"));
        let done = state.marks();
        let old = &self.contents[done];
        let new = self.contents.get(done + 1).unwrap_or(old);
        // Before a disk becomes smaller, what it will lose may be zeroed.
        let is_old = found.len() == old.len()
            && found
                .iter()
                .zip(old)
                .enumerate()
                .all(|(at, (found, old))| found == old || (at >= new.len() && *found == 0));
        let sizes = (old.len(), new.len());
        assert!(is_old || found == *new, "{} bytes, not as of {sizes:?}\n{state}", found.len());
        let damage = self.fixture.check(state.storage());
        damage.unwrap_or_else(|damage| panic!("{damage}\n{state}"));
        self.grow(&rig, found);
    }

    /// Whatever a crash left behind the end, it does not show when the disk grows.
    fn grow(&self, rig: &Rig<'_>, found: Vec<u8>) {
        let unit = self.fixture.unit();
        let mut model = ByteModel::of(&found, found.len() as u64);
        let size = (found.len() as u64 + 5 * unit).next_multiple_of(self.fixture.granularity());
        rig.disk.resize(size, Preallocation::Off).expect("a resize in memory");
        model.resize(size);
        rig.assert_holds(&model, &"grown after the crash");
    }
}

/// The same over another image, which must show or be hidden as it was.
pub fn after_any_crash_over_another_image_what_was_flushed_is_there(fixture: &dyn Fixture) {
    if !fixture.has_backing() {
        return skipped(fixture, "image below");
    }
    for seed in 40..46 {
        let base = noise(seed, odd_size(fixture, 5));
        let lived = Lived::through(fixture, Some(base), &random_history(fixture, seed));
        lived.check(lived.crash.torn_states(states(fixture, SOME), seed));
    }
}

/// Ten operations, one of four being a flush, half of the others for whole units, and a flush.
fn random_history(fixture: &dyn Fixture, seed: u64) -> Vec<Operation> {
    let unit = fixture.unit();
    let anywhere = Aim::at(odd_size(fixture, 6), unit);
    let units = Aim { step: unit, ..anywhere };
    let worth = |operation: &Operation| match operation.range() {
        Some((_, len)) => len > 0 && !matches!(operation, Operation::Read { .. }),
        None => *operation == Operation::Flush,
    };
    let mut random = Random::new(seed);
    let mut history: Vec<Operation> = std::iter::repeat_with(|| match random.below(8) {
        0..2 => Operation::Flush,
        2..5 => units.random_operation(&mut random),
        _ => anywhere.random_operation(&mut random),
    })
    .filter(worth)
    .take(10)
    .collect();
    history.extend([Operation::Write { at: 0, len: 1, seed: 1 }, Operation::Flush]);
    history
}
