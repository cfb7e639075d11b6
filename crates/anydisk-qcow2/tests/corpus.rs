//! Whole disks in qcow2 that qemu wrote, and damaged ones.

use anydisk_core::Registry;
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;

const NOT_YET: &[(&str, &str)] = &[
    ("qcow2-luks.qcow2", "encryption is not read yet"),
    ("qcow2-snapshot-deleted.qcow2#snapshot=s1", "snapshots are not read yet"),
    ("qcow2-snapshot-deleted.qcow2#snapshot=s4", "snapshots are not read yet"),
    ("qcow2-snapshots-0.10.qcow2#snapshot=first", "snapshots are not read yet"),
    ("qcow2-snapshots-0.10.qcow2#snapshot=snap/3 – after", "snapshots are not read yet"),
    ("qcow2-snapshots-0.10.qcow2#snapshot=zweiter Stand", "snapshots are not read yet"),
];

#[test]
fn every_disk_of_the_corpus_holds_what_its_manifest_says() {
    corpus::judge_all("qcow2", &Registry::new(&[&QCOW2, &RAW]), NOT_YET);
}
