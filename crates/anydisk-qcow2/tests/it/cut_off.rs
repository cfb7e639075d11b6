//! Files that end inside a cluster: what was cut off is told, what a writer leaves out is not.

use std::sync::Arc;

use anydisk_core::{Access, GuestOffset, NewSnapshot, Repair, Severity, Storage};
use anydisk_testkit::oracle::Qemu;

use crate::common::{Given, create, disk, load, memory, open, save, try_open, write_packed};
use crate::repair::check;

const KIND: &str = "cut-off-inside";

/// Kinds of what a check finds; it must say that the image is clean.
fn told(store: &Arc<dyn Storage>) -> Vec<&'static str> {
    let (report, found) = check(store, Repair::Nothing).expect("a check");
    assert!(report.is_clean(), "{report:?} {found:#?}");
    assert!(found.iter().all(|one| one.severity == Severity::Note));
    found.iter().map(|one| one.kind).collect()
}

/// An image of `size` bytes with these bytes written, whose data is the last thing in its file.
fn image(given: Given<'_>, size: u64, writes: &[(u64, usize)]) -> Arc<dyn Storage> {
    let store = memory();
    let image = create(&store, size, given);
    let disk = disk(&image, None);
    // Its table first.
    disk.write(GuestOffset(0), &[1; 512]).expect("written");
    for (at, len) in writes {
        disk.write(GuestOffset(*at), &vec![7; *len]).expect("written");
    }
    disk.flush().expect("flushed");
    store
}

fn cut(store: &Arc<dyn Storage>, by: u64) {
    store.set_len(store.len().expect("a length") - by).expect("cut");
}

#[test]
fn a_data_cluster_in_which_the_file_ends_is_told_and_counts_as_no_error_as_with_qemu() {
    let qemu = Qemu::find();
    for by in [1, 512, 3000, 65535] {
        let store = image(&[], 1 << 20, &[(500_000, 9000)]);
        assert!(told(&store).is_empty());
        cut(&store, by);
        assert_eq!(told(&store), [KIND], "{by}");
        if let Some(qemu) = &qemu {
            assert_eq!(qemu.check_store(&store, "qcow2"), Ok(()));
        }
    }
}

#[test]
fn what_the_disk_does_not_show_of_the_last_cluster_may_be_missing() {
    // The disk ends inside the cluster.
    let size = (1 << 20) + 4096;
    let store = image(&[], size, &[(1 << 20, 4096)]);
    cut(&store, (64 << 10) - 4096);
    assert!(told(&store).is_empty());
    cut(&store, 1);
    assert_eq!(told(&store), [KIND]);
    // Only the first subclusters are stored.
    let store = image(&[("extended_l2", "on")], 1 << 20, &[(500_000 / 65536 * 65536, 4096)]);
    let len = store.len().expect("a length");
    store.set_len(len.next_multiple_of(64 << 10) - (64 << 10) + 4096).expect("cut");
    assert!(told(&store).is_empty());
    cut(&store, 1);
    assert_eq!(told(&store), [KIND]);
    // Space that is kept for zeroes.
    let store = memory();
    let image = create(&store, 1 << 20, &[("preallocation", "metadata")]);
    disk(&image, None).zero(crate::common::range((1 << 20) - 65536, 65536), false).expect("zero");
    disk(&image, None).flush().expect("flushed");
    cut(&store, 100);
    assert!(told(&store).is_empty());
}

#[test]
fn a_stream_may_end_in_the_last_sector_that_it_declares_and_not_before() {
    let store = memory();
    {
        let image = create(&store, 1 << 20, &[]);
        let noise: Vec<u8> =
            (0..30_000_u32).map(|n| (n.wrapping_mul(n) / 7).to_le_bytes()[0]).collect();
        let data = [noise, vec![0; 35_536]].concat();
        assert!(write_packed(&*image, 0, &data));
        image.writer().expect("open for writing").flush().expect("flushed");
    }
    let packed = open(&store);
    let disk = disk(&packed, None);
    let end = match disk.map(anydisk_core::GuestRange::whole(65536)).expect("a map").extent.source {
        anydisk_core::Source::Encoded(packed) => packed.at.get() + packed.len as u64,
        other => panic!("{other:?}"),
    };
    for (len, expected) in [(end, &[][..]), (end - 511, &[]), (end - 512, &[KIND])] {
        store.set_len(len).expect("cut");
        assert_eq!(told(&store), expected, "{len} of {end}");
    }
}

