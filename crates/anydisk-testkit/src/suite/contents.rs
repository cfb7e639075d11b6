//! What a disk holds.

use anydisk_core::{Access, DiskLookup, Encoded, GuestRange, Preallocation, Source, StorageExt};

use super::Fixture;
use super::rig::{Rig, assert_same, odd_size, range, skipped};
use crate::{Aim, ByteModel, Operation, Random};

/// Writes, zeroes and discards that leave an image with something of everything.
fn patchwork<'f>(fixture: &'f dyn Fixture) -> (Rig<'f>, ByteModel) {
    let rig = Rig::new(fixture, odd_size(fixture, 9));
    let mut model = rig.model();
    let unit = fixture.unit();
    let fresh = Operation::Write { at: unit - 1, len: 2 * unit + 2, seed: 1 };
    let operations = [
        fresh,
        Operation::Write { at: 5 * unit, len: unit, seed: 3 },
        Operation::Write { at: 7 * unit + 3, len: 5.min(unit - 3), seed: 5 },
        Operation::Zero { at: 2 * unit, len: unit, unmap: true },
        Operation::Zero { at: 4 * unit, len: unit, unmap: false },
        Operation::Discard { at: 5 * unit, len: unit },
        Operation::Write { at: rig.disk.size() - 1, len: 1, seed: 7 },
    ];
    for operation in operations {
        rig.apply(&operation, &mut model).expect("an operation in memory");
    }
    (rig, model)
}

/// A new image reads as zero, and its map says so without pointing at data that was not written.
pub fn a_new_image_reads_as_zero_and_says_so(fixture: &dyn Fixture) {
    let rig = Rig::new(fixture, odd_size(fixture, 5));
    rig.assert_holds(&ByteModel::new(rig.disk.size()), &"a new image");
    if !fixture.maps_zeroes() {
        return skipped(fixture, "map that tells zeroes");
    }
    let mut rest = GuestRange::whole(rig.disk.size());
    while !rest.is_empty() {
        let found = rig.disk.status(rest).expect("a new image can be mapped");
        let zero = matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
        assert!(zero, "the map of a new image at {rest}: {:?}", found.extent.source);
        rest = rest.skip(found.extent.len);
    }
}

/// Each write is read back as it was, whatever its size and place, and nothing else changes.
pub fn what_was_written_is_read_and_the_bytes_beside_it_are_kept(fixture: &dyn Fixture) {
    let (size, unit) = (odd_size(fixture, 5), fixture.unit());
    let ends = [0, 1, unit - 1, unit, unit + 1, 2 * unit, 3 * unit + unit / 2, size - 1, size];
    for start in ends {
        for end in ends.into_iter().filter(|end| *end > start) {
            let rig = Rig::new(fixture, size);
            let mut model = rig.model();
            for (at, len, seed) in [(start, end - start, 1), (start + (end - start) / 2, 1, 3)] {
                let write = Operation::Write { at, len, seed };
                rig.apply(&write, &mut model).expect("a write to memory");
                rig.assert_holds(&model, &write);
            }
        }
    }
}

/// Disks of every awkward size, also of less than a unit, hold bytes up to their end.
pub fn disks_of_all_sizes_hold_their_last_byte(fixture: &dyn Fixture) {
    let (unit, step) = (fixture.unit(), fixture.granularity());
    for about in [1, step, unit - 1, unit, unit + 1, 2 * unit + 511, 3 * unit] {
        let size = about.next_multiple_of(step);
        let rig = Rig::new(fixture, size);
        assert_eq!(rig.disk.size(), size, "the size asked for");
        let mut model = rig.model();
        let at = size - size.min(2);
        let write = Operation::Write { at, len: size - at, seed: 1 };
        rig.apply(&write, &mut model).expect("a write to memory");
        let rig = rig.reopen().expect("it opens again");
        assert_eq!(rig.disk.size(), size, "the size when opened again");
        rig.assert_holds(&model, &(size, write));
    }
}

