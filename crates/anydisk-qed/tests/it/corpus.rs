//! Whole disks that qemu-img wrote.

use anydisk_core::Registry;
use anydisk_qed::QED;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    corpus::judge_all("qed", &Registry::new(&[&QED, &RAW]), &[]);
}
