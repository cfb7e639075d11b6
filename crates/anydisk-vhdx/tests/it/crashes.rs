//! Power failures while an image is opened or repaired.

use std::sync::Arc;

use anydisk_core::{Access, Disk, GuestOffset, HostOffset, Repair, Storage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::{MemoryFolder, contents, kill_first_write};

use crate::common::{
    MIB, check, create, damage, entry, file_of, open_alone, reference_to, set_entry,
};

fn content(store: Arc<dyn Storage>) -> Vec<u8> {
    contents(&Disk::new(open_alone(store, Access::Read).expect("it opens").image))
}

/// Whatever is kept of what `work` writes, the image shows what it showed, and is not damaged.
fn assert_survives(bytes: &[u8], name: &str, work: impl Fn(Arc<dyn Storage>)) {
    let expected = content(Arc::new(MemoryStorage::new(bytes.to_vec())));
    let crash = CrashStorage::over(bytes.to_vec());
    work(Arc::new(crash.clone()));
    crash.mark();
    for state in crash.torn_states(60, 1) {
        assert!(content(state.storage()) == expected, "{name}: {state}");
        assert_eq!(damage(state.storage()), Ok(()), "{name}: {state}");
    }
}

#[test]
fn after_any_crash_while_a_log_is_replayed_in_the_file_the_image_shows_what_it_showed() {
    for case in [
        "log-one-entry",
        "log-two-sequences",
        "log-wraps",
        "log-sequence-with-stale",
        "log-extends-file",
        "log-many-descriptors",
    ] {
        let bytes = file_of(case).to_vec();
        assert_survives(&bytes, case, |store| drop(open_alone(store, Access::ReadWrite)));
        assert_survives(&bytes, case, |store| drop(check(store, Repair::All)));
    }
}

#[test]
fn after_any_crash_of_a_repair_what_could_be_read_is_there() {
    let store = Arc::new(MemoryStorage::default());
    let disk = create(store.clone(), 5 * MIB, &[("block_size", "1M")], None).expect("it is made");
    for block in 0..3 {
        disk.write(GuestOffset(block * MIB), &vec![7; 1 << 20]).expect("a write");
    }
    disk.flush().expect("a flush");
    drop(disk);
    // Two blocks lie on others, one has bits that mean nothing, and a header is damaged.
    set_entry(&*store, 3, entry(&*store, 0));
    set_entry(&*store, 4, entry(&*store, 1) | 8);
    store.write_at(HostOffset(64 << 10), b"x").expect("memory");
    let bytes = store.to_vec();
    let expected = content(store);
    let crash = CrashStorage::over(bytes);
    let (report, _) = check(Arc::new(crash.clone()), Repair::All).expect("it can be repaired");
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 2));
    for state in crash.torn_states(200, 2) {
        assert!(content(state.storage()) == expected, "{state}");
        let (report, _) = check(state.storage(), Repair::All).expect("it can be repaired again");
        assert_eq!(report.corruptions, 0, "{state}");
        open_alone(state.storage(), Access::Read).expect("it opens");
    }
}

/// Power, or the process, may go at any moment of a first long write that nobody flushes: what it leaves
/// was told as a lost table, which no repair could end.
#[test]
fn a_first_long_write_that_is_killed_leaves_no_lost_table() {
    let open = |store| Disk::new(open_alone(store, Access::ReadWrite).expect("it opens").image);
    for (block_size, zero) in [("1M", "off"), ("32M", "off"), ("1M", "on")] {
        let make = || -> Arc<dyn Storage> {
            let store = Arc::new(MemoryStorage::default());
            let given = [("block_size", block_size), ("block_state_zero", zero)];
            create(store.clone(), 128 * MIB, &given, None).expect("it is made");
            store
        };
        kill_first_write(make, open, 64 * MIB, |store, when| {
            assert_eq!(damage(Arc::clone(&store)), Ok(()), "{when}");
            let disk = open(Arc::clone(&store));
            disk.write(GuestOffset::ZERO, &[1; 512]).expect("a write");
            disk.flush().expect("a flush");
            assert_eq!(damage(store), Ok(()), "{when}");
        });
    }
}

#[test]
fn a_first_long_write_to_a_child_that_is_killed_leaves_no_lost_table() {
    let open = |store| Disk::new(open_alone(store, Access::ReadWrite).expect("it opens").image);
    let folder = MemoryFolder::default();
    let parent = folder.make_file("parent").expect("a new file");
    let parent = create(parent, 128 * MIB, &[], None).expect("it is made");
    let make = || -> Arc<dyn Storage> {
        let store = Arc::new(MemoryStorage::default());
        let reference = reference_to(&parent, "parent");
        create(store.clone(), 128 * MIB, &[], Some(&reference)).expect("it is made");
        store
    };
    kill_first_write(make, open, 64 * MIB, |store, when| {
        assert_eq!(damage(store), Ok(()), "{when}");
    });
}
