//! Refcounts that are too narrow for what is named: repaired, or left alone, never made worse.

use std::sync::Arc;

use anydisk_core::{GuestOffset, HostOffset, Repair, Storage};
use anydisk_qcow2::Header;
use anydisk_testkit::Random;
use anydisk_testkit::oracle::Qemu;

use crate::common::{Dump, Given, create, disk, memory, open};
use crate::repair::{bytes_of, check, contents, is_kept};

const CLUSTER: u64 = 4 << 10;

/// An image with data in its first 32 clusters.
fn image(given: Given<'_>) -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, 1 << 20, &[&[("cluster_size", "4k")], given].concat());
    let disk = disk(&image, None);
    for number in 0..32_u8 {
        let at = GuestOffset(u64::from(number) * CLUSTER);
        disk.write(at, &[number + 1; 4 << 10]).expect("written");
    }
    disk.flush().expect("flushed");
    store
}

/// Makes the entry of guest cluster `to` that of `from`.
fn name_again(store: &Arc<dyn Storage>, from: u64, to: u64) {
    let dump = Dump::of(&**store);
    let word = dump.entry(from * CLUSTER).word;
    let at = dump.place_of_entry(to * CLUSTER).expect("a table");
    store.write_at(HostOffset(at), &word.to_be_bytes()).expect("written");
}

fn bits_of(store: &Arc<dyn Storage>) -> u32 {
    Header::read(&**store, &anydisk_core::Limits::default()).expect("a header").refcount_bits()
}

#[test]
fn refcounts_that_cannot_count_what_is_named_get_more_bits_and_then_writing_unshares() {
    let store = image(&[("refcount_bits", "1")]);
    name_again(&store, 3, 40);
    name_again(&store, 3, 41);
    let (before, found) = check(&store, Repair::Nothing).expect("a check");
    assert!(before.corruptions > 0);
    assert!(found.iter().any(|one| one.kind == "refcount-overflow" && one.remedy.is_some()));
    let shown = contents(&store);
    let (report, found) = check(&store, Repair::All).expect("a repair");
    assert!(report.is_clean(), "{report:?}");
    assert!(found.iter().all(|one| one.repaired));
    assert_eq!(bits_of(&store), 16);
    assert!(contents(&store) == shown);
    {
        let disk = disk(&open(&store), None);
        disk.write(GuestOffset(40 * CLUSTER), &[99; 4 << 10]).expect("written");
        disk.flush().expect("flushed");
        let byte_at = |number: u64| {
            let mut byte = [0];
            disk.read(GuestOffset(number * CLUSTER), &mut byte).expect("it reads");
            byte[0]
        };
        assert_eq!([3, 40, 41].map(byte_at), [4, 99, 4]);
    }
    assert!(check(&store, Repair::Nothing).expect("a check").0.is_clean());
    if let Some(qemu) = Qemu::find() {
        assert_eq!(qemu.check_store(&store, "qcow2"), Ok(()));
    }
}

#[test]
fn a_repair_that_cannot_give_more_bits_changes_nothing_about_what_is_shared() {
    let store = image(&[("refcount_bits", "1")]);
    name_again(&store, 3, 40);
    // A table that cannot be followed: nothing may be built anew.
    let at = Dump::of(&*store).place_of_entry(50 * CLUSTER).expect("a table");
    store.write_at(HostOffset(at), &(1_u64 << 45).to_be_bytes()).expect("written");
    let (before, bytes) = (check(&store, Repair::Nothing).expect("a check").0, bytes_of(&store));
    let (after, _) = check(&store, Repair::All).expect("a repair");
    assert_eq!(after.corruptions, before.corruptions);
    assert!(bytes_of(&store) == bytes);
}

/// Damage of every kind to images of every width: entries that name what others name, refcounts and
/// flags that are wrong.
#[test]
fn a_repair_never_leaves_more_damage_than_there_was_whatever_the_width_of_refcounts() {
    let (mut repaired, mut left) = (0, 0);
    for bits in ["1", "2", "4", "8", "16", "64"] {
        let original = bytes_of(&image(&[("refcount_bits", bits)]));
        for seed in 0..60 {
            let store = anydisk_storage::MemoryStorage::new(original.clone());
            let store: Arc<dyn Storage> = Arc::new(store);
            let mut random = Random::new(seed);
            for _ in 0..=random.below(3) {
                harm(&store, &mut random);
            }
            let (before, shown) = (check(&store, Repair::Nothing), contents(&store));
            let Ok((before, _)) = before else { continue };
            let (after, found) = check(&store, Repair::All).expect("a repair");
            let again = check(&store, Repair::Nothing).expect("a check").0;
            let told = format!("{bits} bits, seed {seed}: {before:?}, {after:?}\n{found:#?}");
            assert_eq!(
                (again.corruptions, again.leaks),
                (after.corruptions, after.leaks),
                "{told}"
            );
            assert!(again.corruptions <= before.corruptions, "{told}");
            assert!(is_kept(&shown, &contents(&store)), "{told}");
            if after.is_clean() { repaired += 1 } else { left += 1 }
        }
    }
    assert!(repaired > 200 && left < 100, "{repaired} repaired, {left} left");
}

fn harm(store: &Arc<dyn Storage>, random: &mut Random) {
    let dump = Dump::of(&**store);
    let (one, other) = (random.below(32), random.below(60));
    match random.below(5) {
        0 | 1 => name_again(store, one, other),
        2 => {
            let block = dump.word(dump.header.refcount_table_offset.get());
            let at = HostOffset(block + random.below(64));
            let byte = u8::try_from(random.below(256)).expect("a byte");
            store.write_at(at, &[byte]).expect("written");
        }
        3 => {
            let at = dump.place_of_entry(one * CLUSTER).expect("a table");
            let word = dump.word(at) ^ 1 << 63;
            store.write_at(HostOffset(at), &word.to_be_bytes()).expect("written");
        }
        _ => {
            let at = dump.place_of_entry(one * CLUSTER).expect("a table");
            let word = dump.word(at) ^ 1 << (12 + random.below(9));
            store.write_at(HostOffset(at), &word.to_be_bytes()).expect("written");
        }
    }
}