#[test]
fn a_table_in_which_the_file_ends_is_told() {
    let store = memory();
    {
        let image = create(&store, 1 << 20, &[]);
        let disk = disk(&image, None);
        disk.write(GuestOffset(0), &[1; 512]).expect("written");
        disk.flush().expect("flushed");
        let snapshots = image.snapshots().expect("qcow2 has them");
        snapshots.create(&NewSnapshot { name: "one".into(), date: (0, 0) }).expect("a snapshot");
        // The table is copied to the end of the file, and then the data.
        disk.zero(crate::common::range(0, 65536), true).expect("zero");
        disk.flush().expect("flushed");
    }
    let mut found = false;
    for _ in 0..20 {
        cut(&store, 8192);
        let Ok((_, list)) = check(&store, Repair::Nothing) else { break };
        found |= list.iter().any(|one| one.kind == KIND && one.text.contains("an L2 table"));
    }
    assert!(found);
}

#[test]
fn nothing_that_qemu_writes_is_called_cut_off() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (raw, path) = (folder.path().join("raw"), folder.path().join("image"));
    let noise: Vec<u8> =
        (0..1_000_448_u32).map(|n| (n.wrapping_mul(n) / 7).to_le_bytes()[0]).collect();
    std::fs::write(&raw, &noise).expect("written");
    for options in [&[][..], &["extended_l2=on"], &["cluster_size=4k"], &["preallocation=metadata"]]
    {
        qemu.convert((&raw, "raw"), (&path, "qcow2"), options);
        assert!(told(&load(&path)).is_empty(), "{options:?}");
        for command in ["write 900k 512", "write -c 0 64k", "write -z 100k 100k", "write 10k 5k"] {
            for size in ["1000448", "3M"] {
                qemu.create("qcow2", options, &path, size);
                let result = std::panic::catch_unwind(|| qemu.io(&path, "qcow2", &[command]));
                if result.is_ok() {
                    assert!(told(&load(&path)).is_empty(), "{options:?} {size} {command}");
                }
            }
        }
    }
}

/// A damaged entry of a table that a snapshot shares is wrong for each of them.
#[test]
fn what_is_wrong_in_a_shared_table_is_counted_as_often_as_qemu_counts_it() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    for snapshots in 0..3 {
        for word in [1_u64 << 45, 1 << 56 | 0x50000, 0x50200, 1 << 61, 1 << 62 | 1 << 63 | 0x50000]
        {
            let store = image(&[], 1 << 20, &[(500_000, 9000)]);
            {
                let image = open(&store);
                for number in 0..snapshots {
                    let name = format!("{number}");
                    let made = image.snapshots().expect("qcow2 has them");
                    made.create(&NewSnapshot { name, date: (0, 0) }).expect("a snapshot");
                }
            }
            let dump = crate::common::Dump::of(&*store);
            let at = dump.place_of_entry(800_000).expect("a table");
            let at = anydisk_core::HostOffset(at);
            store.write_at(at, &word.to_be_bytes()).expect("written");
            save(&*store, &path);
            let theirs = qemu.check(&path, "qcow2").expect("it checks");
            let ours = check(&store, Repair::Nothing).expect("a check").0;
            assert_eq!(
                (ours.corruptions, ours.leaks),
                (theirs.corruptions, theirs.leaks),
                "{word:#x} with {snapshots} snapshots"
            );
            assert!(try_open(&store, Access::Read).is_ok());
        }
    }
}
