//! Disks that Parallels and qemu wrote, whole and damaged.

use anydisk_core::Registry;
use anydisk_parallels::PARALLELS;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    corpus::judge_all("parallels", &Registry::new(&[&PARALLELS, &RAW]), &[]);
}
