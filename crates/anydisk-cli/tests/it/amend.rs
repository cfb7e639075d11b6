//! `anydisk amend`.

use crate::common::{Bench, Qemu};

#[test]
fn an_image_becomes_what_is_asked_for_or_a_complaint_says_why_not() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "disk.qcow2", "1M"]);
    assert_eq!(bench.prints(&["amend", "-o", "compat=1.1,lazy_refcounts=on", "disk.qcow2"]), "");
    let info = bench.prints(&["info", "disk.qcow2"]);
    assert!(info.contains("compat: 1.1") && info.contains("lazy refcounts: true"), "{info}");
    let help = bench.prints(&["amend", "-f", "qcow2", "-o", "help"]);
    assert!(help.starts_with("Amend options for 'qcow2':\n"), "{help}");
    for (options, expected) in [
        ("backing_file=x", "rebase"),
        ("cluster_size=4k", "one of the options"),
        ("refcount_bits=7", "a power of two"),
    ] {
        let complaint = bench.fails(&["amend", "-o", options, "disk.qcow2"], 1);
        assert!(complaint.contains(expected), "{complaint}");
    }
    bench.fails(&["amend", "disk.qcow2"], 1);
}

#[test]
fn qemu_sees_what_was_changed() {
    let Some(qemu) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.qemu("create -q -f qcow2 disk.qcow2 1M");
    bench.prints(&["amend", "-o", "refcount_bits=64", "disk.qcow2"]);
    let info = qemu.info(&bench.path("disk.qcow2"), "qcow2");
    assert_eq!(info["format-specific"]["data"]["refcount-bits"], 64);
    bench.prints(&["amend", "-o", "refcount_bits=16", "-o", "compat=0.10", "disk.qcow2"]);
    let info = qemu.info(&bench.path("disk.qcow2"), "qcow2");
    assert_eq!(info["format-specific"]["data"]["compat"], "0.10");
    qemu.assert_undamaged(&bench.path("disk.qcow2"), "qcow2");
}
