//! Host space: given back, kept while someone looks at it, used again.

use anydisk_core::{HostOffset, Placement, Source, StorageExt};

use super::Fixture;
use super::rig::{Rig, odd_size, range};

/// As long as a lease lives, its place holds the bytes it held, or zeroes where a raw image punches
/// a hole; never those of another part of the disk.
pub fn a_lease_keeps_its_place_from_other_data(fixture: &dyn Fixture) {
    let unit = fixture.unit();
    let len = usize::try_from(unit).expect("a unit fits in memory");
    let rig = Rig::new(fixture, odd_size(fixture, 64));
    rig.write(unit, &vec![0xAA; len]);
    rig.disk.flush().expect("a flush in memory");
    let found = rig.disk.map(range(unit, unit)).expect("it can be mapped").extent;
    let Source::Data { store, at, .. } = found.source else {
        panic!("what was written is mapped as {:?}", found.source)
    };
    let kept = usize::try_from(found.len).expect("a unit fits in memory");
    rig.disk.discard(range(unit, unit)).expect("a discard in memory");
    for number in 2..64 {
        rig.disk.flush().expect("a flush in memory");
        rig.write(number * unit, &vec![0xBB; len]);
    }
    rig.disk.flush().expect("a flush in memory");
    let mut bytes = vec![0; kept];
    store.read_padded_at(at, &mut bytes).expect("a read from memory");
    let other = bytes.iter().find(|byte| !matches!(**byte, 0xAA | 0));
    assert_eq!(other, None, "the leased place at {at} holds other data");
    drop(found.lease);
}

/// Writing, discarding and flushing again and again does not make the file grow for ever.
pub fn space_that_was_given_back_is_used_again(fixture: &dyn Fixture) {
    let unit = fixture.unit();
    let data = vec![0xAA; usize::try_from(unit).expect("a unit fits in memory")];
    let rig = Rig::new(fixture, odd_size(fixture, 8));
    let round = |number: u64| {
        rig.write(number % 4 * unit, &data);
        rig.disk.flush().expect("a flush in memory");
        rig.disk.discard(range(number % 4 * unit, unit)).expect("a discard in memory");
        rig.disk.flush().expect("a flush in memory");
    };
    (0..20).for_each(round);
    let before = rig.store.len().expect("memory has a length");
    (20..120).for_each(round);
    let after = rig.store.len().expect("memory has a length");
    assert!(after <= before + 4 * unit, "the file grew from {before} to {after} in 100 rounds");
}

/// Places are taken in the order in which they are asked for. When the data got there, and in which
/// order its writers committed it, does not show: a copy by many threads is that of one.
pub fn where_things_lie_does_not_depend_on_the_order_of_commits(fixture: &dyn Fixture) {
    let layout = |late: bool| {
        let rig = Rig::new(fixture, odd_size(fixture, 200));
        let writer = rig.disk.top().writer().expect("it was opened for writing");
        let unit = fixture.unit();
        // Next to each other, and far enough apart for tables of their own.
        let places = [0, 1, 100, 101, 199].map(|number| range(number * unit, unit));
        let mut waiting = Vec::new();
        for (index, range) in places.into_iter().enumerate() {
            // Every other one packed, if it can be.
            let packs = index % 2 == 1 && writer.packing().is_some_and(|how| how.unit == unit);
            let placed = if packs { writer.place_encoded(range, 100) } else { writer.place(range) };
            let Placement::Fresh(new) = placed.expect("a place in memory") else { continue };
            let len = if packs { 100 } else { range.len() };
            let bytes = vec![0xAA; usize::try_from(len).expect("a unit fits in memory")];
            new.store().write_at(new.at(), &bytes).expect("a write to memory");
            waiting.push(new);
            if !late {
                waiting.drain(..).for_each(|new| new.commit().expect("a commit in memory"));
            }
        }
        waiting.into_iter().rev().for_each(|new| new.commit().expect("a commit in memory"));
        rig.disk.flush().expect("a flush in memory");
        let lies = places.map(|range| host_offset(&rig, range.start().get()));
        (lies, rig.store.len().expect("memory has a length"))
    };
    assert_eq!(layout(true), layout(false));
}

fn host_offset(rig: &Rig<'_>, at: u64) -> Option<HostOffset> {
    match rig.disk.map(range(at, 1)).expect("it can be mapped").extent.source {
        Source::Data { at, .. } => Some(at),
        Source::Encoded(encoded) => Some(encoded.at),
        _ => None,
    }
}
