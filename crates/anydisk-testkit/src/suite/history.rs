//! Long random histories.

use std::sync::Arc;

use anydisk_core::{Below, Layer};
use anydisk_storage::MemoryStorage;

use super::Fixture;
use super::rig::{Rig, noise, odd_size, skipped};
use crate::{Aim, Operation};

/// Operations in a history, if units are of a usual size.
const OPERATIONS: u64 = 10_000;

const SEEDS: u64 = 3;

/// Fewer operations where units are so large that each moves megabytes.
fn operations_for(unit: u64) -> usize {
    const USUAL: u64 = 64 << 10;
    usize::try_from(OPERATIONS * USUAL / unit.max(USUAL)).expect("ten thousand")
}

fn play(fixture: &dyn Fixture, seed: u64, base: Option<Vec<u8>>) {
    let mut rig = Rig::over(fixture, odd_size(fixture, 40), base);
    let mut model = rig.model();
    let aim = Aim::at(rig.disk.size(), fixture.unit());
    let operations = aim.operations(seed).take(operations_for(fixture.unit()));
    for (number, operation) in operations.enumerate() {
        let when = (seed, number, operation);
        rig.apply(&operation, &mut model).unwrap_or_else(|error| panic!("{when:?}: {error}"));
        if operation == Operation::Reopen {
            rig = rig.reopen().unwrap_or_else(|error| panic!("{when:?}: {error}"));
            rig.assert_holds(&model, &when);
        }
    }
    let rig = rig.reopen().expect("it opens again");
    rig.assert_holds(&model, &(seed, "at the end"));
    let Rig { store, disk, .. } = rig;
    drop(disk);
    fixture.check(store).unwrap_or_else(|damage| panic!("seed {seed}: {damage}"));
}

/// Ten thousand operations for each seed leave what they leave on a byte vector.
pub fn random_histories_equal_a_byte_vector(fixture: &dyn Fixture) {
    for seed in 0..SEEDS {
        play(fixture, seed, None);
    }
}

/// A disk that gets another image of its format on top, again and again.
pub fn random_histories_of_a_chain_equal_a_byte_vector(fixture: &dyn Fixture) {
    if !fixture.has_backing() {
        return skipped(fixture, "image below");
    }
    for seed in 0..SEEDS {
        play_chain(fixture, 200 + seed);
    }
}

/// Images of a chain.
const CHAIN: usize = 5;

fn play_chain(fixture: &dyn Fixture, seed: u64) {
    let size = odd_size(fixture, 24);
    let mut rig = Rig::new(fixture, size);
    let mut model = rig.model();
    let count = operations_for(fixture.unit()) / 8;
    let aim = Aim::at(size, fixture.unit());
    for (number, operation) in aim.operations(seed).take(count).enumerate() {
        let when = (seed, number, operation);
        rig.apply(&operation, &mut model).unwrap_or_else(|error| panic!("{when:?}: {error}"));
        if (number + 1).is_multiple_of(count / CHAIN) && rig.disk.layers().len() < CHAIN {
            rig.disk.flush().expect("a flush in memory");
            let store = Arc::new(MemoryStorage::default());
            let image = fixture.create(store.clone(), size, Below::Image).expect("an image");
            let disk = rig.disk.overlaid(Layer::new(image, "next"));
            rig = Rig { store, disk, ..rig };
            rig.assert_holds(&model, &when);
        }
    }
    assert_eq!(rig.disk.layers().len(), CHAIN);
    rig.assert_holds(&model, &(seed, "at the end"));
}

/// The same over a layer that is shorter and over one that is longer.
pub fn random_histories_over_another_image_equal_a_byte_vector(fixture: &dyn Fixture) {
    if !fixture.has_backing() {
        return skipped(fixture, "image below");
    }
    for seed in 0..SEEDS {
        let below = odd_size(fixture, [23, 40, 50][usize::try_from(seed % 3).expect("0 to 2")]);
        play(fixture, 100 + seed, Some(noise(seed, below)));
    }
}
