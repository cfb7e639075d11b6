//! Host space: given back, kept while someone looks at it, used again.

use anydisk_core::{Source, StorageExt};

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
