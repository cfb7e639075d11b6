//! Many threads on one image.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use anydisk_core::GuestOffset;
use anydisk_storage::MemoryStorage;

use super::Fixture;
use super::rig::{Rig, assert_same, odd_size, range};
use crate::double::ThrottledStorage;
use crate::{Aim, Operation, Random};

const THREADS: u64 = 4;
const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;

/// New images on which threads meet: what happens in a unit happens once in an image.
const ROUNDS: u64 = 12;

/// An image on a store that takes a little time, so that threads meet in the middle of things.
fn rig(fixture: &dyn Fixture, size: u64) -> Rig<'_> {
    let memory = Arc::new(MemoryStorage::default());
    let store = ThrottledStorage::new(memory, Duration::from_micros(5));
    Rig::create(fixture, Arc::new(store), size, None).expect("an image can be made in memory")
}

/// Each thread has its own part of the disk and its own byte vector for it. The parts meet in the
/// middle of units, so that threads allocate the same unit at the same time.
pub fn threads_in_parts_of_their_own_do_not_disturb_each_other(fixture: &dyn Fixture) {
    (0..ROUNDS).for_each(|round| live_in_parts(fixture, round));
}

fn live_in_parts(fixture: &dyn Fixture, round: u64) {
    let rig = rig(fixture, odd_size(fixture, 5));
    let part = rig.disk.size() / THREADS;
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (rig, unit) = (&rig, fixture.unit());
            let aim = Aim { start: number * part, len: part, unit, step: 1 };
            scope.spawn(move || live_in(rig, aim, round * THREADS + number));
        }
    });
    let before = rig.contents().expect("a read from memory");
    let rig = rig.reopen().expect("it opens again");
    assert_same(&rig.contents().expect("a read from memory"), &before, 0, &"opened again");
}

fn live_in(rig: &Rig<'_>, aim: Aim, seed: u64) {
    let mut model = rig.model();
    for operation in aim.operations(seed).take(60) {
        rig.apply(&operation, &mut model).expect("an operation in memory");
    }
    let found = rig.read(aim.start, aim.len).expect("a read from memory");
    assert_same(&found, &model.read(aim.start, aim.len), aim.start, &"a thread's own part");
}

/// A sector that says which write it comes from: `number`, all over.
fn stamped(number: u64) -> [u8; SECTOR_LEN] {
    let mut sector = [0; SECTOR_LEN];
    sector.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&number.to_le_bytes()));
    sector
}

/// The number of the write that a sector comes from; 0 if it is zero.
fn stamp_of(sector: &[u8]) -> u64 {
    let number = u64::from_le_bytes(sector[..8].try_into().expect("eight bytes"));
    assert!(sector == stamped(number), "a sector of two writes, one of them {number:#x}");
    number
}

/// Readers beside one writer for each sector see whole sectors, and never one of before a write
/// that had returned when the read began.
pub fn readers_see_sectors_of_before_or_after_a_write(fixture: &dyn Fixture) {
    (0..ROUNDS).for_each(|round| read_beside_writers(fixture, round));
}

fn read_beside_writers(fixture: &dyn Fixture, round: u64) {
    let rig = rig(fixture, odd_size(fixture, 4).next_multiple_of(SECTOR));
    let sectors = rig.disk.size() / SECTOR;
    let returned: Vec<AtomicU64> = (0..sectors).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..THREADS / 2 {
            let (rig, returned, done) = (&rig, &returned, &done);
            scope.spawn(move || {
                let mut random = Random::new(reader);
                while !done.load(SeqCst) {
                    read_one(rig, returned, random.index(returned.len()));
                }
            });
        }
        let write = |writer: u64| {
            let mut random = Random::new(100 * (round + 1) + writer);
            for number in 1..=60 {
                // Neighbouring sectors have different writers, so that units have several.
                let sector = random.below(sectors / 2) * 2 + writer;
                write_one(&rig, &returned, sector.min(sectors - 2 + writer), number);
            }
        };
        let writers: Vec<_> = (0..2).map(|w| scope.spawn(move || write(w))).collect();
        let ends: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, SeqCst);
        ends.into_iter().for_each(|end| end.expect("a writer"));
    });
    (0..returned.len()).for_each(|sector| read_one(&rig, &returned, sector));
}

fn write_one(rig: &Rig<'_>, returned: &[AtomicU64], sector: u64, number: u64) {
    rig.write(sector * SECTOR, &stamped(number));
    returned[usize::try_from(sector).expect("a small disk")].store(number, SeqCst);
}

fn read_one(rig: &Rig<'_>, returned: &[AtomicU64], sector: usize) {
    let least = returned[sector].load(SeqCst);
    let bytes = rig.read(sector as u64 * SECTOR, SECTOR).expect("a read from memory");
    let found = stamp_of(&bytes);
    assert!(found >= least, "sector {sector} is of write {found}, after write {least} returned");
}

/// Writes, zeroes and discards of the same sectors by several threads leave each sector to one of
/// them, and the image as it should be.
pub fn writers_of_the_same_range_leave_sectors_whole(fixture: &dyn Fixture) {
    let rig = rig(fixture, odd_size(fixture, 6).next_multiple_of(SECTOR));
    let size = rig.disk.size();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (rig, unit) = (&rig, fixture.unit());
            let aim = Aim { start: 0, len: size, unit, step: SECTOR };
            scope.spawn(move || fight(rig, aim, number));
        }
    });
    let before = rig.contents().expect("a read from memory");
    before.chunks_exact(SECTOR_LEN).for_each(|sector| _ = stamp_of(sector));
    let rig = rig.reopen().expect("it opens again");
    assert_same(&rig.contents().expect("a read from memory"), &before, 0, &"opened again");
    let Rig { store, disk, .. } = rig;
    drop(disk);
    fixture.check(store).expect("it is undamaged");
}

fn fight(rig: &Rig<'_>, aim: Aim, thread: u64) {
    for (number, operation) in aim.operations(thread).take(200).enumerate() {
        let done = match operation {
            Operation::Write { at, len, .. } => {
                let stamp = (thread + 1) << 32 | number as u64;
                let sectors = usize::try_from(len / SECTOR).expect("a small disk");
                rig.disk.write(GuestOffset(at), &stamped(stamp).repeat(sectors))
            }
            Operation::Zero { at, len, unmap } => rig.disk.zero(range(at, len), unmap),
            Operation::Discard { at, len } => rig.disk.discard(range(at, len)),
            Operation::Read { at, len } => rig.read(at, len.min(SECTOR)).map(|bytes| {
                bytes.chunks_exact(SECTOR_LEN).for_each(|sector| _ = stamp_of(sector));
            }),
            Operation::Flush | Operation::Reopen => rig.disk.flush(),
        };
        done.unwrap_or_else(|error| panic!("{operation:?}: {error}"));
    }
}
