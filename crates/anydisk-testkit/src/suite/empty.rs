//! Emptying an image that lies over another, as after a commit.

use std::sync::Arc;

use anydisk_core::{Access, BackingLink, GuestRange, Result, Source, Storage};

use super::Fixture;
use super::crash::{on_media, on_medium};
use super::rig::{Rig, assert_same, noise, odd_size, skipped};
use crate::double::CrashState;
use crate::{ByteModel, Operation};

/// States that are looked at.
const SOME: usize = 200;

/// A written image over one that is full of bytes, safely on the medium, if it can be emptied.
fn written(fixture: &dyn Fixture) -> Option<Rig<'_>> {
    if !fixture.has_backing() {
        skipped(fixture, "image below");
        return None;
    }
    let (size, unit) = (odd_size(fixture, 6), fixture.unit());
    let rig = Rig::over(fixture, size, Some(noise(99, size)));
    if link(&rig).is_none_or(|link| link.check_emptying().is_err()) {
        skipped(fixture, "emptying");
        return None;
    }
    rig.write(unit / 2, &noise(1, 2 * unit));
    rig.write(size - 1, &[0x77]);
    let mut model = ByteModel::new(size);
    let zero = Operation::Zero { at: 4 * unit, len: unit, unmap: true };
    rig.apply(&zero, &mut model).expect("a zeroing in memory");
    rig.disk.flush().expect("a flush in memory");
    Some(rig)
}

fn link<'a>(rig: &'a Rig<'_>) -> Option<&'a dyn BackingLink> {
    rig.disk.top().backing_link()
}

fn empty(rig: &Rig<'_>) -> Result<()> {
    link(rig).expect("it has one").make_empty()
}

/// It shows the image below everywhere, and is written from then on as a new one is.
pub fn an_emptied_image_shows_the_image_below_everywhere(fixture: &dyn Fixture) {
    let Some(rig) = written(fixture) else { return };
    // What nobody wrote back yet goes as well.
    rig.write(3 * fixture.unit() + 1, &[0x55; 9]);
    empty(&rig).expect("it can be emptied in memory");
    let mut model = rig.model();
    let whole = GuestRange::whole(rig.disk.size());
    for round in 0..3 {
        rig.assert_holds(&model, &("emptied", round));
        for operation in [
            Operation::Write { at: fixture.unit() + 3, len: fixture.unit(), seed: round + 1 },
            Operation::Zero { at: 0, len: fixture.unit(), unmap: true },
            Operation::Flush,
        ] {
            rig.apply(&operation, &mut model).expect("an operation in memory");
            rig.assert_holds(&model, &operation);
        }
        empty(&rig).expect("it can be emptied in memory");
        model = rig.model();
        let extent = rig.disk.top().map(whole).expect("it can be mapped");
        assert!(matches!(extent.source, Source::Absent { .. }), "{extent:?}");
    }
    let rig = rig.reopen().expect("it opens again");
    rig.assert_holds(&model, &"opened again");
    let damage = fixture.check(Arc::clone(&rig.store));
    damage.unwrap_or_else(|damage| panic!("{damage}"));
}

/// Whoever read there when it was emptied goes on reading what was there.
pub fn a_lease_keeps_what_was_read_when_an_image_is_emptied(fixture: &dyn Fixture) {
    let Some(rig) = written(fixture) else { return };
    let range = GuestRange::whole(rig.disk.size()).skip(fixture.unit());
    let mut before = vec![0; 512];
    let extent = rig.disk.top().map(range).expect("it can be mapped");
    let Source::Data { store, at, .. } = extent.source else { panic!("{extent:?}") };
    store.read_at(at, &mut before).expect("a read from memory");
    // Some formats wait for readers, and give up in the end.
    if empty(&rig).is_ok() {
        // All but the place itself: where every sector has its own, that would be written again.
        let (unit, size) = (fixture.unit(), rig.disk.size());
        rig.write(0, &noise(5, unit));
        rig.write(2 * unit, &noise(6, size - 2 * unit));
        rig.disk.flush().expect("a flush in memory");
    }
    let mut after = vec![0; 512];
    store.read_at(at, &mut after).expect("a read from memory");
    assert_same(&after, &before, 0, &"under a lease");
    drop(extent);
}

/// At each place there is what was there or what lies below, and never anything else; what is written
/// afterwards is there when it was flushed.
pub fn after_any_crash_while_it_is_emptied_an_image_shows_what_it_held_or_what_lies_below(
    fixture: &dyn Fixture,
) {
    let Some(rig) = written(fixture) else { return };
    let base = rig.base.clone();
    let full = rig.contents().expect("it can be read");
    let crash = on_media(fixture, on_medium(rig));
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let rig = Rig::open(fixture, store, Access::ReadWrite, base.clone()).expect("it opens again");
    empty(&rig).expect("it can be emptied in memory");
    crash.mark();
    let empty = rig.contents().expect("it can be read");
    rig.write(1, &noise(7, 2 * fixture.unit()));
    rig.disk.flush().expect("a flush in memory");
    crash.mark();
    let written = rig.contents().expect("it can be read");
    // All that may be read: before the emptying was done, before the write was, and then.
    let allowed = [vec![&full, &empty], vec![&empty, &written], vec![&written]];
    for (number, state) in crash.torn_states(SOME, 3).enumerate() {
        let rig = Rig::open(fixture, state.storage(), Access::ReadWrite, base.clone());
        let rig = rig.unwrap_or_else(|error| panic!("open: {error}\n{state}"));
        let found = rig.contents().unwrap_or_else(|error| panic!("read: {error}\n{state}"));
        assert_is_one_of(&found, &allowed[state.marks()], &state);
        let damage = fixture.check(state.storage());
        damage.unwrap_or_else(|damage| panic!("{damage}\n{state}"));
        if number % 7 == 0 {
            rig.write(0, &noise(9, rig.disk.size()));
            let rig = rig.reopen().unwrap_or_else(|error| panic!("again: {error}\n{state}"));
            let found = rig.contents().expect("it can be read");
            assert_same(&found, &noise(9, rig.disk.size()), 0, &state);
        }
    }
}

fn assert_is_one_of(found: &[u8], allowed: &[&Vec<u8>], state: &CrashState) {
    let is_wrong = |at: &usize| allowed.iter().all(|contents| contents[*at] != found[*at]);
    if let Some(at) = (0..found.len()).find(is_wrong) {
        panic!("the byte at {at:#x} is {:#x}\n{state}", found[at]);
    }
}
