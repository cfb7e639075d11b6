//! Whole disks that cryptsetup and qemu-img wrote.

use anydisk_core::Registry;
use anydisk_luks::LUKS;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    corpus::judge_all("luks", &Registry::new(&[&LUKS]), &[]);
}
