//! Power failures while an image is opened or repaired.

use std::sync::Arc;

use anydisk_core::{Access, Disk, GuestOffset, HostOffset, Repair, Storage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::contents;
use anydisk_testkit::double::CrashStorage;

use crate::common::{MIB, check, create, damage, entry, file_of, open_alone, set_entry};

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
