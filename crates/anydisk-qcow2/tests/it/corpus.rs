//! Whole disks in qcow2 that qemu wrote, and damaged ones.

use anydisk_core::Registry;
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_holds_what_its_manifest_says() {
    corpus::judge_all("qcow2", &Registry::new(&[&QCOW2, &RAW]), &[]);
}
