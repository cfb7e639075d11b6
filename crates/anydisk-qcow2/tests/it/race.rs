//! Eight threads read, write, zero and discard one image for some seconds, while a ninth keeps and
//! forgets snapshots. `ANYDISK_RACE_SECONDS` says how long; `cargo xtask race` runs it under a
//! detector of data races.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anydisk_core::{
    Access, CheckRequest, CreateRequest, Disk, Format, GuestOffset, Image, Limits, Location,
    NewSnapshot, OpenRequest, Options, SnapshotRef, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::{Aim, ByteModel, Operation, Random, secrets};

use crate::common::{Given, memory, range};

const THREADS: u64 = 8;
const SECTOR: u64 = 512;
const PASSPHRASE: &str = "correct horse";

/// Seconds for all kinds together, if nothing is said.
const USUAL: u64 = 3;

const KINDS: [(u64, Given<'_>); 5] = [
    (64 << 10, &[]),
    (512, &[("cluster_size", "512")]),
    (16 << 10, &[("cluster_size", "16k"), ("extended_l2", "on")]),
    (4096, &[("cluster_size", "4k"), ("encrypt.format", "luks"), ("encrypt.iter-time", "0")]),
    (2048, &[("cluster_size", "2k"), ("encrypt.format", "aes")]),
];

/// One image and the end of the race.
struct Race {
    cluster: u64,
    image: Arc<dyn Image>,
    disk: Disk,
    end: Instant,
}

fn seconds() -> u64 {
    let text = std::env::var("ANYDISK_RACE_SECONDS").ok();
    text.map_or(USUAL, |text| text.parse().expect("ANYDISK_RACE_SECONDS is a number"))
}

fn create(store: &Arc<dyn Storage>, size: u64, given: Given<'_>) -> Arc<dyn Image> {
    let mut options = Options::of(&QCOW2);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let request = CreateRequest::new(Arc::clone(store), &location, size, &options, &limits);
    let secrets = secrets(Some(PASSPHRASE));
    QCOW2.create(CreateRequest { secrets: &*secrets, ..request }).expect("an image in memory")
}

impl Race {
    /// Bytes of the part that one thread has for itself. Parts meet inside a sector.
    fn part(&self) -> u64 {
        3 * self.cluster + 777
    }

    /// Where the part begins that all threads share.
    fn common(&self) -> u64 {
        (THREADS * self.part()).next_multiple_of(SECTOR)
    }

    fn is_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Does this and that in its own part, which must hold what it did, and in the common one, where
    /// sectors must be whole. Answers what its part should hold, and how much was done.
    fn live(&self, thread: u64) -> (ByteModel, u64) {
        let (mut random, mut model) = (Random::new(thread), ByteModel::new(self.disk.size()));
        let (start, len) = (thread * self.part(), self.part());
        let own = Aim { start, len, unit: self.cluster, step: 1 };
        let (start, len) = (self.common(), self.disk.size() - self.common());
        let common = Aim { start, len, unit: self.cluster, step: SECTOR };
        let mut done = 0;
        while self.is_on() {
            match random.below(4) {
                0 => self.fight(&common.random_operation(&mut random), thread << 32 | done),
                _ => self.apply(&own.random_operation(&mut random), &mut model),
            }
            done += 1;
        }
        (model, done)
    }

    fn read(&self, at: u64, len: u64) -> Vec<u8> {
        read(&self.disk, at, len)
    }

    fn apply(&self, operation: &Operation, model: &mut ByteModel) {
        let done = match *operation {
            Operation::Write { at, .. } => self.disk.write(GuestOffset(at), &operation.data()),
            Operation::Zero { at, len, unmap } => self.disk.zero(range(at, len), unmap),
            Operation::Discard { at, len } => self.disk.discard(range(at, len)),
            Operation::Read { at, len } => {
                assert!(self.read(at, len) == model.read(at, len), "{operation:?}");
                Ok(())
            }
            Operation::Flush | Operation::Reopen => self.disk.flush(),
        };
        done.unwrap_or_else(|error| panic!("{operation:?}: {error}"));
        if let Operation::Discard { at, len } = *operation {
            let (before, after) = (model.read(at, len), self.read(at, len));
            let fits = before.iter().zip(&after).all(|(old, new)| new == old || *new == 0);
            assert!(fits, "{operation:?} leaves other bytes");
            model.write(at, &after);
        }
        model.apply(operation);
    }

    /// In the part that is everybody's.
    fn fight(&self, operation: &Operation, stamp: u64) {
        let done = match *operation {
            Operation::Write { at, len, .. } => {
                let sectors = usize::try_from(len / SECTOR).expect("small");
                self.disk.write(GuestOffset(at), &stamped(stamp + 1).repeat(sectors))
            }
            Operation::Zero { at, len, unmap } => self.disk.zero(range(at, len), unmap),
            Operation::Discard { at, len } => self.disk.discard(range(at, len)),
            Operation::Read { at, len } => {
                assert_whole(&self.read(at, len));
                Ok(())
            }
            Operation::Flush | Operation::Reopen => self.disk.flush(),
        };
        done.unwrap_or_else(|error| panic!("{operation:?}: {error}"));
    }

    /// Keeps and forgets snapshots; how many.
    fn keep(&self) -> u64 {
        let snapshots = self.image.snapshots().expect("qcow2 has snapshots");
        let (mut kept, mut open) = (0, Vec::new());
        while self.is_on() {
            let new = NewSnapshot { name: kept.to_string(), ..NewSnapshot::default() };
            let which = SnapshotRef::Id(snapshots.create(&new).expect("created").id);
            let view = Disk::new(snapshots.open(&which).expect("it opens"));
            let len = self.disk.size() - self.common();
            let before = read(&view, self.common(), len);
            assert_whole(&before);
            open.push((which, view, before));
            if open.len() > 2 {
                let (which, view, before) = open.remove(0);
                assert!(read(&view, self.common(), len) == before, "a snapshot has changed");
                drop(view);
                snapshots.delete(&which).expect("deleted");
            }
            kept += 1;
            thread::sleep(Duration::from_millis(5));
        }
        kept
    }
}

fn read(disk: &Disk, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; usize::try_from(len).expect("small")];
    disk.read(GuestOffset(at), &mut bytes).expect("it reads");
    bytes
}

