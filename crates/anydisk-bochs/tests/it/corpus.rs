//! Whole disks that other programs wrote.

use anydisk_bochs::BOCHS;
use anydisk_core::Registry;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    corpus::judge_all("bochs", &Registry::new(&[&BOCHS]), &[]);
}
