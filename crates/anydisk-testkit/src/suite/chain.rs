//! An image over other images.

use std::sync::Arc;

use anydisk_core::{
    Below, Disk, Error, GuestOffset, GuestRange, Layer, Limits, Preallocation, Source,
};
use anydisk_storage::MemoryStorage;

use super::Fixture;
use super::rig::{Rig, assert_same, noise, odd_size, skipped};
use crate::{ByteModel, Operation, PlainImage};

/// An image over one of the same size that is full of bytes, and what it should hold.
fn overlay(fixture: &dyn Fixture) -> Option<(Rig<'_>, ByteModel)> {
    let size = odd_size(fixture, 6);
    overlay_of(fixture, size, size)
}

fn overlay_of(fixture: &dyn Fixture, size: u64, below: u64) -> Option<(Rig<'_>, ByteModel)> {
    if !fixture.has_backing() {
        skipped(fixture, "image below");
        return None;
    }
    let rig = Rig::over(fixture, size, Some(noise(99, below)));
    let model = rig.model();
    Some((rig, model))
}

fn play(rig: Rig<'_>, mut model: ByteModel, operations: &[Operation]) {
    rig.assert_holds(&model, &"untouched");
    for operation in operations {
        rig.apply(operation, &mut model).expect("an operation in memory");
        rig.assert_holds(&model, operation);
    }
    let rig = rig.reopen().expect("it opens again");
    rig.assert_holds(&model, &"opened again");
}

/// A new image over another shows that one, and a zeroed range hides it.
pub fn what_is_absent_shows_the_layer_below_and_zero_hides_it(fixture: &dyn Fixture) {
    let Some((rig, model)) = overlay(fixture) else { return };
    let unit = fixture.unit();
    let layer = rig.disk.map(GuestRange::whole(1)).expect("it can be mapped").layer;
    assert_eq!(layer, 1, "the layer that answers");
    play(
        rig,
        model,
        &[
            Operation::Zero { at: unit, len: unit, unmap: true },
            Operation::Zero { at: 2 * unit + 1, len: unit, unmap: false },
            Operation::Zero { at: 0, len: 1, unmap: true },
        ],
    );
}

/// Discarding gives zeroes or leaves things as they are: the layer below does not come back.
pub fn a_discard_never_shows_the_layer_below(fixture: &dyn Fixture) {
    let Some((rig, model)) = overlay(fixture) else { return };
    let (unit, size) = (fixture.unit(), rig.disk.size());
    play(
        rig,
        model,
        &[
            Operation::Write { at: 0, len: 4 * unit, seed: 1 },
            Operation::Discard { at: unit, len: unit },
            Operation::Discard { at: 2 * unit + 1, len: unit },
            Operation::Discard { at: 4 * unit, len: unit },
            Operation::Discard { at: 0, len: size },
        ],
    );
}

/// A write that covers a part of a unit keeps what the layer below has in the rest.
pub fn a_write_of_a_part_keeps_the_rest_from_below(fixture: &dyn Fixture) {
    let Some((rig, model)) = overlay(fixture) else { return };
    let (unit, size) = (fixture.unit(), rig.disk.size());
    play(
        rig,
        model,
        &[
            Operation::Write { at: unit / 2, len: 1, seed: 1 },
            Operation::Write { at: 2 * unit - 1, len: unit + 2, seed: 3 },
            Operation::Write { at: 2 * unit + 5, len: 3, seed: 5 },
            Operation::Zero { at: 4 * unit, len: unit, unmap: true },
            Operation::Write { at: 4 * unit + 1, len: 1, seed: 7 },
            Operation::Write { at: size - 1, len: 1, seed: 9 },
        ],
    );
}

/// Behind the end of a shorter layer below there are zeroes, also in the unit in which it ends.
pub fn a_shorter_layer_below_reads_zero_behind_its_end(fixture: &dyn Fixture) {
    let unit = fixture.unit();
    for below in [0, 1, unit - 1, unit, 2 * unit + unit / 2] {
        let Some((rig, model)) = overlay_of(fixture, odd_size(fixture, 4), below) else { return };
        play(
            rig,
            model,
            &[
                Operation::Write { at: below + 1, len: 1, seed: 1 },
                Operation::Discard { at: below / 2, len: unit },
                Operation::Zero { at: below, len: 1, unmap: true },
            ],
        );
    }
}

/// Of a longer layer below only what lies on the disk is seen.
pub fn a_longer_layer_below_is_cut(fixture: &dyn Fixture) {
    let size = odd_size(fixture, 2);
    let Some((rig, model)) = overlay_of(fixture, size, size + 3 * fixture.unit()) else { return };
    assert_eq!(rig.disk.size(), size);
    play(rig, model, &[Operation::Write { at: size - 1, len: 1, seed: 1 }]);
}

/// What is new when an image grows is zero, although the layer below has bytes there.
pub fn a_grown_image_hides_a_longer_layer_below(fixture: &dyn Fixture) {
    let (unit, step) = (fixture.unit(), fixture.granularity());
    let size = odd_size(fixture, 2);
    let Some((rig, mut model)) = overlay_of(fixture, size, size + 5 * unit) else { return };
    if rig.disk.top().resizer().is_none() {
        return skipped(fixture, "resizing");
    }
    for size in [size + unit / 2, size + 3 * unit, size - unit, size + 8 * unit] {
        let size = size / step * step;
        match rig.disk.resize(size, Preallocation::Off) {
            Err(Error::Unsupported { feature, .. }) => {
                return skipped(fixture, &feature.to_string());
            }
            resized => resized.expect("a resize in memory"),
        }
        model.resize(size);
        rig.assert_holds(&model, &size);
    }
    rig.reopen().expect("it opens again").assert_holds(&model, &"opened again");
}

/// An image over an image over another shows at each place the topmost that has something there.
pub fn three_layers_show_the_topmost_that_has_something(fixture: &dyn Fixture) {
    if !fixture.has_backing() {
        return skipped(fixture, "image below");
    }
    let (unit, size) = (fixture.unit(), odd_size(fixture, 6));
    let create = || {
        let store = Arc::new(MemoryStorage::default());
        fixture.create(store, size, Below::Image).expect("an image can be made in memory")
    };
    let base = noise(1, size);
    let store = Arc::new(MemoryStorage::new(base.clone()));
    let plain = Arc::new(PlainImage::new(store).expect("memory has a length"));
    let disk = Disk::from_layers(vec![Layer::new(plain, "lowest")], &Limits::default());
    let mut model = ByteModel::of(&base, size);
    let mut write = |disk: &Disk, at: u64, seed: u64| {
        let data = noise(seed, 2 * unit);
        disk.write(GuestOffset(at), &data).expect("a write to memory");
        model.write(at, &data);
    };
    let disk = disk.overlaid(Layer::new(create(), "middle"));
    write(&disk, unit, 2);
    let disk = disk.overlaid(Layer::new(create(), "top"));
    write(&disk, 2 * unit + 1, 3);
    let mut found = vec![0; base.len()];
    disk.read(GuestOffset::ZERO, &mut found).expect("a read from memory");
    assert_same(&found, &model.contents(), 0, &"three layers");
    let layer_at = |at: u64| {
        let found = disk.map(GuestRange::whole(size).skip(at)).expect("it can be mapped");
        assert!(matches!(found.extent.source, Source::Data { .. }), "{found:?}");
        found.layer
    };
    assert_eq!([layer_at(0), layer_at(unit), layer_at(3 * unit)], [2, 1, 0]);
}