/// A sector that says which write it comes from, all over.
fn stamped(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(64)
}

fn assert_whole(bytes: &[u8]) {
    for sector in bytes.chunks_exact(512) {
        assert!(sector.chunks_exact(8).all(|part| part == &sector[..8]), "a sector of two writes");
    }
}

fn race(cluster: u64, given: Given<'static>, time: Duration) {
    let store = memory();
    let size = (THREADS * (3 * cluster + 777)).next_multiple_of(SECTOR) + 3 * cluster + 1024;
    let image = create(&store, size, given);
    let disk = Disk::new(Arc::clone(&image));
    let race = Arc::new(Race { cluster, image, disk, end: Instant::now() + time });
    let live = |number| {
        let race = Arc::clone(&race);
        thread::spawn(move || race.live(number))
    };
    let threads: Vec<_> = (0..THREADS).map(live).collect();
    let keeper = {
        let race = Arc::clone(&race);
        thread::spawn(move || race.keep())
    };
    let lived = threads.into_iter().map(|thread| thread.join().expect("no panic"));
    let (models, done): (Vec<_>, Vec<_>) = lived.unzip();
    let kept = keeper.join().expect("no panic");
    let done: u64 = done.iter().sum();
    eprintln!("{given:?}: {done} operations, {kept} snapshots in {time:?}");
    race.disk.flush().expect("flushed");
    let (part, common) = (race.part(), race.common());
    drop(race);
    let request = OpenRequest {
        store,
        location: &Location::Other("image".into()),
        access: Access::ReadWrite,
        resolver: &anydisk_core::NoReferences,
        limits: &Limits::default(),
        secrets: &*secrets(Some(PASSPHRASE)),
    };
    let disk = Disk::new(QCOW2.open(request.clone()).expect("it opens").image);
    for (number, model) in (0..).zip(models) {
        let found = read(&disk, number * part, part);
        assert!(found == model.read(number * part, part), "{given:?}: the part of {number}");
    }
    assert_whole(&read(&disk, common, size - common));
    drop(disk);
    let report = QCOW2.check(&CheckRequest::new(request), &mut |_| {}).expect("it is checked");
    assert!(report.is_clean(), "{given:?}: {report:?}");
}

#[test]
fn eight_threads_and_snapshots_disturb_nobody() {
    let time = Duration::from_secs(seconds()) / u32::try_from(KINDS.len()).expect("few");
    KINDS.into_iter().for_each(|(cluster, given)| race(cluster, given, time));
}