/// The place that the map names holds the bytes that a read gives.
pub fn map_and_read_agree(fixture: &dyn Fixture) {
    let (rig, model) = patchwork(fixture);
    let mut rest = GuestRange::whole(rig.disk.size());
    while !rest.is_empty() {
        let found = rig.disk.map(rest).expect("the image can be mapped");
        let part = rest.first(found.extent.len);
        let read = rig.read(part.start().get(), part.len()).expect("a read from memory");
        let mut mapped = vec![0; read.len()];
        match &found.extent.source {
            Source::Data { store, at, .. } => {
                store.read_padded_at(*at, &mut mapped).expect("a read from memory");
            }
            Source::Encoded(encoded) => mapped = decoded(encoded, part),
            _ => {}
        }
        assert_same(&mapped, &read, part.start().get(), &found.extent.source);
        rest = rest.skip(part.len());
    }
    rig.assert_holds(&model, &"a patchwork");
}

fn decoded(encoded: &Encoded<'_>, part: GuestRange) -> Vec<u8> {
    let mut packed = vec![0; encoded.len];
    encoded.store.read_padded_at(encoded.at, &mut packed).expect("a read from memory");
    let mut unit = vec![0; usize::try_from(encoded.unit.len()).expect("a unit fits in memory")];
    encoded.codec.decode(&packed, &mut unit).expect("what was packed can be unpacked");
    let skip = usize::try_from(part.start().get() - encoded.unit.start().get()).expect("in it");
    unit[skip..][..usize::try_from(part.len()).expect("in it")].to_vec()
}

/// From whatever place and for whatever length the map is asked, the extents are in order, never
/// empty and never longer than asked for.
pub fn extents_cover_the_disk_exactly(fixture: &dyn Fixture) {
    let (rig, _) = patchwork(fixture);
    let aim = Aim::at(rig.disk.size(), fixture.unit());
    let mut random = Random::new(1);
    for _ in 0..500 {
        let (at, len) = aim.random_range(&mut random);
        let mut rest = range(at, len);
        while !rest.is_empty() {
            // A disk cuts what an image tells too long.
            let len = rig.disk.top().map(rest).expect("the image can be mapped").len;
            assert!((1..=rest.len()).contains(&len), "{len} bytes for {rest}");
            rest = rest.skip(len);
        }
    }
}

/// A caller that reads the metadata itself gets the map that the blocking call gives.
pub fn metadata_read_by_the_caller_gives_the_same_map(fixture: &dyn Fixture) {
    let (rig, _) = patchwork(fixture);
    let blocking = rig.reopen().expect("it opens again");
    let open = || Rig::open(fixture, blocking.store.clone(), Access::Read, None);
    let cold = open().expect("it opens a second time");
    let mut rest = GuestRange::whole(cold.disk.size());
    while !rest.is_empty() {
        let expected = blocking.disk.map(rest).expect("the image can be mapped").extent;
        let found = loop {
            match cold.disk.map_cached(rest).expect("the image can be mapped") {
                DiskLookup::Found(found) => break found.extent,
                DiskLookup::Need(need) => {
                    let mut bytes = vec![0; need.need.len];
                    need.need.store.read_padded_at(need.need.at, &mut bytes).expect("memory");
                    let _ = cold.disk.supply(&need, &bytes).expect("the metadata is good");
                }
            }
        };
        assert_eq!(found.len, expected.len, "{rest}");
        assert_eq!(place(&found.source), place(&expected.source), "{rest}");
        rest = rest.skip(found.len);
    }
}

/// A source without its store.
fn place(source: &Source<'_>) -> String {
    match source {
        Source::Data { at, shared, .. } => format!("data at {at}, shared: {shared}"),
        Source::Encoded(encoded) => format!("encoded at {} for {}", encoded.at, encoded.unit),
        other => format!("{other:?}"),
    }
}

