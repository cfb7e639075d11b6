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

#[test]
fn a_disk_that_grows_does_not_show_what_is_below_its_old_end() {
    let bench = Bench::new();
    std::fs::write(bench.path("below.raw"), vec![7; 2 << 20]).unwrap();
    let overlay = ["create", "-q", "-f", "qcow2", "-b", "below.raw", "-F", "raw", "top.qcow2"];
    bench.prints(&[&overlay[..], &["1000k"]].concat());
    bench.prints(&["amend", "-o", "size=2M,lazy_refcounts=on", "top.qcow2"]);
    bench.prints(&["convert", "-O", "raw", "top.qcow2", "top.raw"]);
    let bytes = std::fs::read(bench.path("top.raw")).unwrap();
    let (old, new) = bytes.split_at(1000 << 10);
    assert!(bytes.len() == 2 << 20 && old.iter().all(|b| *b == 7) && new.iter().all(|b| *b == 0));
}

#[test]
fn size_and_other_options_change_together_or_not_at_all() {
    let bench = Bench::new();
    for (made, options) in [
        ("compat=1.1", "refcount_bits=64,size=1048577"),
        ("compat=1.1", "lazy_refcounts=on,size=8E"),
        ("compat=0.10", "compat=1.1,size=8P"),
        ("data_file=disk.data", "lazy_refcounts=on,size=1"),
    ] {
        bench.prints(&["create", "-q", "-f", "qcow2", "-o", made, "disk.qcow2", "1M"]);
        let before = std::fs::read(bench.path("disk.qcow2")).expect("it is there");
        bench.fails(&["amend", "-o", options, "disk.qcow2"], 1);
        assert!(
            std::fs::read(bench.path("disk.qcow2")).expect("it is there") == before,
            "{options}"
        );
    }
    bench.prints(&["create", "-q", "-f", "qcow2", "-o", "data_file=disk.data", "disk.qcow2", "1M"]);
    bench.prints(&["amend", "-o", "lazy_refcounts=on,size=2M", "disk.qcow2"]);
    let info = bench.prints(&["info", "disk.qcow2"]);
    assert!(info.contains("lazy refcounts: true") && info.contains("2 MiB"), "{info}");
}
