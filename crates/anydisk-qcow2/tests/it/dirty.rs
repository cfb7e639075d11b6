//! Images that were not closed cleanly: mended when they are opened for writing, and not before.

use std::sync::Arc;

use crate::common::{Dump, create, disk, load, memory, open, save, try_open};
use anydisk_core::{Access, GuestOffset, Storage};
use anydisk_testkit::golden;
use anydisk_testkit::oracle::Qemu;

fn dirty(store: &Arc<dyn Storage>) -> bool {
    Dump::of(&**store).header.is_dirty()
}

fn contents(store: &Arc<dyn Storage>) -> Vec<u8> {
    let disk = disk(&try_open(store, Access::Read).expect("it opens"), None);
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it reads");
    bytes
}

#[test]
fn an_image_that_was_not_closed_cleanly_is_mended_before_it_is_written() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    for name in ["dirty-clean", "dirty-stale", "dirty-crash"] {
        let case = golden::cases("qcow2").into_iter().find(|case| case.name == name);
        let store = load(&case.expect("a golden image").unpack().path);
        let before = contents(&store);
        assert!(dirty(&store), "{name}: reading changes nothing");
        let image = open(&store);
        assert!(!dirty(&store), "{name}");
        assert!(contents(&store) == before, "{name}: repair keeps the data");
        let top = disk(&image, None);
        top.write(GuestOffset(0), b"written").expect("it can be written");
        top.flush().expect("flushed");
        if let Some(qemu) = &qemu {
            save(&*store, &path);
            assert_eq!(qemu.check(&path, "qcow2").expect("checked").corruptions, 0, "{name}");
        }
    }
}

#[test]
fn refcounts_are_never_postponed_so_lazy_ones_leave_no_mark() {
    let store = memory();
    let image = create(&store, 1 << 20, &[("lazy_refcounts", "on")]);
    assert!(Dump::of(&*store).header.has_lazy_refcounts());
    let top = disk(&image, None);
    top.write(GuestOffset(0), &[1; 300_000]).expect("written");
    assert!(!dirty(&store));
    top.flush().expect("flushed");
    drop(top);
    assert!(!dirty(&store));
    if let Some(qemu) = Qemu::find() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image.qcow2");
        save(&*store, &path);
        qemu.assert_undamaged(&path, "qcow2");
    }
}