/// Zeroing makes exactly its range zero, with and without giving space back.
pub fn a_zeroed_range_reads_zero_and_nothing_else_does(fixture: &dyn Fixture) {
    let (size, unit) = (odd_size(fixture, 6), fixture.unit());
    let ranges = [(0, size), (unit, unit), (unit + 1, unit), (2 * unit - 1, 2), (size - 1, 1)];
    for (at, len) in ranges {
        for unmap in [false, true] {
            let rig = Rig::new(fixture, size);
            let mut model = rig.model();
            let zero = Operation::Zero { at, len, unmap };
            for operation in [Operation::Write { at: 0, len: size, seed: 1 }, zero] {
                rig.apply(&operation, &mut model).expect("an operation in memory");
            }
            rig.assert_holds(&model, &zero);
            let again = Operation::Write { at, len: len.min(3), seed: 3 };
            rig.apply(&again, &mut model).expect("a write to memory");
            rig.assert_holds(&model, &(zero, again));
            rig.reopen().expect("it opens again").assert_holds(&model, &(zero, "opened again"));
        }
    }
}

/// What was discarded reads as zero or as before; written in part, the rest of it does not come
/// back as something else.
pub fn a_discard_never_shows_old_bytes_of_the_host(fixture: &dyn Fixture) {
    let (size, unit) = (odd_size(fixture, 6), fixture.unit());
    for (at, len) in [(0, size), (unit, unit), (unit + 1, 3 * unit), (0, 1), (size - 1, 1)] {
        let rig = Rig::new(fixture, size);
        let mut model = rig.model();
        // Two rounds: in the second, host space that held bytes of the first is used again.
        for seed in [1, 3] {
            for operation in [
                Operation::Write { at: 0, len: size, seed },
                Operation::Flush,
                Operation::Discard { at, len },
                Operation::Flush,
                Operation::Write { at: at + len / 2, len: 1, seed: 5 },
            ] {
                rig.apply(&operation, &mut model).expect("an operation in memory");
                rig.assert_holds(&model, &operation);
            }
        }
        rig.reopen().expect("it opens again").assert_holds(&model, &(at, len, "opened again"));
    }
}

/// An image that was flushed and closed holds the same when it is opened again, for reading too.
pub fn what_was_flushed_is_there_when_the_image_is_opened_again(fixture: &dyn Fixture) {
    let (rig, model) = patchwork(fixture);
    rig.disk.flush().expect("a flush in memory");
    let Rig { store, disk, .. } = rig;
    drop(disk);
    for access in [Access::Read, Access::ReadWrite, Access::Read] {
        let again = Rig::open(fixture, store.clone(), access, None).expect("it opens again");
        again.assert_holds(&model, &access);
    }
    fixture.check(store).expect("it is undamaged");
}

/// A disk that was made smaller and then larger again reads zero behind the smaller end.
pub fn a_grown_disk_reads_zero_behind_its_old_end(fixture: &dyn Fixture) {
    let (unit, step) = (fixture.unit(), fixture.granularity());
    let rig = Rig::new(fixture, 4 * unit);
    if rig.disk.top().resizer().is_none() {
        return skipped(fixture, "resizing");
    }
    let mut model = rig.model();
    let fill = Operation::Write { at: 0, len: 4 * unit, seed: 1 };
    rig.apply(&fill, &mut model).expect("a write to memory");
    for size in [unit + unit / 2, 6 * unit + 3, 2 * unit, 2 * unit + 1, 9 * unit] {
        let size = size.next_multiple_of(step);
        rig.disk.resize(size, Preallocation::Off).expect("a resize in memory");
        model.resize(size);
        assert_eq!(rig.disk.size(), size);
        rig.assert_holds(&model, &size);
    }
    rig.reopen().expect("it opens again").assert_holds(&model, &"opened again");
}
