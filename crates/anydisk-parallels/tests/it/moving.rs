//! What moves clusters: compacting, and growing over the first ones; also when power fails meanwhile.

use std::sync::Arc;

use anydisk_core::{Access, Disk, Error, GuestOffset, GuestRange, Preallocation, Result, Storage};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{ByteModel, ImageFolder, contents, play};

use crate::common::{ByHand, damage, image, open};

fn compact(disk: &Disk) -> Result<u64> {
    disk.top().compactor().expect("it can").compact(&|_, _| true)
}

/// Twelve clusters in an order of their own; of these one is of zeroes and two are given back.
fn scattered(by_hand: ByHand) -> (Arc<MemoryStorage>, Vec<u8>) {
    let (store, cluster) = (by_hand.store(&[], 0), u64::from(by_hand.tracks) * 512);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    for number in 0..12_u8 {
        let at = GuestOffset(u64::from(number) * 5 % 12 * 2 * cluster);
        let bytes = vec![
            if number == 4 { 0 } else { number + 1 };
            usize::try_from(cluster).expect("small")
        ];
        disk.write(at, &bytes).expect("a write");
    }
    for number in [2, 9] {
        let range = GuestRange::new(GuestOffset(number * 2 * cluster), cluster).expect("small");
        disk.discard(range).expect("a discard");
    }
    disk.flush().expect("a flush");
    let expected = contents(&disk);
    (store, expected)
}

#[test]
fn compacting_drops_zeroes_closes_gaps_and_changes_nothing_that_is_read() {
    for by_hand in [ByHand::OLD, ByHand::NEW] {
        let (store, expected) = scattered(by_hand);
        let first = by_hand.bytes().len() as u64;
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        assert_eq!(
            compact(&disk).expect("it can be compacted"),
            3 * u64::from(by_hand.tracks) * 512
        );
        let end = first + 9 * u64::from(by_hand.tracks) * 512;
        assert_eq!(store.len().expect("a length"), end);
        assert!(contents(&disk) == expected);
        damage(&*store).expect("undamaged");
        assert_eq!(compact(&disk).expect("it can be compacted again"), 0);
        disk.write(GuestOffset(50_000), &[1; 4096]).expect("a write");
        disk.flush().expect("a flush");
        damage(&*store).expect("undamaged");
        assert!(contents(&open(&store, Access::Read).expect("it opens")) == contents(&disk));
    }
}

#[test]
fn compacting_drops_what_nothing_names() {
    let store = ByHand::NEW.store(&[3, 1], 8);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    assert_eq!(compact(&disk).expect("it can be compacted"), 2 * 1024);
    assert_eq!(store.len().expect("a length"), 3 * 1024);
    damage(&*store).expect("undamaged");
    assert!(contents(&disk)[..2048].iter().all(|byte| *byte == 1));
}

#[test]
fn compacting_that_is_cancelled_leaves_the_image_as_it_was() {
    let (store, expected) = scattered(ByHand::NEW);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    let error = disk.top().compactor().expect("it can").compact(&|done, _| done < 9000);
    assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
    assert!(contents(&disk) == expected);
    damage(&*store).expect("undamaged");
}

/// All states that a power failure during `operation` may leave hold the first `kept` bytes of what was
/// there, and zeroes behind what was, and can be compacted and written.
fn survives(by_hand: ByHand, kept: usize, operation: impl Fn(&Disk) -> Result<()>) {
    let (start, before) = scattered(by_hand);
    let crash = CrashStorage::over(start.to_vec());
    let open = |store: Arc<dyn Storage>| image(store, Access::ReadWrite).map(Disk::new);
    let disk = open(Arc::new(crash.clone())).expect("it opens");
    operation(&disk).expect("it can be done");
    disk.flush().expect("a flush");
    crash.mark();
    for state in crash.torn_states(400, 1) {
        let store: Arc<dyn Storage> = state.storage();
        let disk = open(store.clone()).unwrap_or_else(|error| panic!("{error}\n{state}"));
        let found = contents(&disk);
        let common = found.len().min(kept);
        let behind = found.get(before.len()..).unwrap_or_default();
        let is_kept = found[..common] == before[..common] && behind.iter().all(|byte| *byte == 0);
        assert!(is_kept, "{} bytes\n{state}", found.len());
        damage(&*store).unwrap_or_else(|damage| panic!("{damage}\n{state}"));
        compact(&disk).unwrap_or_else(|error| panic!("{error}\n{state}"));
        assert!(contents(&disk) == found, "compacted\n{state}");
        disk.write(GuestOffset(2000), &[9; 1024]).expect("a write");
        disk.flush().expect("a flush");
        damage(&*store).unwrap_or_else(|damage| panic!("written: {damage}\n{state}"));
    }
}

#[test]
fn after_any_crash_while_compacting_everything_is_there() {
    for by_hand in [ByHand::OLD, ByHand::NEW] {
        survives(by_hand, 64 << 10, |disk| compact(disk).map(drop));
    }
}

#[test]
fn after_any_crash_while_growing_over_the_first_clusters_the_disk_has_the_old_or_the_new_size() {
    for (by_hand, size) in
        [(ByHand::OLD, 400 * 1536 - 512), (ByHand::NEW, 900 << 10), (ByHand::NEW, 40 << 20)]
    {
        survives(by_hand, 64 << 10, |disk| disk.resize(size, Preallocation::Off));
    }
}

#[test]
fn after_any_crash_while_shrinking_the_disk_has_the_old_or_the_new_size() {
    survives(ByHand::NEW, (6 << 10) + 512, |disk| disk.resize((6 << 10) + 512, Preallocation::Off));
}

#[test]
fn qemu_reads_what_was_compacted() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = ImageFolder::new(&PARALLELS);
    let path = folder.path("disk.hds");
    let disk = folder.create("disk.hds", 6 << 20, &[("cluster_size", "16k")], None);
    let mut model = ByteModel::new(6 << 20);
    for seed in 0..3 {
        play(&disk, &mut model, 16 << 10, seed, 60);
        compact(&disk).expect("it can be compacted");
        disk.flush().expect("a flush");
        assert!(contents(&disk) == model.contents());
    }
    drop(disk);
    let raw = folder.path("model.raw");
    std::fs::write(&raw, model.contents()).expect("a file");
    assert_eq!(qemu.check(&path, "parallels"), Ok(Checked { leaks: 0, corruptions: 0 }));
    qemu.assert_same((&path, "parallels"), (&raw, "raw"));
}
