//! Whole disks that qemu-img wrote.

use anydisk_core::Registry;
use anydisk_qcow::QCOW;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    let registry = Registry::new(&[&QCOW, &RAW]);
    corpus::judge_all("qcow", &registry, &[]);
}
